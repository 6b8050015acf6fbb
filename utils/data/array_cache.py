"""Arrays that take long to compute, cached in files whose names contain a hash of everything the arrays depend on."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from utils.files import atomic_path, read_bytes

DIGEST_SIZE = 32  # bytes of a SHA-256


def load_or_compute(
    cache_dir: Path | None, kind: str, key: bytes, compute: Callable[[], list[np.ndarray]]
) -> list[np.ndarray]:
    """The arrays that are cached under `key`; without a cache file, those of `compute`, which are then cached.

    A damaged file is reported in one line and written again.

    Args:
        cache_dir: folder of the files; None: no caching.
        kind: beginning of the file's name.
        key: a hash of everything that the arrays depend on.
    """
    if cache_dir is None:
        return compute()
    path = Path(cache_dir) / f"{kind}-{key.hex()[:24]}.npy"
    if path.is_file():
        arrays = read_arrays(path, key)
        if arrays is not None:
            return arrays
        print(f"{path}: damaged; recreating it", flush=True)
    arrays = compute()
    write_arrays(path, key, arrays)
    return arrays


def write_arrays(path: Path, key: bytes, arrays: list[np.ndarray]) -> None:
    """Write arrays in the format .npy, one after the other, followed by a SHA-256 of key and arrays."""
    content = io.BytesIO()
    for array in arrays:
        np.save(content, array)
    digest = hashlib.sha256(key + content.getbuffer()).digest()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.getbuffer())
        file.write(digest)


def read_arrays(path: Path, key: bytes) -> list[np.ndarray] | None:
    """Read the arrays of a file of `write_arrays`; None if it is damaged or has another key."""
    whole = memoryview(read_bytes(path))
    content, digest = whole[:-DIGEST_SIZE], hashlib.sha256(key)
    digest.update(content)
    if digest.digest() != whole[-DIGEST_SIZE:]:
        return None
    arrays, file = [], io.BytesIO(content)
    while file.tell() < len(content):
        arrays.append(np.load(file, allow_pickle=False))
    return arrays
