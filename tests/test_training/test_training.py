"""The training script on tiny models: it trains, evaluates, writes checkpoints, resumes and stops."""

import gc
import json

import pytest
import torch
from accelerate.state import AcceleratorState

import artEmisX_train
from tests.conftest import logged_losses
from utils.errors import InputError
from utils.training.checkpoints import load_named


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
    cached = {path.name.rpartition("-")[0] for path in (workspace.root / "cache").glob("*.npy")}
    assert {"records", "texts", "vad-tokens"} <= cached


def test_garbage_collection_is_on_after_the_imports(workspace, tmp_path):
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
    resumed, whole = ((out / "results/unf_captions_full_1_5_step.json").read_bytes() for out in (tmp_path, finished))
    assert resumed == whole


@pytest.mark.slow
def test_damaged_state_is_named_and_the_one_before_used(finished, workspace, tmp_path, capsys):
    train(workspace, tmp_path)
    newest = sorted((tmp_path / "ckpts" / "resume").iterdir())[-1]
    torn = (newest / "state.pt").read_bytes()[:-100]
    (newest / "state.pt").write_bytes(torn)
    train(workspace, tmp_path, "--resume")
    assert f"{newest}: truncated or modified" in capsys.readouterr().out
    assert same_state(newest_state(tmp_path), newest_state(finished))


@pytest.mark.slow
def test_eval_steps_between_two_updates(workspace, tmp_path):
    """An evaluation that falls due between two updates is made at the second."""
    flags = ("--eval_steps", "3", "--num_train_epochs", "1", "--gradient_accumulation_steps", "2")
    train(workspace, tmp_path, *flags)
    names = sorted(path.name for path in (tmp_path / "results").glob("scores_exp_*.json"))
    assert names == ["scores_exp_0_3_step.json", "scores_exp_0_5_step.json"]


@pytest.mark.slow
def test_stop_where_an_evaluation_is_due(workspace, tmp_path, monkeypatch):
    """The resumed run makes the evaluation first."""
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
    flags = ("--no-use_VAD", "--no-use_cl_loss", "--use_VAD_loss", "False")
    out = train(workspace, tmp_path, *flags, "--num_train_epochs", "1", "--log_steps", "1")
    assert "emo_encoder_state_dict" not in torch.load(out / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert not {name.partition(".")[0] for name in weights(out)} & {"sim_mlp", "VAD_head"}
    config = json.loads((out / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert (config["use_cl_loss"], config["use_VAD_loss"]) == (False, False)
    lines = logged_losses(out)
    assert len(lines) == 6 and all(losses_in(line) == {"loss", "lm_loss"} for line in lines)
    assert all(line["loss"] == line["lm_loss"] for line in lines) and lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.slow
def test_bf16(workspace, tmp_path):
    """Computed in bfloat16, losses differ a little at every step. What is trained and saved stays float32."""
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
    saved = [*state["model"].values(), *weights(tmp_path / "bf16").values()]
    saved += [tensor for entry in state["optimizer"]["state"].values() for tensor in entry.values()]
    assert {tensor.dtype for tensor in saved} == {torch.float32}


@pytest.mark.slow
def test_compiled_model_has_the_same_losses(workspace, tmp_path, monkeypatch):
    """Traced and differentiated as for the compiler, but not compiled: C++ would take most of a minute."""
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
@pytest.mark.parametrize("later, broken_step, eval_steps", [(False, 2, 0), (True, 2, 3), (True, 5, 0)])
def test_loss_that_is_not_finite(
    workspace, tmp_path, monkeypatch, capsys, break_vad_loss, policy, later, broken_step, eval_steps
):
    """`later`: as on a GPU, where an update is checked after the next one, or before an evaluation; step 5 is the last."""
    calls = break_vad_loss(broken_step)
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
        warning = f"vad_loss is not finite at epoch 0, step {broken_step}, images"
        assert capsys.readouterr().out.count(warning) == 1
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


@pytest.mark.slow
def test_prompt_of_another_length(workspace, tmp_path):
    """The emotion span follows the prompt: bos, six words, and the emotion's two tokens at most."""
    train(workspace, tmp_path, "--prompt_text", " what i feel when looking is", "--num_train_epochs", "1")
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert config["emotion_span"] == 9
    more = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(tmp_path / "ckpts"))
    train(workspace, tmp_path / "scored", *more)
    captions = (tmp_path / "scored" / "results" / "unf_captions_full_best-res_0_step.json").read_bytes()
    assert captions == (tmp_path / "results" / "unf_captions_full_0_5_step.json").read_bytes()


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
    """Not a vision transformer, or not a GPT-2: refused by name, from scratch as well."""
    (tmp_path / kind).mkdir()
    source = workspace.root / ("vit" if flag == "clip_model" else "gpt2") / "config.json"
    config = json.loads(source.read_text()) | {"model_type": kind}
    (tmp_path / kind / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"config.json: is a {kind} model; only .* supported"):
        artEmisX_train.main(workspace.argv(tmp_path, f"--{flag}", str(tmp_path / kind)))


def test_files_of_a_checkpoint_have_the_users_permissions(finished):
    files = [path for path in (finished / "ckpts").rglob("*") if path.is_file()]
    assert len(files) > 8
    modes = {path.name: path.stat().st_mode & 0o777 for path in files}
    assert len(set(modes.values())) == 1, modes
