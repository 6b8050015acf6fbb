"""The training script itself, on tiny models: it trains, scores, keeps checkpoints, resumes, stops."""

import gc
import json
import shutil
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState

import artEmisX_train
from models import losses
from tests.conftest import REPOSITORY, logged_losses
from utils.errors import InputError
from utils.evaluation.evaluator import Evaluator
from utils.training.folder_lock import locked
from utils.training.named_checkpoints import load_named


def train(workspace, out, *more):
    assert artEmisX_train.main(workspace.argv(out, *more)) == 0
    return out


@pytest.fixture(scope="module")
def finished(workspace, tmp_path_factory):
    return train(workspace, tmp_path_factory.mktemp("finished"))


def weights(out, name="best-res"):
    return load_named(out / "ckpts", name).decoder


def newest_state(out):
    folder = sorted((out / "ckpts" / "resume").iterdir())[-1]
    return torch.load(folder / "state.pt", weights_only=True)


def same_state(left, right):
    return all(torch.equal(left["model"][name], tensor) for name, tensor in right["model"].items()) and (
        left["progress"] == right["progress"]
    )


def test_output_files(finished, workspace):
    scores = sorted(path.name for path in (finished / "results").glob("scores_exp_*.json"))
    assert scores == ["scores_exp_0_5_step.json", "scores_exp_1_5_step.json"]
    values = json.loads((finished / "results" / scores[0]).read_text())
    assert set(values) == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "sub_acc"}
    assert all(0 <= value <= 1 for value in values.values())
    captions = json.loads((finished / "results" / "unf_captions_exp_1_5_step.json").read_text())
    assert all(set(caption) == {"image_id", "caption", "image_name"} for caption in captions)
    assert all(isinstance(caption["image_id"], int) for caption in captions)
    assert {path.name for path in (finished / "ckpts").glob("nle_model_*")} == {
        "nle_model_best-acc",
        "nle_model_best-res",
    }
    kept = {path.name.rpartition("-")[0] for path in (workspace.root / "cache").glob("*.npy")}
    assert {"records", "texts", "vad-tokens"} <= kept  # which a later run need not make


def test_garbage_is_looked_for_again_after_the_imports(workspace, tmp_path):
    gc.disable()
    try:
        with pytest.raises(InputError):
            artEmisX_train.main(workspace.argv(tmp_path, "--nle_data_val_path", str(tmp_path / "missing.json")))
        assert gc.isenabled()
    finally:
        gc.enable()


def test_checkpoint_is_in_the_published_layout(finished):
    folder = finished / "ckpts"
    assert (folder / "nle_gpt2_tokenizer_0" / "tokenizer_config.json").is_file()
    stats = torch.load(folder / "ckpt_stats_best-res.tar", weights_only=True)
    published = {"epoch", "best_acc", "best_res", "optimizer_state_dict", "scheduler", "emo_encoder_state_dict"}
    assert published <= set(stats)
    assert stats["emo_encoder_state_dict"]["pos_encoder.weight"].shape == (5000, 3)


def test_eval_only_repeats_the_scores(finished, workspace, tmp_path):
    more = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(finished / "ckpts"))
    train(workspace, tmp_path, *more)
    epoch = torch.load(finished / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    theirs = json.loads((finished / "results" / f"unf_captions_full_{epoch}_5_step.json").read_text())
    ours = json.loads((tmp_path / "results" / "unf_captions_full_best-res_0_step.json").read_text())
    assert ours == theirs
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert report["images"] == len(ours) and report["scores"]["Unique"] > 0


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_run_resumes_exactly(finished, workspace, tmp_path, monkeypatch, workers):
    """Stopped in the middle of the second epoch, resumed: the weights of the run that was never stopped."""
    between_updates, updates = artEmisX_train.between_updates, []

    def stop_at_eighth(run, steps):
        updates.append(run)
        if len(updates) == 8:
            run.signals.stop = 15
        between_updates(run, steps)

    monkeypatch.setattr(artEmisX_train, "between_updates", stop_at_eighth)
    with pytest.raises(SystemExit) as stopped:
        artEmisX_train.main(workspace.argv(tmp_path, "--num_workers", str(workers)))
    assert stopped.value.code == 128 + 15
    assert newest_state(tmp_path)["progress"]["step"] == 2
    train(workspace, tmp_path, "--resume", "--num_workers", str(workers))
    assert same_state(newest_state(tmp_path), newest_state(finished))
    ours, theirs = ((out / "results" / "unf_captions_full_1_5_step.json").read_bytes() for out in (tmp_path, finished))
    assert ours == theirs


@pytest.mark.slow
def test_killed_in_an_evaluation_resumes_exactly(finished, workspace, tmp_path, monkeypatch):
    evaluator = Evaluator.__call__

    def killed(*_):
        raise MemoryError("as good as a kill")

    monkeypatch.setattr(Evaluator, "__call__", killed)
    with pytest.raises(MemoryError):
        artEmisX_train.main(workspace.argv(tmp_path))
    monkeypatch.setattr(Evaluator, "__call__", evaluator)
    train(workspace, tmp_path, "--resume")
    assert same_state(newest_state(tmp_path), newest_state(finished))
    assert (tmp_path / "results" / "scores_exp_0_5_step.json").is_file()


@pytest.mark.slow
def test_damaged_state_is_named_and_the_one_before_used(finished, workspace, tmp_path, capsys):
    train(workspace, tmp_path)
    newest = sorted((tmp_path / "ckpts" / "resume").iterdir())[-1]
    torn = (newest / "state.pt").read_bytes()[:-100]
    (newest / "state.pt").write_bytes(torn)
    train(workspace, tmp_path, "--resume")
    assert f"{newest}: torn or altered" in capsys.readouterr().out
    assert same_state(newest_state(tmp_path), newest_state(finished))


@pytest.mark.slow
def test_load_from_epoch_continues_at_the_next(finished, workspace, tmp_path, capsys):
    more = ("--load_from_epoch", "best-res", "--ckpt_path", str(finished / "ckpts"), "--num_train_epochs", "3")
    epoch = torch.load(finished / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)["epoch"]
    shutil.copytree(finished / "ckpts", tmp_path / "ckpts")
    train(workspace, tmp_path, *more[:2], *more[4:])
    assert f"continuing at epoch {epoch + 1}" in capsys.readouterr().out


def test_a_second_training_does_not_overwrite_the_first(finished, workspace):
    with pytest.raises(InputError, match="--resume"):
        artEmisX_train.main(workspace.argv(finished))


@pytest.mark.slow
def test_two_runs_in_one_folder(workspace, tmp_path):
    holder = "import sys, pathlib, utils.training.folder_lock as g\nwith g.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(tmp_path / "ckpts")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=f"another run is at work here.*{other.pid}"):
            artEmisX_train.main(workspace.argv(tmp_path))
        other.kill()
    with locked(tmp_path / "ckpts"):
        pass  # the file that the dead run left is no obstacle


@pytest.mark.slow
def test_early_stop(workspace, tmp_path, capsys):
    train(
        workspace,
        tmp_path,
        "--learning_rate",
        "0",
        "--emo_en_LR",
        "0",
        "--stop_after_evals",
        "1",
        "--num_train_epochs",
        "6",
    )
    assert "stopped early: 2 evaluations" in capsys.readouterr().out
    assert len(list((tmp_path / "results").glob("scores_exp_*.json"))) == 3


@pytest.mark.slow
def test_eval_steps(workspace, tmp_path):
    train(workspace, tmp_path, "--eval_steps", "3", "--num_train_epochs", "1")
    names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
    assert names == ["scores_exp_0_2_step.json", "scores_exp_0_5_step.json"]


@pytest.mark.slow
def test_eval_steps_between_two_updates(workspace, tmp_path):
    """An evaluation that falls due between two updates is made at the second."""
    flags = ("--eval_steps", "3", "--num_train_epochs", "1", "--gradient_accumulation_steps", "2")
    train(workspace, tmp_path, *flags)
    names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
    assert names == ["scores_exp_0_3_step.json", "scores_exp_0_5_step.json"]


@pytest.mark.slow
def test_stop_where_an_evaluation_is_due(workspace, tmp_path, monkeypatch):
    """The evaluation is made up for when the run goes on."""
    between_updates = artEmisX_train.between_updates

    def stop_at_third(run, steps):
        if run.progress.step == 3:
            run.signals.stop = 15
        between_updates(run, steps)

    monkeypatch.setattr(artEmisX_train, "between_updates", stop_at_third)
    flags = ("--eval_steps", "3", "--num_train_epochs", "1")
    with pytest.raises(SystemExit):
        train(workspace, tmp_path, *flags)
    assert not list((tmp_path / "results").glob("scores_exp_*.json"))
    train(workspace, tmp_path, "--resume", *flags)
    names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
    assert names == ["scores_exp_0_2_step.json", "scores_exp_0_5_step.json"]


@pytest.mark.slow
def test_accumulation_and_trained_encoder_and_all_losses(workspace, tmp_path):
    flags = ("--gradient_accumulation_steps", "2", "--fixed_encoder", "False", "--use_emotion_loss", "--vad_causal")
    out = train(workspace, tmp_path, *flags, "--masked_pooling", "--max_grad_norm", "1", "--len_prefix", "2")
    stats = torch.load(out / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert "encoder.conv1.weight" in stats["encoder_state_dict"] and "emotion_head_state_dict" in stats
    assert stats["progress"]["updates"] == 3 * (stats["epoch"] + 1)
    scores = json.loads(next((out / "results").glob("scores_exp_1_*.json")).read_text())
    assert "head_acc" in scores
    assert {"lm_loss", "contrastive_loss", "vad_loss", "emotion_loss"} <= set(logged_losses(out)[0])


def losses_in(line: dict) -> set[str]:
    return {name for name in line if name.endswith("loss")}


def test_plain_model(workspace, tmp_path):
    """Without VAD and without the contrastive loss a language model is left: one loss, no part for the others."""
    flags = (
        "--no-use_VAD",
        "--no-use_cl_loss",
        "--use_VAD_loss",
        "False",
        "--num_train_epochs",
        "1",
        "--log_steps",
        "1",
    )
    out = train(workspace, tmp_path, *flags)
    assert "emo_encoder_state_dict" not in torch.load(out / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert not {name.partition(".")[0] for name in weights(out)} & {"sim_mlp", "VAD_head"}
    config = json.loads((out / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert (config["use_cl_loss"], config["use_VAD_loss"]) == (False, False)
    lines = logged_losses(out)
    assert len(lines) == 6 and all(losses_in(line) == {"loss", "lm_loss"} for line in lines)
    assert all(line["loss"] == line["lm_loss"] for line in lines) and lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.slow
def test_bf16(workspace, tmp_path):
    """Computed in bfloat16: a little off at every step, never by much. What is trained and kept stays float32."""
    logs = {}
    for precision in ("no", "bf16"):
        flags = ("--mixed_precision", precision, "--dropout", "0", "--num_train_epochs", "1", "--log_steps", "1")
        AcceleratorState._reset_state(reset_partial_state=True)  # else the first run's precision is kept
        logs[precision] = logged_losses(train(workspace, tmp_path / precision, *flags))
    assert len(logs["bf16"]) == len(logs["no"]) == 6
    for rounded, exact in zip(logs["bf16"], logs["no"], strict=True):
        assert rounded == pytest.approx(exact, rel=1e-3)
        assert rounded["lm_loss"] != exact["lm_loss"] and rounded["vad_loss"] != exact["vad_loss"]
    state = newest_state(tmp_path / "bf16")
    kept = [*state["model"].values(), *weights(tmp_path / "bf16").values()]
    kept += [tensor for entry in state["optimizer"]["state"].values() for tensor in entry.values()]
    assert {tensor.dtype for tensor in kept} == {torch.float32}


@pytest.mark.slow
def test_compiled_model_has_the_same_losses(workspace, tmp_path, monkeypatch):
    """Traced and differentiated as for the compiler, but not handed to it: C++ would take most of a minute."""
    compiled, compile_module = [], torch.nn.Module.compile

    def trace(module: torch.nn.Module) -> None:
        compiled.append(type(module).__name__)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    logs = []
    for name, more in (("compiled", ["--compile"]), ("plain", [])):
        out = train(workspace, tmp_path / name, *more, "--dropout", "0", "--num_train_epochs", "1", "--log_steps", "1")
        logs.append(logged_losses(out))
    assert compiled == ["ImageEncoder", "Explainer"] and len(logs[0]) > 3
    for traced, plain in zip(*logs, strict=True):
        assert traced == pytest.approx(plain, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("later, broken_step, eval_steps", [(False, 2, 0), (True, 2, 0), (True, 2, 3), (True, 5, 0)])
def test_loss_that_is_not_finite(workspace, tmp_path, monkeypatch, capsys, policy, later, broken_step, eval_steps):
    """`later`: as on a GPU, where an update is looked at after the next, or before an evaluation; step 5 is the last."""
    vad_loss, calls = losses.vad_loss, []

    def broken(*tensors, **options):
        calls.append(1)
        return vad_loss(*tensors, **options) * (float("nan") if len(calls) == broken_step + 1 else 1.0)

    monkeypatch.setattr(losses, "vad_loss", broken)
    monkeypatch.setattr(artEmisX_train, "reads_later", lambda device: later)
    flags = ("--nan_policy", policy, "--num_train_epochs", "1", "--eval_steps", str(eval_steps))
    argv = workspace.argv(tmp_path, *flags)
    if policy == "stop":
        with pytest.raises(InputError, match=f"vad_loss is not finite at epoch 0, step {broken_step}, images"):
            artEmisX_train.main(argv)
        assert len(calls) == (min(broken_step + 2, 6) if later and not eval_steps else broken_step + 1)
        assert not list((tmp_path / "results").glob("scores*"))
    else:
        assert artEmisX_train.main(argv) == 0
        said = f"vad_loss is not finite at epoch 0, step {broken_step}, images"
        assert capsys.readouterr().out.count(said) == 1
        assert list((tmp_path / "results").glob("scores*"))


@pytest.mark.slow
def test_gallery_shows_the_models_distribution(workspace, tmp_path):
    """Without the 9-way head, too: by the likelihood of the nine names."""
    out = train(workspace, tmp_path, "--num_train_epochs", "1", "--gallery", "3")
    (page,) = (out / "results").glob("gallery_0_5.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("<article") == text.count('<th scope="col">the model&#39;s text') == 3
    evaluated = artEmisX_train.main(
        workspace.argv(tmp_path, "--eval_only", "--load_from_epoch", "best-res", "--gallery", "2")
    )
    assert evaluated == 0 and list((out / "results").glob("gallery_best-res_*.html"))
