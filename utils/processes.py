"""What a script needs around it: locale, cores, other programs' variables, and an end together with its launcher.

No torch here: scripts begin with it.
"""

import contextlib
import ctypes
import io
import locale
import math
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# transformers and accelerate import these where they are installed, and fail if one was built for another torch.
UNUSED_PACKAGES = ("soundfile", "torchao", "torchaudio", "torchvision")

# Signals that ask for a stop (a closed terminal sends SIGHUP), and those that clusters send some time before the end.
# Windows has only the first two.
STOP = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SAVE = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))

# How long processes wait for each other: longer than any work that one of them does alone, such as tagging all texts or
# scoring. torch.distributed's own limits are 10 and 30 minutes.
PROCESS_GROUP_TIMEOUT = timedelta(hours=12)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def prepare_environment() -> None:
    """Change what would stop a program or slow it down. To be called before torch and matplotlib are imported."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a check mark in a terminal that is not UTF-8
    # in the C locale, as in many containers, Python takes UTF-8, but Java would not
    if hasattr(locale, "nl_langinfo") and locale.nl_langinfo(locale.CODESET).lower() not in ("utf-8", "utf8"):
        os.environ["LC_ALL"] = "C.UTF-8"
    for name in UNUSED_PACKAGES:
        sys.modules.setdefault(name, None)
    os.environ.pop("MPLBACKEND", None)  # a notebook's, which other environments lack; figures are only written to files
    # OpenMP's threads would spin at every barrier: beside another busy process that takes ten times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def cores() -> int:
    """CPU cores that this process may use, by its affinity, its Slurm task and the CPU limit of its container."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        allowed = os.process_cpu_count()
    else:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    limits = [int(slurm)] if slurm.isdecimal() else []
    return max(1, min([allowed or 1, *limits, *_cgroup_limits()]))


def _cgroup_limits() -> Iterator[int]:
    """The limits of this process's control groups, of version 1 and 2, and of those above them."""
    try:
        groups = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max" for no limit
                if controllers:
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if int(quota) > 0:
                    yield math.ceil(int(quota) / int(period))


def prepare_script() -> None:
    """The first call of a script: `prepare_environment`; Ctrl-C gives no traceback, and it ends with its launcher."""
    prepare_environment()
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # set by torchrun, and by accelerate for a single process
    if "TORCHELASTIC_RUN_ID" in os.environ or "ACCELERATE_DYNAMO_MODE" in os.environ:
        die_with_parent(signal.SIGTERM)


def die_with_parent(number: int) -> None:
    """Have Linux send signal `number` to this process when its parent ends; elsewhere do nothing.

    Launchers that are killed, or that die of SIGUSR1, would otherwise leave their processes running.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended just before
        os.kill(os.getpid(), number)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """For loader processes (`worker_init_fn`): ignore signals to the whole process group, and end with the parent.

    torchrun and terminals send signals to whole groups. A training whose loader process has ended fails before it can write
    its state.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    for number in (signal.SIGINT, *STOP[2:], *SAVE):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        die_with_parent(signal.SIGKILL)
