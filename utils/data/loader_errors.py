"""What goes wrong in a DataLoader's worker process, in one line."""

import contextlib
from collections.abc import Iterator

from utils.errors import InputError, brief

_RAISED_AS = f"{InputError.__module__}.{InputError.__qualname__}: "


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Around a loop over a DataLoader, or as a decorator: errors of its workers become an InputError of one line.

    An InputError raised in a worker reaches the main process with the worker's whole traceback as its message, of which
    only the last line is kept. A worker that was killed is reported by torch, by a signal handler and so at any place
    in the loop, as a RuntimeError.
    """
    try:
        yield
    except InputError as error:
        _, raised, message = str(error).partition(_RAISED_AS)
        if not raised:
            raise
        raise InputError(message.removesuffix(r"\n")) from None
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise InputError(
            f"a process that loads images has died ({brief(error)}): perhaps for want of memory; try a smaller "
            "--num_workers, and --resume if there are states"
        ) from None
