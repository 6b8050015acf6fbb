"""References, tokenised and counted once for many evaluations."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cococaption.ngrams import EMPTY, Counts, count_ngrams, pack, unpack
from cococaption.tokenizer import join, tokenize
from utils.errors import InputError
from utils.files import read_json, write_json

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
        self._starts = np.cumsum(per_image) - per_image
        self.texts = [
            tokenized[start : start + number] for start, number in zip(self._starts, per_image.tolist(), strict=True)
        ]
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
        lengths = self.lengths.tolist()
        return [
            lengths[start : start + number]
            for start, number in zip(self._starts.tolist(), self.per_image.tolist(), strict=True)
        ]


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
    per_image = np.array([len(of_image) for of_image in captions], np.int64)
    flat = [caption for of_image in captions for caption in of_image]
    if cache_dir is None:
        return References(tokenize(flat), per_image)
    key = _hash(_FORMAT, str(len(flat)), join(flat))
    path = Path(cache_dir) / f"references-{key[:32]}.json"
    tokenized = _read_tokens(path, key, len(flat))
    if tokenized is None:
        tokenized = tokenize(flat)
        try:
            write_json(path, {"tokenized": tokenized, "sha256": _hash(key, *tokenized)})
        except (OSError, InputError) as error:  # a full disk must not end a training run that can do without the cache
            warnings.warn(f"{path}: tokenised references not kept ({error})", stacklevel=2)
    return References(tokenized, per_image)


def _read_tokens(path: Path, key: str, number: int) -> list[str] | None:
    """The tokenised texts in a cache file; None when the file is missing or damaged, and the latter is printed."""
    if not path.is_file():
        return None
    try:
        kept = read_json(path)
        tokenized = kept["tokenized"]
        whole = len(tokenized) == number and kept["sha256"] == _hash(key, *tokenized)
    except (InputError, OSError, KeyError, TypeError, AttributeError, UnicodeEncodeError):
        whole = False
    if not whole:
        print(f"{path}: damaged; recreating it", flush=True)
    return tokenized if whole else None


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


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
