"""Memory of a process: what malloc does with freed memory, weights that forked processes share, the peak."""

import contextlib
import ctypes
import gc
import mmap
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# parameters of glibc's mallopt
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def reuse_freed_memory() -> None:
    """Let this process's malloc keep large freed buffers for the next ones of their size.

    By default glibc maps a buffer above 32 MiB again each time, and returns memory at the heap's end; the kernel then
    clears every page at its first access, which takes about a tenth of a training step on a CPU. Tensors on a GPU have
    an allocator of their own. Without glibc this does nothing.
    """
    if libc := _glibc():
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, before a fork: pages shared with the new process are copied on reuse."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


def share_weights(model: "torch.nn.Module") -> None:
    """Move the weights of a model that stays on the CPU to memory that processes forked later share with this one.

    Otherwise the first update copies each page of them, as the loader processes keep the old one.
    """
    for parameter in model.parameters():
        parameter.data = _shared(parameter.data)


def _shared(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    if tensor.numel() == 0:
        return tensor
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())  # anonymous: needs no space in /dev/shm
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Switch Python's garbage collector off within the context.

    While the records are read, it would search all of them again and again, which takes longer than reading them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def peak_memory(device: "torch.device") -> int | None:
    """The peak memory of this process in bytes: on its GPU, else in main memory; None where it is unknown (Windows)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
