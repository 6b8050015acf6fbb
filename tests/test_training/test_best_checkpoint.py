"""What scores decide: which checkpoint is the best, when training stops, and what a continued run knows of them."""

import json

import pytest
import torch

import artEmisX_train
from tests.conftest import logged_losses
from tests.test_training.recording import recording
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.evaluator import Evaluator

pytestmark = pytest.mark.slow

SAME = (0.5, 0.5)


@pytest.fixture
def train(workspace, tmp_path, monkeypatch):
    """A run whose evaluations give these pairs of accuracy and BLEU-4; returns the folder of its checkpoints."""

    def run(scores: list[tuple[float, float]], *flags: str, deciding: str = "Bleu_4"):
        left = iter(scores)

        def evaluation(*_) -> Evaluation:
            accuracy, result = next(left)
            # BLEU-1 and the others move the other way and decide nothing
            values = {"Bleu_1": 1 - result, "Bleu_2": 0.5, "Bleu_3": 0.5, deciding: result, "sub_acc": accuracy}
            return Evaluation({}, {}, values, {"images": 0, "with_majority": 0})

        monkeypatch.setattr(Evaluator, "__call__", evaluation)
        more = ("--learning_rate", "0", "--batch_size", "45")
        assert artEmisX_train.main([*workspace.argv(tmp_path, *more), *flags]) == 0
        assert not list(left), "fewer evaluations were made than there are scores"
        return tmp_path / "ckpts"

    return run


def stats(folder, name: str) -> dict:
    return torch.load(folder / f"ckpt_stats_{name}.tar", weights_only=True)


def evaluated(folder) -> list[str]:
    """epoch_step of every evaluation whose scores were written."""
    names = sorted(path.name for path in (folder / "results").glob("scores_exp_*.json"))
    return [name.removeprefix("scores_exp_").removesuffix("_step.json") for name in names]


AT_END = (15, 4, 1), ["1_0", "1_2"], [(0, 0, 1), (0, 2, 3), (1, 0, 4), (1, 2, 6)]  # although none is due there
# one that falls due between two updates follows the second; one that is due at the end is made once
WINDOWS = (8, 3, 2), ["0_3", "0_5", "1_3", "1_5"], [(0, 1, 1), (0, 3, 2), (0, 5, 3), (1, 1, 4), (1, 3, 5), (1, 5, 6)]


@pytest.mark.parametrize(("numbers", "evaluations", "losses"), [AT_END, WINDOWS])
def test_evaluations_and_logged_losses_of_two_epochs(train, tmp_path, numbers, evaluations, losses):
    """--log_steps 2: losses of the first step and of every second one."""
    flags = "--batch_size {} --eval_steps {} --gradient_accumulation_steps {} --log_steps 2".format(*numbers)
    train([SAME] * len(evaluations), *flags.split())
    assert evaluated(tmp_path) == evaluations
    assert [(line["epoch"], line["step"], line["updates"]) for line in logged_losses(tmp_path)] == losses


def test_stopped_where_an_evaluation_is_due(train, tmp_path, monkeypatch):
    """The resumed run makes the evaluation first."""
    between_updates = artEmisX_train.between_updates

    def stop_at_second(run, steps):
        if run.progress.step == 2:
            run.signals.stop = 15
        between_updates(run, steps)

    flags = ("--eval_steps", "2", "--batch_size", "15", "--num_train_epochs", "1")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(artEmisX_train, "between_updates", stop_at_second)
        train([], *flags)
    train([SAME, SAME], "--resume", *flags)
    assert evaluated(tmp_path) == ["0_1", "0_2"]


def test_stop_after_evaluations_without_improvement(train, capsys):
    """--stop_after_evals 2: the third in a row is the last. It is an improvement if one score exceeds its best, whatever
    the other does; it is none if a score only equals its best. Resuming does not undo the stop."""
    better_accuracy, better_bleu = (0.6, 0.4), (0.4, 0.6)
    scores = [SAME, SAME, SAME, better_accuracy, SAME, better_bleu, (0.1, 0.1), (0.6, 0.5), (0.5, 0.6)]
    flags = ("--stop_after_evals", "2", "--num_train_epochs", "7", "--eval_steps", "1", "--batch_size", "23")
    for made, more in ((scores, ()), (scores[-1:], ("--resume",))):  # the state is of before the last evaluation
        train(made, *flags, *more)
        assert "stopped early: 3 evaluations in a row" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("accuracies", "metrics", "deciding"),
    [([0.5, 0.1, 0.1, 0.2], "rouge bleu", "Bleu_4"), ([0.0, 0.1, 0.6, 0.6], "rouge cider", "CIDEr")],
)
def test_best_checkpoints_are_of_the_best_step(train, tmp_path, capsys, accuracies, metrics, deciding):
    """Of several evaluations in an epoch, each checkpoint is of its own best; one that only equals it replaces nothing."""
    results = [0.0, 0.3, 0.2, 0.3]
    flags = ("--eval_steps", "2", "--batch_size", "6", "--num_train_epochs", "1", "--metrics", *metrics.split())
    folder = train(list(zip(accuracies, results, strict=True)), *flags, deciding=deciding)
    best = accuracies.index(max(accuracies))
    for name, place in (("best-acc", best), ("best-res", 1)):
        found = stats(folder, name)
        assert (found["epoch"], found["progress"]["step"]) == (0, 2 * place + 2)
        assert (found["best_acc"], found["best_res"]) == (max(accuracies[: place + 1]), max(results[: place + 1]))
    lines = [json.loads(line) for line in (tmp_path / "results" / "log.jsonl").read_text().splitlines()]
    assert [line["end"] for line in lines if "end" in line] == [{"epoch": 0, "step": 3}]
    printed = capsys.readouterr().out
    assert "best-res is of epoch 0: ACC" in printed and "unf_captions_full_0_3_step.json" in printed
    assert f"best-res the best {deciding}" in printed


def test_a_continued_run_goes_on_with_schedule_and_best_scores(train, monkeypatch):
    """The rate of update k is lr (1 - k / updates), where k continues, also where the optimiser's state does not fit the
    parameters. Scores worse than the best so far, though they are the first of this run, replace no checkpoint."""
    flags = ("--emo_en_LR", "1e-3", "--batch_size", "15", "--num_train_epochs", "3")
    flags += ("--gradient_accumulation_steps", "2")  # 3 steps and 2 updates an epoch
    train([(0.5, 0.6), (0.4, 0.4), (0.3, 0.3)], *flags)
    with recording(monkeypatch) as made:
        folder = train([(0.45, 0.55)] * 2, *flags, "--load_from_epoch", "best-acc", "--no-use_VAD_loss")
    assert made.rates(0) == pytest.approx([1e-3 * (1 - k / 6) for k in range(2, 6)], rel=1e-9)
    for name in ("best-acc", "best-res"):
        found = stats(folder, name)
        assert (found["epoch"], found["best_acc"], found["best_res"]) == (0, 0.5, 0.6)
