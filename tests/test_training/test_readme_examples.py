"""The examples of README's 'Change it', and the head of models/README.md, run as they stand."""

import json
import re
import runpy
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY, TINY_GPT2, logged_losses
from tests.test_main_road import copy_repository
from tests.tiny_encoders import save
from utils.training import build_model
from utils.training.checkpoints import load_named

pytestmark = pytest.mark.slow

OF_MODELS = "models/README.md"


def section(page: str, heading: str) -> str:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return text.partition(f"## {heading}")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


CHANGE_IT = section("README.md", "Change it")


def apply(diff: str, root) -> int:
    """Put the lines with + behind the lines with a blank, which stand once in the file; without such lines at its end.
    Returns the number of places."""
    parts = re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]
    for part in parts:
        title, *lines = part.splitlines(keepends=True)
        path = root / title.strip().partition(",")[0]
        before, after = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" ", " +"))
        text = path.read_text(encoding="utf-8")
        assert not before or text.count(before) == 1, f"README.md: not once in {title}: {before}"
        path.write_text(text.replace(before, after) if before else f"{text}\n\n{after}", encoding="utf-8")
    return len(parts)


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the repository with the examples of both pages applied."""
    root = tmp_path_factory.mktemp("repository")
    copy_repository(root)
    (diff,), (smoothing,) = blocks(CHANGE_IT, "diff"), blocks(section(OF_MODELS, "Label smoothing"), "diff")
    assert apply(diff, root) == 6  # three places for the loss, two for the metric, one for the flag
    assert apply(smoothing, root) == 4
    return root


def test_losses_a_metric_and_flags(changed, workspace, tmp_path):
    flags = "--num_train_epochs 1 --log_steps 1 --mean_VAD_Loss_weight 2 --label_smoothing 0.3 --alpha 3".split()
    argv = workspace.argv(tmp_path, *flags)
    for more in ([], ["--eval_only", "--load_from_epoch", "best-res"]):
        command = [sys.executable, str(changed / "artEmisX_train.py"), *argv, *more]
        done = subprocess.run(command, cwd=changed, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "first person" in done.stdout
    for line in logged_losses(tmp_path):
        assert line["mean_vad_loss"] > 0 and line["smoothing_loss"] != 0
        terms = 3 * line["lm_loss"] + 0.9 * line["smoothing_loss"] + line["contrastive_loss"] + line["vad_loss"]
        assert line["loss"] == pytest.approx(terms + 2 * line["mean_vad_loss"], rel=1e-5)
    config = json.loads((tmp_path / "ckpts" / "nle_model_best-res" / "config.json").read_text())
    assert (config["mean_VAD_Loss_weight"], config["label_smoothing"]) == (2, 0.3)
    report = json.loads((tmp_path / "results" / "report.json").read_text())
    assert 0 <= report["scores"]["first_person"] <= 1 and len(report["intervals"]["first_person"]) == 2


def test_label_smoothing(changed):
    """PyTorch's value on all logits, with a weight other than the default."""
    losses = SimpleNamespace(**runpy.run_path(str(changed / "models" / "losses.py")))
    torch.manual_seed(0)
    hidden, table = torch.randn(7, 16), torch.randn(50, 16)
    targets = torch.tensor([3, -100, 49, 0, 7, 7, -100])
    expected = torch.nn.functional.cross_entropy(hidden @ table.T, targets, label_smoothing=0.3)
    found = losses.lm_loss(hidden, table, targets) + 0.3 * losses.smoothing_loss(hidden, table, targets, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


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
    (code,) = blocks(section(OF_MODELS, "A head with a loss of its own"), "python")
    names: dict = {}
    exec(code, names)
    monkeypatch.setattr(build_model, "SEVLM", names["SEVLMWithBrightness"])
    first = []
    for size, batches in ((8, 1), (4, 2)):  # the same images
        out = tmp_path / str(batches)
        flags = f"--num_train_epochs 1 --log_steps 1 --batch_size {size} --gradient_accumulation_steps {batches}"
        assert artEmisX_train.main(workspace.argv(out, *flags.split())) == 0
        lines = logged_losses(out)
        for line in lines:
            assert line["loss"] > line["lm_loss"] + line["contrastive_loss"] + line["vad_loss"]
        first.append(lines[0]["brightness_loss"])
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    saved = load_named(out / "ckpts", "best-res")
    assert saved.decoder["brightness_head.weight"].shape == (1, 16)
    assert any("decoder.brightness_head.weight" in group for group in saved.stats["parameter_names"])
