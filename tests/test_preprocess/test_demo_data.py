"""The demo's data set: determinism, kills, and how texts, emotions and lexicon fit the images (that it can be learnt:
tests/test_training/test_demo.py)."""

import contextlib
import dataclasses
import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import psutil
import pytest

from preprocess.demo_data.texts import BRUSHWORK, PATTERNS, explain, lexicon_text, noun
from preprocess.make_demo_data import (
    EMOTION_FREQUENCIES,
    PAINTINGS,
    annotate,
    main,
    make_demo,
    make_demo_data,
    plan_paintings,
    write_decoder,
)
from tests.conftest import REPOSITORY
from tests.test_preprocess.helpers import RELEASE
from utils.command_line import DEMO_DEFAULTS
from utils.constants import EMOTION_SPAN, EMOTIONS, PROMPT_TEXT
from utils.data.text_codec import TextCodec, load_tokenizer

SEED = 2021


@pytest.fixture(scope="module")
def planned() -> pd.DataFrame:
    return plan_paintings(PAINTINGS, SEED)


@pytest.fixture(scope="module")
def annotations(planned) -> pd.DataFrame:
    return annotate(planned, SEED)


# ---- files -----------------------------------------------------------------------------------------------------------


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_seed_decides_every_byte_and_an_earlier_demo_is_replaced(tmp_path, capsys):
    main(["--out_dir", str(tmp_path / "a"), "--images", "40"])
    main(["--out_dir", str(tmp_path / "b"), "--images", "48", "--seed", "1"])
    assert "annotations of 48 images (train " in capsys.readouterr().out
    expected, other = digest(tmp_path / "a"), digest(tmp_path / "b")
    assert [name for name, value in expected.items() if other.get(name) == value] == ["demo-VAD-Lexicon.txt"]
    make_demo_data(tmp_path / "b", 40)
    assert digest(tmp_path / "b") == expected


def test_a_failure_leaves_no_release(tmp_path, monkeypatch):
    """A file that says that the data are complete, also not an earlier one."""
    main(["--out_dir", str(tmp_path), "--images", "30"])
    monkeypatch.setattr("preprocess.make_demo_data.paint", None)
    with pytest.raises(TypeError):
        make_demo_data(tmp_path, 30)
    assert not (tmp_path / RELEASE.name).exists()


# ---- content ---------------------------------------------------------------------------------------------------------


def test_annotators_disagree_as_planned(planned):
    """5 to 8 of them; 88 % of the images have a majority, which is the painted mood. 9 % are val, as many test."""
    assert set(planned["votes"].map(len)) == {5, 6, 7, 8}
    most = [Counter(votes).most_common(1)[0] for votes in planned["votes"]]
    has_majority = [count > len(votes) / 2 for (_, count), votes in zip(most, planned["votes"], strict=True)]
    agreed = planned.assign(majority=[emotion for emotion, _ in most])[has_majority]
    assert len(agreed) / len(planned) == pytest.approx(0.88, abs=0.04)
    assert (agreed["majority"] == [painting.mood for painting in agreed["painting"]]).all()
    for _, split in agreed.groupby("split"):
        assert len(split) >= 100 and set(split["majority"]) == set(EMOTIONS)
        assert split["majority"].value_counts(normalize=True).max() <= 0.22
    parts = planned["split"].value_counts(normalize=True)
    assert parts["val"] == pytest.approx(0.09, abs=0.01) and parts["test"] == pytest.approx(0.09, abs=0.01)
    assert (planned["votes"].map(lambda votes: len(set(votes))) > 1).mean() > 0.9  # emotions to pair


def test_texts_tell_the_annotators_emotion(planned, annotations):
    assert len(annotations) == planned["votes"].map(len).sum() and annotations["tokens_len"].between(8, 20).all()
    told = annotations.groupby("emotion")["utterance_spelled"].agg(" ".join)
    for emotion, word in {"amusement": "funny", "fear": "nightmare", "sadness": "lonely", "disgust": "sick"}.items():
        assert [other for other in EMOTIONS if f" {word}" in told[other]] == [emotion]


def test_the_decoders_tokens_are_words(annotations, tmp_path):
    """As in GPT-2's vocabulary, only "something else" is two; and other texts can be spelled, too."""
    write_decoder(tmp_path / "gpt2", annotations)
    codec = TextCodec(load_tokenizer(str(tmp_path / "gpt2")), PROMPT_TEXT, DEMO_DEFAULTS["max_seq_len"])
    assert len(codec.tokenizer) < 1000
    words = {word for text in annotations["utterance_spelled"] for word in text.split()}
    assert {len(tokens) for tokens in codec.bpe([f" {word}" for word in sorted(words)])} == {1}
    assert codec.emotion_span == EMOTION_SPAN and len(set(codec.label_tokens())) == len(EMOTIONS)
    texts = codec.encode(list(annotations["emotion"]), list(annotations["utterance_spelled"]))
    assert (texts.input_ids == codec.eos_id).sum() == 2 * len(annotations)  # no text is cut
    assert codec.decode(codec.bpe(["Ünseen wörds!"])[0]) == "Ünseen wörds!"


def test_explanations_name_what_is_in_the_painting(planned):
    for painting in planned["painting"][:30]:
        for emotion, patterns in PATTERNS.items():
            for pattern in range(len(patterns)):
                words = f" {explain(painting, emotion, pattern)} ".replace(",", "")
                assert f" {noun(painting)} " in words
                assert painting.accent in words or painting.ground in words or BRUSHWORK[painting.style] in words
    flies = dataclasses.replace(painting, subject="fly", accent="red", position="left", ground="blue", count=2)
    assert explain(flies, "fear", 0) == "the two red flies hiding on the left in dark blue scare me"


def test_lexicon_is_bipolar_and_covers_the_demo(planned):
    _, *rows = lexicon_text().splitlines()
    table = {word: tuple(map(float, values)) for word, *values in (row.split("\t") for row in rows)}
    assert -1 <= min(map(min, table.values())) < 0 and max(map(max, table.values())) <= 1
    words = {word for painting in planned["painting"] for word in (painting.subject, painting.ground, painting.accent)}
    assert words | set(EMOTION_FREQUENCIES) - {"something else"} <= set(table)


def test_a_run_that_waited_takes_the_data_that_another_made(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def waited(folder):
        folder.mkdir()
        yield

    monkeypatch.setattr("preprocess.make_demo_data.write_lock", waited)
    monkeypatch.setattr("preprocess.make_demo_data.main", None)
    make_demo(tmp_path / "data")
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


@pytest.mark.slow
@pytest.mark.parametrize("script", ["make_demo_data.py", "train_text2emotion.py"])
def test_scripts_run_by_their_path(tmp_path, script):
    """In another folder, without the repository on the path; the other scripts do in tests/test_main_road.py."""
    command = [sys.executable, REPOSITORY / "preprocess" / script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(f"usage: {script}")


def test_a_killed_demo_leaves_no_processes_and_what_it_leaves_is_removed(tmp_path):
    """Its pool would wait for work forever."""
    code = "import pathlib; from preprocess.make_demo_data import make_demo; make_demo(pathlib.Path('demo/data'))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
    ) as script:
        while not list(tmp_path.glob("demo/.data.tmp/*/*/*.jpg")):
            assert script.poll() is None
        children = psutil.Process(script.pid).children()
        script.kill()
    assert len(children) == 2 and psutil.wait_procs(children, timeout=30)[1] == []
    make_demo(tmp_path / "demo" / "data", 40)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["data"]
    assert (tmp_path / "demo/data/artEmisX_val.json").is_file()
