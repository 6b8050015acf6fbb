"""Reading and writing files so that a result is either whole or absent."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import LONGEST_NAME, InputError, brief

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block succeeds it is fsynced and renamed to `path`, else removed.

    Readers therefore see the old file or the new one, never a part, also after a crash or a kill.

    Raises:
        InputError: `path` is no place for a file, see `check_place`.
    """
    path = Path(path)
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Refuse, if need be before long work, a path that no file can be written to: a folder, or below a file (InputError).

    Names are refused that leave no room for the temporary file of `atomic_path`, or that are not UTF-8.
    """
    path = Path(path)
    try:
        longest = max((len(part.encode()) for part in path.parts), default=0)
    except UnicodeEncodeError:
        raise InputError(f"{path}: not UTF-8; give another name") from None
    if longest > LONGEST_NAME - 20:
        raise InputError(f"{brief(path)}: a name of {longest} bytes is too long; give a shorter one")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    for parent in path.parents:
        if parent.is_file():
            raise InputError(f"{path}: cannot be written, as {parent} is a file; name another folder")


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool) -> Iterator[int]:
    """Lock a folder against other processes of this machine while the block runs; gives its descriptor.

    The lock is on the folder itself, not on a file in it, so nobody can remove it or put something else in its place. It
    ends with the process, however that dies: processes that are forked meanwhile give their copy up at once. A file system
    that has no such locks (some network ones) is left unlocked.

    Args:
        wait: for another process to be done; else BlockingIOError.

    Raises:
        InputError: this system has no such locks.
    """
    if fcntl is None:
        raise InputError(f"{folder}: this system cannot lock a folder; work on Linux or macOS")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _locked_folders.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF):
                raise
        yield descriptor
    finally:
        _locked_folders.discard(descriptor)
        os.close(descriptor)


_locked_folders: set[int] = set()


def _forget_locks() -> None:
    for descriptor in _locked_folders:
        os.close(descriptor)
    _locked_folders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def sync(path: Path) -> None:
    """fsync a file or a folder, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as UTF-8 JSON atomically; NaN and infinity are refused (ValueError), as no JSON reader takes them."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        InputError: the file is missing, no file, not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(read_bytes(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: not valid JSON ({error.msg} at {place}); make the file anew") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply to be one of our files; make the file anew") from None
    except ValueError as error:  # e.g. an integer of more than 4300 digits
        raise InputError(f"{path}: not valid JSON ({error}); make the file anew") from None


def read_bytes(path: str | Path) -> bytes:
    """Read a whole file; InputError when it is missing, a folder or unreadable."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, a file was expected") from None
    except PermissionError:
        raise InputError(f"{path}: cannot be read (permission denied)") from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
