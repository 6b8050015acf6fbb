"""The examples of README's 'Change it', and the head of models/README.md, run as they stand."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY, TINY_GPT2, logged_losses
from tests.tiny_encoders import save
from utils.training import build_model
from utils.training.checkpoints import load_named

pytestmark = pytest.mark.slow

CHANGE_IT = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("## Change it")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def apply(diff: str, root) -> list[str]:
    """Put the lines with + behind the lines with a blank, which stand once in the file; without such lines at its end."""
    changed = []
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        title, _, lines = part.partition("\n")
        path = root / title.partition(",")[0]
        before = "".join(line[1:] for line in lines.splitlines(keepends=True) if line[0] == " ")
        after = "".join(line[1:] for line in lines.splitlines(keepends=True))
        text = path.read_text(encoding="utf-8")
        assert not before or text.count(before) == 1, f"README.md: not once in {title}: {before}"
        path.write_text(text.replace(before, after) if before else f"{text}\n\n{after}", encoding="utf-8")
        changed.append(str(path.relative_to(root)))
    return changed


def copy_of_the_repository(root):
    for name in ("models", "utils", "cococaption", "preprocess"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "artEmisX_train.py", root)
    return root


def run(root, argv: list[str]) -> str:
    done = subprocess.run([sys.executable, *argv], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_loss_a_metric_and_a_flag(workspace, tmp_path):
    root = copy_of_the_repository(tmp_path / "repository")
    (diff,) = blocks(CHANGE_IT, "diff")
    assert len(apply(diff, root)) == 6  # three places for the loss, two for the metric, one for the flag

    argv = ["artEmisX_train.py", *workspace.argv(tmp_path, "--num_train_epochs", "1", "--log_steps", "1")]
    run(root, [*argv, "--mean_VAD_Loss_weight", "2"])
    for line in logged_losses(tmp_path):
        terms = line["lm_loss"] + line["contrastive_loss"] + line["vad_loss"] + 2 * line["mean_vad_loss"]
        assert line["mean_vad_loss"] > 0 and line["loss"] == pytest.approx(terms, rel=1e-5)
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert config["mean_VAD_Loss_weight"] == 2
    assert "first person" in run(root, [*argv, "--eval_only", "--load_from_epoch", "best-res"])
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert 0 <= report["scores"]["first_person"] <= 1 and len(report["intervals"]["first_person"]) == 2


def test_label_smoothing(workspace, tmp_path):
    """PyTorch's value on all logits, with a weight other than the default; the run's loss has it as one of its terms."""
    root = copy_of_the_repository(tmp_path / "repository")
    page = (REPOSITORY / "models" / "README.md").read_text(encoding="utf-8")
    (diff,) = blocks(page.partition("## Label smoothing")[2].partition("\n## ")[0], "diff")
    assert len(apply(diff, root)) == 4
    code = """
import torch
from models.losses import lm_loss, smoothing_loss
torch.manual_seed(0)
hidden, table = torch.randn(7, 16), torch.randn(50, 16)
targets = torch.tensor([3, -100, 49, 0, 7, 7, -100])
expected = torch.nn.functional.cross_entropy(hidden @ table.T, targets, label_smoothing=0.3)
found = lm_loss(hidden, table, targets) + 0.3 * smoothing_loss(hidden, table, targets, None)
assert torch.allclose(found, expected, atol=1e-5), (found, expected)
"""
    run(root, ["-c", code])
    flags = ("--num_train_epochs", "1", "--log_steps", "1", "--label_smoothing", "0.3", "--alpha", "2")
    run(root, ["artEmisX_train.py", *workspace.argv(tmp_path, *flags)])
    for line in logged_losses(tmp_path):
        terms = 2 * line["lm_loss"] + 0.6 * line["smoothing_loss"] + line["contrastive_loss"] + line["vad_loss"]
        assert line["loss"] == pytest.approx(terms, rel=1e-5)


def test_another_encoder_and_decoder(workspace, tmp_path):
    (command,) = blocks(CHANGE_IT, "bash")
    flags = shlex.split(command)[2:]
    save("siglip", tmp_path / "google")  # in place of the ids: tiny models of the same kinds
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(TINY_GPT2 | {"n_embd": 24, "n_layer": 3}))
    for flag, folder in (("--clip_model", "google"), ("--gpt2_model", "gpt2")):
        flags[flags.index(flag) + 1] = str(tmp_path / folder)
    argv = workspace.argv(tmp_path, "--num_train_epochs", "1")
    at = argv.index("--prefix_dim")
    assert artEmisX_train.main([*argv[:at], *argv[at + 2 :], *flags, "--from_scratch", "decoder"]) == 0
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert (config["encoder_dim"], config["n_layer"]) == (24, 3)


def test_a_head_with_a_loss_of_its_own(workspace, tmp_path, monkeypatch):
    page = (REPOSITORY / "models" / "README.md").read_text(encoding="utf-8")
    (code,) = blocks(page.partition("## A head with a loss of its own")[2], "python")
    names: dict = {}
    exec(compile(code, "models/README.md", "exec"), names)
    monkeypatch.setattr(build_model, "SEVLM", names["SEVLMWithBrightness"])
    assert artEmisX_train.main(workspace.argv(tmp_path, "--num_train_epochs", "2", "--log_steps", "1")) == 0
    for line in logged_losses(tmp_path):
        assert line["loss"] > line["lm_loss"] + line["contrastive_loss"] + line["vad_loss"]
    saved = load_named(tmp_path / "ckpts", "best-res").decoder
    assert saved["brightness_head.weight"].shape == (1, 16)
    torch.manual_seed(42)
    stats = torch.load(tmp_path / "ckpts" / "ckpt_stats_best-res.tar", weights_only=True)
    trained = [name for group in stats["parameter_names"] for name in group]
    assert "decoder.brightness_head.weight" in trained
