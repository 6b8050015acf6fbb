"""One kind of error for everything a user can put right, and the way scripts report it."""

import argparse
import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from itertools import pairwise
from typing import NoReturn

from utils.processes import cores, prepare_environment

LONGEST_NAME = 255  # in bytes, on Linux
# What file systems answer that lack an operation, as some network and FUSE ones do.
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# Processes or threads that one flag may ask for: more than pay, fewer than bring a machine down.
MOST_PROCESSES = max(64, 4 * cores())


class InputError(Exception):
    """Bad input: the message is one line that names the file, the record and the remedy.

    It quotes names and texts from files; what would break the line, or command the terminal, is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def escaped(text: str, keep: str = "") -> str:
    """`text` with control characters spelled out, but for those in `keep`: what files hold must not command a terminal."""
    return "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)


def brief(error: object) -> str:
    """The beginning of an error's message (or of a path), in one line, to be quoted in an InputError's."""
    return " ".join(str(error).split())[:200]


class OneLineParser(argparse.ArgumentParser):
    """Reports wrong flags as an InputError: one line, as every other error of ours.

    Refused for every flag: an empty value, and text that is not UTF-8.
    """

    def parse_known_args(self, args=None, namespace=None):
        for before, value in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            if value == "" or value.startswith("--") and value.endswith("="):
                flag = value.rstrip("=") or (before if before.startswith("--") else "without a flag")
                self.error(f"argument {flag}: its value is empty; give one, or leave it out")
            if not _is_utf8(value):
                self.error(f"argument {value!r}: not UTF-8 text; rename the file or folder")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(\S{60})\S{60,}", r"\1...", message)  # a number of 5000 digits, say
        raise InputError(f"{message} (see --help)")


def _is_utf8(text: str) -> bool:
    """False for what the command line held in bytes of another encoding, which Python keeps as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(kind: type, low: float, high: float = 10**9) -> Callable[[str], float]:
    """A type for argparse: numbers of `kind` (int or float) from `low` to `high`."""

    def convert(text: str):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    convert.__name__ = kind.__name__
    return convert


def run_script(main: Callable[[], int | None]) -> int:
    """Run a script's `main` and turn what a user can put right into one line on stderr and an exit status.

    Returns 0 for success, 2 for an `InputError`, 1 for a full disk, a file or folder that cannot be read or written, or a
    lost process of several, 130 for Ctrl-C.
    Other exceptions are faults of ours and keep their traceback.
    """
    try:
        prepare_environment()
        status = main() or 0
        sys.stdout.flush()  # here a pipe that nobody reads is one line, at exit it would be a traceback
        return status
    except SystemExit:  # of --help, or of a signal
        try:
            sys.stdout.flush()
        except OSError:
            silence_stdout()
        raise
    except InputError as error:
        _let_first_process_speak()
        return _failed(str(error), 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno is None:  # not of the operating system
            raise
        return _failed(*_explained(error))
    except BrokenExecutor:
        return _failed(
            "one of the processes that share the work was killed, perhaps because memory ran out: free some memory, or give "
            "a smaller --jobs where the program has it, and start again"
        )
    except RuntimeError as error:
        if not _others_gone(error):
            raise
        time.sleep(0.1 * _rank())  # one line is enough: the launcher ends the others soon
        return _failed(
            f"process {_rank()} cannot reach the others ({brief(error)}): one of them has ended, see above, or was "
            "killed; continue with --resume"
        )


def _failed(message: str, status: int = 1) -> int:
    with contextlib.suppress(OSError):  # nobody reads stderr either
        print(f"error: {message}", file=sys.stderr, flush=True)
    return status


def _explained(error: OSError) -> tuple[str, int]:
    """What is wrong with a file, the disk or a pipe, with the remedy; and the exit status."""
    # of a failed renaming the name that was to be, as the other one is temporary
    name, reason = escaped(str(error.filename2 or error.filename or "a file"))[:200], error.strerror or brief(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({name if error.filename else 'while writing'}): free some space", 1
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{name}: {reason}: check the permissions of this path", 1
    if error.errno == errno.EPIPE:
        silence_stdout()
        return "nobody reads the output any more: was it piped into a program that ended?", 1
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return f"{name}: {reason}: take another name", 2
    if error.errno in (*UNSUPPORTED, errno.EXDEV):
        return f"{name}: {reason}: this file system cannot do what is needed here; name a folder on another one", 1
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{name}: {reason}: raise the limit of open files (ulimit -n)", 1
    if "temporary directory" in reason:  # tempfile's
        return f"{reason}: set TMPDIR to a folder that can be written", 1
    # a disk that fails, or something else that has come into the way of a file or folder
    return f"{name}: {reason}: look what is there and whether the disk is sound", 1


def silence_stdout() -> None:
    """Let stdout lead nowhere, as nobody reads it: what is left in its buffer would fail once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _let_first_process_speak() -> None:
    """Of several processes with the same error one should report it: the launcher ends the others as soon as it has."""
    if _rank() > 0:
        time.sleep(5)


def _rank() -> int:
    """This process's number among those of its launcher."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def _others_gone(error: RuntimeError) -> bool:
    """Whether a collective call failed because another process is gone: torch's kinds of error (no torch here), or gloo's."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    return type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError") or "gloo" in str(error)
