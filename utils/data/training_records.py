"""The training split as arrays: as Python objects its texts would take several times the memory, in every process."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np

from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.kept_arrays import made_or_kept
from utils.data.records import Records, parse_records
from utils.files import read_bytes

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
    arrays = made_or_kept(
        cache_dir,
        "records",
        kept_key(content),
        _fit,
        lambda: _to_arrays(TrainingRecords.of(parse_records(content, path))),
    )
    image_ids, distributions, first_row, emotions, names, explanations = arrays
    # not the names of the parsed records: they lie among the texts, whose memory would not be freed
    names = split_texts(names.tobytes())
    return TrainingRecords(image_ids, names, distributions, first_row, emotions, explanations.tobytes())


def kept_key(content: bytes) -> bytes:
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
