"""The demo, trained by README's command: it learns, and neither a constant caption nor shuffled images score as well."""

import json
import re
import shutil
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
def folder(demo):
    return demo[0]


@pytest.fixture(scope="module")
def records(folder):
    return read_records(folder / "data" / "artEmisX_val.json")


@pytest.fixture(scope="module")
def bleu_4(folder):
    with CaptionScorer(folder / "data" / "annotations" / "artEmisX_val_annot_exp.json", ["bleu"]) as scorer:
        yield lambda captions: scorer.score(captions)[0]["Bleu_4"]


def newest(folder, kind):
    return max(folder.glob(f"results/{kind}_*_step.json"), key=lambda path: int(path.name.split("_")[-3]))


def captions(folder, kind):
    return {
        line["image_id"]: line["caption"] for line in json.loads(newest(folder, f"unf_captions_{kind}").read_text())
    }


def test_it_learns(folder, records):
    scores = json.loads(newest(folder, "scores_exp").read_text())
    answers = [dominant_emotion(record["origin_emotion_distribution"]) for record in records.values()]
    answers = [answer for answer in answers if answer is not None]
    assert len(answers) >= 100
    assert Counter(answers).most_common(1)[0][1] / len(answers) <= 0.30
    assert scores["sub_acc"] >= 0.80


def test_constant_caption_scores_less_than_half(folder, records, bleu_4):
    """The best of 20 reference explanations, for all images."""
    model_bleu_4 = bleu_4(captions(folder, "exp"))
    candidates = [text for record in list(records.values())[:40] for text in record["explanations"][:2]]
    best = max(bleu_4({int(image_id): text for image_id in records}) for text in candidates[:20])
    assert best < 0.5 * model_bleu_4


def test_shuffled_images_score_less(folder, records, tmp_path, bleu_4):
    """The same checkpoint on records whose images are exchanged."""
    names = [record["image_name"] for record in records.values()]
    shuffled = {
        image_id: record | {"image_name": names[(row + len(names) // 2) % len(names)]}
        for row, (image_id, record) in enumerate(records.items())
    }
    shutil.copytree(folder / "ckpts", tmp_path / "ckpts", ignore=shutil.ignore_patterns("resume"))
    (tmp_path / "artEmisX_val.json").write_text(json.dumps(shuffled))
    flags = ["--nle_data_val_path", tmp_path / "artEmisX_val.json", "--ckpt_path", tmp_path / "ckpts"]
    flags += ["--caption_save_path", tmp_path / "results", "--cache_dir", tmp_path / "cache", "--metrics", "bleu"]
    flags += ["--image_root", folder / "data" / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"]
    flags += ["--vad_lexicon", folder / "data" / "demo-VAD-Lexicon.txt"]
    flags += ["--annFileExp", folder / "data" / "annotations" / "artEmisX_val_annot_exp.json"]
    flags += ["--nle_data_train_path", folder / "data" / "artEmisX_cl_train.json"]
    argv = ["--demo", "--eval_only", "--load_from_epoch", "best-res", *map(str, flags)]
    assert artEmisX_train.main(argv) == 0
    full = {
        line["image_id"]: line["caption"]
        for line in json.loads((tmp_path / "results" / "unf_captions_full_best-res_0_step.json").read_text())
    }
    accuracy, _ = emotion_accuracy(full, records)
    explanations = json.loads((tmp_path / "results" / "unf_captions_exp_best-res_0_step.json").read_text())
    assert accuracy < 0.30
    assert bleu_4({line["image_id"]: line["caption"] for line in explanations}) < 0.7 * bleu_4(captions(folder, "exp"))


def test_output(demo):
    """A table of scores per epoch, three examples, and four folders."""
    folder, output = demo
    table = output[output.index("epoch   step") :]
    assert "scores in percent" in output and len(re.findall(r"^ +\d+ +\d+ +\d+\.\d ", table, re.MULTILINE)) == 5
    assert table.count("generated: the emotion is") == 3
    assert {path.name for path in folder.iterdir()} == {"data", "ckpts", "results", "cache"}
