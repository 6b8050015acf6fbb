"""Look up the valence, arousal and dominance (VAD) of tokens: the NRC VAD lexicon, lemmatizers, token sequences."""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from utils.data.array_cache import load_or_compute
from utils.data.perceptron_tagger import vocabulary_tagger
from utils.errors import InputError
from utils.files import check_regular, sha256

if TYPE_CHECKING:  # it imports transformers, which reading a lexicon does not need
    from utils.data.text_codec import TextCodec

NLTK_DATA = {"averaged_perceptron_tagger_eng": "taggers", "wordnet": "corpora"}
WORDNET_TAGS = {"J": "a", "V": "v", "N": "n", "R": "r"}
PARTS_OF_SPEECH = ("n", "v", "a", "r")  # of WordNet
TEXTS_AT_ONCE = 1024  # in tagging: their scores fit in the processor's cache
LEXICON_REMEDY = "download the NRC VAD Lexicon (https://saifmohammad.com/WebPages/nrc-vad.html) and name its file"


@dataclass
class Lexicon:
    """A VAD lexicon: term -> (valence, arousal, dominance) in [-1, 1]. `scale` is the scale of the file."""

    values: dict[str, tuple[float, float, float]]
    path: Path
    sha256: str
    scale: str  # "0..1" or "-1..1"

    def describe(self) -> dict:
        """The description of the lexicon that is saved with a run."""
        return {"file": self.path.name, "sha256": self.sha256, "terms": len(self.values), "scale": self.scale}


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a tab-separated lexicon `word v a d`, with or without a header, v1 or v2.1.

    As in the published code, lines without exactly four fields are ignored, and the last line of a word counts. If all
    values are in 0..1, the file is v1's unipolar one, and values x are mapped to 2x - 1.

    Raises:
        InputError: the file is missing or not UTF-8, has a value that is not a number or outside -1..1, or no entry.
    """
    path = Path(path)
    values: dict[str, tuple[float, float, float]] = {}
    check_regular(path, LEXICON_REMEDY)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; {LEXICON_REMEDY}") from None
    for number, line in enumerate(lines, start=1):
        word, *numbers = line.split("\t")
        if len(numbers) != 3:
            continue
        try:
            entry = tuple(map(float, numbers))
        except ValueError:
            if not values:
                continue  # the header
            raise InputError(
                f"{path}: line {number}: {str(numbers)[:80]} are not three numbers; correct or remove it"
            ) from None
        if not all(-1 <= value <= 1 for value in entry):
            raise InputError(f"{path}: line {number}: value outside -1..1 in {str(numbers)[:80]}; {LEXICON_REMEDY}")
        values[word] = entry
    if not values:
        raise InputError(f"{path}: holds no line `word<tab>v<tab>a<tab>d`; {LEXICON_REMEDY}")
    unipolar = min(map(min, values.values())) >= 0
    if unipolar:
        values = {word: tuple(2 * value - 1 for value in entry) for word, entry in values.items()}
    return Lexicon(values, path, sha256(path), "0..1" if unipolar else "-1..1")


class VADLookup:
    """The lexicon VAD of token sequences: ids [N, L] -> float32 [N, L, 3] in [-1, 1]; (0, 0, 0) if not in the lexicon.

    In the paper, the token strings of a whole sequence, padding included, are POS-tagged (NLTK's perceptron tagger).
    Each is lemmatized with its tag (WordNet), and the lemma is looked up. Look-ups are case-sensitive and use single
    BPE tokens, not words. The other two lemmatizers do not depend on context, so that one table of all tokens is
    enough.

    Args:
        lexicon: the VAD lexicon.
        lemmatizer: "nltk" (the paper's), "simplemma" (includes its data) or "none" (tokens unchanged).
        codec: gives the strings of the tokens.
        cache_dir: folder where the lemmatizer's values of all tokens are cached; None: no caching.

    Raises:
        InputError: NLTK's data are not installed.
    """

    def __init__(self, lexicon: Lexicon, lemmatizer: str, codec: "TextCodec", cache_dir: Path | None = None):
        self.lexicon, self.lemmatizer, self.codec = lexicon, lemmatizer, codec
        self._pieces, self._words = codec.pieces(), codec.words()
        if lemmatizer == "nltk":
            tokens = dict.fromkeys((*self._pieces, *self._words))
            place = {token: number for number, token in enumerate(tokens)}
            self._piece_place = np.array([place[token] for token in self._pieces], np.int32)
            self._word_place = np.array([place[token] for token in self._words], np.int32)
            self._tagged = TaggedVAD(lexicon, list(tokens), cache_dir)
            return
        content = [lemmatizer, version("simplemma"), lexicon.sha256, self._pieces, self._words]
        self._piece_table, self._word_table = load_or_compute(
            cache_dir if lemmatizer == "simplemma" else None,
            "vad-tokens",
            hashlib.sha256(json.dumps(content).encode()).digest(),
            lambda: [self._values(tokens) for tokens in (self._pieces, self._words)],
        )

    @property
    def context_free(self) -> bool:
        """Whether a token's VAD is independent of the other tokens."""
        return self.lemmatizer != "nltk"

    def _values(self, tokens: list[str]) -> np.ndarray:
        """VAD of the token strings of the vocabulary, [V, 3], without a tagger."""
        lemmas = map(lemmatize_english, tokens) if self.lemmatizer == "simplemma" else tokens
        return np.array([self.lexicon.values.get(lemma, (0.0, 0.0, 0.0)) for lemma in lemmas], dtype=np.float32)

    def for_generated(self, token_ids: np.ndarray) -> np.ndarray:
        """VAD of generated sequences [N, L] -> [N, L, 3]. Token strings are single decoded tokens, left-stripped."""
        return self._word_table[token_ids] if self.context_free else self._tagged.extended(self._word_place[token_ids])

    def for_texts(self, token_ids: np.ndarray, cache_dir: Path | None = None) -> np.ndarray:
        """VAD of training texts [N, L] -> [N, L, 3]. Token strings are in GPT-2's byte alphabet without the space mark.

        Args:
            token_ids: [N, L].
            cache_dir: folder where the result is cached; None: no caching.
        """
        if self.context_free:
            return self._piece_table[token_ids]
        if cache_dir is None:
            return self._tag_all(token_ids)
        key = hashlib.sha256(self.lexicon.sha256.encode() + self.codec.fingerprint().encode())
        key.update(json.dumps([version("nltk"), nltk_data_sha256()]).encode())
        key.update(json.dumps(self._pieces).encode())  # the same ids are other words in another vocabulary
        key.update(self.lemmatizer.encode() + np.ascontiguousarray(token_ids, dtype=np.int32).tobytes())
        (values,) = load_or_compute(cache_dir, "vad", key.digest(), lambda: [self._tag_all(token_ids)])
        return values

    def _tag_all(self, token_ids: np.ndarray) -> np.ndarray:
        values = np.empty((*token_ids.shape, 3), np.float32)
        with tqdm(total=len(values), desc="tagging texts for VAD", unit="text") as progress:
            for start in range(0, len(values), TEXTS_AT_ONCE):
                part = self._piece_place[token_ids[start : start + TEXTS_AT_ONCE]]
                values[start : start + TEXTS_AT_ONCE] = self._tagged(part)
                progress.update(len(part))
        return values


@cache
def lemmatize_english(token: str) -> str:
    """simplemma's lemma of one English word."""
    import simplemma

    return simplemma.lemmatize(token, lang="en") if token else token


class TaggedVAD:
    """The VAD of token sequences whose lemmas depend on their part of speech: places in `tokens` [N, L] -> [N, L, 3].

    Tags that start with J, V, N, R become WordNet's parts of speech a, v, n, r; all others become n. So a token has at
    most four lemmas.

    Raises:
        InputError: NLTK's data are missing; the message gives the command that downloads them.
    """

    def __init__(self, lexicon: Lexicon, tokens: list[str], cache_dir: Path | None = None):
        from nltk.tag.perceptron import PerceptronTagger

        data = nltk_data_sha256()
        tokens = [token or " " for token in tokens]  # NLTK's tagger fails on an empty token
        self._tag = vocabulary_tagger(PerceptronTagger(), tokens)
        self._part_of_speech = np.array(
            [PARTS_OF_SPEECH.index(WORDNET_TAGS.get(tag[:1], "n")) for tag in self._tag.tags]
        )
        key = hashlib.sha256(json.dumps(["nltk", version("nltk"), data, lexicon.sha256, tokens]).encode()).digest()
        # WordNet alone takes NLTK seconds to load
        (self._vad,) = load_or_compute(cache_dir, "vad-tokens", key, lambda: [_vad_of_lemmas(lexicon, tokens)])
        self._last: tuple[dict[bytes, int], np.ndarray] = {}, np.empty(0)  # row of each text, tags

    def __call__(self, texts: np.ndarray) -> np.ndarray:
        return self._vad[texts, self._part_of_speech[self._tag(texts)]]

    def extended(self, texts: np.ndarray) -> np.ndarray:
        """The same for generation, whose texts are those of the call before, in any order, each with one more token.

        The new token is the next but one for the token two places before it, and the tagger looks no further ahead. All
        tags before that one remain; the last three are computed.
        """
        rows, tags = self._last
        before = [rows.get(text.tobytes()) for text in texts[:, :-1]]
        known = None if None in before else tags[before, :-2]
        tags = self._tag(texts, known)
        self._last = {text.tobytes(): row for row, text in enumerate(texts)}, tags
        return self._vad[texts, self._part_of_speech[tags]]


def _vad_of_lemmas(lexicon: Lexicon, tokens: list[str]) -> np.ndarray:
    """VAD of each token's WordNet lemma as each part of speech, [V, 4, 3]."""
    from nltk.stem import WordNetLemmatizer

    lemmatize = WordNetLemmatizer().lemmatize
    lemmas = [[lemmatize(token, part) for part in PARTS_OF_SPEECH] for token in tokens]
    return np.array([[lexicon.values.get(lemma, (0.0, 0.0, 0.0)) for lemma in row] for row in lemmas], np.float32)


def _find_nltk_data(name: str) -> Path:
    """The folder or zip file that NLTK reads a part of its data from; InputError where there is none."""
    import nltk

    try:
        found = Path(str(nltk.data.find(f"{NLTK_DATA[name]}/{name}/")))
    except LookupError:
        raise InputError(
            f"--lemmatizer nltk: NLTK's {name} data is not installed: run "
            f"`python -m nltk.downloader {' '.join(NLTK_DATA)}`, or take --lemmatizer simplemma (not the paper's)"
        ) from None
    return found.parent if found.parent.suffix == ".zip" else found


def nltk_data_sha256() -> str:
    """SHA-256 of the files that tags and lemmas come from."""
    digest = hashlib.sha256()
    for name in NLTK_DATA:
        found = _find_nltk_data(name)
        for path in [found] if found.is_file() else sorted(filter(Path.is_file, found.iterdir())):
            digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()
