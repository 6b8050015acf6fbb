"""Linear layers on a CPU while the weights stay as they are: a copy of them in the order that oneDNN reads fastest."""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from models.cpu.screening import ScreenedTopTwo
from models.decoder import Explainer


@contextlib.contextmanager
def packed_weights(decoder: Explainer, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Within the context, the decoder's linear layers multiply with packed copies of their weights.

    Few rows times a large matrix take as long as reading the matrix, and PyTorch's product does not read it at full speed.
    Packed, the output layer takes two thirds of its time for 8 rows. GELU is computed with the product before it. In float32,
    on CPUs that multiply bfloat16, `top_two` excludes most tokens with it, see `ScreenedTopTwo`. The values differ from the
    usual ones by float32 rounding only.

    The weights must not change within the context, which needs up to one and a half times their memory. Nothing is done on
    a GPU, with other weights than float32, and where oneDNN is missing or does not take `dtype` on this CPU.

    Args:
        decoder: in evaluation mode.
        dtype: what products are computed in: float32, or bfloat16 for a decoder that runs under autocast to it.
    """
    weight = decoder.lm_head.weight
    usable = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    supported = dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if not usable or not supported:
        yield
        return
    changed: list[nn.Module] = []
    try:
        with torch.no_grad():
            for module in decoder.modules():
                if isinstance(module, (Conv1D, nn.Linear)):
                    module.forward = packed_product(module, dtype)
                    changed.append(module)
            for block in decoder.transformer.h:
                if isinstance(block.mlp.act, nn.GELU):
                    block.mlp.c_fc.forward = partial(block.mlp.c_fc.forward, activation="gelu")
                    block.mlp.act.forward = nn.Identity().forward
                    changed.append(block.mlp.act)
            if dtype == torch.float32 and torch.cpu._is_avx512_bf16_supported():
                decoder.top_two = ScreenedTopTwo(weight)
        yield
    finally:
        vars(decoder).pop("top_two", None)
        for module in changed:
            del module.forward  # the class has the usual one


def packed_product(module: Conv1D | nn.Linear, dtype: torch.dtype) -> partial:
    """The module's forward, [..., in] -> [..., out], with its weight as it is now."""
    weight = module.weight.T.contiguous() if isinstance(module, Conv1D) else module.weight
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
    bias = getattr(module, "bias", None)
    return partial(_multiply, packed, None if bias is None else bias.to(dtype), dtype)


def _multiply(packed: Tensor, bias: Tensor | None, dtype: torch.dtype, x: Tensor, activation: str = "none") -> Tensor:
    algorithm = "tanh" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, bias, activation, [], algorithm)
