"""Cross-attention without keys and values of the image, for blocks that have few queries at a time."""

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import Tensor

from models.decoder import Explainer, ExplainerBlock


@contextlib.contextmanager
def attention_to_grid(decoder: Explainer, blocks: int) -> Iterator[None]:
    """Within the context, the last `blocks` blocks of a decoder in evaluation mode attend to the grid itself.

    Their `image_keys_values` then gives the grid [B, G, D] alone, as a tuple of one tensor. In generation this pays for
    blocks that have one new position a step.
    """
    changed = list(decoder.transformer.h)[len(decoder.transformer.h) - blocks :]
    for block in changed:
        block.image_keys_values = _grid_alone
        block.attend_to_image = partial(_attend_to_grid, block)
    try:
        yield
    finally:
        for block in changed:  # the class has the usual ones
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
