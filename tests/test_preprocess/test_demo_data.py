"""The demo's data set: layout, determinism, and how texts, emotions and lexicon fit the images (that it can be learnt:
tests/test_training/test_demo.py)."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from tokenizers import ByteLevelBPETokenizer

from preprocess.demo_data.paintings import SIDE_RANGE, STYLES, paint
from preprocess.demo_data.texts import BRUSHWORK, PATTERNS, explain, lexicon_text, noun
from preprocess.make_demo_data import (
    EMOTION_FREQUENCIES,
    PAINTINGS,
    _write_images,
    annotate,
    main,
    make_demo,
    make_demo_data,
    plan_paintings,
    write_decoder,
)
from tests.conftest import REPOSITORY
from tests.test_preprocess.helpers import HISTOGRAMS, NETS, RELEASE, read
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


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    assert not main(["--out_dir", str(folder), "--images", "40"])
    return folder


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_have_the_release_layout(data):
    release, histogram, preprocessed = (read(data / name) for name in (RELEASE.name, HISTOGRAMS, NETS))
    assert list(release) == ["art_style", "painting", "emotion", "utterance", "repetition"]
    assert list(histogram) == ["art_style", "painting", "emotion_histogram"]
    cleaned = ["split", "tokens", "tokens_len", "utterance_spelled", "tokens_encoded", "emotion_label"]
    assert list(preprocessed) == [*release, *cleaned]
    pd.testing.assert_frame_equal(preprocessed[release.columns], release)
    groups = release.groupby(["art_style", "painting"])
    assert len(groups) == 40 == len(histogram)
    for style, painting, votes in histogram.itertuples(index=False):
        rows = groups.get_group((style, painting))
        counts = Counter(rows["emotion"])
        assert set(rows["repetition"]) == {str(len(rows))}
        assert json.loads(votes) == [float(counts[emotion]) for emotion in EMOTIONS]
        with Image.open(data / "wikiart_originals" / style / f"{painting}.jpg") as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            assert all(SIDE_RANGE[0] <= side <= SIDE_RANGE[1] for side in image.size)
    assert len(list(data.glob("wikiart_originals/*/*"))) == 40
    assert {path.name for path in (data / "wikiart_originals").iterdir()} == set(STYLES)
    assert not [path for path in data.rglob("*") if path.name.startswith(".")]
    assert (preprocessed.groupby(["art_style", "painting"])["split"].nunique() == 1).all()


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_seed_decides_every_byte_and_an_earlier_demo_is_replaced(data, tmp_path, capsys):
    main(["--out_dir", str(tmp_path), "--images", "48", "--seed", "1"])
    assert "annotations of 48 images (train " in capsys.readouterr().out
    other = digest(tmp_path)
    make_demo_data(tmp_path, 40)
    assert digest(tmp_path) == digest(data)
    assert [name for name, value in digest(data).items() if other.get(name) == value] == ["demo-VAD-Lexicon.txt"]


def test_each_image_has_random_numbers_of_its_own(planned, tmp_path):
    """The demo's published figures rest on these bytes."""
    painting = planned["painting"][0]
    _write_images(tmp_path / "images", pd.DataFrame({"painting": [painting] * 2, "name": ["0", "1"]}), SEED)
    for index in (0, 1):
        paint(painting, np.random.default_rng([SEED, 2, index])).save(tmp_path / f"{index}.jpg", quality=92)
    images = [tmp_path / "images" / painting.style / f"{index}.jpg" for index in (0, 1)]
    assert [path.read_bytes() for path in images] == [(tmp_path / path.name).read_bytes() for path in images]
    assert images[0].read_bytes() != images[1].read_bytes()


@pytest.mark.slow
def test_a_failure_leaves_no_release(data, tmp_path, monkeypatch):
    """A file that says that the data are complete, also not an earlier one."""
    (tmp_path / "demo-VAD-Lexicon.txt").touch()
    (tmp_path / RELEASE.name).write_text("of an earlier demo")

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr("preprocess.make_demo_data.paint", fail)
    with pytest.raises(OSError, match="disk"):
        make_demo_data(tmp_path, 40)
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


def test_texts_tell_the_annotators_emotion_and_fit_into_the_text_window(planned, annotations):
    assert len(annotations) == planned["votes"].map(len).sum() and annotations["tokens_len"].between(8, 20).all()
    told = annotations.groupby("emotion")["utterance_spelled"].agg(" ".join)
    for emotion, word in {"amusement": "funny", "fear": "nightmare", "sadness": "lonely", "disgust": "sick"}.items():
        assert [other for other in EMOTIONS if f" {word}" in told[other]] == [emotion]
    few = planned[:50]
    assert not annotate(few, 1)["utterance"].equals(annotate(few, SEED)["utterance"])
    folder = REPOSITORY / "models/gpt2-bpe"
    bpe = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    longest = max(len(bpe.encode(f" because {text}").ids) for text in annotations["utterance_spelled"][:2000])
    assert 1 + 3 + 2 + longest + 1 <= 30  # bos, prompt, emotion, explanation, eos


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
    fly = {"subject": "fly", "accent": "red", "position": "left", "ground": "blue"}
    one = dataclasses.replace(planned["painting"][0], count=1, **fly)
    assert explain(one, "fear", 0) == "the red fly hiding on the left in dark blue scares me"
    two = dataclasses.replace(one, count=2)
    assert explain(two, "fear", 0) == "the two red flies hiding on the left in dark blue scare me"


def test_lexicon_is_bipolar_and_covers_the_demo(planned):
    header, *rows = lexicon_text().splitlines()
    assert header.split("\t") == ["term", "valence", "arousal", "dominance"]
    table = {word: tuple(map(float, values)) for word, *values in (row.split("\t") for row in rows)}
    assert list(table) == sorted(table)
    values = [value for values in table.values() for value in values]
    assert len(values) == 3 * len(table) and -1 <= min(values) < 0 and max(values) <= 1
    paintings = planned["painting"]
    colors = {painting.ground for painting in paintings} | {painting.accent for painting in paintings}
    assert {painting.subject for painting in paintings} | colors | set(EMOTION_FREQUENCIES) - {"something else"} <= set(
        table
    )


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
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    ) as script:
        while not list(tmp_path.glob("demo/.data.tmp/*/*/*.jpg")):
            assert script.poll() is None
        children = psutil.Process(script.pid).children()
        script.kill()
    assert len(children) == 2 and psutil.wait_procs(children, timeout=30)[1] == []
    make_demo(tmp_path / "demo" / "data", 40)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["data"]
    assert (tmp_path / "demo/data/artEmisX_val.json").is_file()
