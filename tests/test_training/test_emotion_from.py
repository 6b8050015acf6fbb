"""What decides on a caption's emotion, from the training to utils.explain."""

import json
from pathlib import Path

import numpy as np
import pytest

import artEmisX_train
from utils import explain
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import read_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    parts = ("--use_label_loss", "--use_emotion_loss", "--emotion_pooling", "prototypes", "--no-fixed_encoder")
    more = ("--learning_rate", "0.01", "--en_LR", "0.01", "--emotion_from", "likelihood", "--seed", "3")
    assert artEmisX_train.main(workspace.argv(out, *parts, *more)) == 0
    return out / "ckpts"


def read(folder: Path, kind: str) -> dict[int, object]:
    (path,) = folder.glob(f"{kind}_*_step.json")
    return {row["image_id"]: row.get("caption", row.get("probabilities")) for row in json.loads(path.read_text())}


def score(workspace, trained: Path, out: Path, *flags: str) -> Path:
    argv = ("--eval_only", "--load_from_epoch", "best-acc", "--ckpt_path", str(trained), *flags)
    assert artEmisX_train.main(workspace.argv(out, *argv)) == 0
    return out / "results"


@pytest.fixture(scope="module")
def by_likelihood(workspace, trained, tmp_path_factory) -> Path:
    """Results of the checkpoint's own way."""
    return score(workspace, trained, tmp_path_factory.mktemp("likelihood"))


def test_captions_and_scores_follow(workspace, trained, by_likelihood, tmp_path):
    """The checkpoint's record says likelihood; head and text are asked for."""
    records = read_records(workspace.data / "artEmisX_val.json")
    folders = {"likelihood": by_likelihood}
    folders |= {way: score(workspace, trained, tmp_path / way, "--emotion_from", way) for way in ("head", "text")}
    reports = {way: json.loads((folder / "report.json").read_text()) for way, folder in folders.items()}
    scores = {way: report["scores"] for way, report in reports.items()}
    assert all(report["emotion_from"] == way for way, report in reports.items())
    for way in ("likelihood", "head"):
        captions, distributions = read(folders[way], "unf_captions_full"), read(folders[way], f"emotion_{way}")
        chosen = {image: EMOTIONS[int(np.argmax(row))] for image, row in distributions.items()}
        assert {image: text.split(" because")[0] for image, text in captions.items()} == chosen
        right = [
            chosen[int(image)] == EMOTIONS[int(np.argmax(record["origin_emotion_distribution"]))]
            for image, record in records.items()
            if max(record["origin_emotion_distribution"]) > 0.5
        ]
        assert scores[way]["sub_acc"] == np.mean(right) == scores[way][f"{way}_acc"]
        assert scores[way]["text_acc"] == scores["text"]["sub_acc"]
        for name in ("head_acc", "head_KL", "head_ece", "likelihood_acc", "likelihood_KL", "likelihood_ece"):
            assert scores[way][name] == scores["text"][name]
    assert "text_acc" not in scores["text"]


def test_explain_chooses_as_the_evaluation_did(workspace, trained, by_likelihood, tmp_path):
    captions = read(by_likelihood, "unf_captions_full")
    records = read_records(workspace.data / "artEmisX_val.json")
    paths = {int(image): workspace.data / IMAGE_FOLDERS[0] / record["image_name"] for image, record in records.items()}
    argv = [*map(str, paths.values()), "--ckpt", str(trained), "--name", "best-acc"]
    page, out = tmp_path / "heat.html", tmp_path / "answers.json"
    assert explain.main([*argv, "--json", str(out), "--heat", str(page)]) == 0
    answers = json.loads(out.read_text())
    assert [answer["explanations"][0]["text"] for answer in answers] == [captions[image] for image in paths]
    for answer in answers:
        assert answer["explanations"][0]["emotion"] == max(answer["likelihood"], key=answer["likelihood"].get)
        assert not answer["explanations"][0]["given"]
    html = page.read_text()
    assert html.count("where the emotion head&#39;s prototypes look") == len(paths)
