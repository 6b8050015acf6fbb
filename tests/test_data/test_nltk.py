"""NLTK's way: the tags of our tagger are its own, and so is the VAD of texts, which is cached."""

import json
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from utils.data import vad_lexicon
from utils.data.perceptron_tagger import VocabularyTagger, vocabulary_tagger
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon, VADLookup

nltk = pytest.importorskip("nltk")

# ---- tags ------------------------------------------------------------------------------------------------------------

CLASSES = ["NN", "NNS", "VB", "VBZ", "JJ", "``", "-LRB-"]
TOKENS = ["sky", "Sky", "skies", "paint", "painted", "x-ray", "-", "-x", "1984", "84", "7th", "²", "éé", "É", " "]
TOKENS += ["ING", "ing", "the", "The", "<pad>", "Ġ", "a b", "ß", "İ", "12345", "¹²³⁴"]


def nltk_tagger(weights: dict, dictionary: dict):
    tagger = nltk.tag.perceptron.PerceptronTagger(load=False)
    tagger.decode_json_params((weights, dictionary, CLASSES))
    return tagger


def random_weights(draw: random.Random) -> dict[str, dict[str, float]]:
    """For half of the features that NLTK has of random texts; in halves, so that scores are often equal; some for tags of
    no class."""
    tagger, features = nltk_tagger({}, {}), set()
    for _ in range(2000):
        text, tags = draw.choices(TOKENS, k=4), draw.choices([*CLASSES, "DT", *tagger.START], k=2)
        context = [*tagger.START, *map(tagger.normalize, text), *tagger.END]
        for place, word in enumerate(text):
            features |= tagger._get_features(place, word, context, *tags).keys()
    return {
        feature: {tag: draw.randint(-4, 4) / 2 for tag in draw.sample([*CLASSES, "FW"], draw.randint(1, 5))}
        for feature in draw.sample(sorted(features), len(features) // 2)
    }


@pytest.mark.parametrize("seed", range(4))
def test_tags_are_nltks(seed):
    """Ties, words of the tag dictionary and odd tokens among them."""
    draw = random.Random(seed)
    weights, dictionary = random_weights(draw), {"the": "DT", "The": "DT", "sky": "NN", "2": "CD"}
    if seed == 3:  # weights that no float holds exactly: only NLTK's order of adding gives NLTK's scores
        weights = {name: {tag: draw.gauss(0, 1) for tag in of_tags} for name, of_tags in weights.items()}
    ids = np.random.default_rng(seed).integers(len(TOKENS), size=(1000, 9))
    tagger, plain = VocabularyTagger(weights, dictionary, CLASSES, TOKENS), nltk_tagger(weights, dictionary)
    found = [[tagger.tags[place] for place in row] for row in tagger(ids)]
    assert found == [[tag for _, tag in plain.tag([TOKENS[token] for token in row])] for row in ids]
    assert len({tag for row in found for tag in row}) == len(CLASSES) + 1  # every class, and the dictionary's DT


def test_features_of_another_nltk_are_left_to_nltk(monkeypatch, capsys):
    """A feature that the tables do not have changes tags: NLTK itself tags, and a line says so."""
    tagger = nltk_tagger({"i word sky": {"NN": 1.0}, "length 3": {"VB": 2.0}}, {})
    tokens, ids = ["sky", "paint"], np.array([[0, 1, 0]])

    def tags() -> list[str]:
        found = vocabulary_tagger(tagger, tokens)
        return [found.tags[place] for place in found(ids)[0]]

    assert tags() == ["NN", max(CLASSES), "NN"] and not capsys.readouterr().out
    features = type(tagger)._get_features

    def with_length(self, i, word, *more):
        return features(self, i, word, *more) | {f"length {len(word)}": 1}

    monkeypatch.setattr(type(tagger), "_get_features", with_length)
    assert tags() == ["VB", max(CLASSES), "VB"] and "NLTK itself tags" in capsys.readouterr().out


# ---- NLTK's data -----------------------------------------------------------------------------------------------------

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
TAGGING = {
    "weights": WEIGHTS,
    "tagdict": {"is": "VBZ", "best": "RBS"},
    "classes": ["NN", "NNS", "VBG", "VBZ", "JJR", "RBS"],
}


def write_data(root: Path) -> None:
    """A tagger of six weights and a WordNet of seven words, as NLTK's downloader leaves them: it unpacks only the tagger."""
    tagger, wordnet = root / TAGGER_FOLDER, root / WORDNET_FOLDER
    tagger.mkdir(parents=True)
    wordnet.mkdir(parents=True)
    for part, value in TAGGING.items():
        (tagger / f"{TAGGER}.{part}.json").write_text(json.dumps(value))
    for name, (pos, words) in WORDS.items():
        lines = [f"{word} {pos} 1 0 1 0 {place:08d}\n" for place, word in enumerate(words.split(), start=1)]
        (wordnet / f"index.{name}").write_text("  1 a licence\n" + "".join(lines))
        (wordnet / f"data.{name}").write_text(f"  1 WordNet 3.0 Copyright\n00000001 00 {pos} 01 x 0 000 | a word\n")
        (wordnet / f"{name}.exc").write_text("best well\n" if name == "adv" else "")
    for name in ("index.sense", "cntlist.rev"):
        (wordnet / name).touch()
    (wordnet / "lexnames").write_text("00\tadj.all\t3\n")
    for folder in (tagger, wordnet):
        shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(wordnet)


def use_data(patch: pytest.MonkeyPatch, root: Path) -> None:
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    write_data(root)
    patch.setattr(nltk.data, "path", [str(root)])
    # another test may have loaded another one
    patch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))


def lexicon_of(values: dict[str, tuple[float, ...]], sha256: str = "0") -> Lexicon:
    return Lexicon(values, Path("lexicon"), sha256 * 64, "-1..1")


@pytest.fixture(scope="module")
def lookup(codec, tmp_path_factory) -> VADLookup:
    """Of GPT-2's whole vocabulary, which takes NLTK seconds."""
    values = {"sky": (0.5, -0.25, 0.25), "skies": (-1, -1, -1), "paint": (0.25, 0.5, 0.75), "red": (1, 0, 0)}
    values |= {"old": (0, 1, 0), "well": (0, 0, 1), "Ã©": (-0.5, 0, 0), "é": (0.75, 0, 0), " ": (0, 0, -1)}
    with pytest.MonkeyPatch.context() as patch:
        use_data(patch, tmp_path_factory.mktemp("nltk") / "data")
        yield VADLookup(lexicon_of(values), "nltk", codec)


def plain_vad(lookup: VADLookup, tokens: list[str]) -> list[tuple[float, ...]]:
    """The published way: NLTK tags the whole text, WordNet gives each token's lemma, and that is looked up."""
    tagged = nltk.tag.perceptron.PerceptronTagger().tag([token or " " for token in tokens])
    parts = [{"J": "a", "V": "v", "R": "r"}.get(tag[0], "n") for _, tag in tagged]
    lemmatize = nltk.stem.WordNetLemmatizer().lemmatize
    lemmas = [lemmatize(token, part) for (token, _), part in zip(tagged, parts, strict=True)]
    return [lookup.lexicon.values.get(lemma, (0, 0, 0)) for lemma in lemmas]


def test_vad_is_the_published_ways(lookup):
    """Of training texts in GPT-2's byte letters, of generated ones as decoded words. Padding is tagged too, and a token that
    is only a space, on which NLTK's tagger fails where it is empty.
    """
    space, *tokens = lookup.codec.bpe(["  red skies painting is sky é boat older best"])[0]
    ids = np.random.default_rng(0).choice([space, *tokens, lookup.codec.pad_id], (40, 12))
    for of_texts, names in ((lookup.for_texts, lookup.codec.pieces()), (lookup.for_generated, lookup.codec.words())):
        assert names[space] == ""
        expected = [plain_vad(lookup, [names[token] for token in row]) for row in ids]
        assert np.array_equal(of_texts(ids), np.array(expected, np.float32))
        assert len(np.unique(of_texts(ids).reshape(-1, 3), axis=0)) == 9  # with both lemmas of "skies"


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
    ids = draw.choice(tokens, (30, 2))
    lookup.for_generated(ids)
    for _ in range(9):
        ids = np.hstack([ids[draw.integers(30, size=30)], draw.choice(tokens, (30, 1))])
        expected = [plain_vad(lookup, [words[token] for token in row]) for row in ids]
        assert np.array_equal(lookup.for_generated(ids), np.array(expected, np.float32))
    assert known == [None, *range(9)]


def test_vad_is_cached(codec, tmp_path, monkeypatch):
    """Of all tokens' lemmas, and of texts: once for each of what they depend on."""
    data, cache, ids = tmp_path / "nltk", tmp_path / "cache", np.array([[0, 1, 2, 3]])
    use_data(monkeypatch, data)
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
    with open(data / TAGGER_FOLDER / f"{TAGGER}.weights.json", "a") as weights:
        weights.write("\n")
    assert files() == files() == 8
    with zipfile.ZipFile(data / f"{WORDNET_FOLDER}.zip", "a") as wordnet:
        wordnet.writestr("more", "")
    assert files() == files() == 10
    monkeypatch.setattr(TextCodec, "pieces", lambda self: ["sky", "red", "boat", "older"])
    assert files() == 12
    monkeypatch.setattr(vad_lexicon, "version", lambda name: f"{name} 0")
    assert files() == 14
