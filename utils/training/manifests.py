"""Folders with a manifest of SHA-256 hashes: written whole, verified when read, removed when their writing fails."""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import InputError, brief
from utils.files import read_json, sha256, sync

MANIFEST = "manifest.json"
WRITE_FAILED = re.compile("PytorchStreamWriter|inline_container|os error|I/O error", re.IGNORECASE)
DISK_RESERVE = 32 << 20  # bytes; a write that failed with less than this left failed for want of space


def write_manifest(folder: Path, files: dict[str, Path], **more: Any) -> None:
    """Write the hashes of `files` (name in the manifest -> path) and `more` into `folder`, and put all of it on disk."""
    for path in files.values():
        sync(path)
    content = {"sha256": {name: sha256(path) for name, path in files.items()}} | more
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none that can be read."""
    if not (folder / MANIFEST).is_file():
        return None
    with contextlib.suppress(InputError):
        content = read_json(folder / MANIFEST)
        if isinstance(content, dict) and isinstance(content.get("sha256"), dict) and content["sha256"]:
            return content
    return None


def damaged_file(folder: Path, files: dict[str, Path]) -> str | None:
    """The name of the first file that is missing or not as its manifest says; None when all are.

    Args:
        files: paths of the files that do not lie in the folder under their name in the manifest.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return MANIFEST
    for name, digest in manifest["sha256"].items():
        path = files.get(name, folder / name)
        if not path.is_file() or sha256(path) != digest:
            return name
    return None


def remove(path: Path) -> None:
    """Remove a file, a folder or a link (never what it points to), if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename what must make room, and may be dear to somebody, to <name>-set-aside-<n>; returns that path."""
    number = 1
    while os.path.lexists(
        aside := path.with_name(f"{path.name}-set-aside-{number}")
    ):  # a broken link is in the way, too
        number += 1
    os.replace(path, aside)
    return aside


@contextlib.contextmanager
def removed_on_failure(*paths: Path) -> Iterator[None]:
    """Leave nothing half-written behind, and call a full disk by its name: torch, safetensors and tokenizers have other words for it."""
    try:
        yield
    except BaseException as error:
        full = shutil.disk_usage(paths[0].parent).free < DISK_RESERVE
        for path in paths:
            remove(path)
        if isinstance(error, Exception) and not isinstance(error, OSError | InputError):
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(paths[0])) from None
            if WRITE_FAILED.search(str(error)):  # a quota, a limit on the size of files, a broken disk
                raise OSError(errno.EIO, brief(error), str(paths[0])) from None
        raise
