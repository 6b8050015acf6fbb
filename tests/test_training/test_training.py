"""The training script on tiny models: it trains, evaluates, writes checkpoints, stops and resumes."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState

import artEmisX_train
from tests.conftest import logged_losses
from tests.test_training.conftest import NOT_DEFAULT
from tests.tools.stop_matrix import same_end
from utils.errors import InputError
from utils.evaluation import evaluator
from utils.evaluation.generation import caption_batch
from utils.explain import load
from utils.files import sha256
from utils.training.checkpoints import load_named
from utils.training.resume import state_folders
from utils.training.run_log import read_log


def train(workspace, out, *more):
    assert artEmisX_train.main(workspace.argv(out, *more)) == 0
    return out


def weights(out):
    return load_named(out / "ckpts", "best-res").decoder


def newest_state(out):
    return torch.load(state_folders(out / "ckpts")[0] / "state.pt", weights_only=True)


def test_output_files(finished, workspace):
    results, ckpts = finished / "results", finished / "ckpts"
    scores = sorted(path.name for path in results.glob("scores_exp_*.json"))
    assert scores == ["scores_exp_0_5_step.json", "scores_exp_1_5_step.json"]
    values = json.loads((results / scores[0]).read_text())
    assert set(values) == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "sub_acc", "macro_F1", "weighted_F1"}
    assert all(0 <= value <= 1 for value in values.values())
    captions = json.loads((results / "unf_captions_exp_1_5_step.json").read_text())
    kinds = {name: type(value) for name, value in captions[0].items()}
    assert kinds == {"image_id": int, "caption": str, "image_name": str}
    cached = {path.name.rpartition("-")[0] for path in (workspace.root / "cache").glob("*.npy")}
    assert {"records", "texts", "vad-tokens"} <= cached
    fingerprints = read_log(results / "log.jsonl").fingerprints
    for name, file in (
        ("training_records", "artEmisX_cl_train.json"),
        ("scored_records", "artEmisX_val.json"),
        ("references", "annotations/artEmisX_val_annot_exp.json"),
    ):
        assert fingerprints[f"{name}_sha256"] == sha256(workspace.data / file)

    # checkpoints in the published layout, with the permissions that the user's other files get
    assert {path.name for path in ckpts.glob("nle_model_*")} == {"nle_model_best-acc", "nle_model_best-res"}
    assert (ckpts / "nle_gpt2_tokenizer_0" / "tokenizer_config.json").is_file()
    stats = torch.load(ckpts / "ckpt_stats_best-res.tar", weights_only=True)
    published = {"epoch", "best_acc", "best_res", "optimizer_state_dict", "scheduler", "emo_encoder_state_dict"}
    assert published <= set(stats)
    assert stats["emo_encoder_state_dict"]["pos_encoder.weight"].shape == (5000, 3)
    files = [path for path in ckpts.rglob("*") if path.is_file()]
    assert len(files) > 8 and len({path.stat().st_mode & 0o777 for path in files}) == 1


def test_stopped_run_resumes_exactly(finished, workspace, tmp_path, monkeypatch):
    """Stopped in the middle of the second epoch, resumed: weights and captions of the run that was never stopped."""
    between_updates = artEmisX_train.between_updates

    def stop_at_eighth(run, steps):
        if run.progress.updates == 8:
            run.signals.stop = 15
        between_updates(run, steps)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(artEmisX_train, "between_updates", stop_at_eighth)
        train(workspace, tmp_path, *NOT_DEFAULT)
    assert stopped.value.code == 128 + 15
    assert newest_state(tmp_path)["progress"]["step"] == 2
    train(workspace, tmp_path, "--resume", *NOT_DEFAULT)
    assert same_end(tmp_path, finished)
    captions = [(out / "results/unf_captions_full_1_5_step.json").read_bytes() for out in (tmp_path, finished)]
    assert captions[0] == captions[1]


def test_plain_model(workspace, tmp_path, capsys):
    """Without VAD and without the contrastive loss a language model is left: one loss, no part for the others."""
    flags = ("--no-use_VAD", "--no-use_cl_loss", "--use_VAD_loss", "False")
    out = train(workspace, tmp_path, *flags, "--num_train_epochs", "1", "--log_steps", "1")
    assert "decoder: all weights drawn at random (--from_scratch)" in capsys.readouterr().out
    assert "emo_encoder_state_dict" not in torch.load(out / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    assert not {name.partition(".")[0] for name in weights(out)} & {"sim_mlp", "VAD_head"}
    config = json.loads((out / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert (config["use_cl_loss"], config["use_VAD_loss"]) == (False, False)
    lines = logged_losses(out)
    assert len(lines) == 6 and all(set(line) == {"epoch", "step", "updates", "loss", "lm_loss"} for line in lines)
    assert all(line["loss"] == line["lm_loss"] for line in lines) and lines[-1]["loss"] < lines[0]["loss"]


EXACT = ("--dropout", "0", "--num_train_epochs", "1", "--log_steps", "1", "--batch_size", "15")


@pytest.fixture(scope="module")
def exact_losses(workspace, tmp_path_factory) -> list[dict]:
    return logged_losses(train(workspace, tmp_path_factory.mktemp("exact"), *EXACT))


@pytest.mark.slow
def test_bf16(workspace, tmp_path, exact_losses, monkeypatch):
    """Computed in bfloat16, losses differ a little at every step. What is trained and saved stays float32. Captions are
    computed in bfloat16 as well, also those of utils.explain."""
    precisions = []

    def caption(*given):
        precisions.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return caption_batch(*given)

    monkeypatch.setattr(evaluator, "caption_batch", caption)
    AcceleratorState._reset_state(reset_partial_state=True)  # else the other run's precision is kept
    losses = logged_losses(train(workspace, tmp_path, *EXACT, "--mixed_precision", "bf16"))
    assert len(losses) == len(exact_losses) == 3
    for rounded, exact in zip(losses, exact_losses, strict=True):
        assert rounded == pytest.approx(exact, rel=1e-3)
        assert rounded["lm_loss"] != exact["lm_loss"] and rounded["vad_loss"] != exact["vad_loss"]
    state = newest_state(tmp_path)
    saved = [*state["model"].values(), *weights(tmp_path).values()]
    saved += [tensor for entry in state["optimizer"]["state"].values() for tensor in entry.values()]
    assert {tensor.dtype for tensor in saved} == {torch.float32}
    assert set(precisions) == {torch.bfloat16} and load(tmp_path).precision == torch.bfloat16


@pytest.mark.slow
def test_compiled_model_has_the_same_losses(workspace, tmp_path, monkeypatch, exact_losses):
    """Traced and differentiated as for the compiler, but not compiled: C++ would take most of a minute."""
    compiled, compile_module = [], torch.nn.Module.compile

    def trace(module: torch.nn.Module) -> None:
        compiled.append(type(module).__name__)
        compile_module(module, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", trace)
    losses = logged_losses(train(workspace, tmp_path, *EXACT, "--compile"))
    assert compiled == ["ImageEncoder", "Explainer"]
    for traced, exact in zip(losses, exact_losses, strict=True):
        assert traced == pytest.approx(exact, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("later", "broken_step", "eval_steps", "steps_made"),
    [
        (False, 2, 0, 3),
        (True, 2, 0, 4),  # as on a GPU, where an update is checked after the next one
        (True, 2, 3, 3),  # or before an evaluation
        (True, 5, 0, 6),  # or at the end
    ],
)
def test_loss_that_is_not_finite(
    workspace, tmp_path, monkeypatch, break_vad_loss, later, broken_step, eval_steps, steps_made
):
    calls = break_vad_loss(broken_step)
    monkeypatch.setattr(artEmisX_train, "reads_later", lambda device: later)
    with pytest.raises(InputError, match=f"^vad_loss is not finite at epoch 0, step {broken_step}, images "):
        train(workspace, tmp_path, "--nan_policy", "stop", "--num_train_epochs", "1", "--eval_steps", str(eval_steps))
    assert len(calls) == steps_made and not list((tmp_path / "results").glob("scores*"))


def test_texts_that_do_not_fit(workspace, tmp_path):
    """Each by one token: the prompt takes bos and five words, the emotion two tokens; a prefix of 12 in front of bos, the
    prompt's three words and the 25 tokens that are generated."""
    with pytest.raises(InputError, match="takes 8 tokens .* no room for an explanation in --max_seq_len 8"):
        train(workspace, tmp_path, *workspace.gpt2, "--prompt_text", " what i feel here is", "--max_seq_len", "8")
    with pytest.raises(InputError, match="only 40 positions.*take 41"):
        train(workspace, tmp_path, *workspace.gpt2, "--len_prefix", "12")
