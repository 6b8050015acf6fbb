"""References: read from COCO's caption format, tokenised, and counted once for many evaluations.

BLEU and CIDEr share the n-gram counts, which are kept as integer arrays. Generated captions are read here as well.
"""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cococaption.tokenizer import caption_problem, join, tokenize
from utils.errors import InputError
from utils.files import read_json, write_json

# ---- annotation and result files -------------------------------------------------------------------------------------


def read_annotations(path: str | Path) -> dict[int, list[str]]:
    """Read reference captions: {"images": [{"id"}], "annotations": [{"image_id", "caption"}], ...}.

    Returns:
        image id (64-bit integer) -> list of at least one caption. Images are in the order of "images", captions in the
        order of "annotations".

    Raises:
        InputError: the file is missing or not such a file; the message names the first bad record and the remedy.
    """
    remedy = "rebuild the file with preprocess/build_annotations.py"
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: a JSON object with images and annotations was expected; {remedy}")
    for part in ("images", "annotations"):
        if not isinstance(data.get(part), list) or not data[part]:
            raise InputError(f"{path}: {part!r} is missing or empty; {remedy}")

    captions: dict[int, list[str]] = {}
    for index, image in enumerate(data["images"]):
        problem = _record_problem(image, {"id": _id_problem})
        if not problem and image["id"] in captions:
            problem = f"duplicate image id {image['id']}"
        if problem:
            raise InputError(f"{path}: images[{index}]: {problem}; {remedy}")
        captions[image["id"]] = []
    for index, annotation in enumerate(data["annotations"]):
        problem = _record_problem(annotation, {"image_id": _id_problem, "caption": caption_problem})
        if not problem and annotation["image_id"] not in captions:
            problem = f"image_id {annotation['image_id']} is not in images"
        if problem:
            raise InputError(f"{path}: annotations[{index}]: {problem}; {remedy}")
        captions[annotation["image_id"]].append(annotation["caption"])
    for image_id, texts in captions.items():
        if not texts:
            raise InputError(f"{path}: image {image_id} has no annotation; remove it from images or add one")
    return captions


def read_results(path: str | Path) -> dict[int, str]:
    """Read generated captions: [{"image_id", "caption"}, ...], one per image, in the order of the file.

    Raises:
        InputError: the file is missing or not such a file; the message names the first bad record and the remedy.
    """
    remedy = 'one record per image is expected, {"image_id": integer, "caption": text}'
    data = read_json(path)
    if not isinstance(data, list) or not data:
        raise InputError(f"{path}: a JSON list with at least one record was expected; {remedy}")
    captions: dict[int, str] = {}
    for index, record in enumerate(data):
        problem = _record_problem(record, {"image_id": _id_problem, "caption": caption_problem})
        if not problem and record["image_id"] in captions:
            problem = f"a second caption for image {record['image_id']}"
        if problem:
            raise InputError(f"{path}: record {index}: {problem}; {remedy}")
        captions[record["image_id"]] = record["caption"]
    return captions


def _record_problem(record: object, checks: dict[str, Callable[[object], str | None]]) -> str | None:
    if not isinstance(record, dict):
        return "is not a JSON object"
    for field, check in checks.items():
        if field not in record:
            return f"has no {field!r}"
        problem = check(record[field])
        if problem:
            return f"{field}: {problem}"
    return None


def _id_problem(value: object) -> str | None:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        return f"{str(value)[:40]!r} is not a 64-bit integer"
    return None


# ---- n-grams of 1 to 4 words -----------------------------------------------------------------------------------------

MAX_N = 4
_SHIFT = 32  # two numbers below 2**31 are packed into one int64


class Counts(NamedTuple):
    """The n-grams of one length in a list of texts: a row per text and distinct n-gram, sorted by text, then n-gram."""

    text: np.ndarray  # int64 [E], index of the text
    gram: np.ndarray  # int64 [E], number of the n-gram
    count: np.ndarray  # int64 [E], how often the n-gram occurs in the text


class Numbering(NamedTuple):
    """The numbers of known n-grams: word -> number, and a sorted table of pairs for n = 2, 3, 4."""

    words: dict[str, int]
    tables: tuple[np.ndarray, np.ndarray, np.ndarray]

    def size(self, n: int) -> int:
        """Number of known n-grams of n words."""
        return len(self.words) if n == 1 else len(self.tables[n - 2])


EMPTY = Numbering({}, (np.empty(0, np.int64),) * 3)


def pack(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Combine two numbers below 2**31 into one int64 that sorts like the pair."""
    return high << _SHIFT | low


def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two numbers in `pack(high, low)`."""
    return packed >> _SHIFT, packed & (1 << _SHIFT) - 1


def find(keys: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `keys` in the sorted `table`, and whether each key is there; if not, its index is meaningless."""
    if not len(table):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys


def count_ngrams(texts: Sequence[str], known: Numbering) -> tuple[list[Counts], np.ndarray, Numbering]:
    """Count the n-grams of 1 to 4 words in each of T texts; `str.split()` gives the words.

    N-grams that are not in `known` get new numbers, starting at `known.size(n)`.

    Returns:
        the counts for n = 1, 2, 3, 4; the number of words of each text, int64 [T]; and the numbering of the new n-grams
        only. If `known` is EMPTY, the latter is the complete numbering and can be passed as `known` for later texts.
    """
    fresh: dict[str, int] = {}
    numbers: list[int] = []
    lengths = np.zeros(len(texts), np.int64)
    for index, text in enumerate(texts):
        words = text.split()
        lengths[index] = len(words)
        for word in words:
            number = known.words.get(word)
            numbers.append(fresh.setdefault(word, len(known.words) + len(fresh)) if number is None else number)
    word = np.array(numbers, np.int64)
    text = np.repeat(np.arange(len(texts)), lengths)
    words_left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(word))

    counts, tables = [], []
    gram, start = word, np.arange(len(word))  # number and first position of every n-gram in the texts
    for n in range(1, MAX_N + 1):
        if n > 1:
            longer = words_left[start] >= n
            gram, start = gram[longer], start[longer]
            keys = pack(gram, word[start + n - 1])
            gram, is_known = find(keys, known.tables[n - 2])
            table, number = np.unique(keys[~is_known], return_inverse=True)
            gram[~is_known] = known.size(n) + number
            tables.append(table)
        row, count = np.unique(pack(text[start], gram), return_counts=True)
        counts.append(Counts(*unpack(row), count))
    return counts, lengths, Numbering(fresh, tuple(tables))


# ---- tokenised and counted references --------------------------------------------------------------------------------

# Part of the file name's hash: another tokenizer or file format needs another file.
_FORMAT = "2: Stanford CoreNLP 3.4.1, lower case, no punctuation"


class References:
    """The R tokenised references of I images, with the statistics that BLEU and CIDEr need.

    Attributes:
        texts: the tokenised references of each image, I lists of strings.
        per_image: number of references of each image, int64 [I]; at least 1.
        image: index of each reference's image, int64 [R].
        lengths: words per reference, int64 [R].
        numbering: numbers of the references' n-grams.
        counts: n-gram counts of each reference, for n = 1..4.
        most: n-gram counts of each image, for n = 1..4: the highest count in any of the image's references.
        log_images: log(I), CIDEr's idf of an n-gram that occurs in the references of at most one image.
        idf: for n = 1..4, float64 [n-grams]: log(I) - log(number of images with the n-gram).
        weights: for n = 1..4, the tf-idf weight of each row of `counts`.
        norms: for n = 1..4, the Euclidean norm of each reference's tf-idf vector, float64 [R].
    """

    def __init__(self, tokenized: list[str], per_image: np.ndarray):
        """Count the references: `tokenized` has R strings, image by image; `per_image`, int64 [I], sums to R."""
        self.per_image = per_image
        self.image = np.repeat(np.arange(len(per_image)), per_image)
        self.texts = self._by_image(tokenized)
        self.counts, self.lengths, self.numbering = count_ngrams(tokenized, EMPTY)
        self.most = [_most(counts, self.image) for counts in self.counts]
        self.log_images = np.log(float(len(per_image)))
        self.idf, self.weights, self.norms = [], [], []
        for counts, most in zip(self.counts, self.most, strict=True):
            idf = self.log_images - _log(np.bincount(most.gram))
            weight = counts.count * idf[counts.gram]
            self.idf.append(idf)
            self.weights.append(weight)
            self.norms.append(np.sqrt(np.bincount(counts.text, weight**2, minlength=len(tokenized))))

    def lengths_per_image(self) -> list[list[int]]:
        """Number of words of every reference, as one list per image."""
        return self._by_image(self.lengths.tolist())

    def _by_image(self, values: list) -> list[list]:
        ends = np.cumsum(self.per_image).tolist()
        return [values[end - number : end] for end, number in zip(ends, self.per_image.tolist(), strict=True)]


def _most(counts: Counts, image: np.ndarray) -> Counts:
    """The highest count of every n-gram in any of an image's references."""
    keys = pack(image[counts.text], counts.gram)
    order = np.argsort(keys, kind="stable")
    rows, first = np.unique(keys[order], return_index=True)
    if not len(rows):
        return counts
    return Counts(*unpack(rows), np.maximum.reduceat(counts.count[order], first))


def _log(frequency: np.ndarray) -> np.ndarray:
    """Natural logarithms, computed one number at a time.

    numpy's logarithm of an array may differ in the last bit, and the idf of an n-gram in all images must be exactly 0.
    """
    values, inverse = np.unique(frequency, return_inverse=True)
    return np.array([np.log(float(value)) for value in values])[inverse]


def prepare_references(captions: Sequence[Sequence[str]], cache_dir: str | Path | None = None) -> References:
    """Tokenise and count the references of I images.

    The tokens are stored in `cache_dir` in a JSON file, whose name contains a hash of the captions. A damaged file is
    reported and replaced. The counts are not stored: counting takes no longer than reading them (0.2 s for 12 000
    references).

    Args:
        captions: at least one per image; all have passed `tokenizer.caption_problem`.
        cache_dir: folder of the JSON file; None: do not store the tokens.

    Raises:
        InputError: Java is missing, or the tokenizer fails.
    """
    per_image = np.array([len(texts) for texts in captions], np.int64)
    flat = [caption for texts in captions for caption in texts]
    if cache_dir is None:
        return References(tokenize(flat), per_image)
    key = _hash(_FORMAT, str(len(flat)), join(flat))
    path = Path(cache_dir) / f"references-{key[:32]}.json"
    tokenized = _read_tokens(path, key)
    if tokenized is None:
        tokenized = tokenize(flat)
        try:
            write_json(path, {"tokenized": tokenized, "sha256": _hash(key, *tokenized)})
        except (OSError, InputError) as error:  # a full disk must not end a training run that can do without the cache
            warnings.warn(f"{path}: tokenised references not cached ({error})", stacklevel=2)
    return References(tokenized, per_image)


def _read_tokens(path: Path, key: str) -> list[str] | None:
    """The tokenised texts in a cache file; None if the file is missing or damaged."""
    if not path.is_file():
        return None
    try:
        cached = read_json(path)
        if cached["sha256"] == _hash(key, *cached["tokenized"]):
            return cached["tokenized"]
    except (InputError, KeyError, TypeError):
        pass
    print(f"{path}: damaged; recreating it", flush=True)
    return None


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
