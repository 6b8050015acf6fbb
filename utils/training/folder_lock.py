"""One run per folder: a lock that ends with the process that holds it."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from utils.errors import InputError

LOCK_FILE = ".run.lock"
ATTEMPTS = 20


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` while the block runs; the folder is made for it, and goes again if it stays empty.

    The lock is the operating system's and ends with the process, however that dies; the file only says whose it is. A
    file left by a dead run is therefore no obstacle.

    Raises:
        InputError: another run works in the folder; names its host and pid.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    descriptor = _lock(folder)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)  # while it is locked: `_lock` notices
        os.close(descriptor)
        with contextlib.suppress(OSError):  # it holds what the run has written
            for path in made:
                path.rmdir()


def _lock(folder: Path) -> int:
    """The descriptor of the folder's lock file, locked. A run that ends beside us may remove file and folder meanwhile."""
    for _ in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes would inherit it
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / LOCK_FILE)):
                return descriptor
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError):
            owner = os.read(descriptor, 500).decode("utf-8", "replace").strip() or "an unknown process"
            os.close(descriptor)
            raise InputError(
                f"{folder}: another run is at work here ({owner}); wait for it or name another folder"
            ) from None
        os.close(descriptor)
    raise InputError(f"{folder}: the lock file {LOCK_FILE} cannot be kept here; name another folder")
