"""The demo's data set: layout, determinism, and that emotions and texts can be learnt from the images and only so."""

import ast
import dataclasses
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from sklearn.linear_model import RidgeClassifier
from tokenizers import ByteLevelBPETokenizer

from preprocess.demo_data.paintings import SIDE_RANGE, STYLES, paint
from preprocess.demo_data.texts import BRUSHWORK, PATTERNS, explain, lexicon_text, noun
from preprocess.make_demo_data import (
    AGREEMENT,
    ANNOTATORS,
    EMOTION_FREQUENCIES,
    PAINTINGS,
    annotate,
    main,
    make_demo_data,
    plan_paintings,
    write_decoder,
)
from tests.bad_input import TRAIN, check_refused
from tests.conftest import REPOSITORY
from utils.command_line import DEMO_DEFAULTS
from utils.constants import EMOTION_SPAN, EMOTIONS, PROMPT_TEXT
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.errors import InputError

SEED = 2021
FILES = {
    "artemis_dataset_release_v0.csv": ["art_style", "painting", "emotion", "utterance", "repetition"],
    "preprocess_data_mini/image-emotion-histogram.csv": ["art_style", "painting", "emotion_histogram"],
    "preprocess_data_nets/artemis_preprocessed.csv": [
        *("art_style", "painting", "emotion", "utterance", "repetition", "split"),
        *("tokens", "tokens_len", "utterance_spelled", "tokens_encoded", "emotion_label"),
    ],
}


@pytest.fixture(scope="module")
def planned() -> pd.DataFrame:
    return plan_paintings(PAINTINGS, SEED)


@pytest.fixture(scope="module")
def annotations(planned) -> pd.DataFrame:
    return annotate(planned, SEED)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    assert not main(["--out_dir", str(folder), "--pictures", "60"])
    return folder


def majority(votes: list[str]) -> str | None:
    emotion, count = Counter(votes).most_common(1)[0]
    return emotion if count > len(votes) / 2 else None


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_have_the_release_layout(data):
    tables = {name: pd.read_csv(data / name) for name in FILES}
    assert {name: list(table.columns) for name, table in tables.items()} == FILES
    release, histogram, preprocessed = tables.values()

    pd.testing.assert_frame_equal(preprocessed[release.columns], release)
    groups = release.groupby(["art_style", "painting"])
    assert len(groups) == 60 == len(histogram)
    assert (groups["repetition"].nunique() == 1).all() and (groups["repetition"].first() == groups.size()).all()
    for style, painting, votes in histogram.itertuples(index=False):
        counts = Counter(groups.get_group((style, painting))["emotion"])
        assert ast.literal_eval(votes) == [float(counts[emotion]) for emotion in EMOTIONS]
        with Image.open(data / "wikiart_originals" / style / f"{painting}.jpg") as image:
            assert image.format == "JPEG" and image.mode == "RGB"
            assert all(SIDE_RANGE[0] <= side <= SIDE_RANGE[1] for side in image.size)
    assert len(list(data.glob("wikiart_originals/*/*"))) == 60
    assert {path.name for path in (data / "wikiart_originals").iterdir()} == set(STYLES)
    assert not [path for path in data.rglob("*") if path.name.startswith(".")]
    assert set(preprocessed["split"]) == {"train", "val", "test"}
    assert (preprocessed.groupby(["art_style", "painting"])["split"].nunique() == 1).all()


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(data, tmp_path):
    make_demo_data(tmp_path / "again", 60)
    assert digest(tmp_path / "again") == digest(data)
    make_demo_data(tmp_path / "other", 60, seed=1)
    other = digest(tmp_path / "other")
    assert [name for name, value in digest(data).items() if other.get(name) == value] == ["demo-VAD-Lexicon.txt"]


def test_an_earlier_demo_is_replaced(tmp_path):
    make_demo_data(tmp_path, 60)
    make_demo_data(tmp_path, 30)
    assert len(list(tmp_path.glob("wikiart_originals/*/*.jpg"))) == 30
    assert len(pd.read_csv(tmp_path / "preprocess_data_mini/image-emotion-histogram.csv")) == 30


def test_a_failure_leaves_no_release(tmp_path, monkeypatch):
    make_demo_data(tmp_path, 30)

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr("preprocess.make_demo_data.paint", fail)
    with pytest.raises(OSError, match="disk"):
        make_demo_data(tmp_path, 60)
    assert not (tmp_path / "artemis_dataset_release_v0.csv").exists()


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "wikiart_originals").mkdir()
    (tmp_path / "wikiart_originals/mine.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="no earlier demo; name another --out_dir"):
        make_demo_data(tmp_path)
    assert digest(tmp_path) == {"wikiart_originals/mine.jpg": hashlib.sha256(b"mine").hexdigest()}


def test_counts_are_printed(tmp_path, capsys):
    main(["--out_dir", str(tmp_path), "--pictures", "30"])
    assert "annotations of 30 images (train " in capsys.readouterr().out


# command line -> message
ARGV = {
    "--out_dir out --pictures 29": "--pictures: 29 is not between 30",
    "--out_dir out --seed -1": "--seed: -1 is not between 0",
    "--out_dir data --pictures 30": "data: not empty .*name another --out_dir",
    f"--out_dir {TRAIN}": f"{TRAIN} is not a folder; name another folder",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


@pytest.mark.slow
def test_every_script_runs_by_its_path(tmp_path):
    """In another folder, without the package on the path."""
    for script in sorted((REPOSITORY / "preprocess").glob("*.py")):
        if "__main__" in script.read_text(encoding="utf-8"):
            done = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), script


# ---- content ---------------------------------------------------------------------------------------------------------


def test_annotators_disagree_as_planned(planned):
    sizes = planned["votes"].map(len)
    assert set(sizes) == set(range(ANNOTATORS[0], ANNOTATORS[1] + 1)) == {5, 6, 7, 8}
    planned = planned.assign(majority=planned["votes"].map(majority))
    agreed = planned.dropna()
    assert abs(len(agreed) / len(planned) - AGREEMENT) < 0.04
    assert (agreed["majority"] == [painting.mood for painting in agreed["painting"]]).all()
    for _, split in agreed.groupby("split"):
        assert len(split) >= 100
        assert split["majority"].value_counts(normalize=True).max() <= 0.22
        assert set(split["majority"]) == set(EMOTIONS)
    assert (planned["votes"].map(lambda votes: len(set(votes))) > 1).mean() > 0.9  # emotions to pair


@pytest.mark.slow
def test_explanations_fit_into_the_text_window(annotations):
    assert annotations["tokens_len"].between(8, 20).all()
    assert 150 <= len({word for text in annotations["utterance_spelled"] for word in text.split()}) <= 280
    folder = REPOSITORY / "models/gpt2-bpe"
    bpe = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    longest = max(len(bpe.encode(f" because {text}").ids) for text in annotations["utterance_spelled"])
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
    one = dataclasses.replace(
        planned["painting"][0], count=1, subject="fly", accent="red", position="left", ground="blue"
    )
    assert explain(one, "fear", 0) == "the red fly hiding on the left in dark blue scares me"
    two = dataclasses.replace(one, count=2)
    assert explain(two, "fear", 0) == "the two red flies hiding on the left in dark blue scare me"


def bleu4(captions: list[str], references: list[list[str]], capsys) -> float:
    with capsys.disabled():
        scores, _ = Bleu(4).compute_score(
            dict(enumerate(references)), {i: [text.replace(",", "")] for i, text in enumerate(captions)}, verbose=0
        )
    return scores[3]


@pytest.mark.slow
def test_captions_score_by_naming_the_right_things(planned, annotations, capsys):
    """The best constant caption stays below half, and captions of other images below 0.7, of what even a half-blind
    captioner gets, one that knows only emotion, colours and number."""
    references = annotations.groupby("painting")["utterance_spelled"].apply(list)
    held_out = planned[planned["split"] == "val"].reset_index(drop=True)
    references = [references[name] for name in held_out["name"]]
    rng = np.random.default_rng(0)

    def guess(painting):
        other = held_out["painting"][rng.integers(len(held_out))]
        return dataclasses.replace(painting, subject=other.subject, position=other.position, style=other.style)

    emotions = [Counter(votes).most_common(1)[0][0] for votes in held_out["votes"]]
    paintings = held_out["painting"]
    oracle = [explain(painting, emotion, 0) for painting, emotion in zip(paintings, emotions, strict=True)]
    half_blind = [explain(guess(painting), emotion, 0) for painting, emotion in zip(paintings, emotions, strict=True)]
    floor = bleu4(half_blind, references, capsys)
    assert bleu4(oracle, references, capsys) > 0.8
    assert floor > 0.4
    assert bleu4([oracle[i] for i in rng.permutation(len(oracle))], references, capsys) < 0.7 * floor
    constants = {explain(painting, emotion, 0) for painting in paintings[:6] for emotion in EMOTIONS}
    assert max(bleu4([text] * len(references), references, capsys) for text in constants) < 0.5 * floor


@pytest.mark.slow
def test_emotions_can_be_seen():
    """A linear model on 16 x 16 pixels tells the emotions apart, and learns nothing from shuffled images."""
    planned = plan_paintings(700, SEED)
    labels = planned["votes"].map(majority)
    chosen = planned.index[labels.notna()]
    images = [paint(planned["painting"][i], np.random.default_rng([SEED, 2, i])) for i in chosen]
    pixels = np.stack([np.asarray(image.resize((16, 16), Image.Resampling.BOX), float).ravel() for image in images])
    pixels = (pixels - pixels.mean(0)) / pixels.std(0)
    train = (planned["split"][chosen] == "train").to_numpy()
    labels = labels[chosen].to_numpy()
    model = RidgeClassifier(alpha=1000).fit(pixels[train], labels[train])
    shown, truth = pixels[~train], labels[~train]
    assert len(truth) >= 100
    assert model.score(shown, truth) > 0.6
    assert model.score(shown[np.random.default_rng(0).permutation(len(shown))], truth) < 0.3


# ---- lexicon ---------------------------------------------------------------------------------------------------------


def test_lexicon_is_bipolar_and_covers_the_demo(planned):
    header, *rows = lexicon_text().splitlines()
    assert header.split("\t") == ["term", "valence", "arousal", "dominance"]
    table = {word: tuple(map(float, values)) for word, *values in (row.split("\t") for row in rows)}
    assert list(table) == sorted(table)
    assert all(len(values) == 3 and all(-1 <= value <= 1 for value in values) for values in table.values())
    assert min(value for values in table.values() for value in values) < 0
    paintings = planned["painting"]
    for names in (
        {painting.subject for painting in paintings},
        {painting.ground for painting in paintings} | {painting.accent for painting in paintings},
        set(EMOTION_FREQUENCIES) - {"something else"},
    ):
        assert names <= set(table)
