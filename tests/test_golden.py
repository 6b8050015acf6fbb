"""The authors' published code on small random models: our code gives its numbers, and would not with other weights."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import check_golden
from tests.conftest import GOLDEN



@pytest.mark.parametrize("part", check_golden.CHECKS)
def test_fixtures(part, capsys):
    assert check_golden.main([str(GOLDEN), "--only", part]) == 0, capsys.readouterr().out


def test_missing_fixture_fails(tmp_path, capsys):
    assert check_golden.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("FAIL") == len(check_golden.CHECKS)


def used_tensors() -> list[tuple[str, str]]:
    """(part, tensor) of every weight that the fixtures' outputs depend on; a spread of them unless ALL_TENSORS is set."""
    norms = json.loads((GOLDEN / "decoder" / "variants.json").read_text())["main"]["grad_norm"]
    used = [(name.partition(".")[0], name.partition(".")[2]) for name, norm in norms.items() if norm and norm > 1e-3]
    image = load_file(GOLDEN / "image_encoder" / "weights.safetensors")
    used += [("image_encoder", name) for name in image if name != "proj"]
    return used if os.environ.get("ALL_TENSORS") else used[::9]


@pytest.mark.parametrize("part, tensor", used_tensors(), ids=lambda value: value)
def test_weights_a_little_off_fail(part, tensor, tmp_path, capsys):
    """1e-3 on one random, used element of one tensor must show."""
    shutil.copytree(GOLDEN / part, tmp_path / part)
    shutil.copytree(GOLDEN / "vad_encoder", tmp_path / "vad_encoder", dirs_exist_ok=True)
    path = tmp_path / part / "weights.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(len(tensor))
    rows = weights[tensor].shape[0]
    used_row = torch.randint(rows, (1,), generator=generator)
    if tensor.endswith("wte.weight"):  # a row of a token that the inputs hold
        inputs = load_file(GOLDEN / "decoder" / "inputs_prefix0.safetensors")
        used_row = inputs["input_ids"].flatten()[torch.randint(inputs["input_ids"].numel(), (1,), generator=generator)]
    elif tensor.endswith(("wpe.weight", "pos_encoder.weight")):  # a position that the texts reach
        used_row = torch.randint(8, (1,), generator=generator)
    row = weights[tensor][int(used_row)]
    row.view(-1)[torch.randint(row.numel(), (1,), generator=generator)] += 1e-3
    if tensor.endswith("wte.weight") and "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights[tensor].clone()  # tied
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    assert check_golden.main([str(tmp_path), "--only", part]) == 1
    assert "FAIL" in capsys.readouterr().out
