"""Report errors of DataLoader worker processes in one line."""

import contextlib
from collections.abc import Iterator

from utils.errors import InputError, brief

_RAISED_AS = f"{InputError.__module__}.{InputError.__qualname__}: "


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turn errors of DataLoader workers into an InputError of one line. Use it around the loop, or as a decorator.

    PyTorch raises a worker's InputError again in the main process, with the worker's whole traceback as message; only
    the last line is kept. If a worker is killed, PyTorch raises a RuntimeError from a signal handler, anywhere in the
    loop.

    Raises:
        InputError: a worker raised one, or was killed.
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
            f"a process that loads images has died ({brief(error)}), perhaps because memory ran out; try a smaller "
            "--num_workers, and --resume if there are saved states"
        ) from None
