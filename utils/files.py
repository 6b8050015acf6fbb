"""Reading and writing files so that a result is either whole or absent."""

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import LONGEST_NAME, UNSUPPORTED, InputError, brief

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MOST_BYTES = 4 << 30  # of a file that is read whole
# Answers of file systems that know no locks, or no fsync (of folders).
NO_LOCKS = (*UNSUPPORTED, errno.ENOLCK, errno.EBADF, errno.EPERM)
NO_SYNC = (*UNSUPPORTED, errno.EBADF, errno.EPERM, errno.EACCES)


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
    short = f"{path.name[:40]}-{zlib.crc32(os.fsencode(path.name)):08x}"  # a name as long as may be leaves no room
    temporary = path.with_name(f".{short}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Refuse, if need be before long work, a path that no file can be written to (InputError): a folder, a pipe or device,
    or below a file or a link that leads nowhere.

    Names that are too long for a file system are refused.
    """
    path = Path(path)
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME:
        raise InputError(f"{brief(path)}: a name of {longest} bytes is too long; give a shorter one")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a pipe, socket or device; give the name of a file")
    for parent in path.parents:
        if os.path.lexists(parent) and not parent.is_dir():
            kind = "a file" if parent.is_file() else "no folder" if parent.exists() else "a link that leads nowhere"
            raise InputError(f"{path}: cannot be written, as {parent} is {kind}; name another folder")


def check_writable(path: str | Path) -> None:
    """Refuse, before long work, a file whose folder (or the nearest that is there) takes no files (InputError)."""
    folder = next((parent for parent in Path(path).absolute().parents if parent.exists()), Path("/"))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: nothing can be written in {folder}; name another folder")


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
            if error.errno not in NO_LOCKS:
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
    """fsync a file or a folder, so that it survives a power cut, where the file system can do that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            error.filename = str(path)
            raise


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
        InputError: the file is missing, no file, not UTF-8, not JSON, nested too deeply, or one of its objects has the
            same name twice (both places are named): of two values Python would keep the last without a word.
    """
    return parse_json(read_bytes(path), path)


def parse_json(content: bytes, path: str | Path) -> Any:
    """Like `read_json`, for bytes that are read already; `path` is for messages."""
    try:
        return json.loads(content, object_pairs_hook=_without_repeats)
    except _RepeatedName:
        name, first, second = _repeated_name(json.loads(content, cls=_AsText))
        raise InputError(f"{path}: {name[:40]!r} is there twice, at {first} and at {second}; remove one") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: not valid JSON ({error.msg} at {place}); make the file anew") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply to be one of our files; make the file anew") from None
    except ValueError as error:  # e.g. an integer of more than 4300 digits
        raise InputError(f"{path}: not valid JSON ({error}); make the file anew") from None


class _RepeatedName(Exception):
    """An object of a JSON file has the same name twice."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedName
    return found


class _AsText(json.JSONDecoder):
    """Decodes the bytes of a JSON file as json.loads does, but gives their text."""

    def decode(self, text: str) -> str:
        return text


def _repeated_name(text: str) -> tuple[str, str, str]:
    """The first name that stands twice in one object of a JSON text, and both its places. The parser does not tell them."""
    inside: list[dict[str, int] | None] = []  # names and their places of the objects we are in; None for a list
    for token in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|[][{}]', text):
        if token[0] == "{":
            inside.append({})
        elif token[0] == "[":
            inside.append(None)
        elif token[0] in "]}":
            inside.pop()
        elif token[1]:  # a string before a colon
            name = json.loads(token[0].removesuffix(token[1]), strict=False)
            first = inside[-1].setdefault(name, token.start())
            if first != token.start():
                return name, _place(text, first), _place(text, token.start())
    raise AssertionError("no name is there twice")


def _place(text: str, position: int) -> str:
    return f"line {text.count(chr(10), 0, position) + 1}, column {position - text.rfind(chr(10), 0, position)}"


def check_regular(path: str | Path, remedy: str = "name another file") -> None:
    """Refuse what is no regular file, before it is opened: reading a pipe or a terminal would wait for ever.

    Raises:
        InputError: nothing there, a folder, a pipe, a socket, a device, or a path that cannot be looked up.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)[:400]}: cannot be read ({str(reason).lower()}); {remedy}") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder, a file was expected; {remedy}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a pipe, socket or device, a regular file was expected; {remedy}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read (permission denied); {remedy}")


def read_bytes(path: str | Path, remedy: str = "name another file") -> bytes:
    """Read a whole regular file of at most `MOST_BYTES`; InputError when it is anything else or unreadable."""
    check_regular(path, remedy)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise InputError(f"{path}: has more than {MOST_BYTES >> 30} GiB, which none of our files has; {remedy}")
        return file.read()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex; InputError when it is no regular file."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
