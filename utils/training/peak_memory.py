"""How much memory a process has used."""

import sys

import torch


def peak_memory(device: torch.device) -> int | None:
    """The most memory that this process has held so far, in bytes: on its GPU, else in main memory.

    None where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
