"""Reading and writing files so that a result is either whole or absent."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.errors import UNSUPPORTED, InputError, brief

MANIFEST = "manifest.json"
LOCK_FILE, OWNER_FILE = ".run.lock", ".run.owner"
# in the errors of torch, safetensors and tokenizers when the system could not write
WRITE_FAILED = re.compile(r"PytorchStreamWriter|inline_container|os error|I/O error", re.IGNORECASE)
DISK_RESERVE = 32 << 20  # bytes; a failed write that leaves less than this failed for lack of space
# errors of file systems without locks, or without fsync of folders
NO_LOCKS = (*UNSUPPORTED, errno.ENOLCK, errno.EBADF, errno.EPERM)
NO_SYNC = (*UNSUPPORTED, errno.EBADF, errno.EPERM, errno.EACCES)

# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_path(path: str | Path, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds it is fsynced and renamed to `path`, else removed.

    Readers therefore see the old file or the new one, never a part, also after a crash or a kill.

    Args:
        folder: `path` is a folder, and the temporary path an empty one. It replaces an older folder by two renames;
            after a kill between them `present` finds the older one, and `finish_renames` restores it.

    Raises:
        InputError: `path` cannot be written, see `check_place`.
        OSError: the write failed; ENOSPC for a full disk, whatever error the library raised.
    """
    path = Path(path)
    if not folder:
        check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # several processes may write the same file, but not the same folder: there a temporary one is left from a kill
    temporary = path.with_name(f".{path.name}.tmp" if folder else f".{path.name[:40]}.{os.getpid()}.tmp")
    try:
        if folder:
            remove(temporary)
            temporary.mkdir()
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            sync(part)
        if folder and os.path.lexists(path):
            remove(_old(path))
            os.replace(path, _old(path))
        os.replace(temporary, path)
        sync(path.parent)
        if folder:
            remove(_old(path))
    except Exception as error:
        if isinstance(error, OSError | InputError) or not WRITE_FAILED.search(str(error)):
            raise
        full = shutil.disk_usage(path.parent).free < DISK_RESERVE
        reason = os.strerror(errno.ENOSPC) if full else brief(error)  # else a quota, or a limit on the size of files
        raise OSError(errno.ENOSPC if full else errno.EIO, reason, str(temporary)) from None
    finally:
        remove(temporary)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def present(folder: Path) -> Path:
    """Where a folder of `atomic_path` is: at `folder`, or where a kill between two renames left the older one."""
    return _old(folder) if not folder.exists() and _old(folder).is_dir() else folder


def finish_renames(parent: Path) -> None:
    """Restore every folder in `parent` that a kill between two renames of `atomic_path` left under another name."""
    for old in Path(parent).glob(".*.old"):
        folder = old.with_name(old.name[1:].removesuffix(".old"))
        if not folder.exists():
            os.replace(old, folder)


def remove(path: Path) -> None:
    """Remove a file, a folder or a link (never what it points to), if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """fsync a file or a folder, so that it survives a power cut, where the file system supports that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:  # among them EACCES: Windows opens no folders
            raise OSError(error.errno, error.strerror, str(path)) from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
    """Write `value` as UTF-8 JSON atomically; NaN and infinity, which are not JSON, raise ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")


def check_place(path: str | Path) -> None:
    """InputError for a path that no file can be written to: a folder, a pipe or device, or a path below a file."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a pipe, socket or device; give the name of a file")
    for parent in path.parents:
        if os.path.lexists(parent) and not parent.is_dir():
            raise InputError(f"{path}: cannot be written, as {parent} is not a folder; name another folder")


def check_writable(path: str | Path) -> None:
    """InputError, before long work, for a file whose folder, or the nearest that exists, is not writable."""
    folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the folder {folder} is not writable; name another folder")


# ---- manifests -------------------------------------------------------------------------------------------------------


def write_manifest(folder: Path, beside: dict[str, Path] | None = None) -> None:
    """Write manifest.json: the SHA-256 of every file in `folder`, and of files `beside` it (name there -> path)."""
    files = {path.name: path for path in sorted(folder.iterdir())} | (beside or {})
    content = {"sha256": {name: sha256(path) for name, path in files.items()}}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def damaged_file(folder: Path, beside: dict[str, Path] | None = None) -> str | None:
    """The first file that is missing or differs from its SHA-256 in manifest.json, by name; None if there is none."""
    try:
        digests = read_json(folder / MANIFEST)["sha256"].items()
    except (InputError, AttributeError, KeyError, TypeError):
        return MANIFEST
    for name, digest in digests:
        path = (beside or {}).get(name, folder / name)
        if not path.is_file() or sha256(path) != digest:
            return name
    return None


# ---- one run per folder ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock `folder` against other runs during the block; a folder that is created for it is removed if it stays empty.

    The lock ends with this process, however it ends, and not with processes that it forks.

    Raises:
        InputError: another run works in the folder; names its process and host.
    """
    from filelock import FileLock, Timeout  # here, as its import takes 0.1 s

    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK_FILE), folder / OWNER_FILE
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = owner.read_text(encoding="utf-8") if owner.is_file() else "unknown process"
        raise InputError(
            f"{folder}: another run is at work here ({holder}); wait for it or name another folder"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{folder}: this file system has no locks ({error.strerror}); make sure that no other run works here")
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        for file in (owner, folder / LOCK_FILE):  # filelock does not lock a file that was removed in the meantime
            file.unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # not empty
            for path in created:
                path.rmdir()


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Let one process at a time write `path`, a file or a folder; the others wait. Its parent folder is created."""
    from filelock import FileLock  # here, as its import takes 0.1 s

    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")  # not the file itself, which is replaced
    lock = FileLock(file)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # waiting processes create another: filelock locks no file that was removed
        lock.release()


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_json(path: str | Path) -> Any:
    """Read a UTF-8 JSON file.

    Raises:
        InputError: the file is missing, not a regular file, not UTF-8 or not JSON, or one of its objects has a name twice:
            Python would silently keep the last of the two values.
    """
    return parse_json(read_bytes(path), path)


def parse_json(content: bytes, path: str | Path) -> Any:
    """Like `read_json`, from the file's content; `path` is for messages."""
    try:
        return json.loads(content, object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path}: JSON nested too deeply; make the file again") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({brief(error)}); make the file again") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"{name[:40]!r} is twice in one object")
    return found


def check_regular(path: str | Path, remedy: str = "name another file") -> None:
    """InputError for what is not a file that can be read, before it is opened: a pipe would block for ever."""
    if not os.path.exists(path):
        raise InputError(f"{brief(path)}: no such file; {remedy}")
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder, a file was expected; {remedy}")
    if not os.path.isfile(path):
        raise InputError(f"{path}: is a pipe, socket or device, a regular file was expected; {remedy}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read (permission denied); {remedy}")


def read_bytes(path: str | Path, remedy: str = "name another file") -> bytes:
    """The content of a file; InputError as `check_regular`."""
    check_regular(path, remedy)
    return Path(path).read_bytes()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex; InputError as `check_regular`."""
    check_regular(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- csv files -------------------------------------------------------------------------------------------------------


def check_append_to(path: Path) -> None:
    """InputError, before a long run, for a file that is not a csv file of test reports."""
    if os.path.lexists(path):
        _read_rows(path)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append the row of a test report; new columns are added to the file. Runs that end together do not lose a row."""
    with write_lock(path):
        columns, rows = _read_rows(path) if path.exists() else ([], [])
        columns += [name for name in row if name not in columns]
        write_rows(path, columns, [*rows, row])


def write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a csv file atomically: a header, then the rows; a value that a row lacks stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _without_formula(cell) for name, cell in row.items()} for row in rows)


def _without_formula(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run as a formula."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a negative number


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error}); name another with --append_to") from None
    columns = list(reader.fieldnames or [])
    if (columns or rows) and ("test_set" not in columns or any(None in row or None in row.values() for row in rows)):
        raise InputError(f"{path}: not a CSV file of test reports; name another with --append_to")
    return columns, rows


def moved(path: str, recorded: str, folder: Path) -> Path:
    """Where a recorded path is if it was moved along with the folder that was recorded as `recorded`."""
    return Path(os.path.normpath(folder.absolute() / os.path.relpath(path, recorded)))
