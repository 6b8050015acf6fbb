"""Start DataLoader worker processes, and report their errors in one line."""

import contextlib
import multiprocessing.util
import os
from collections.abc import Iterator
from typing import Any

from utils.errors import InputError, brief
from utils.processes import leave_signals_to_parent

LONGEST_SOCKET = 107  # bytes of a socket's path, on Linux; multiprocessing's have names of 17

_RAISED_AS = f"{InputError.__module__}.{InputError.__qualname__}: "


def loader_processes(count: int) -> dict[str, Any]:
    """Arguments of a DataLoader with `count` worker processes.

    Raises:
        InputError: they could not hand over their batches, and the training would wait for these for ever: no semaphores
            in shared memory, or no folder for sockets.
    """
    if count:
        try:
            multiprocessing.Lock()
            folder = multiprocessing.util.get_temp_dir()
        except OSError as error:
            raise InputError(
                f"loader processes cannot be started ({brief(error)}): give --num_workers 0, or make /dev/shm writable and set "
                "TMPDIR to a folder that can be written"
            ) from None
        if len(os.fsencode(folder)) + 18 > LONGEST_SOCKET:
            raise InputError(
                f"{folder}: too long a path for the sockets of loader processes: set TMPDIR to a shorter one, or give "
                "--num_workers 0"
            )
    return {"num_workers": count, "worker_init_fn": leave_signals_to_parent}


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
        if "shared memory" in str(error):  # of a worker that found no room, or that was killed as it touched it
            raise InputError(
                "a process that loads images finds no room in shared memory (/dev/shm): give --num_workers 0, or a container "
                "more of it (docker run --shm-size=1g)"
            ) from None
        if "DataLoader worker (pid" not in str(error):
            raise
        raise InputError(
            f"a process that loads images has died ({brief(error)}), perhaps because memory ran out; try a smaller "
            "--num_workers, and --resume if there are saved states"
        ) from None
