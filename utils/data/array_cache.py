"""Arrays that took long to compute, kept in the cache folder under a hash of what they were made from."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.files import atomic_path, read_bytes


def load_or_compute(
    cache_dir: Path | None,
    kind: str,
    key: bytes,
    fit: Callable[[list[np.ndarray]], bool],
    make: Callable[[], list[np.ndarray]],
) -> list[np.ndarray]:
    """The arrays that were kept under `key`; where there are none, those of `make`, which are then kept.

    A file that is damaged, or whose arrays `fit` refuses, is named in a line and made anew.

    Args:
        cache_dir: folder of the files; None: keep nothing.
        kind: what the file's name begins with.
        key: a hash of everything that the arrays depend on.
    """
    if cache_dir is None:
        return make()
    path = Path(cache_dir) / f"{kind}-{key.hex()[:24]}.npy"
    if path.is_file():
        arrays = read_kept(path, key)
        if arrays is not None and fit(arrays):
            return arrays
        print(f"{path}: damaged; recreating it", flush=True)
    arrays = make()
    keep(path, key, *arrays)
    return arrays


def keep(path: Path, key: bytes, *arrays: np.ndarray) -> None:
    """Write arrays in the format .npy, one after the other, followed by a SHA-256 over key and file."""
    content = io.BytesIO()
    for array in arrays:
        np.save(content, array)
    digest = hashlib.sha256(key + content.getbuffer()).digest()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.getbuffer())
        file.write(digest)


def read_kept(path: Path, key: bytes) -> list[np.ndarray] | None:
    """Read the arrays of a file of `keep`; None if it is damaged or has another key. Nothing in it is unpickled."""
    content = read_bytes(path)
    digest = hashlib.sha256(key)
    digest.update(memoryview(content)[:-32])
    if digest.digest() != content[-32:]:
        return None
    arrays, file = [], io.BytesIO(memoryview(content)[:-32])
    try:
        while file.tell() < len(content) - 32:
            arrays.append(np.load(file, allow_pickle=False))
    except (ValueError, OSError, EOFError):
        return None
    return arrays
