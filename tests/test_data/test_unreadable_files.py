"""Paths that are no readable file, and JSON that says a thing twice."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cococaption import read_annotations, read_results
from preprocess.artemis_text import read_corrections, read_known_words
from preprocess.build_splits import read_annotations as read_csv_annotations
from preprocess.prepare_artemis import read_release
from preprocess.train_text2emotion import read_glove, read_splits
from utils.data.feature_cache import FeatureCache
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pretrained import find_config
from utils.data.records import read_records
from utils.data.text2emotion_files import load_text2emotion
from utils.data.text_codec import SHIPPED_BPE, load_tokenizer
from utils.data.untrusted_files import load_vocabulary, read_torch_file
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError
from utils.evaluation.tables import read_report
from utils.files import check_append_to, check_place, read_json, sha256, write_json

# ---- pipes, sockets, devices -----------------------------------------------------------------------------------------


def beside(*good: str) -> Callable[[Path, Callable], object]:
    """A reader of a folder, in which the file in question lies beside good ones."""

    def prepare(path: Path, read: Callable) -> object:
        for name in good:
            (path.parent / name).write_bytes((SHIPPED_BPE / name).read_bytes())
        return read(str(path.parent))

    return prepare


READERS = {
    "artEmisX_val.json": read_records,
    "annotations.json": read_annotations,
    "results.json": read_results,
    "report.json": read_report,
    "rows.csv": check_append_to,
    "release.csv": read_release,
    "artemis_preprocessed.csv": lambda path: read_csv_annotations(path, "v1"),
    "tokens.csv": lambda path: read_splits(path, {}),
    "glove.txt": lambda path: read_glove(path, {}, 0),
    "words.txt": read_known_words,
    "spelling.py": read_corrections,
    "spelling.json": read_corrections,
    "lexicon.txt": read_lexicon,
    "vocabulary.pkl": load_vocabulary,
    "best_model.pt": load_text2emotion,
    "text2emotion.safetensors": load_text2emotion,
    "stats.tar": read_torch_file,
    "clip.pt": lambda path: load_image_encoder(str(path)),
    "config.json": lambda path: find_config(str(path.parent), "--gpt2_model", "take another"),
    "header.json": lambda path: FeatureCache(path.parent),
    "hashed": sha256,
    "out.json": check_place,
    "vocab.json": lambda path: beside("merges.txt")(path, load_tokenizer),
    "merges.txt": lambda path: beside("vocab.json")(path, load_tokenizer),
    "tokenizer.json": lambda path: load_tokenizer(str(path.parent)),
    "tokenizer_config.json": lambda path: beside("vocab.json", "merges.txt")(path, load_tokenizer),
}


@pytest.fixture
def alarm():
    """A reader that waits for ever fails its test after ten seconds."""

    def ring(*_: object) -> None:
        raise TimeoutError("the reader waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, alarm, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(InputError, match=str(tmp_path)):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=str(tmp_path)):
        READERS[name](path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to("absent"), "no such file"),
        (lambda path: os.mkfifo(path), "is a pipe, socket or device"),
    ],
    ids=["missing", "folder", "dangling", "pipe"],
)
def test_what_is_no_file_is_called_by_its_name(tmp_path, make, message):
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


def test_names_that_no_file_can_have(tmp_path):
    for name in ("x" * 300, "x\0y", "x/" * 3000):
        with pytest.raises(InputError) as caught:
            read_json(f"{tmp_path}/{name}")
        assert len(str(caught.value)) < 700
        for load in (load_tokenizer, load_image_encoder):
            with pytest.raises(InputError, match="no such folder"):
                load(name)


# ---- JSON that says a thing twice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"1": {},\n "1": {}}', "1"),
        ('{"1": {"a": 1, "b": {"a": 1}, "a": 2}}', "a"),
        ('[{"x": 1}, {"x": 2, "\\u0078": 3}]', "x"),
    ],
    ids=["records", "fields", "escaped"],
)
def test_a_name_twice_is_refused(tmp_path, text, name):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"x.json: not valid JSON .'{name}' is twice in one object.; make"):
        read_json(path)


def test_the_same_name_in_different_objects_is_fine(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": {"a": [{"a": 1}, {"a": 1}]}}, {"a": 1}]')
    assert read_json(tmp_path / "x.json")[1] == {"a": 1}


def test_looking_for_repeats_costs_little(tmp_path):
    """450 000 texts are read; most of the time is the parser's own."""
    texts = {str(image): {"explanations": ["a red boat"] * 6, "emotions": ["awe"] * 6} for image in range(4_000)}
    write_json(tmp_path / "x.json", texts)

    def fastest(read: Callable) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            read()
            times.append(time.perf_counter() - start)
        return min(times)

    plain = fastest(lambda: json.loads((tmp_path / "x.json").read_bytes()))
    assert fastest(lambda: read_json(tmp_path / "x.json")) < 3 * plain + 0.05
