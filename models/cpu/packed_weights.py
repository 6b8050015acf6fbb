"""Faster generation on a CPU: packed copies of the weights, and cross-attention to the grid without keys and values."""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from models.cpu.screening import ScreenedTopTwo
from models.decoder import Explainer, ExplainerBlock


@contextlib.contextmanager
def packed_weights(decoder: Explainer, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Within the context, the decoder's linear layers multiply with packed copies of their weights.

    Few rows times a large matrix take as long as reading the matrix, and PyTorch's product does not read it at full speed.
    oneDNN reads a packed copy faster: the output layer takes two thirds of its time for 8 rows. GELU is computed together
    with the product before it. In float32, on CPUs that multiply bfloat16, `top_two` excludes most tokens in bfloat16, see
    `ScreenedTopTwo`. The values differ from the usual ones by float32 rounding only.

    The weights must not change within the context, which needs up to one and a half times their memory. Nothing is changed
    on a GPU, for weights that are not float32, or if oneDNN is missing or does not support `dtype` on this CPU.

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
            del module.forward  # the class's own takes its place again


def packed_product(module: Conv1D | nn.Linear, dtype: torch.dtype) -> partial:
    """The module's forward, [..., in] -> [..., out], with a packed copy of its present weight."""
    weight = module.weight.T.contiguous() if isinstance(module, Conv1D) else module.weight
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype), None)
    bias = getattr(module, "bias", None)
    return partial(_multiply, packed, None if bias is None else bias.to(dtype), dtype)


def _multiply(packed: Tensor, bias: Tensor | None, dtype: torch.dtype, x: Tensor, activation: str = "none") -> Tensor:
    algorithm = "tanh" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x.to(dtype), packed, bias, activation, [], algorithm)


@contextlib.contextmanager
def attention_to_grid(decoder: Explainer, blocks: int) -> Iterator[None]:
    """Within the context, the last `blocks` blocks of a decoder in evaluation mode attend to the grid itself.

    Their `image_keys_values` then returns only the grid [B, G, D], as a tuple of one tensor. In generation this is faster
    for blocks that have one new position per step.
    """
    changed = list(decoder.transformer.h)[len(decoder.transformer.h) - blocks :]
    for block in changed:
        block.image_keys_values = _grid_alone
        block.attend_to_image = partial(_attend_to_grid, block)
    try:
        yield
    finally:
        for block in changed:  # the class's own methods take their place again
            del block.image_keys_values, block.attend_to_image


def _grid_alone(grid: Tensor) -> tuple[Tensor]:
    return (grid,)


def _attend_to_grid(block: ExplainerBlock, query: Tensor, image: tuple[Tensor]) -> Tensor:
    """Query [B, Q, D], grid [B, G, D] -> [B, Q, D].

    With key_g = K grid_g + k, query . key_g is (K^T query) . grid_g, plus query . k, which the softmax cancels. With
    value_g = V grid_g + v, the weighted sum of the values is V (weighted sum of the grid) + v. For few queries this is
    less work than G keys and values.
    """
    attention, (images, queries, width) = block.crossattention, query.shape
    (grid,), heads = image, attention.num_heads
    key, value = attention.c_attn.weight.view(width, 2, heads, -1).unbind(1)  # [D, heads, d]
    query = query.view(images * queries, heads, -1).transpose(0, 1)  # [heads, B Q, d]
    query = (query * attention.scaling) @ key.permute(1, 2, 0)  # [heads, B Q, D]
    query = query.view(heads, images, queries, width).transpose(0, 1).reshape(images, heads * queries, width)
    weights = (query @ grid.mT).softmax(dim=-1)
    attended = (weights @ grid).view(images, heads, queries, width).transpose(0, 1)
    attended = attended.reshape(heads, images * queries, width) @ value.transpose(0, 1)  # [heads, B Q, d]
    attended = attended.transpose(0, 1).reshape(images, queries, width) + attention.c_attn.bias[width:]
    return attention.c_proj(attended)
