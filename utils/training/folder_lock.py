"""One run per folder: a lock that ends with the process that holds it.

Not the package filelock: its lock is lost when somebody removes the file, and its file does not tell whose it is.
"""

import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from utils.errors import InputError
from utils.files import NO_LOCKS, folder_lock

try:
    import fcntl
except ImportError:  # Windows; folder_lock refuses
    fcntl = None

LOCK_FILE = ".run.lock"
ATTEMPTS = 20


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` while the block runs; the folder is made for it, and goes again if it stays empty.

    Two locks of the operating system, which end with the process, however that dies: one on the folder itself, which
    cannot be removed, and one on a file in it, which network file systems pass on to other machines. The file also says
    whose they are; left by a dead run it is no obstacle.

    Raises:
        InputError: another run works in the folder (names its host and pid), or something else has the lock file's name.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with contextlib.ExitStack() as stack:
        descriptor = _lock(folder, stack)
        try:
            owner = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
            os.ftruncate(descriptor, os.pwrite(descriptor, owner, 0))
            yield
        finally:
            if _is_at(descriptor, folder / LOCK_FILE):
                (folder / LOCK_FILE).unlink()  # while it is locked: `_lock` notices
            stack.close()
            with contextlib.suppress(OSError):  # it holds what the run has written
                for path in made:
                    path.rmdir()


def _lock(folder: Path, stack: contextlib.ExitStack) -> int:
    """Lock folder and lock file; the file's descriptor. A run that ends beside us may remove both meanwhile."""
    for _ in range(ATTEMPTS):
        with contextlib.ExitStack() as attempt:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                on_folder = attempt.enter_context(folder_lock(folder, wait=False))
                descriptor = _open(folder)
                attempt.callback(os.close, descriptor)
                _lock_file(descriptor)
            except FileNotFoundError:
                continue
            except (BlockingIOError, PermissionError) as error:
                if isinstance(error, PermissionError) and error.filename is not None:  # not of lockf
                    raise
                raise InputError(
                    f"{folder}: another run is at work here ({_owner(folder)}); wait for it or name another folder"
                ) from None
            if _is_at(on_folder, folder) and _is_at(descriptor, folder / LOCK_FILE):
                stack.push(attempt.pop_all())
                return descriptor
    raise InputError(f"{folder}: the lock file {LOCK_FILE} cannot be kept here; name another folder")


def _lock_file(descriptor: int) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes would inherit it
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _open(folder: Path) -> int:
    """Open the lock file, or make it; InputError where its name is that of anything but a lock file."""
    path = folder / LOCK_FILE
    remedy = "is no lock file of ours; remove it or name another folder"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise InputError(f"{path}: {remedy}") from None
        raise
    content = os.pread(descriptor, 500, 0) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b"?"
    if content.strip(b"\0") and not content.startswith(b'{"host"'):
        os.close(descriptor)
        raise InputError(f"{path}: {remedy}")
    return descriptor


def _owner(folder: Path) -> str:
    try:
        descriptor = _open(folder)
    except (OSError, InputError):
        return "an unknown process"
    with os.fdopen(descriptor, "rb") as file:
        return file.read(500).decode("utf-8", "replace").strip() or "an unknown process"


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still leads to the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:  # removed, or replaced by a file or a link that leads nowhere
        return False
