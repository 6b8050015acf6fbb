"""The authors' published code on small random models: our code gives its numbers, and would not with other weights."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN
from tests.tools import check_golden


@pytest.mark.parametrize("part", check_golden.CHECKS)
def test_fixtures(part, capsys):
    assert check_golden.main([str(GOLDEN), "--only", part]) == 0, capsys.readouterr().out


def test_missing_fixture_fails(tmp_path, capsys):
    assert check_golden.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("FAIL") == len(check_golden.CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, tensor",
    [
        ("decoder", "transformer.h.0.crossattention.c_proj.weight"),
        ("decoder", "sim_mlp.pred.8.bias"),
        ("vad_encoder", "encoder.layers.0.self_attention.value.weight"),
        ("image_encoder", "class_embedding"),
    ],
)
def test_weights_a_little_off_fail(part, tensor, tmp_path, capsys):
    """1e-3 on one element of one tensor must show."""
    shutil.copytree(GOLDEN / part, tmp_path / part)
    shutil.copytree(GOLDEN / "vad_encoder", tmp_path / "vad_encoder", dirs_exist_ok=True)
    path = tmp_path / part / "weights.safetensors"
    weights = load_file(path)
    weights[tensor].view(-1)[-1] += 1e-3
    save_file(weights, path)
    assert check_golden.main([str(tmp_path), "--only", part]) == 1
    assert "FAIL" in capsys.readouterr().out
