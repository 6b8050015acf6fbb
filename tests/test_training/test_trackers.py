"""--report_to: what reaches TensorBoard is every point of the log once, also after a resumption."""

import json
import sys

import pytest
from accelerate import Accelerator

import artEmisX_train
from utils import command_line, opts
from utils.command_line import parse_args
from utils.errors import InputError
from utils.training import run as training_run
from utils.training.run_log import RunLog, read_log

REPORTED = ("--report_to", "tensorboard", "--log_steps", "1", "--use_emotion_loss")


def curves(out):
    """What TensorBoard shows: tag -> [(updates, value)], and the sample captions as [(updates, text)]."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    seen = EventAccumulator(str(out / "results" / "tensorboard" / "sevlm"), size_guidance={"tensors": 0})
    seen.Reload()
    points = {
        tag: [(event.step, make_ndarray(event.tensor_proto).item()) for event in seen.Tensors(tag)]
        for tag in seen.Tags()["tensors"]
    }
    samples = [(step, text.decode()) for step, text in points.pop("sample captions/text_summary")]
    return points, samples


@pytest.fixture(scope="module")
def whole(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert artEmisX_train.main(workspace.argv(out, *REPORTED)) == 0
    return out


def test_every_loss_rate_and_score_under_its_own_name(whole):
    scalars, samples = curves(whole)
    terms = ("loss", "lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")
    scores = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "sub_acc", "head_acc", "head_ece")
    assert set(scalars) == (
        {f"train/{name}" for name in terms}
        | {f"scores/{name}" for name in scores}
        | {"learning_rate/decoder", "learning_rate/vad_encoder"}
    )
    history = read_log(whole / "results" / "log.jsonl")
    assert scalars["train/vad_loss"] == [
        (point["updates"], pytest.approx(point["vad_loss"])) for point in history.losses
    ]
    assert [step for step, _ in scalars["train/loss"]] == list(range(1, 13))
    assert scalars["learning_rate/decoder"] == [(k, pytest.approx(1e-3 * (1 - (k - 1) / 12))) for k in range(1, 13)]
    assert [step for step, _ in scalars["scores/Bleu_4"]] == [6, 12] == [step for step, _ in samples]
    captions = json.loads((whole / "results" / "unf_captions_exp_1_5_step.json").read_text())[:3]
    assert samples[-1][1] == "\n\n".join(f"{line['image_name']}: {line['caption']}" for line in captions)


class Killed(Exception):
    """As good as a kill: nothing is saved or tidied."""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in an epoch", "in an evaluation, once it is logged"])
def test_a_resumed_run_has_no_point_twice_and_lacks_none(whole, workspace, tmp_path, monkeypatch, place):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        if place == "in an epoch":
            between = artEmisX_train.between_updates
            patch.setattr(
                artEmisX_train,
                "between_updates",
                lambda run, n: between(run, n) if run.progress.updates < 9 else killed(),
            )
        else:
            patch.setattr(artEmisX_train, "save_best", killed)
        with pytest.raises(Killed):
            artEmisX_train.main(workspace.argv(tmp_path, *REPORTED))
    last = read_log(tmp_path / "results" / "log.jsonl")
    assert (last.losses[-1]["updates"], last.scores[-1]["updates"]) == ((9, 6) if place == "in an epoch" else (6, 6))
    assert artEmisX_train.main(workspace.argv(tmp_path, *REPORTED, "--resume")) == 0
    assert curves(tmp_path) == curves(whole)


@pytest.mark.slow
def test_a_resumed_run_may_begin_to_report(whole, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "UPDATES_BETWEEN_AGREEMENTS", 1)
    silent = [flag for flag in REPORTED if flag not in ("--report_to", "tensorboard")]
    between = artEmisX_train.between_updates

    def stop(run, steps):
        run.signals.stop = 15 if run.progress.updates == 8 else None
        between(run, steps)

    with monkeypatch.context() as patch:
        patch.setattr(artEmisX_train, "between_updates", stop)
        with pytest.raises(SystemExit):
            artEmisX_train.main(workspace.argv(tmp_path, *silent))
    assert not (tmp_path / "results" / "tensorboard").exists()
    assert artEmisX_train.main(workspace.argv(tmp_path, *REPORTED, "--resume")) == 0
    assert curves(tmp_path) == curves(whole)


def test_wrong_trackers(monkeypatch, tmp_path):
    (tmp_path / "absent").mkdir()  # a folder of that name is no package
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in (opts, command_line):
        monkeypatch.setattr(module, "TRACKERS", ("tensorboard", "absent"))
    with pytest.raises(InputError, match="--report_to absent: its package is not installed: pip install absent"):
        parse_args(["--report_to", "tensorboard", "absent"])
    monkeypatch.undo()
    with pytest.raises(InputError, match="invalid choice: 'visdom'"):
        parse_args(["--report_to", "visdom"])
    with pytest.raises(InputError, match="--report_to none and others"):
        parse_args(["--report_to", "none", "tensorboard"])
    with pytest.raises(InputError, match="not with --eval_only"):
        parse_args("--report_to tensorboard --eval_only --load_from_epoch best-res".split())


def test_a_tracker_that_does_not_start(workspace, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("no API key\nconfigured")

    monkeypatch.setattr(Accelerator, "init_trackers", refuse)
    with pytest.raises(InputError, match=r"--report_to tensorboard: does not start \(no API key configured\)"):
        artEmisX_train.main(workspace.argv(tmp_path, *REPORTED))


# ---- the log ---------------------------------------------------------------------------------------------------------


def point(epoch: int, step: int, **values: float) -> dict:
    return {"epoch": epoch, "step": step, "updates": epoch * 3 + step + 1} | values


def history(folder, *entries: dict):
    log = RunLog(folder)
    for entry in entries:
        (kind, content), *beside = entry.items()
        log.write(kind, content, **dict(beside))
    return read_log(log.path)


def test_a_log_is_read_without_what_was_discarded(tmp_path):
    first = [{"losses": point(epoch, step, loss=1.0)} for epoch in range(2) for step in range(3)]
    scores = [{"scores": point(0, 2, sub_acc=0.1)}, {"scores": point(1, 2, sub_acc=0.2)}]
    run = [{"start": {"flags": {"seed": 1}, "resumed": None}}, *first[:3], scores[0], *first[3:], scores[1]]

    def places(points):
        return [(point["epoch"], point["step"]) for point in points]

    log = history(tmp_path / "whole", *run)
    assert len(log.losses) == 6 and len(log.scores) == 2 and log.flags == {"seed": 1}
    log = history(
        tmp_path / "resumed", *run, {"start": {"resumed": "00001-00000001"}}, {"losses": point(1, 1, loss=2.0)}
    )
    assert places(log.losses) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)] and log.losses[-1]["loss"] == 2.0
    assert places(log.scores) == [(0, 2)]
    log = history(
        tmp_path / "due", *run, {"start": {"resumed": "00001-00000003"}}, {"scores": point(1, 2, sub_acc=0.3)}
    )
    assert len(log.losses) == 6 and [scores["sub_acc"] for scores in log.scores] == [0.1, 0.3]
    log = history(tmp_path / "continued", *run, {"start": {"continued": {"from": "best-res", "epoch": 1}}})
    assert places(log.losses) == [(0, 0), (0, 1), (0, 2)] and places(log.scores) == [(0, 2)]
    log = history(tmp_path / "restarted", *run, {"start": {"flags": {"seed": 2}}})
    assert log.losses == log.scores == [] and log.flags == {"seed": 2}


def test_a_line_cut_short_is_skipped(tmp_path):
    log = RunLog(tmp_path)
    log.write("start", {})
    with open(log.path, "ab") as file:
        file.write(b'{"losses": {"epoch": 0, "st')
    log.write("losses", point(0, 0, loss=1.0))
    assert len(read_log(log.path).losses) == 1


@pytest.mark.parametrize(
    "content", ["", "[1]\n", '{"start": {}}\n{"losses": {"epoch": 0, "step": 0, "loss": 1.0}}\n', '{"losses": [1]}\n']
)
def test_no_log(tmp_path, content):
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(InputError, match="name the folder of a training run"):
        read_log(tmp_path / "log.jsonl")
