"""--report_to: what reaches TensorBoard is every point of the log once, also after a resumption."""

import json
import sys

import pytest
from accelerate import Accelerator

import artEmisX_train
from utils import command_line, opts
from utils.command_line import parse_args
from utils.errors import InputError
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


@pytest.mark.slow
def test_every_loss_rate_and_score_under_its_own_name(whole):
    scalars, samples = curves(whole)
    terms = ("loss", "lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")
    scores = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "sub_acc", "macro_F1", "weighted_F1", "head_acc", "head_ece")
    names = {f"train/{name}" for name in terms} | {f"scores/{name}" for name in scores}
    assert set(scalars) == names | {"learning_rate/decoder", "learning_rate/vad_encoder"}
    history = read_log(whole / "results" / "log.jsonl")
    vad_losses = [(point["updates"], pytest.approx(point["vad_loss"])) for point in history.losses]
    assert scalars["train/vad_loss"] == vad_losses
    assert scalars["learning_rate/decoder"] == [(k, pytest.approx(1e-3 * (1 - (k - 1) / 12))) for k in range(1, 13)]
    assert [step for step, _ in scalars["scores/Bleu_4"]] == [6, 12] == [step for step, _ in samples]
    captions = json.loads((whole / "results" / "unf_captions_exp_1_5_step.json").read_text())[:3]
    assert samples[-1][1] == "\n\n".join(f"{line['image_name']}: {line['caption']}" for line in captions)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in an evaluation, once it is logged", "in an epoch, and did not report"])
def test_a_resumed_run_has_no_point_twice_and_lacks_none(whole, workspace, tmp_path, monkeypatch, place):
    """After an error that nothing catches, as good as a kill: nothing is saved or tidied."""
    between, in_epoch = artEmisX_train.between_updates, place.startswith("in an epoch")

    def killed(*_):
        raise MemoryError

    def until_the_ninth(run, steps):
        between(run, steps) if run.progress.updates < 9 else killed()

    with monkeypatch.context() as patch:
        patch.setattr(artEmisX_train, *("between_updates", until_the_ninth) if in_epoch else ("save_best", killed))
        with pytest.raises(MemoryError):
            artEmisX_train.main(workspace.argv(tmp_path, *(REPORTED[2:] if in_epoch else REPORTED)))
    last = read_log(tmp_path / "results" / "log.jsonl")
    assert (last.losses[-1]["updates"], last.scores[-1]["updates"]) == ((9, 6) if in_epoch else (6, 6))
    assert (tmp_path / "results" / "tensorboard").exists() != in_epoch
    assert artEmisX_train.main(workspace.argv(tmp_path, *REPORTED, "--resume")) == 0
    assert curves(tmp_path) == curves(whole)


def test_a_tracker_whose_package_is_not_installed(monkeypatch, tmp_path):
    (tmp_path / "absent").mkdir()  # a folder of that name is no package
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for module in (opts, command_line):
        monkeypatch.setattr(module, "TRACKERS", ("tensorboard", "absent"))
    with pytest.raises(InputError, match="--report_to absent: its package is not installed: pip install absent"):
        parse_args(["--report_to", "tensorboard", "absent"])


def test_a_tracker_that_does_not_start(workspace, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("no API key\nconfigured")

    monkeypatch.setattr(Accelerator, "init_trackers", refuse)
    with pytest.raises(InputError, match=r"--report_to tensorboard: does not start \(no API key configured\)"):
        artEmisX_train.main(workspace.argv(tmp_path, *REPORTED))


def point(kind: str, epoch: int, step: int, value: float) -> dict:
    return {kind: {"epoch": epoch, "step": step, "updates": epoch * 3 + step + 1, "value": value}}


def start(seed: int = 1, **more: object) -> dict:
    return {"start": {"flags": {"seed": seed}} | more}


RUN = [
    start(resumed=None),
    *(point("losses", epoch, step, 1.0) for epoch in (0, 1) for step in range(3)),
    *(point("scores", epoch, 2, score) for epoch, score in enumerate((0.1, 0.2))),
    {"end": {"best_res_at": [1, 2]}},
]


@pytest.mark.parametrize(
    ("further", "losses", "scores"),
    [
        ([], [1.0] * 6, [0.1, 0.2]),
        ([start(resumed="00001-00000001"), point("losses", 1, 1, 2.0)], [1.0] * 4 + [2.0], [0.1]),
        # its last evaluation was due, and is made again
        ([start(resumed="00001-00000003"), point("scores", 1, 2, 0.3)], [1.0] * 6, [0.1, 0.3]),
        ([start(continued={"from": "best-res", "epoch": 1})], [1.0] * 3, [0.1]),
        ([start(seed=2)], [], []),
    ],
    ids=["whole", "resumed", "resumed at an evaluation", "continued", "started again"],
)
def test_a_log_is_read_without_what_was_discarded(tmp_path, further, losses, scores):
    log = RunLog(tmp_path)
    for entries in (RUN, further):
        for entry in entries:
            log.write(*next(iter(entry.items())))
        with open(log.path, "ab") as file:
            file.write(b'{"losses": {"epoch": 0, "st')  # cut short by a kill
    history = read_log(log.path)
    assert [point["value"] for point in history.losses] == losses
    assert [point["value"] for point in history.scores] == scores
    assert [point["updates"] for point in history.losses] == list(range(1, len(losses) + 1))
    assert history.flags == {"seed": 1 if losses else 2}
    assert history.end == (None if further else {"best_res_at": [1, 2]})


@pytest.mark.parametrize("content", ["", "[1]\n", '{"start": {}}\n{"losses": {"epoch": 0, "step": 0, "loss": 1.0}}\n'])
def test_no_log(tmp_path, content):
    (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(InputError, match="name the folder of a training run"):
        read_log(tmp_path / "log.jsonl")
