"""NLTK's data as its downloader leaves it, and tagging and training in processes that are forked, or not."""

import json
import multiprocessing
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import artEmisX_train
from tests.conftest import logged_losses
from utils.data import vad_lexicon
from utils.data.vad_lexicon import Lexicon, NLTKLemmatizer, VADLookup

nltk = pytest.importorskip("nltk")

TAGGER = "averaged_perceptron_tagger_eng"
TAGGER_FOLDER, WORDNET_FOLDER = f"taggers/{TAGGER}", "corpora/wordnet"
WEIGHTS = {
    "bias": {"NN": 1.0},
    "i suffix ing": {"VBG": 5.0},
    "i-1 word red": {"NNS": 3.0},
    "i suffix ies": {"VBZ": 2.0},
    "i suffix der": {"JJR": 5.0},
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


@pytest.fixture(params=["folders"])
def data(request, tmp_path, monkeypatch) -> Path:
    from nltk.corpus.reader import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    root = tmp_path / "nltk"
    write_data(root, request.param)
    monkeypatch.setenv("NLTK_DATA", str(root))  # for processes that import NLTK themselves
    monkeypatch.setattr(nltk.data, "path", [str(root)])
    # another test may have loaded another one
    monkeypatch.setattr(nltk.corpus, "wordnet", LazyCorpusLoader("wordnet", WordNetCorpusReader, None))
    return root


@pytest.fixture
def lookup(data, codec) -> VADLookup:
    values = {"sky": (0.5, -0.25, 0.25), "skies": (-1, -1, -1), "paint": (0.25, 0.5, 0.75), "red": (1, 0, 0)}
    return VADLookup(Lexicon(values, Path("lexicon"), "0" * 64, "-1..1"), "nltk", codec)


@pytest.fixture
def start_method():
    """Set how processes are started, for one test."""
    before = multiprocessing.get_start_method()
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(before, force=True)


every_form = pytest.mark.parametrize("data", ["folders", "zips", "downloaded"], indirect=True)


@every_form
def test_lemmas(data):
    """ "skies" is a noun behind "red", else a verb of the same lemma; "painting" a verb, "older" an adjective, "best" an
    adverb, "boaten" an exception among nouns; the tagger fails on an empty token, which becomes a space.
    """
    tokens = {"red": "red", "skies": "sky", "painting": "paint", "older": "old", "best": "well", "boaten": "boat"}
    assert NLTKLemmatizer()([*tokens, "", "paints"]) == [*tokens.values(), " ", "paint"]


@every_form
def test_cached_vad_depends_on_nltks_data_and_version(lookup, data, tmp_path, monkeypatch):
    """Other weights of the tagger, another file of WordNet, another version: a file of its own each."""
    ids, cache = np.array(lookup.codec.bpe([" red sky"])), tmp_path / "cache"

    def files() -> int:
        lookup.for_texts(ids, cache)
        return len(list(cache.iterdir()))

    assert files() == files() == 1
    for count, (name, file) in enumerate(
        {TAGGER_FOLDER: f"{TAGGER}.weights.json", WORDNET_FOLDER: "noun.exc"}.items(), 2
    ):
        if (data / name).is_dir():
            with open(data / name / file, "a") as unpacked:
                unpacked.write("\n")
        else:
            with zipfile.ZipFile(data / f"{name}.zip", "a") as archive:
                archive.writestr("more", "")
        assert files() == files() == count
    monkeypatch.setattr(vad_lexicon, "version", lambda name: f"{name} 0")
    assert files() == 4


def test_a_lookup_in_another_process_is_the_same(lookup):
    """Pickled it holds nothing of NLTK; and with the other lemmatizers, whose tables loader processes read."""
    ids = np.array(lookup.codec.bpe([" red skies"]))
    for lemmatizer in ("nltk", "simplemma", "none"):
        original = VADLookup(lookup.lexicon, lemmatizer, lookup.codec)
        copy = pickle.loads(pickle.dumps(original))
        assert copy.for_texts(ids).tolist() == original.for_texts(ids).tolist()
    assert len(pickle.dumps(NLTKLemmatizer())) < 200


@pytest.mark.slow
@pytest.mark.parametrize(("method", "data"), [("fork", "zips"), ("spawn", "downloaded")], indirect=["data"])
def test_tagging_in_several_processes(lookup, start_method, method):
    tokens = [token for text in (" red skies painting", " sky is boaten") for token in lookup.codec.bpe([text])[0]]
    ids = np.random.default_rng(0).choice(tokens, (2100, 12))
    alone = lookup.for_texts(ids)
    assert len(np.unique(alone.reshape(-1, 3), axis=0)) > 3
    start_method(method)
    assert np.array_equal(lookup.for_texts(ids, processes=2), alone)


@pytest.mark.slow
def test_training_with_loader_processes_that_are_not_forked(data, workspace, tmp_path, start_method):
    """They load images for training and evaluation; the losses are those without loader processes."""
    flags = ("--lemmatizer", "nltk", "--num_train_epochs", "1", "--log_steps", "1", "--eval_batch_size", "4")
    assert artEmisX_train.main(workspace.argv(tmp_path / "none", *flags)) == 0
    start_method("spawn")
    assert artEmisX_train.main(workspace.argv(tmp_path / "two", *flags, "--num_workers", "2")) == 0
    for loss, expected in zip(logged_losses(tmp_path / "two"), logged_losses(tmp_path / "none"), strict=True):
        assert loss == pytest.approx(expected, rel=1e-5)
