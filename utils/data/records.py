"""Read and check the JSON splits `artEmisX_{train,cl_train,val,test}.json`, as dictionaries or, for training, as arrays."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.array_cache import load_or_compute
from utils.errors import InputError
from utils.files import parse_json, read_bytes

Records = dict[str, dict]

IMAGE_ID, MAX_IMAGE_ID = re.compile(r"[1-9][0-9]{0,18}"), 2**63 - 1
SUM_TOLERANCE = 1e-3  # of a distribution's sum, which should be 1
FORMAT = 1  # of the cached arrays; to be increased when they or the checks change
END = b"\xff"  # of a text; UTF-8 never contains this byte
REMEDY = "rebuild the file with preprocess/build_splits.py"


def read_records(path: str | Path) -> Records:
    """Read and check one split.

    Returns:
        image id (a 63-bit integer as a string) -> {"emotions": list of emotion names, "explanations": list of texts,
        parallel to it, "image_name": "<art_style>/<painting>.jpg", "origin_emotion_distribution": nine numbers, sum 1},
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
    """What is wrong with one record; None if nothing is."""
    if not IMAGE_ID.fullmatch(image_id) or int(image_id) > MAX_IMAGE_ID:
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
    if not isinstance(record["image_name"], str) or not record["image_name"].strip():
        return "image_name is empty"
    distribution = record["origin_emotion_distribution"]
    if (
        not isinstance(distribution, list)
        or len(distribution) != len(EMOTIONS)
        or not all(type(number) in (int, float) and 0 <= number <= 1 + SUM_TOLERANCE for number in distribution)
    ):
        return f"origin_emotion_distribution is not a list of {len(EMOTIONS)} probabilities"
    if abs(sum(distribution) - 1) > SUM_TOLERANCE:
        return f"origin_emotion_distribution sums to {sum(distribution):.4g}, not to 1"
    return None


def whole_training_split(path: Path) -> Path:
    """The file with all training texts: `..._train.json` beside `..._cl_train.json`, which lacks the images with one emotion.

    `path` itself if its name does not end so, or if there is no such file.
    """
    name, ending = path.name, "_cl_train.json"
    whole = path.with_name(name.removesuffix(ending) + "_train.json")
    return whole if name.endswith(ending) and whole.is_file() else path


def dominant_emotion(distribution: list[float]) -> str | None:
    """The emotion with more than half of an image's votes, or None. `distribution`: nine probabilities, sum 1."""
    highest = max(distribution)
    return EMOTIONS[distribution.index(highest)] if highest > 0.5 else None


@dataclass
class TrainingRecords:
    """The N images of a training split and their M annotations, in the order of the file.

    Arrays, because the texts of a large split would take several times the memory as Python objects.

    image_ids: int64 [N]. image_names: N names. distributions: float32 [N, 9], the annotators' distributions, sum 1.
    first_row: int64 [N + 1]: image i has the annotations first_row[i] to first_row[i + 1] - 1. emotions: uint8 [M],
    indices into EMOTIONS. explanations: the M texts, see `join_texts`.
    """

    image_ids: np.ndarray
    image_names: list[str]
    distributions: np.ndarray
    first_row: np.ndarray
    emotions: np.ndarray
    explanations: bytes

    @classmethod
    def from_records(cls, records: Records) -> "TrainingRecords":
        counts = [len(record["emotions"]) for record in records.values()]
        return cls(
            image_ids=np.array([int(image_id) for image_id in records], np.int64),
            image_names=[record["image_name"] for record in records.values()],
            distributions=np.array([record["origin_emotion_distribution"] for record in records.values()], np.float32),
            first_row=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            emotions=np.array(
                [EMOTION_INDEX[emotion] for record in records.values() for emotion in record["emotions"]], np.uint8
            ),
            explanations=join_texts(text for record in records.values() for text in record["explanations"]),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    def image_emotions(self, index: int) -> np.ndarray:
        """The emotions of one image's annotations, uint8 [annotations]."""
        return self.emotions[self.first_row[index] : self.first_row[index + 1]]

    def select(self, mask: Sequence[bool]) -> "TrainingRecords":
        """The images whose entry in `mask` [N] is true, with their annotations."""
        counts = np.diff(self.first_row)
        rows = np.repeat(mask, counts)
        return TrainingRecords(
            self.image_ids[mask],
            list(compress(self.image_names, mask)),
            self.distributions[mask],
            np.concatenate([[0], np.cumsum(counts[mask])]),
            self.emotions[rows],
            join_texts(compress(split_texts(self.explanations), rows)),
        )


def join_texts(texts: Iterable[str]) -> bytes:
    """Many texts in one piece of memory: the UTF-8 of each, followed by END."""
    return b"".join(part for text in texts for part in (text.encode(), END))


def split_texts(joined: bytes) -> list[str]:
    """The texts that `join_texts` joined."""
    return [text.decode() for text in joined.split(END)[:-1]]


def read_training_records(path: Path, cache_dir: Path | None) -> TrainingRecords:
    """Read and check a training split, see `read_records`.

    Args:
        cache_dir: folder where the arrays are cached under a hash of the file, so that a later run need not parse it;
            None: no caching.

    Raises:
        InputError: the file is missing or malformed; the message names the first bad record and the remedy.
    """
    content = read_bytes(path)

    def parse() -> list[np.ndarray]:
        records = TrainingRecords.from_records(parse_records(content, path))
        texts = (join_texts(records.image_names), records.explanations)
        numbers = [records.image_ids, records.distributions, records.first_row, records.emotions]
        return numbers + [np.frombuffer(text, np.uint8) for text in texts]

    key = hashlib.sha256(json.dumps(["training records", FORMAT, EMOTIONS]).encode())
    key.update(content)
    image_ids, distributions, first_row, emotions, names, explanations = load_or_compute(
        cache_dir, "records", key.digest(), parse
    )
    # not the names of the parsed records: they lie among the texts, whose memory would not be freed
    image_names = split_texts(names.tobytes())
    return TrainingRecords(image_ids, image_names, distributions, first_row, emotions, explanations.tobytes())
