"""Files of torch.save, read without running anything in them."""

from pathlib import Path
from typing import Any

import torch

from utils.errors import InputError, brief


def read_torch_file(path: Path) -> Any:
    """torch.load with weights_only=True; InputError when the file is torn, or holds anything but tensors and plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # torch raises a different one for every way in which a file can be wrong
        raise InputError(f"{path}: torn, altered or unsafe ({brief(error)}); take another checkpoint") from None
