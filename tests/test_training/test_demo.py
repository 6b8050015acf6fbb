"""The demo, trained by README's command: it learns, and neither a constant caption nor shuffled images score as well."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

import artEmisX_train
from cococaption import CaptionScorer
from tests.conftest import REPOSITORY
from utils.data.records import dominant_emotion, read_records
from utils.evaluation.emotion_metrics import emotion_accuracy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder in which the demo was trained, and what it printed."""
    root = tmp_path_factory.mktemp("demo")
    command = ["-m", "accelerate.commands.launch", REPOSITORY / "artEmisX_train.py", "--demo", "--cpu_threads", "1"]
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "runs" / "demo", done.stdout


@pytest.fixture(scope="module")
def records(demo):
    return read_records(demo[0] / "data" / "artEmisX_val.json")


@pytest.fixture(scope="module")
def bleu_4(demo):
    with CaptionScorer(demo[0] / "data" / "annotations" / "artEmisX_val_annot_exp.json", ["bleu"]) as scorer:
        yield lambda captions: scorer.score(captions)[0]["Bleu_4"]


def captions(results, kind: str = "exp", when: str = "4_*") -> dict[int, str]:
    (path,) = results.glob(f"unf_captions_{kind}_{when}_step.json")
    return {line["image_id"]: line["caption"] for line in json.loads(path.read_text())}


def test_it_learns(demo, records):
    (path,) = (demo[0] / "results").glob("scores_exp_4_*_step.json")
    answers = [dominant_emotion(record["origin_emotion_distribution"]) for record in records.values()]
    answers = [answer for answer in answers if answer is not None]
    assert len(answers) >= 100
    assert Counter(answers).most_common(1)[0][1] / len(answers) <= 0.30
    assert json.loads(path.read_text())["sub_acc"] >= 0.80


def test_constant_caption_scores_less_than_half(demo, records, bleu_4):
    """The best of 20 reference explanations, for all images."""
    candidates = [text for record in list(records.values())[:40] for text in record["explanations"][:2]]
    best = max(bleu_4({int(image_id): text for image_id in records}) for text in candidates[:20])
    assert best < 0.5 * bleu_4(captions(demo[0] / "results"))


def test_shuffled_images_score_less(demo, records, tmp_path, bleu_4, monkeypatch):
    """The same checkpoint on records whose images are exchanged."""
    names = [record["image_name"] for record in records.values()]
    shuffled = {
        image_id: record | {"image_name": names[(row + len(names) // 2) % len(names)]}
        for row, (image_id, record) in enumerate(records.items())
    }
    (tmp_path / "artEmisX_val.json").write_text(json.dumps(shuffled))
    monkeypatch.chdir(demo[0].parent.parent)
    files = ["--nle_data_val_path", str(tmp_path / "artEmisX_val.json"), "--caption_save_path", str(tmp_path)]
    assert artEmisX_train.main(["--demo", "--eval_only", "--metrics", "bleu", *files]) == 0
    accuracy, _ = emotion_accuracy(captions(tmp_path, "full", "best-res_0"), records)
    assert accuracy < 0.30
    assert bleu_4(captions(tmp_path, when="best-res_0")) < 0.7 * bleu_4(captions(demo[0] / "results"))


def test_output(demo):
    """A table of scores per epoch, three examples, and four folders."""
    folder, output = demo
    table = output[output.index("epoch   step") :]
    assert "scores in percent" in output and len(re.findall(r"^ +\d+ +\d+ +\d+\.\d ", table, re.MULTILINE)) == 5
    assert table.count("generated: the emotion is") == 3
    assert {path.name for path in folder.iterdir()} == {"data", "ckpts", "results", "cache"}
