"""Captions that another program wrote, read for scoring."""

from pathlib import Path

from utils.constants import BECAUSE, EMOTION_INDEX, EMOTIONS
from utils.data.records import Records
from utils.errors import InputError
from utils.evaluation.emotion_metrics import named_emotion, split_generated
from utils.files import read_json

KINDS = ("full", "explanation")
REMEDY = 'give one record per image: {"image_id": integer, "caption": text}, or "emotion" and "explanation" apart'


def read_predictions(path: Path, records: Records, kind: str | None = None) -> tuple[dict[int, str], dict[int, str]]:
    """Read and check a list of {"image_id", "caption"}, or {"image_id", "emotion", "explanation"}.

    Args:
        records: the split; there must be one prediction for each of its images and no other.
        kind: what "caption" holds: "full" is "<emotion> because <explanation>", "explanation" is that alone. None: full
            when most captions begin so, explanation when none does.

    Returns:
        image id -> whole text (empty for explanations alone), and image id -> explanation; in the order of the records.

    Raises:
        InputError: the file is no such list, an image is missing, doubled or of another split, an "emotion" is none of
            the nine, or captions of both kinds are mixed.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: a JSON list with at least one record was expected; {REMEDY}")
    seen: dict[int, int] = {}
    apart = isinstance(rows[0], dict) and "explanation" in rows[0]
    for index, row in enumerate(rows):
        if problem := _problem(row, apart, seen, records):
            raise InputError(f"{path}: record {index}: {problem}")
        seen[row["image_id"]] = index
    missing = [image for image in records if int(image) not in seen]
    if missing:
        raise InputError(
            f"{path}: lacks {len(missing)} of the {len(records)} images of the split, {missing[0]} for one; add their "
            "captions, or give --records the split that was captioned"
        )
    rows_of = {int(image): rows[seen[int(image)]] for image in records}
    if apart:
        full = {image: f"{row['emotion']} {BECAUSE} {row['explanation']}" for image, row in rows_of.items()}
        return full, {image: row["explanation"].strip() for image, row in rows_of.items()}
    captions = {image: row["caption"] for image, row in rows_of.items()}
    if (kind or _guess(path, captions)) == "explanation":
        return {}, captions
    return captions, {image: split_generated(text)[1] for image, text in captions.items()}


def is_full(caption: str) -> bool:
    """Whether a caption begins with one of the nine emotions and because."""
    return BECAUSE in caption and named_emotion(caption) in EMOTION_INDEX


def _problem(row: object, apart: bool, seen: dict[int, int], records: Records) -> str | None:
    fields = ("emotion", "explanation") if apart else ("caption",)
    if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
        return f"has no text under {' and '.join(fields)}; {REMEDY}"
    image = row.get("image_id")
    if not isinstance(image, int) or isinstance(image, bool):
        return f"image_id {str(image)[:40]!r} is not an integer; {REMEDY}"
    if image in seen:
        return f"a second caption for image {image} (the first is in record {seen[image]}); remove one of them"
    if str(image) not in records:
        return f"image {image} is not in the split; give --records the split that was captioned"
    if apart and row["emotion"] not in EMOTION_INDEX:
        return (
            f"emotion {row['emotion'][:40]!r} is none of the nine ({', '.join(EMOTIONS)}); correct its spelling, or give "
            'the whole text as "caption", where an emotion that is none counts as wrong'
        )
    try:
        "".join(row[field] for field in fields).encode()
    except UnicodeEncodeError:
        return "its text holds half a character (a lone surrogate); repair its encoding"
    return None


def _guess(path: Path, captions: dict[int, str]) -> str:
    full = sum(map(is_full, captions.values()))
    if 0 < full <= len(captions) / 2:
        raise InputError(
            f"{path}: only {full} of {len(captions)} captions begin with an emotion and because; say what they are with "
            "--captions full or --captions explanation"
        )
    return "full" if full else "explanation"
