"""utils.explain.load: three lines of Python give the answers of an evaluation, with words and where the model looked."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import artEmisX_train
from tests.conftest import REPOSITORY
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError
from utils.explain import load
from utils.visualize.answers import Answer, Explanation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    """A run with an emotion head and its data in one folder, long enough that images get different texts; scored once."""
    root = tmp_path_factory.mktemp("load") / "runs" / "demo"
    root.mkdir(parents=True)
    flags = "--num_train_epochs 4 --use_emotion_loss --no-fixed_encoder --learning_rate 0.01 --en_LR 0.01 --seed 3"
    lexicon = shutil.copy(workspace.data / "demo-VAD-Lexicon.txt", root / "VAD.txt")
    argv = workspace.argv(root, *flags.split(), "--vad_lexicon", str(lexicon))
    assert artEmisX_train.main(argv) == 0
    scoring = ("--eval_only", "--load_from_epoch", "best-res", "--caption_save_path", str(root / "results" / "test"))
    assert artEmisX_train.main([*argv, *scoring]) == 0
    return root


@pytest.fixture(scope="module")
def model(run):
    return load(run)


@pytest.fixture(scope="module")
def images(workspace):
    folder = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    records = read_records(workspace.data / "artEmisX_val.json")
    return {int(image): folder / record["image_name"] for image, record in records.items()}


def test_answers_are_those_of_eval_only(run, model, images):
    def written(kind: str, key: str) -> dict:
        rows = json.loads((run / "results" / "test" / f"{kind}_best-res_0_step.json").read_text())
        return {row["image_id"]: row[key] for row in rows}

    answers = dict(zip(images, model(list(images.values())), strict=True))
    full, explanations = (written(f"unf_captions_{kind}", "caption") for kind in ("full", "exp"))
    assert {image: answer.text for image, answer in answers.items()} == full and len(set(full.values())) > 1
    assert {image: answer.explanation for image, answer in answers.items()} == explanations
    for source, kind in (("text", "emotion_likelihood"), ("head", "emotion_head")):
        for image, expected in written(kind, "probabilities").items():
            assert list(answers[image].probabilities[source]) == list(EMOTIONS)
            assert list(answers[image].probabilities[source].values()) == pytest.approx(expected, abs=1e-5)


def test_a_path_a_pil_image_or_a_list(model, images, tmp_path):
    first, second = list(images.values())[:2]
    expected = model([str(first), second])
    assert isinstance(expected, list) and model([]) == []
    assert model(first).text == model(Image.open(first)).text == expected[0].text
    turned = Image.open(second).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned back
    turned.save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert model(given).probabilities["head"] == pytest.approx(expected[1].probabilities["head"], abs=1e-5)
    grey = Image.open(first).convert("L")
    assert model(grey).image.mode == "RGB" and model(grey).image.size == grey.size


def test_options(model, images):
    path = next(iter(images.values()))
    awe = model(path, emotion="awe")
    assert awe.emotion == "awe" and awe.text.startswith("awe because") and awe.explanations[0].given
    assert [one.emotion for one in model(path, emotion="all").explanations] == list(EMOTIONS)
    drawn = model(path, num_samples=5, temperature=2.0, top_p=1.0, seed=3)
    assert len(drawn.explanations) == 5 and len({one.text for one in drawn.explanations}) > 1
    best = model(path, num_samples=5, temperature=2.0, top_p=1.0, seed=3, rerank="likelihood")
    likeliest = max(drawn.explanations, key=lambda one: one.log_probability)
    assert [one.text for one in best.explanations] == [likeliest.text]
    assert model(path, num_beams=3).explanations[0].log_probability is None


def test_words_and_where_the_model_looked(model, images):
    answers = model(list(images.values()))
    for answer in answers:
        assert " ".join(word.text for word in answer.words).split() == answer.text.split()
    answer = answers[0]
    sums = [word.heat_map.sum() for word in answer.words]
    assert sums == pytest.approx([1] * len(sums), abs=1e-5) and answer.words[0].heat_map.shape == (2, 2)
    known = answer.words[0].bare
    model.lexicon.values[known] = (0.5, -0.25, 0.125)  # an untrained model's texts seldom hold a word of the lexicon
    again = model(next(iter(images.values()))).words
    del model.lexicon.values[known]
    assert again[0].vad == (0.5, -0.25, 0.125)
    last = answer.words[-1]
    assert answer.heat_map(len(answer.words) - 1) is answer.heat_map(last) is last.heat_map
    assert np.array_equal(answer.heat_map(answer.words[0].text.upper()), answer.words[0].heat_map)
    with pytest.raises(KeyError, match="'nowhere' is none of the words"):
        answer.heat_map("nowhere")
    picture = answer.heat_image(last)
    assert max(picture.size) == 448 and picture.size[0] / picture.size[1] == pytest.approx(
        answer.image.size[0] / answer.image.size[1], rel=0.02
    )
    plain = np.asarray(answer.image.resize(picture.size).convert("L"), float)
    row, column = divmod(int(last.heat_map.argmax()), 2)
    height, width = (side // 2 for side in plain.shape)
    patch = np.s_[row * height + 9 : (row + 1) * height - 9, column * width + 9 : (column + 1) * width - 9]
    shaded = np.asarray(picture.convert("L"), float)
    assert shaded[patch].mean() == pytest.approx(plain[patch].mean(), abs=6) and shaded.mean() < plain.mean()


def test_a_text_that_is_not_the_likeliest_is_explained():
    explanation = Explanation("awe because x", "awe", "x", False, [1], 0)
    probabilities = dict.fromkeys(EMOTIONS, 0.05) | {"fear": 0.6}
    answer = Answer({"text": probabilities}, 1.0, [explanation])
    assert "the text names awe, but fear is the likeliest of the nine names" in answer.distribution_lines()[-1]
    for same in (
        Answer({"text": probabilities | {"awe": 0.7}}, 1.0, [explanation]),
        Answer({"text": probabilities}, 1.0, [Explanation("awe because x", "awe", "x", True, [1], 0)]),
    ):
        assert len(same.distribution_lines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"emotion": "joy"}, "emotion 'joy': give one of amusement"),
        ({"rerank": "likelihood"}, "rerank 'likelihood': .* together with num_samples"),
        ({"rerank": "best", "num_samples": 2}, "give clip or likelihood"),
    ],
)
def test_wrong_arguments(model, images, arguments, message):
    with pytest.raises(InputError, match=message):
        model(next(iter(images.values())), **arguments)


def test_wrong_files(model, run, tmp_path):
    with pytest.raises(InputError, match="gone.jpg: no such image file"):
        model(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no checkpoint 'first' in it; give --name best-acc or best-res"):
        load(run, "first")
    with pytest.raises(InputError, match="gone.txt: no such file; name the lexicon's file"):
        load(run, vad_lexicon=tmp_path / "gone.txt")


def test_a_run_that_was_moved(run, images, tmp_path):
    """Its lexicon is found where it now is; without one the message names the flag."""
    moved = shutil.copytree(run, tmp_path / "moved")
    image = next(iter(images.values()))
    (run / "VAD.txt").rename(run / "away.txt")
    try:
        assert load(moved)(image).text
        (moved / "VAD.txt").unlink()
        with pytest.raises(InputError, match=r"needs a VAD lexicon \(.*VAD.txt does not exist\); name the file"):
            load(moved)
        assert load(moved, vad_lexicon=run / "away.txt")(image).text
    finally:
        (run / "away.txt").rename(run / "VAD.txt")


def test_the_readmes_lines_from_another_folder(run, images, model):
    """A script beside runs/ and an image, with nothing but the repository in PYTHONPATH."""
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from utils.explain import load\n.*?)```", page, re.DOTALL)
    folder = run.parents[1]
    image = next(iter(images.values()))
    shutil.copy(image, folder / "painting.jpg")
    code = f"{lines}\nprint(answer.emotion, '|', answer.explanation)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = model(image)
    assert done.stdout.splitlines()[-1] == f"{expected.emotion} | {expected.explanation}"
