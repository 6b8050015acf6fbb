"""What a script needs around it: locale, streams, cores, other programs' variables, memory, and an end with its launcher.

No torch at the top: scripts begin with it.
"""

import contextlib
import ctypes
import gc
import locale
import math
import mmap
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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


def process_pool(processes: int) -> ProcessPoolExecutor:
    """A pool of processes that end with this one, however it ends: after a kill they would wait for work forever."""
    return ProcessPoolExecutor(processes, initializer=_start_in_pool)


def _start_in_pool() -> None:
    if sys.platform == "linux":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides
        die_with_parent(signal.SIGKILL)


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


# ---- memory ----------------------------------------------------------------------------------------------------------


# parameters of glibc's mallopt
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def reuse_freed_memory() -> None:
    """Let this process's malloc keep large freed buffers for the next ones of their size.

    By default glibc maps a buffer above 32 MiB again each time, and returns memory at the heap's end; the kernel then
    clears every page at its first access, which takes about a tenth of a training step on a CPU. Tensors on a GPU have
    an allocator of their own. Without glibc this does nothing.
    """
    if libc := _glibc():
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, before a fork: pages shared with the new process are copied on reuse."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") else None


def share_weights(model: "torch.nn.Module") -> None:
    """Move the weights of a model that stays on the CPU to memory that processes forked later share with this one.

    Otherwise the first update copies each page of them, as the loader processes keep the old one.
    """
    for parameter in model.parameters():
        parameter.data = _shared(parameter.data)


def _shared(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    if tensor.numel() == 0:
        return tensor
    memory = mmap.mmap(-1, tensor.numel() * tensor.element_size())  # anonymous: needs no space in /dev/shm
    return torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Switch Python's garbage collector off within the context.

    While the records are read, it would search all of them again and again, which takes longer than reading them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def peak_memory(device: "torch.device") -> int | None:
    """The peak memory of this process in bytes: on its GPU, else in main memory; None where it is unknown (Windows)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
