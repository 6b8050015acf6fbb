"""Of several evaluations in an epoch, best-res is the step that scored best: in the log, the summary and the checkpoint."""

import json

import pytest

import artEmisX_train
from utils.data.untrusted_files import read_torch_file
from utils.evaluation.evaluator import Evaluator

SCORES = [0.1, 0.3, 0.2, 0.3]  # the second is best; an equal one later is not better


@pytest.mark.parametrize("accuracies", [[0.5, 0.1, 0.1, 0.2], [0.1, 0.1, 0.6, 0.1]])
def test_best_step(workspace, tmp_path, monkeypatch, capsys, accuracies):
    calls, evaluate = [], Evaluator.__call__

    def with_scores(self, model):
        evaluation = evaluate(self, model)
        evaluation.scores |= {"Bleu_4": SCORES[len(calls)], "sub_acc": accuracies[len(calls)]}
        calls.append(1)
        return evaluation

    monkeypatch.setattr(Evaluator, "__call__", with_scores)
    assert (
        artEmisX_train.main(
            workspace.argv(tmp_path, "--eval_steps", "2", "--num_train_epochs", "1", "--batch_size", "6")
        )
        == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "results" / "log.jsonl").read_text().splitlines()]
    evaluations = [line["scores"] for line in lines if "scores" in line]
    assert len(evaluations) == len(SCORES)
    end = next(line["end"] for line in lines if "end" in line)
    assert (end["epoch"], end["step"]) == (0, evaluations[1]["step"]) == (0, 3)
    best_acc = accuracies.index(max(accuracies))
    for name, place in (("best-res", 1), ("best-acc", best_acc)):
        progress = read_torch_file(tmp_path / "ckpts" / f"ckpt_stats_{name}.tar")["progress"]
        assert progress["step"] == evaluations[place]["step"] + 1
    assert "best-res is of epoch 0: ACC" in (printed := capsys.readouterr().out)
    assert "unf_captions_full_0_3_step.json" in printed
