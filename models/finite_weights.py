"""Weights with which nothing can be computed."""

from collections.abc import Collection

import torch
from torch import nn


def not_finite(module: nn.Module, undrawn: Collection[str] = ()) -> str | None:
    """What is wrong with the first weight that is NaN or infinite; None if all are finite. `undrawn` names weights to leave out."""
    for name, weight in module.named_parameters():
        if weight.numel() and name not in undrawn and not torch.stack(weight.detach().aminmax()).isfinite().all():
            return f"{name} holds numbers that are not finite (NaN or infinite)"
    return None
