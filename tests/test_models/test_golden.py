"""The authors' published code on small random models: our code gives its numbers, and would not with other weights."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import GOLDEN
from tests.tools import check_golden


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


@pytest.fixture(scope="module")
def gradients() -> dict[str, torch.Tensor]:
    """Gradient of every weight in the fixtures' main variant: where it is 0, an element is not used."""
    models = []
    build = check_golden.decoder_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_golden, "decoder_model", lambda *args: models.append(build(*args)) or models[-1])
        assert check_golden.main([str(GOLDEN), "--only", "decoder"]) == 0
    return {name: parameter.grad for name, parameter in models[0].named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("part, tensor", used_tensors(), ids=lambda value: value)
def test_weights_a_little_off_fail(part, tensor, gradients, tmp_path, capsys):
    """1e-3 on one random, used element of one tensor must show."""
    shutil.copytree(GOLDEN / part, tmp_path / part)
    shutil.copytree(GOLDEN / "vad_encoder", tmp_path / "vad_encoder", dirs_exist_ok=True)
    path = tmp_path / part / "weights.safetensors"
    weights = load_file(path)
    used = torch.ones_like(weights[tensor], dtype=torch.bool)
    if part != "image_encoder":
        used = gradients[f"{part}.{tensor}"].abs() > 1e-4
    elements = used.flatten().nonzero().flatten()
    chosen = elements[torch.randint(len(elements), (1,), generator=torch.Generator().manual_seed(len(tensor)))]
    weights[tensor].view(-1)[chosen] += 1e-3
    if tensor.endswith("wte.weight") and "lm_head.weight" in weights:
        weights["lm_head.weight"] = weights[tensor].clone()  # tied
    save_file({name: value.contiguous() for name, value in weights.items()}, path)
    assert check_golden.main([str(tmp_path), "--only", part]) == 1
    assert "FAIL" in capsys.readouterr().out
