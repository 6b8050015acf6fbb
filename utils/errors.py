"""One kind of error for everything a user can put right, and the way scripts report it."""

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn


class InputError(Exception):
    """Bad input: the message is one line that names the file, the record and the remedy.

    It quotes names and texts from files; what would break the line, or command the terminal, is escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in message))


def brief(error: Exception) -> str:
    """The beginning of an error's message, in one line, to be quoted in an InputError's."""
    return " ".join(str(error).split())[:200]


class OneLineParser(argparse.ArgumentParser):
    """Reports wrong flags as an InputError: one line, as every other error of ours."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def run_script(main: Callable[[], int | None]) -> int:
    """Run a script's `main` and turn what a user can put right into one line on stderr and an exit status.

    Returns 0 for success, 2 for an `InputError`, 1 for a full disk or a file that cannot be written, 130 for Ctrl-C.
    Other exceptions are faults of ours and keep their traceback.
    """
    try:
        return main() or 0
    except InputError as error:
        _let_first_process_speak()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"error: the disk is full ({error.filename or 'while writing'}): free some space", file=sys.stderr)
            return 1
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            print(f"error: {error.filename}: {error.strerror}: check the permissions of this path", file=sys.stderr)
            return 1
        raise


def _let_first_process_speak() -> None:
    """Of several processes with the same error one should report it: the launcher ends the others as soon as it has."""
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(5)
