"""Memory of a training run: what loader processes share with it, and when Python looks for garbage."""

import contextlib
import gc
import mmap
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def share_weights(model: nn.Module) -> None:
    """Move the weights of a model that stays on the CPU to memory that processes forked later share with this one.

    Otherwise each page of them is copied when the first update writes to it, as the loader's processes keep the old one.
    """
    for parameter in model.parameters():
        parameter.data = _shared(parameter.data)


def _shared(tensor: Tensor) -> Tensor:
    if tensor.numel() == 0:
        return tensor
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())  # anonymous: it takes nothing of /dev/shm
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Within the context Python does not look for garbage.

    While the records are read, it would search all of them again and again, which takes longer than reading them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
