"""The reference side of an evaluation, prepared once for many evaluations."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cococaption.ngrams import EMPTY, Counts, count_ngrams, pack, unpack
from cococaption.tokenizer import join, tokenize
from utils.errors import InputError
from utils.files import read_json, write_json

# part of the key: another tokenizer, or another form of the file, and the file has another name
_FORMAT = "2: Stanford CoreNLP 3.4.1, lower case, no punctuation"


class References:
    """Tokenised references of I images (R in all) and what BLEU and CIDEr need to know of them.

    Attributes:
        texts: the tokenised references of each image, I lists of strings.
        per_image: number of references of each image, int64 [I]; at least 1.
        image: index of the image of each reference, int64 [R].
        lengths: words per reference, int64 [R].
        numbering: numbers of the references' n-grams.
        counts: n-grams of each reference, for n = 1..4.
        most: the same over images: the highest count that one of the image's references reaches.
        log_images: log(I), CIDEr's weight of an n-gram that one image or none has.
        idf: for n = 1..4, float64 [n-grams]: log(I) - log(number of images with the n-gram).
        weights, norms: for n = 1..4, tf-idf of the rows of `counts`, and its length per reference, float64 [R].
    """

    def __init__(self, tokenized: list[str], per_image: np.ndarray):
        """`tokenized`: R strings, image by image; `per_image`: int64 [I], sum R."""
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
        """Words of every reference, a list per image."""
        lengths = self.lengths.tolist()
        return [
            lengths[start : start + number]
            for start, number in zip(self._starts.tolist(), self.per_image.tolist(), strict=True)
        ]


def prepare_references(captions: Sequence[Sequence[str]], cache_dir: str | Path | None = None) -> References:
    """Tokenise and count the references of I images.

    The tokens are kept in `cache_dir` (None: nowhere) in a JSON file named by a hash of the captions; a damaged file is
    said to be so and made anew. The counts are not kept on disk: counting again takes no longer than reading the counts would (0.2 s for
    12 000 references).

    Args:
        captions: at least one per image; all have passed `tokenizer.caption_problem`.
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
        except (OSError, InputError) as error:  # a full disk must not end a training run for a cache's sake
            warnings.warn(f"{path}: tokenised references not kept ({error})", stacklevel=2)
    return References(tokenized, per_image)


def _read_tokens(path: Path, key: str, number: int) -> list[str] | None:
    """The tokenised texts in a file of ours; None when it is missing or, as is then said, not as it was written."""
    if not path.is_file():
        return None
    try:
        kept = read_json(path)
        tokenized = kept["tokenized"]
        whole = len(tokenized) == number and kept["sha256"] == _hash(key, *tokenized)
    except (InputError, OSError, KeyError, TypeError, AttributeError, UnicodeEncodeError):
        whole = False
    if not whole:
        print(f"{path}: damaged, made anew", flush=True)
    return tokenized if whole else None


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _most(counts: Counts, image: np.ndarray) -> Counts:
    """The highest count of every n-gram over an image's references."""
    keys = pack(image[counts.text], counts.gram)
    order = np.argsort(keys, kind="stable")
    rows, first = np.unique(keys[order], return_index=True)
    if not len(rows):
        return counts
    return Counts(*unpack(rows), np.maximum.reduceat(counts.count[order], first))


def _log(frequency: np.ndarray) -> np.ndarray:
    """Natural logarithms, number by number: numpy's logarithm of an array may differ in the last bit, and an n-gram
    that all images have must get the weight 0 exactly."""
    values, inverse = np.unique(frequency, return_inverse=True)
    return np.array([np.log(float(value)) for value in values])[inverse]
