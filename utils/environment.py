"""What a program finds around it: locale, standard streams, home folder, cores, variables of other programs. No torch here."""

import contextlib
import locale
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UTF8 = ("utf-8", "utf8")
# transformers and accelerate import them where they are installed, and fail where one is made for another torch.
UNUSED_PACKAGES = ("soundfile", "torchao", "torchaudio", "torchvision")


def prepare_environment() -> None:
    """Put right what would stop a program or slow it down. Before torch and matplotlib are imported, which read it then."""
    _open_missing_streams()
    _start_again_if_needed()
    if os.path.expanduser("~") == "~":  # no HOME and no passwd entry; Path.home() and NLTK's import would fail
        os.environ["HOME"] = "/nonexistent"  # as Debian has it for users without one
    for name in UNUSED_PACKAGES:
        sys.modules.setdefault(name, None)
    # a notebook's, which other environments lack; figures are only written to files
    os.environ.pop("MPLBACKEND", None)
    # OpenMP's threads would spin at every barrier: beside another busy process that takes ten times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def _open_missing_streams() -> None:
    """Standard streams that are closed lead nowhere. Otherwise the next file to be opened gets their number.

    A script of bash that is started with stderr closed (`bash job.sh 2>&-`) hands on its own text as number 2.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        try:
            usable = number == 0 or _can_be_written(number)
            os.fstat(number)
        except OSError:
            usable = False
        if not usable:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if stream is None:
            stream = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
        # a notebook's streams cannot be reconfigured, and need not be
        with contextlib.suppress(AttributeError):
            if stream.encoding.lower() not in UTF8:
                stream.reconfigure(errors="backslashreplace")


def _can_be_written(number: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _start_again_if_needed() -> None:
    """Change what only a new start of Python changes. It keeps the process's number.

    Paths and texts are UTF-8, here and in Java, where the locale (C, or one that is not installed) says otherwise.
    """
    if hasattr(locale, "nl_langinfo") and locale.nl_langinfo(locale.CODESET).lower() not in UTF8:
        os.environ["LC_ALL"] = "C.UTF-8"
    no_docstrings = sys.flags.optimize > 1 and os.environ.pop("PYTHONOPTIMIZE", None)  # transformers reads its own
    if sys.getfilesystemencoding() not in UTF8 or no_docstrings:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def cores() -> int:
    """CPU cores that this process may use: by its affinity, its Slurm task and the CPU time its container is given."""
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
