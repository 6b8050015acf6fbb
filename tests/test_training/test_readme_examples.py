"""The README's example of a head with a loss of its own runs as it stands."""

import re

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY, logged_losses
from utils.training import build_model
from utils.training.checkpoints import load_named

pytestmark = pytest.mark.slow


def test_a_head_with_a_loss_of_its_own(workspace, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "from_pretrained" not in block]  # that one is tested in test_share.py
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
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
