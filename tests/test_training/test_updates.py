"""One update: accumulation is a larger batch, skipping leaves everything whole, early stop comes where it is due."""

import json

import pytest
import torch
from accelerate.optimizer import patch_optimizer_step

import artEmisX_train
from models import losses
from tests.conftest import logged_losses
from utils.errors import InputError
from utils.evaluation.evaluator import Evaluator, deciding_score

pytestmark = pytest.mark.slow

# negatives come from a batch's own images; other than them everything is a sum over the window
COMPARABLE = ("--no-use_cl_loss", "--use_emotion_loss", "--dropout", "0", "--num_train_epochs", "1", "--log_steps", "1")
STILL = ("--learning_rate", "0", "--emo_en_LR", "0", "--en_LR", "0")


def gradients(monkeypatch, workspace, out, *more):
    """The gradients of every update of one epoch."""
    seen, step = [], torch.optim.AdamW.step

    def record(optimizer, closure=None):
        seen.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"] if p.grad is not None])
        step(optimizer, closure)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", record)
        assert artEmisX_train.main(workspace.argv(out, *COMPARABLE, *STILL, *more)) == 0
    return seen


@pytest.mark.parametrize("batch, steps", [("4", "2"), ("2", "4")])
def test_accumulation_is_a_larger_batch(workspace, tmp_path, monkeypatch, batch, steps):
    """45 images in updates of 8, the last of 5: the same gradients and losses, however they are dealt out."""
    more = ("--fixed_encoder", "False")
    large = gradients(monkeypatch, workspace, tmp_path / "large", *more)
    small = gradients(
        monkeypatch, workspace, tmp_path / "small", *more, "--batch_size", batch, "--gradient_accumulation_steps", steps
    )
    assert len(large) == len(small) == 6
    for ours, theirs in zip(small, large, strict=True):
        largest = max(gradient.abs().max() for gradient in theirs)
        for left, right in zip(ours, theirs, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6 * float(largest))
    logged = [[list(line.values())[2:] for line in logged_losses(tmp_path / name)] for name in ("small", "large")]
    assert logged[0] == [pytest.approx(line, rel=1e-5) for line in logged[1]]


def test_schedule_counts_updates_not_batches(workspace, tmp_path):
    flags = ("--num_train_epochs", "1", "--gradient_accumulation_steps", "4")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    stats = torch.load(tmp_path / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert stats["scheduler"]["last_epoch"] == stats["progress"]["updates"] == 2
    assert stats["scheduler"]["_last_lr"] == [0.0] * 4


def test_logged_loss_is_the_weighted_sum_of_its_terms(workspace, tmp_path):
    weights = {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0, "emotion_loss_weight": 0.25}
    flags = [text for name, value in weights.items() for text in (f"--{name}", str(value))]
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags, "--use_emotion_loss", "--num_train_epochs", "1")) == 0
    lines = [json.loads(line) for line in (tmp_path / "results" / "log.jsonl").read_text().splitlines()]
    assert {name: lines[0]["start"]["flags"][name] for name in weights} == weights
    line = lines[1]["losses"]
    terms = [line[name] for name in ("lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")]
    assert line["loss"] == pytest.approx(sum(w * t for w, t in zip(weights.values(), terms, strict=True)), rel=1e-5)


def test_skipped_update_under_a_loss_scaler(workspace, tmp_path, monkeypatch, capsys):
    """fp16's scaler, by hand, as accelerate makes none on a CPU: the update after a skipped one goes through."""
    build, vad_loss, calls = artEmisX_train.build_training, losses.vad_loss, []

    def with_scaler(run, signals):
        build(run, signals)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1000)
        run.accelerator.scaler = run.optimizer.scaler = scaler
        run.accelerator.native_amp = True
        run.accelerator.state._mixed_precision = "fp16"
        run.optimizer._accelerate_step_called = False
        run.optimizer._optimizer_original_step_method = run.optimizer.optimizer.step
        run.optimizer._optimizer_patched_step_method = patch_optimizer_step(run.optimizer, run.optimizer.optimizer.step)
        runs.append(run)

    def broken(*tensors, **options):
        calls.append(1)
        return vad_loss(*tensors, **options) * (float("nan") if len(calls) == 3 else 1.0)

    runs = []
    monkeypatch.setattr(artEmisX_train, "build_training", with_scaler)
    monkeypatch.setattr(losses, "vad_loss", broken)
    flags = ("--nan_policy", "skip", "--num_train_epochs", "1", "--gradient_accumulation_steps", "1")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    assert "vad_loss is not finite at epoch 0, step 2" in capsys.readouterr().out
    run = runs[0]
    assert run.scheduler.last_epoch == run.progress.updates == 6
    assert run.accelerator.scaler.get_scale() == 128.0  # backed off once, for the skipped update
    steps = {int(state["step"]) for state in run.optimizer.state.values()}
    assert steps == {5}


def test_skipped_window_of_an_accumulation(workspace, tmp_path, monkeypatch, capsys):
    """A loss that is not finite in one batch leaves out its window's update, and nothing of it reaches the next."""
    vad_loss, calls, runs = losses.vad_loss, [], []
    build_training = artEmisX_train.build_training

    def broken(*tensors, **options):
        calls.append(1)
        return vad_loss(*tensors, **options) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(
        artEmisX_train, "build_training", lambda run, signals: runs.append(run) or build_training(run, signals)
    )
    monkeypatch.setattr(losses, "vad_loss", broken)
    flags = ("--nan_policy", "skip", "--num_train_epochs", "1", "--gradient_accumulation_steps", "2")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    assert "vad_loss is not finite at epoch 0, step 2, images" in capsys.readouterr().out
    assert {int(state["step"]) for state in runs[0].optimizer.state.values()} == {2}
    assert all(torch.isfinite(torch.tensor(list(line.values())[2:])).all() for line in logged_losses(tmp_path)[2:])


# ---- early stop


def scored_files(out):
    return sorted(path.name for path in (out / "results").glob("scores_exp_*.json"))


def test_early_stop_between_epochs(workspace, tmp_path, capsys):
    """With --eval_steps the verdict is looked at after each evaluation, not at the end of the epoch."""
    flags = (*STILL, "--eval_steps", "1", "--stop_after_evals", "1", "--num_train_epochs", "2")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    assert "stopped early: 2 evaluations" in capsys.readouterr().out
    assert scored_files(tmp_path) == [f"scores_exp_0_{step}_step.json" for step in (0, 1, 2)]


def test_an_early_stop_is_not_undone_by_resuming(workspace, tmp_path, capsys):
    flags = workspace.argv(tmp_path, *STILL, "--eval_steps", "1", "--stop_after_evals", "1", "--num_train_epochs", "2")
    assert artEmisX_train.main(flags) == 0
    assert artEmisX_train.main([*flags, "--resume"]) == 0
    assert capsys.readouterr().out.count("stopped early") == 2
    assert len(scored_files(tmp_path)) == 3


# ---- which score decides


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


# ---- prompts and models


def test_prompt_of_another_length(workspace, tmp_path):
    """The emotion span follows the prompt: bos, six words, and the emotion's two tokens at most."""
    flags = ("--prompt_text", " what i feel when looking is", "--num_train_epochs", "1")
    assert artEmisX_train.main(workspace.argv(tmp_path, *flags)) == 0
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert config["emotion_span"] == 9
    more = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(tmp_path / "ckpts"))
    assert artEmisX_train.main(workspace.argv(tmp_path / "scored", *more)) == 0
    ours = (tmp_path / "scored" / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()
    assert ours == (tmp_path / "results" / "unf_captions_full_0_5_step.json").read_bytes()


@pytest.mark.parametrize(
    "more, message",
    [
        (("--prompt_text", " word" * 100), "no room for an explanation in --max_seq_len 30"),
        (("--len_prefix", "20", "--max_seq_len", "40"), "only 40 positions.*take 49"),
    ],
)
def test_texts_that_do_not_fit(workspace, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        artEmisX_train.main(workspace.argv(tmp_path, *more))


@pytest.mark.parametrize(
    "flag, kind", [("clip_model", "bert"), ("clip_model", "clip_text_model"), ("gpt2_model", "opt")]
)
def test_another_kind_of_model(workspace, tmp_path, flag, kind):
    """Not a vision transformer, or a GPT-2: refused by name, from scratch as well."""
    (tmp_path / kind).mkdir()
    source = workspace.root / ("vit" if flag == "clip_model" else "gpt2") / "config.json"
    config = json.loads(source.read_text()) | {"model_type": kind}
    (tmp_path / kind / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"config.json: is a {kind} model; only .* supported"):
        artEmisX_train.main(workspace.argv(tmp_path, f"--{flag}", str(tmp_path / kind)))


def test_files_of_a_checkpoint_have_the_users_permissions(workspace, tmp_path):
    assert artEmisX_train.main(workspace.argv(tmp_path, "--num_train_epochs", "1")) == 0
    files = [path for path in (tmp_path / "ckpts").rglob("*") if path.is_file()]
    assert len(files) > 8
    modes = {path.name: path.stat().st_mode & 0o777 for path in files}
    assert len(set(modes.values())) == 1, modes
