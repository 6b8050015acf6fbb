"""What scores decide: which checkpoint is the best, when training stops, and what a continued run knows of them."""

import pytest
import torch

import artEmisX_train
from tests.conftest import logged_losses
from tests.test_training.recording import recording
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.evaluator import Evaluator, deciding_score
from utils.training.resume import load_state, save_state, state_folders

pytestmark = pytest.mark.slow


@pytest.fixture
def train(workspace, tmp_path, monkeypatch):
    """A run whose evaluations give these pairs of accuracy and BLEU-4, one an epoch; returns the folder of its checkpoints."""

    def run(scores: list[tuple[float, float]], *flags: str):
        left = iter(scores)

        def evaluation(*_) -> Evaluation:
            accuracy, bleu = next(left)
            # BLEU-1 and the others move the other way and decide nothing
            values = {"Bleu_1": 1 - bleu, "Bleu_2": 0.5, "Bleu_3": 0.5, "Bleu_4": bleu, "sub_acc": accuracy}
            return Evaluation({}, {}, values, {"images": 0, "with_majority": 0})

        monkeypatch.setattr(Evaluator, "__call__", evaluation)
        more = ("--learning_rate", "0", "--batch_size", "45", "--eval_steps", "0")
        assert artEmisX_train.main(workspace.argv(tmp_path, *more, *flags)) == 0
        assert not list(left), "fewer evaluations were made than there are scores"
        return tmp_path / "ckpts"

    return run


def stats(folder, name: str) -> dict:
    return torch.load(folder / f"ckpt_stats_{name}.tar", weights_only=True)


# ---- early stop and best checkpoints ---------------------------------------------------------------------------------

SAME = (0.5, 0.5)


def test_stop_after_evaluations_without_improvement(train, capsys):
    """--stop_after_evals 2: the third in a row is the last. It is an improvement if one score exceeds its best, whatever
    the other does; it is none if a score only equals its best."""
    better_accuracy, better_bleu = (0.6, 0.4), (0.4, 0.6)
    scores = [SAME, SAME, SAME, better_accuracy, SAME, better_bleu, (0.1, 0.1), (0.6, 0.5), (0.5, 0.6)]
    train(scores, "--stop_after_evals", "2", "--num_train_epochs", "12")
    assert "stopped early: 3 evaluations in a row" in capsys.readouterr().out


def test_best_checkpoints(train):
    """Each by its own score; a score that only equals the best replaces nothing."""
    folder = train([(0.0, 0.0), (0.5, 0.4), (0.4, 0.6), (0.5, 0.6)], "--num_train_epochs", "4")
    by_accuracy, by_bleu = stats(folder, "best-acc"), stats(folder, "best-res")
    assert (by_accuracy["epoch"], by_accuracy["best_acc"], by_accuracy["best_res"]) == (1, 0.5, 0.4)
    assert (by_bleu["epoch"], by_bleu["best_acc"], by_bleu["best_res"]) == (2, 0.5, 0.6)


def test_evaluations_between_and_at_the_end(train, tmp_path):
    """Three steps, evaluated every second one: after the second, and at the end although it is not due there."""
    train([(0.2, 0.2), (0.1, 0.3)], "--eval_steps", "2", "--batch_size", "15", "--num_train_epochs", "1")
    names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
    assert names == ["scores_exp_0_1_step.json", "scores_exp_0_2_step.json"]
    assert stats(tmp_path / "ckpts", "best-res")["progress"]["step"] == 3


def test_losses_are_logged_at_the_first_step_and_every_so_many(train, tmp_path):
    train([SAME, SAME], "--log_steps", "2", "--batch_size", "12", "--num_train_epochs", "2")
    logged = [(line["epoch"], line["step"]) for line in logged_losses(tmp_path)]
    assert logged == [(0, 0), (0, 2), (1, 0), (1, 2)]


# ---- continued at the next epoch -------------------------------------------------------------------------------------


def test_a_continued_run_knows_the_best_scores(train):
    """Scores worse than the best so far, though they are the first of this run, replace neither checkpoint."""
    folder = train([(0.5, 0.3), (0.4, 0.6)], "--num_train_epochs", "2")
    train([(0.45, 0.5)], "--num_train_epochs", "3", "--load_from_epoch", "best-res")
    assert (stats(folder, "best-acc")["epoch"], stats(folder, "best-acc")["best_acc"]) == (0, 0.5)
    assert (stats(folder, "best-res")["epoch"], stats(folder, "best-res")["best_res"]) == (1, 0.6)


@pytest.mark.parametrize(
    ("epochs_before", "more"),
    [(3, ()), (3, ("--no-use_VAD_loss",)), (1, ())],
    ids=["same parameters", "other parameters", "more epochs than before"],
)
def test_a_continued_run_goes_on_with_the_schedule(train, monkeypatch, epochs_before, more):
    """The rate of update k is lr (1 - k / updates), where k continues; also if the optimiser's state does not fit."""
    rates = ("--emo_en_LR", "1e-3", "--batch_size", "15")  # 3 steps an epoch
    train([(0.5, 0.5), (0.4, 0.4), (0.3, 0.3)][:epochs_before], "--num_train_epochs", str(epochs_before), *rates)
    with recording(monkeypatch) as made:
        train([SAME, SAME], "--num_train_epochs", "3", "--load_from_epoch", "best-acc", *rates, *more)
    assert made.rates(0) == pytest.approx([1e-3 * (1 - k / 9) for k in range(3, 9)], rel=1e-9)


# ---- which state is the newest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("older", "newer"), [((0, 9), (0, 10)), ((9, 5), (10, 0)), ((99, 99_999), (100, 1)), ((3, 99_999), (3, 100_000))]
)
def test_the_newest_state_is_the_furthest(tmp_path, older, newer):
    for number, place in enumerate([(0, 1), older, newer]):
        save_state(tmp_path, *place, {"number": number}, {})
    found, notes = load_state(tmp_path)
    assert found.state == {"number": 2} and notes == []
    assert [folder.name for folder in state_folders(tmp_path)] == [f"{e:05d}-{s:08d}" for e, s in (newer, older)]


def test_best_res_without_bleu(workspace, tmp_path, monkeypatch, capsys):
    """--metrics rouge: best-res is the evaluation with the best ROUGE-L, not the first."""
    scores, call = iter((0.1, 0.3, 0.2)), Evaluator.__call__

    def evaluated(evaluator, model):
        evaluation = call(evaluator, model)
        evaluation.scores |= {"ROUGE_L": next(scores), "sub_acc": 0.0}
        return evaluation

    monkeypatch.setattr(Evaluator, "__call__", evaluated)
    flags = workspace.argv(tmp_path, "--num_train_epochs", "3")
    at = flags.index("--metrics")
    flags[at : at + 2] = ["--metrics", "rouge"]
    assert artEmisX_train.main(flags) == 0
    assert "best-res the best ROUGE_L" in capsys.readouterr().out
    stats = torch.load(tmp_path / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert (stats["epoch"], stats["best_res"]) == (1, 0.3)


def test_deciding_score():
    assert deciding_score(["meteor", "bleu"]) == "Bleu_4"
    assert deciding_score(["spice", "rouge", "cider"]) == "CIDEr"
    assert deciding_score(["spice"]) == "SPICE"


def test_early_stop_between_epochs(workspace, tmp_path, capsys):
    """With --eval_steps the run stops right after an evaluation, and resuming does not undo that."""
    frozen = ("--learning_rate", "0", "--emo_en_LR", "0", "--num_train_epochs", "2")
    flags = workspace.argv(tmp_path, *frozen, "--eval_steps", "1", "--stop_after_evals", "1")
    for more in ((), ("--resume",)):
        assert artEmisX_train.main([*flags, *more]) == 0
        assert "stopped early: 2 evaluations" in capsys.readouterr().out
        names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
        assert names == [f"scores_exp_0_{step}_step.json" for step in (0, 1, 2)]
