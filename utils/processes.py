"""Processes that end together: launcher and script, script and loader processes. No torch here: scripts begin with it."""

import ctypes
import os
import signal
import sys
from datetime import timedelta

from utils.environment import prepare_environment

# Signals that ask for a stop (a closed terminal sends SIGHUP), and those that clusters send some time before the end.
# Windows has only the first two.
STOP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAVE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))

# How long processes wait for each other: longer than any work that one of them does alone, as checking all images, tagging
# all texts or scoring. torch.distributed's own limits are 10 and 30 minutes.
PROCESS_GROUP_TIMEOUT = timedelta(hours=12)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def prepare_script() -> None:
    """For the first line of a script: Ctrl-C ends it without a traceback, and the end of its launcher asks it to stop."""
    prepare_environment()
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # torchrun sets the first, accelerate's launcher for one process the second, which nobody sets by hand
    if "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_MODE" in os.environ:
        die_with_parent(signal.SIGTERM)


def die_with_parent(number: int) -> None:
    """Have the system send signal `number` to this process when its parent ends (Linux; nothing elsewhere).

    Launchers that are killed, or that die of SIGUSR1, would otherwise leave their processes running.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended just before
        os.kill(os.getpid(), number)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """For loader processes (`worker_init_fn`): go on through signals to the whole process group, and end with the parent.

    torchrun and terminals send signals to whole groups. A loader process that ends takes the training with it before that
    can write its state.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, *STOP[2:], *SAVE):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with_parent(signal.SIGKILL)
