"""Read and check the JSON splits `artEmisX_{train,cl_train,val,test}.json`."""

from pathlib import Path

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.errors import InputError
from utils.files import parse_json, read_bytes

Records = dict[str, dict]

MAX_IMAGE_ID = 2**63 - 1
REMEDY = "rebuild the file with preprocess/build_splits.py"


def read_records(path: str | Path) -> Records:
    """Read and check one split.

    Returns:
        image id (a 63-bit integer as a string) -> {"emotions": list of emotion names, "explanations": list of texts,
        parallel to it, "image_name": "<art_style>/<painting>.jpg", "origin_emotion_distribution": nine shares, sum 1},
        in the order of the file.

    Raises:
        InputError: the file is missing or malformed; the message names the first bad record and the remedy.
    """
    return parse_records(read_bytes(path), path)


def parse_records(content: bytes, path: str | Path) -> Records:
    """Like `read_records`, for bytes that are read already; `path` is for messages."""
    records = parse_json(content, path)
    if not isinstance(records, dict):
        raise InputError(f"{path}: a JSON object of image id -> record was expected; {REMEDY}")
    if not records:
        raise InputError(f"{path}: holds no records; {REMEDY}")
    for image_id, record in records.items():
        problem = _problem(image_id, record)
        if problem:
            raise InputError(f"{path}: record {image_id[:40]!r}: {problem}; {REMEDY}")
    return records


def _problem(image_id: str, record: object) -> str | None:
    """Say what is wrong with one record; None if nothing is."""
    number = int(image_id) if image_id.isascii() and image_id.isdigit() and len(image_id) <= 19 else 0
    if not 0 < number <= MAX_IMAGE_ID or str(number) != image_id:
        return "the image id is not a positive 63-bit integer"
    if not isinstance(record, dict):
        return "is not a JSON object"
    for field in ("emotions", "explanations", "image_name", "origin_emotion_distribution"):
        if field not in record:
            return f"has no {field!r}"
    emotions, explanations = record["emotions"], record["explanations"]
    if not isinstance(emotions, list) or not isinstance(explanations, list):
        return "emotions and explanations must be lists"
    if len(emotions) != len(explanations):
        return f"{len(emotions)} emotions but {len(explanations)} explanations"
    if not emotions:
        return "has no annotations"
    for index, (emotion, explanation) in enumerate(zip(emotions, explanations, strict=True)):
        if not isinstance(emotion, str) or emotion not in EMOTION_INDEX:
            return f"unknown emotion {str(emotion)[:40]!r} (known: {', '.join(EMOTIONS)})"
        if not isinstance(explanation, str) or not explanation.strip():
            return f"explanation {index} is empty"
        if not _is_unicode(explanation):
            return f"explanation {index} holds half a character (a lone surrogate)"
    if not isinstance(record["image_name"], str) or not record["image_name"].strip():
        return "image_name is empty"
    if not _is_unicode(record["image_name"]):
        return "image_name holds half a character (a lone surrogate)"
    return _distribution_problem(record["origin_emotion_distribution"])


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8. JSON's escapes can spell lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _distribution_problem(distribution: object) -> str | None:
    numbers = isinstance(distribution, list) and all(
        isinstance(share, int | float) and not isinstance(share, bool) for share in distribution
    )
    if not numbers or len(distribution) != len(EMOTIONS):
        return f"origin_emotion_distribution is not a list of {len(EMOTIONS)} numbers"
    if not all(
        0 <= share <= 2 for share in distribution
    ):  # False for NaN, too; works for integers beyond the range of floats
        return "origin_emotion_distribution holds a negative, non-finite or huge share"
    if abs(sum(distribution) - 1) > 1e-3:
        return f"origin_emotion_distribution sums to {sum(distribution):.4g}, not to 1"
    return None


def whole_training_split(path: Path) -> Path:
    """The file with all training texts: `..._train.json` beside `..._cl_train.json`, which lacks the images with one emotion.

    `path` itself where its name does not end so, or where there is no such file.
    """
    name, ending = path.name, "_cl_train.json"
    whole = path.with_name(name.removesuffix(ending) + "_train.json")
    return whole if name.endswith(ending) and whole.is_file() else path


def dominant_emotion(distribution: list[float]) -> str | None:
    """The emotion with more than half of an image's votes, or None. `distribution`: nine shares, sum 1."""
    share = max(distribution)
    return EMOTIONS[distribution.index(share)] if share > 0.5 else None
