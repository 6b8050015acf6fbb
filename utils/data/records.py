"""Read and check the JSON splits `artEmisX_{train,cl_train,val,test}.json`."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.array_cache import load_or_compute
from utils.errors import InputError
from utils.files import parse_json, read_bytes

# ---- Read and check the JSON splits `artEmisX_{train,cl_train,val,test}.json` ----------------------------------------


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


# ---- The training split as arrays: as Python objects its texts would take several times the memory, in ---------------


FORM = 1
END = b"\xff"  # of a text; UTF-8 never contains this byte


@dataclass
class TrainingRecords:
    """The N images of a training split and their M annotations, in the order of the file.

    image_ids: int64 [N]. image_names: N names. distributions: float32 [N, 9], the shares of all votes. first_row: int64
    [N + 1]: image i has the annotations first_row[i] to first_row[i + 1] - 1. emotions: uint8 [M], places in EMOTIONS.
    explanations: the M texts, see `join_texts`.
    """

    image_ids: np.ndarray
    image_names: list[str]
    distributions: np.ndarray
    first_row: np.ndarray
    emotions: np.ndarray
    explanations: bytes

    @classmethod
    def of(cls, records: Records) -> "TrainingRecords":
        counts = [len(record["emotions"]) for record in records.values()]
        return cls(
            image_ids=np.array([int(image_id) for image_id in records], np.int64),
            image_names=[record["image_name"] for record in records.values()],
            distributions=np.array([record["origin_emotion_distribution"] for record in records.values()], np.float32),
            first_row=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            emotions=np.array(
                [EMOTION_INDEX[emotion] for record in records.values() for emotion in record["emotions"]], np.uint8
            ),
            explanations=join_texts([text for record in records.values() for text in record["explanations"]]),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def emotions_of(self, index: int) -> np.ndarray:
        """The emotions of one image's annotations, uint8 [annotations]."""
        return self.emotions[self.first_row[index] : self.first_row[index + 1]]

    def only(self, kept: Sequence[bool]) -> "TrainingRecords":
        """The images that are `kept` [N], with their annotations."""
        counts = np.diff(self.first_row)
        rows = np.repeat(kept, counts)
        return TrainingRecords(
            self.image_ids[kept],
            list(compress(self.image_names, kept)),
            self.distributions[kept],
            np.concatenate([[0], np.cumsum(counts[kept])]),
            self.emotions[rows],
            join_texts(compress(split_texts(self.explanations), rows)),
        )


def join_texts(texts: Iterable[str]) -> bytes:
    """Many texts in one piece of memory: the UTF-8 of each, followed by END."""
    return b"".join(part for text in texts for part in (text.encode(), END))


def split_texts(joined: bytes) -> list[str]:
    """The texts that `join_texts` has joined."""
    return [text.decode() for text in joined.split(END)[:-1]]


def read_training_records(path: Path, cache_dir: Path | None) -> TrainingRecords:
    """Read and check a training split, see `read_records`.

    Args:
        cache_dir: folder where the arrays are kept under a hash of the file, which a later run need not parse; None: do
            not keep them.

    Raises:
        InputError: the file is missing or malformed; the message names the first bad record and the remedy.
    """
    content = read_bytes(path)
    arrays = load_or_compute(
        cache_dir,
        "records",
        cache_key(content),
        _fit,
        lambda: _to_arrays(TrainingRecords.of(parse_records(content, path))),
    )
    image_ids, distributions, first_row, emotions, names, explanations = arrays
    # not the names of the parsed records: they lie among the texts, whose memory would not be freed
    names = split_texts(names.tobytes())
    return TrainingRecords(image_ids, names, distributions, first_row, emotions, explanations.tobytes())


def cache_key(content: bytes) -> bytes:
    """What the kept arrays of a file with this content depend on. Increase FORM when the arrays or the checks change."""
    key = hashlib.sha256(json.dumps(["training records", FORM, EMOTIONS]).encode())
    key.update(content)
    return key.digest()


def _to_arrays(records: TrainingRecords) -> list[np.ndarray]:
    joined = (join_texts(records.image_names), records.explanations)
    numbers = [records.image_ids, records.distributions, records.first_row, records.emotions]
    return numbers + [np.frombuffer(text, np.uint8) for text in joined]


def _fit(arrays: list[np.ndarray]) -> bool:
    """Whether these can be arrays of `_to_arrays`."""
    if [array.dtype.name for array in arrays] != ["int64", "float32", "int64", *["uint8"] * 3]:
        return False
    if [array.ndim for array in arrays] != [1, 2, 1, 1, 1, 1]:
        return False
    image_ids, distributions, first_row, emotions, names, explanations = arrays
    images, texts = len(image_ids), len(emotions)
    return bool(
        images > 0
        and distributions.shape == (images, len(EMOTIONS))
        and first_row.shape == (images + 1,)
        and (np.diff(first_row) > 0).all()
        and (first_row[0], first_row[-1]) == (0, texts)
        and emotions.max() < len(EMOTIONS)
        and ((names == END[0]).sum(), (explanations == END[0]).sum()) == (images, texts)
    )
