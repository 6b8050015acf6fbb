"""Captions that another program wrote: reading them, in the spellings of an emotion that other programs use."""

import re
from collections.abc import Mapping
from pathlib import Path

from utils.constants import BECAUSE, EMOTION_INDEX, EMOTIONS
from utils.data.records import Records
from utils.errors import InputError
from utils.evaluation.emotion_metrics import named_emotion, split_generated
from utils.files import read_json

KINDS = ("full", "explanation")
_NAMES = "|".join(emotion.replace(" ", r"[\W_]*") for emotion in EMOTIONS)
# "The emotion evoked by this is", "I feel", "Answer:"; its words name no other emotion and deny nothing
_WORD = rf"(?!(?:{_NAMES}|not|no|never|without|cannot|t)\b)[^\W_]+"
_FEELING = rf"(?:{_WORD}[\W_]+){{0,4}}(?:emotions?|feelings?|feels?|felt|evokes)[\W_]+(?:{_WORD}[\W_]+){{0,5}}"
_INTRODUCTION = rf"(?:{_FEELING}|{_WORD}\s*[:=][\W_]*)?"
_EMOTION = re.compile(rf"[\W\d_]*{_INTRODUCTION}({_NAMES})[\W_]*", re.IGNORECASE)
_FULL = re.compile(rf"{_EMOTION.pattern}(?<=[\W_])because\b[\s,:;.-]*(.*)", re.IGNORECASE | re.DOTALL)
_BECAUSE = re.compile(r"\A\W*because\b[\s,:;.-]*", re.IGNORECASE)
# Perhaps a spelling that is not understood: a "because" that does not begin the text, or an emotion and a sign.
_UNREAD = re.compile(rf"(?s).*\w\W+because\b|[\W_]*{_INTRODUCTION}(?:{_NAMES})\s*[^\w\s'’]", re.IGNORECASE)
_QUOTES = "\"'`*_“”‘’«» \t\r\n"
REMEDY = 'give one record per image: {"image_id": integer, "caption": text}, or "emotion" and "explanation" apart'


def read_predictions(path: Path, records: Records, kind: str | None = None) -> tuple[dict[int, str], dict[int, str]]:
    """Read and check a list of {"image_id", "caption"}, or {"image_id", "emotion", "explanation"}.

    Args:
        records: the split; there must be one prediction for each of its images and no other.
        kind: what "caption" holds: "full" is "<emotion> because <explanation>", in any spelling that `full_caption`
            understands, "explanation" is that alone. None: full when most captions begin so, explanation when none does.

    Returns:
        image id -> whole text, "<emotion> because <explanation>" where it was understood (empty for explanations alone),
        and image id -> explanation; in the order of the records.

    Raises:
        InputError: the file is not such a list, an image is missing, has two captions or is of another split, an "emotion" is
            not one of the nine, captions of both kinds are mixed, or most may name an emotion in a spelling that is not
            understood.
    """
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path}: a JSON list with at least one record was expected; {REMEDY}")
    apart = isinstance(rows[0], dict) and "explanation" in rows[0]
    places: dict[int, int] = {}
    for index, row in enumerate(rows):
        if problem := _problem(row, apart, places, records):
            raise InputError(f"{path}: record {index}: {problem}")
        places[row["image_id"]] = index
    missing = [image for image in records if int(image) not in places]
    if missing:
        raise InputError(
            f"{path}: lacks {len(missing)} of the {len(records)} images of the split, {missing[0]} for one; add their "
            "captions, or pass as --records the split that was captioned"
        )
    rows = {int(image): rows[places[int(image)]] for image in records}
    if apart:
        explanations = {image: _BECAUSE.sub("", row["explanation"]).strip() for image, row in rows.items()}
        full = {image: f"{emotion_of(row['emotion'])} {BECAUSE} {explanations[image]}" for image, row in rows.items()}
        return full, explanations
    captions = {image: full_caption(row["caption"]) for image, row in rows.items()}
    if (kind or _guess(path, captions)) == "explanation":
        return {}, {image: _BECAUSE.sub("", row["caption"]) for image, row in rows.items()}
    return captions, {image: split_generated(text)[1] for image, text in captions.items()}


def is_full(caption: str) -> bool:
    """Whether a caption begins with one of the nine emotions and because."""
    return BECAUSE in caption and named_emotion(caption) in EMOTION_INDEX


def full_caption(text: str) -> str:
    """A caption that names an emotion and then says because, as "<emotion> because <explanation>"; others unchanged.

    Understood are capitals, quotes and other signs around the words, "something_else", and introductions such as "The
    emotion is", "Emotion:" and "I feel". A caption in the paper's own spelling is left unchanged.
    """
    match = None if is_full(text) else _FULL.fullmatch(text)
    if match is None:
        return text
    explanation = match[2].strip()
    if text.strip()[:1] in _QUOTES:
        explanation = explanation.strip(_QUOTES)
    return f"{emotion_of(match[1])} {BECAUSE} {explanation}"


def emotion_of(text: str) -> str | None:
    """The one of the nine emotions that a text names, in any spelling that `full_caption` understands, or None."""
    match = _EMOTION.fullmatch(text)
    return next((name for name in EMOTIONS if match and _letters(name) == _letters(match[1])), None)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def unread(captions: Mapping[int, str]) -> dict[int, str]:
    """Those that may name an emotion in words that `full_caption` does not understand."""
    return {image: text for image, text in captions.items() if not is_full(text) and _UNREAD.match(text)}


def quoted(captions: Mapping[int, str]) -> str:
    """The first of these captions, for a message."""
    image, text = next(iter(captions.items()))
    return f"e.g. {text[:60]!r} of image {image}"


def _problem(row: object, apart: bool, places: dict[int, int], records: Records) -> str | None:
    """What is wrong with a record; None if nothing is. places: image id -> record, of those before it."""
    fields = ("emotion", "explanation") if apart else ("caption",)
    if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in fields):
        return f"has no text under {' and '.join(fields)}; {REMEDY}"
    image = row.get("image_id")
    if not isinstance(image, int) or isinstance(image, bool):
        return f"image_id {str(image)[:40]!r} is not an integer; {REMEDY}"
    if image in places:
        return f"a second caption for image {image} (the first is in record {places[image]}); remove one of them"
    if str(image) not in records:
        return f"image {image} is not in the split; pass as --records the split that was captioned"
    if apart and emotion_of(row["emotion"]) is None:
        return (
            f"emotion {row['emotion'][:40]!r} is not one of the nine ({', '.join(EMOTIONS)}); correct its spelling, or give "
            'the whole text as "caption", where any other emotion counts as wrong'
        )
    try:
        "".join(row[field] for field in fields).encode()
    except UnicodeEncodeError:
        return "its text holds half a character (a lone surrogate); repair its encoding"
    return None


def _guess(path: Path, captions: dict[int, str]) -> str:
    """What captions hold, one of `KINDS`."""
    full, not_understood = sum(map(is_full, captions.values())), unread(captions)
    remedy = "say what they are with --captions full or --captions explanation"
    if 0 < full <= len(captions) / 2:
        raise InputError(f"{path}: only {full} of {len(captions)} captions begin with an emotion and because; {remedy}")
    if not full and len(not_understood) > len(captions) / 2:
        raise InputError(
            f"{path}: {len(not_understood)} of {len(captions)} captions may name an emotion, but not one of the nine and then "
            f'because, {quoted(not_understood)}; write "awe because ...", or {remedy}'
        )
    return "full" if full else "explanation"
