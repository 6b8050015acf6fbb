"""One kind of error for everything that a user can put right, and how scripts report it."""

import argparse
import contextlib
import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from utils.processes import prepare_environment

MODELS = Path(__file__).resolve().parents[1] / "models"
# errors of file systems that lack an operation, as some network and FUSE ones do
UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class InputError(Exception):
    """Bad input: the message is one line that names the file, the record and the remedy.

    It quotes names and texts from files, whose control characters are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def escaped(text: str, keep: str = "") -> str:
    """`text` with control characters spelled out, except those in `keep`: a file must not control the terminal."""
    return "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)


def print_once(line: str) -> None:
    """Print a line, escaped, on the main process; for what every process reads and finds alike."""
    if _rank() == 0:
        print(escaped(line), flush=True)


def is_of_models(error: Exception) -> bool:
    """Whether an error came up in a class of models/, such as a head that somebody has just added."""
    return any(Path(frame.filename).parent == MODELS for frame in traceback.extract_tb(error.__traceback__))


def brief(error: object) -> str:
    """The beginning of an error's message (or of a path) in one line, to be quoted in an InputError."""
    return " ".join(str(error).split())[:200]


class DefaultsFormatter(argparse.HelpFormatter):
    """Adds the default to the help of a flag that has one and does not name it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        takes_value = action.option_strings and action.nargs != 0
        if not takes_value or action.default in (None, argparse.SUPPRESS, []) or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


class OneLineParser(argparse.ArgumentParser):
    """Reports wrong flags as an InputError. An empty value, as of "$UNSET", is refused for every flag."""

    def __init__(self, *args, formatter_class=DefaultsFormatter, **options):
        super().__init__(*args, formatter_class=formatter_class, **options)

    def parse_known_args(self, args=None, namespace=None):
        for before, value in pairwise(["", *(sys.argv[1:] if args is None else args)]):
            if value == "" or value.startswith("--") and value.endswith("="):
                flag = value.rstrip("=") or (before if before.startswith("--") else "without a flag")
                self.error(f"argument {flag}: its value is empty; give one, or leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


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
    """Run a script's `main`; report what a user can put right in one line on stderr.

    Returns:
        The exit status: 0 for success, 2 for an `InputError`, 1 for an error of the operating system or the loss of a
        process, 130 for Ctrl-C. Other exceptions are bugs, and keep their traceback.
    """
    try:
        prepare_environment()
        status = main() or 0
        sys.stdout.flush()  # if its reader has ended (`| head`), this is one line here, and a traceback at exit
        return status
    except SystemExit:  # of --help, or of a signal
        try:
            sys.stdout.flush()
        except OSError:
            silence_stdout()
        raise
    except InputError as error:
        if _rank() > 0:
            time.sleep(5)  # one of several processes should report it: the launcher ends the others as soon as one has
        return _failed(str(error), 2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno is None:  # not an error of the operating system
            raise
        return _failed(_explained(error))
    except BrokenExecutor:
        return _failed(
            "one of the processes that share the work was killed, perhaps because memory ran out: free some memory, or give "
            "a smaller --jobs where the program has it, and start again"
        )
    except RuntimeError as error:
        if not _lost_process(error):
            raise
        time.sleep(0.1 * _rank())  # one line is enough: the launcher ends the others soon
        return _failed(
            f"process {_rank()} cannot reach the others ({brief(error)}): one of them has ended, see above, or was "
            "killed; continue with --resume"
        )


def _failed(message: str, status: int = 1) -> int:
    with contextlib.suppress(OSError):  # stderr may be closed, too
        print(f"error: {message}", file=sys.stderr, flush=True)
    return status


def _explained(error: OSError) -> str:
    """What is wrong with a file, the disk or a pipe, with the remedy."""
    if error.errno == errno.EPIPE:
        silence_stdout()
        return "nobody reads the output any more: was it piped into a program that ended?"
    # of a failed renaming the new name, as the old one is temporary
    name, reason = escaped(str(error.filename2 or error.filename or "a file"))[:200], error.strerror or brief(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({name}): free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{name}: {reason}: check the permissions of this path"
    if error.errno in (*UNSUPPORTED, errno.EXDEV):
        return (
            f"{name}: {reason}: this file system lacks an operation that is needed here; name a folder on another one"
        )
    if "temporary directory" in reason:  # raised by tempfile
        return f"{reason}: set TMPDIR to a folder that can be written"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{name}: {reason}: raise the limit of open files (ulimit -n)"
    return f"{name}: {reason}: check this path and its disk"


def silence_stdout() -> None:
    """Redirect stdout to nowhere once its reader has ended: what is left in its buffer would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _rank() -> int:
    """This process's number among those of its launcher."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdecimal() else 0


def _lost_process(error: RuntimeError) -> bool:
    """Whether another process has ended, so that a collective call failed: by names of torch's errors, or gloo's text."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    return type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError") or "gloo" in str(error)
