"""Arrays that took long to compute, kept in the cache folder under a hash of what they were made from."""

import hashlib
import io
from pathlib import Path

import numpy as np

from utils.files import atomic_path, read_bytes


def keep(path: Path, key: bytes, values: np.ndarray) -> None:
    """Write values as .npy, followed by a SHA-256 over key and file."""
    content = io.BytesIO()
    np.save(content, values)
    digest = hashlib.sha256(key + content.getbuffer()).digest()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content.getbuffer())
        file.write(digest)


def read_kept(path: Path, key: bytes) -> np.ndarray | None:
    """Read a file of `keep`; None if it is damaged or has another key. Nothing in it is unpickled."""
    content = read_bytes(path)
    digest = hashlib.sha256(key)
    digest.update(memoryview(content)[:-32])
    if digest.digest() != content[-32:]:
        return None
    try:
        return np.load(io.BytesIO(content[:-32]), allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None
