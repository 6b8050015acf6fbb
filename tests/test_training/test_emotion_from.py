"""What decides on a caption's emotion, from the training to utils.explain; the label loss in a real run."""

import json
from pathlib import Path

import numpy as np
import pytest

import artEmisX_train
from tests.conftest import logged_losses
from tests.test_training.test_share import scored
from utils import explain, share
from utils.command_line import parse_args
from utils.constants import EMOTIONS
from utils.data.datasets import PairCollator
from utils.data.records import read_records
from utils.errors import InputError
from utils.training import run as training_run

PARTS = ("--use_label_loss", "--label_loss_weight", "2", "--use_emotion_loss", "--emotion_pooling", "prototypes")


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    flags = ("--num_train_epochs", "2", "--no-fixed_encoder", "--learning_rate", "0.01", "--en_LR", "0.01")
    more = ("--emotion_from", "likelihood", "--log_steps", "1", "--seed", "3")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_run, "PairCollator", lambda *args: made.append(args) or PairCollator(*args))
        assert artEmisX_train.main(workspace.argv(out, *flags, *PARTS, *more)) == 0
    assert [args[-1] for args in made] == [3]  # bos, the, emotion, is: the last of them predicts the emotion
    return out


def read(folder: Path, kind: str) -> dict[int, object]:
    (path,) = folder.glob(f"{kind}_*_step.json")
    return {row["image_id"]: row.get("caption", row.get("probabilities")) for row in json.loads(path.read_text())}


def score(workspace, trained: Path, out: Path, *flags: str) -> Path:
    argv = ("--eval_only", "--load_from_epoch", "best-acc", "--ckpt_path", str(trained / "ckpts"), *flags)
    assert artEmisX_train.main(workspace.argv(out, *argv)) == 0
    return out / "results"


@pytest.mark.slow
def test_the_losses_of_the_run(trained):
    for line in logged_losses(trained):
        terms = [line[name] for name in ("lm_loss", "contrastive_loss", "vad_loss", "emotion_loss", "label_loss")]
        assert line["loss"] == pytest.approx(sum(np.array([1, 1, 1, 1, 2]) * terms), rel=1e-5) and terms[-1] > 0


@pytest.mark.slow
def test_captions_and_scores_follow(workspace, trained, tmp_path):
    """The checkpoint's record says likelihood; head and text are asked for."""
    records = read_records(workspace.data / "artEmisX_val.json")
    captions, reports = {}, {}
    for way, flags in (("likelihood", ()), ("head", ("--emotion_from", "head")), ("text", ("--emotion_from", "text"))):
        folder = score(workspace, trained, tmp_path / way, *flags)
        captions[way], reports[way] = (
            read(folder, "unf_captions_full"),
            json.loads((folder / "report.json").read_text()),
        )
        distributions = {name: read(folder, f"emotion_{name}") for name in ("likelihood", "head")}
        assert reports[way]["emotion_from"] == way
        if way != "text":
            chosen = {image: EMOTIONS[int(np.argmax(row))] for image, row in distributions[way].items()}
            assert {image: text.split(" because")[0] for image, text in captions[way].items()} == chosen
            right = [
                chosen[int(image)] == EMOTIONS[int(np.argmax(record["origin_emotion_distribution"]))]
                for image, record in records.items()
                if max(record["origin_emotion_distribution"]) > 0.5
            ]
            assert reports[way]["scores"]["sub_acc"] == np.mean(right) == reports[way]["scores"][f"{way}_acc"]
    assert "text_acc" not in reports["text"]["scores"]
    for way in ("likelihood", "head"):
        assert reports[way]["scores"]["text_acc"] == reports["text"]["scores"]["sub_acc"]
        for score_name in ("head_acc", "head_KL", "head_ece", "likelihood_acc", "likelihood_KL", "likelihood_ece"):
            assert reports[way]["scores"][score_name] == reports["text"]["scores"][score_name]


@pytest.mark.slow
def test_explain_chooses_as_the_evaluation_did(workspace, trained, tmp_path):
    folder = score(workspace, trained, tmp_path)
    captions = read(folder, "unf_captions_full")
    images = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    records = read_records(workspace.data / "artEmisX_val.json")
    paths = {int(image): images / record["image_name"] for image, record in records.items()}
    argv = [*map(str, paths.values()), "--ckpt", str(trained / "ckpts"), "--name", "best-acc"]
    page, out = tmp_path / "heat.html", tmp_path / "answers.json"
    assert explain.main([*argv, "--json", str(out), "--heat", str(page)]) == 0
    answers = json.loads(out.read_text())
    assert [answer["explanations"][0]["text"] for answer in answers] == [captions[image] for image in paths]
    for answer in answers:
        assert answer["explanations"][0]["emotion"] == max(answer["distribution"], key=answer["distribution"].get)
        assert not answer["explanations"][0]["given"]
    html = page.read_text()
    assert html.count("where the emotion head&#39;s prototypes look") == len(paths)
    emotion = answers[0]["explanations"][0]["emotion"]
    assert explain.main([*argv, "--json", str(out), "--emotion", emotion]) == 0
    given = json.loads(out.read_text())[0]["explanations"][0]
    assert (given["text"], given["given"]) == (answers[0]["explanations"][0]["text"], True)


@pytest.mark.slow
def test_explain_writes_each_image_for_its_own_emotion(workspace, trained, tmp_path, monkeypatch):
    paths = sorted((workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio").rglob("*.jpg"))[:6]
    argv = [*map(str, paths), "--ckpt", str(trained / "ckpts"), "--name", "best-acc", "--json"]
    assert explain.main([*argv, str(tmp_path / "all.json"), "--emotion", "all"]) == 0
    for_all = [
        {text["emotion"]: text["text"] for text in answer["explanations"]}
        for answer in json.loads((tmp_path / "all.json").read_text())
    ]
    chosen = [EMOTIONS[place % 3] for place in range(len(paths))]
    assert any(for_all[place][emotion] != for_all[place % 3][emotion] for place, emotion in enumerate(chosen))
    monkeypatch.setattr("utils.visualize.explainer.most_probable", lambda distributions: chosen)
    assert explain.main([*argv, str(tmp_path / "own.json")]) == 0
    texts = [answer["explanations"][0]["text"] for answer in json.loads((tmp_path / "own.json").read_text())]
    assert texts == [for_all[place][emotion] for place, emotion in enumerate(chosen)]


@pytest.mark.slow
def test_a_shared_folder_keeps_it(workspace, trained, tmp_path):
    share.main([str(trained / "ckpts"), str(tmp_path / "shared"), "--name", "best-acc"])
    scored(workspace, tmp_path / "shared", tmp_path / "again")
    captions = read(score(workspace, trained, tmp_path / "own"), "unf_captions_full")
    assert read(tmp_path / "again" / "results", "unf_captions_full") == captions


def test_flags_that_do_not_go_together():
    with pytest.raises(InputError, match="--emotion_from head"):
        parse_args(["--emotion_from", "head"])
    with pytest.raises(InputError, match="--emotion_pooling"):
        parse_args(["--emotion_pooling", "mean"])
    assert parse_args(["--alpha", "0", "--no-use_cl_loss", "--no-use_VAD_loss", "--use_label_loss"]).use_label_loss
    with pytest.raises(InputError, match="nothing to learn"):
        parse_args(["--alpha", "0", "--no-use_cl_loss", "--no-use_VAD_loss"])
