"""NLTK's data as its downloader leaves it: the published way's VAD of texts, and its caches."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from utils.data import vad_lexicon
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon, TaggedVAD, VADLookup

nltk = pytest.importorskip("nltk")

TAGGER = "averaged_perceptron_tagger_eng"
TAGGER_FOLDER, WORDNET_FOLDER = f"taggers/{TAGGER}", "corpora/wordnet"
WEIGHTS = {
    "bias": {"NN": 1.0},
    "i suffix ing": {"VBG": 5.0},
    "i-1 word red": {"NNS": 3.0},
    "i suffix ies": {"VBZ": 2.0},
    "i suffix der": {"JJR": 5.0},
    "i+2 word red": {"RBS": 9.0},
}
WORDS = {"noun": ("n", "sky boat paint"), "verb": ("v", "paint sky"), "adj": ("a", "red old"), "adv": ("r", "well")}
TAGS, CLASSES = {"is": "VBZ", "best": "RBS"}, ["NN", "NNS", "VBG", "VBZ", "JJR", "RBS"]
EXCEPTIONS = {"noun": "boaten boat\n", "verb": "", "adj": "", "adv": "best well\n"}


def write_data(root: Path, form: str) -> None:
    """A tagger of four weights and a WordNet of seven words: in folders, zipped, or as the downloader leaves them."""
    tagger, wordnet = root / TAGGER_FOLDER, root / WORDNET_FOLDER
    tagger.mkdir(parents=True)
    wordnet.mkdir(parents=True)
    for part, value in (("weights", WEIGHTS), ("tagdict", TAGS), ("classes", CLASSES)):
        (tagger / f"{TAGGER}.{part}.json").write_text(json.dumps(value))
    for name, (pos, words) in WORDS.items():
        lines = [f"{word} {pos} 1 0 1 0 {place:08d}\n" for place, word in enumerate(words.split(), start=1)]
        (wordnet / f"index.{name}").write_text("  1 a licence\n" + "".join(lines))
        (wordnet / f"data.{name}").write_text(f"  1 WordNet 3.0 Copyright\n00000001 00 {pos} 01 x 0 000 | a word\n")
        (wordnet / f"{name}.exc").write_text(EXCEPTIONS[name])
    for name in ("index.sense", "cntlist.rev"):
        (wordnet / name).touch()
    (wordnet / "lexnames").write_text("00\tadj.all\t3\n")
    for folder in {"folders": (), "zips": (tagger, wordnet), "downloaded": (tagger, wordnet)}[form]:
        with zipfile.ZipFile(f"{folder}.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
        if form == "zips" or folder is wordnet:
            shutil.rmtree(folder)


def use_data(patch: pytest.MonkeyPatch, root: Path, form: str) -> Path:
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    write_data(root, form)
    patch.setattr(nltk.data, "path", [str(root)])
    # another test may have loaded another one
    patch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))
    return root


def lexicon_of(values: dict[str, tuple[float, ...]], sha256: str = "0") -> Lexicon:
    return Lexicon(values, Path("lexicon"), sha256 * 64, "-1..1")


@pytest.fixture(params=["folders", "zips", "downloaded"])
def data(request, tmp_path, monkeypatch) -> Path:
    return use_data(monkeypatch, tmp_path / "nltk", request.param)


@pytest.fixture(scope="module")
def lookup(codec, tmp_path_factory) -> VADLookup:
    """Of GPT-2's whole vocabulary, which takes NLTK seconds."""
    values = {"sky": (0.5, -0.25, 0.25), "skies": (-1, -1, -1), "paint": (0.25, 0.5, 0.75), "red": (1, 0, 0)}
    values |= {"Ã©": (-0.5, 0, 0), "é": (0.75, 0, 0)}
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tmp_path_factory.mktemp("nltk") / "data", "folders")
        yield VADLookup(lexicon_of(values), "nltk", codec)


def plain_vad(lookup: VADLookup, tokens: list[str]) -> list[tuple[float, ...]]:
    """The published way: NLTK tags the whole text, WordNet gives each token's lemma, and that is looked up."""
    tagged = nltk.tag.perceptron.PerceptronTagger().tag([token or " " for token in tokens])
    parts = [{"J": "a", "V": "v", "R": "r"}.get(tag[0], "n") for _, tag in tagged]
    lemmatize = nltk.stem.WordNetLemmatizer().lemmatize
    lemmas = [lemmatize(token, part) for (token, _), part in zip(tagged, parts, strict=True)]
    return [lookup.lexicon.values.get(lemma, (0, 0, 0)) for lemma in lemmas]


def test_lemmas(data):
    """ "skies" is a noun behind "red", else a verb of the same lemma; "painting" a verb, "older" an adjective, "best" an
    adverb, "boaten" an exception among nouns; the tagger fails on an empty token, which becomes a space.
    """
    tokens = {"red": "red", "skies": "sky", "painting": "paint", "older": "old", "best": "well", "boaten": "boat"}
    tokens |= {"": " ", "paints": "paint"}
    values = {lemma: (place / 10, -place / 10, 0.5) for place, lemma in enumerate(tokens.values())}
    tagged = TaggedVAD(lexicon_of(values), list(tokens))
    expected = np.array([[values[lemma] for lemma in tokens.values()]], np.float32)
    assert np.array_equal(tagged(np.arange(len(tokens))[None]), expected)


def test_vad_is_the_published_ways(lookup):
    """Of training texts in GPT-2's byte letters, of generated ones as decoded words; padding is tagged too."""
    tokens = lookup.codec.bpe([" red skies painting is sky é boat"])[0]
    ids = np.random.default_rng(0).choice([*tokens, lookup.codec.pad_id], (40, 12))
    for of_texts, names in ((lookup.for_texts, lookup.codec.pieces()), (lookup.for_generated, lookup.codec.words())):
        expected = [plain_vad(lookup, [names[token] for token in row]) for row in ids]
        assert np.array_equal(of_texts(ids), np.array(expected, np.float32))
        assert len(np.unique(of_texts(ids).reshape(-1, 3), axis=0)) > 3
    accented = np.array([lookup.codec.bpe(["é"])[0]])
    assert lookup.for_texts(accented)[0, 0, 0] == -0.5 and lookup.for_generated(accented)[0, 0, 0] == 0.75


def test_generated_texts_are_tagged_as_they_grow(lookup, monkeypatch):
    """Token by token, in any order, some of them more than once: what the whole texts have, though a tag changes with
    the two words that follow, and only the last three tokens are tagged.
    """
    known, tag = [], lookup._tagged._tag

    def watched(ids, given=None):
        known.append(None if given is None else given.shape[1])
        return tag(ids, given)

    monkeypatch.setattr(lookup._tagged, "_tag", watched)
    draw, words = np.random.default_rng(1), lookup.codec.words()
    tokens = lookup.codec.bpe([" red skies painting is sky boat"])[0]
    ids, changed = draw.choice(tokens, (30, 2)), 0
    before = lookup.for_generated(ids)
    for _ in range(9):
        rows = draw.integers(len(ids), size=30)
        ids, before = np.hstack([ids[rows], draw.choice(tokens, (30, 1))]), before[rows]
        found = lookup.for_generated(ids)
        expected = [plain_vad(lookup, [words[token] for token in row]) for row in ids]
        assert np.array_equal(found, np.array(expected, np.float32))
        changed += int((found[:, :-1] != before).any())
        before = found
    lookup.for_generated(ids[:, :4])  # which are no continuation
    assert known == [None, *range(9), None] and changed > 3


def test_vad_is_cached(data, codec, tmp_path, monkeypatch):
    """Of all tokens' lemmas, and of texts: once for each of what they depend on."""
    cache, ids = tmp_path / "cache", np.array([[0, 1, 2, 3]])
    lexicon = lexicon_of({"sky": (1, 0, 0), "old": (0, 1, 0)})
    for name in ("pieces", "words"):
        monkeypatch.setattr(TextCodec, name, lambda self: ["red", "sky", "boat", "older"])

    def files(texts=ids, lexicon=lexicon, codec=codec) -> int:
        made = VADLookup(lexicon, "nltk", codec, cache)
        assert np.array_equal(made.for_texts(texts, cache), made.for_texts(texts))
        return len(list(cache.iterdir()))

    assert files() == files() == 2
    assert files(ids[:, ::-1]) == 3
    assert files(codec=TextCodec(codec.tokenizer, " it feels like", 30)) == 4
    assert files(lexicon=lexicon_of({"sky": (1, 1, 1)}, "1")) == 6
    with monkeypatch.context() as patch:
        patch.setattr(vad_lexicon, "_vad_of_lemmas", None)
        assert files() == 6
    for count, (name, file) in enumerate({TAGGER_FOLDER: f"{TAGGER}.weights.json", WORDNET_FOLDER: "noun.exc"}.items()):
        if (data / name).is_dir():
            with open(data / name / file, "a") as unpacked:
                unpacked.write("\n")
        else:
            with zipfile.ZipFile(data / f"{name}.zip", "a") as archive:
                archive.writestr("more", "")
        assert files() == files() == 8 + 2 * count
    monkeypatch.setattr(TextCodec, "pieces", lambda self: ["sky", "red", "boat", "older"])
    assert files() == 12
    monkeypatch.setattr(vad_lexicon, "version", lambda name: f"{name} 0")
    assert files() == 14
