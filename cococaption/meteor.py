"""METEOR 1.5 as in pycocoevalcap 1.2, in Java processes that stay up between evaluations.

Starting METEOR takes some eight seconds (it reads a paraphrase table of 61 MB, compressed), scoring takes one or two:
so a process is started early, kept, and given a whole evaluation at once instead of line by line.
"""

import contextlib
import os
import subprocess
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pycocoevalcap.meteor import meteor

from cococaption.java import JVM_FLAGS, find_java
from utils.constants import METEOR_GIB
from utils.errors import InputError

_JAR = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
# a small young generation: 0.15 GiB less, at the same speed
_ARGUMENTS = ("-Xmx2G", "-Xmn64m", "-jar", str(_JAR), "-", "-", "-stdio", "-l", "en", "-norm")
# Between two answers; a caption takes about a millisecond, loading the tables some eight seconds.
SECONDS_WITHOUT_ANSWER = 300


class Meteor:
    """METEOR over `jvms` Java processes of METEOR_GIB each; `score` may be called from several threads.

    The processes end with `close()` and with this object; also when Python is killed, as their input closes then (a
    process that is still loading finishes that first, some seconds).
    """

    def __init__(self, jvms: int = 1):
        self._processes: list[_Process | None] = [None] * jvms
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the processes and return at once; they load their tables in the background.

        Raises:
            InputError: there is no Java.
        """
        self._processes = [process if process and process.stop.alive else _Process() for process in self._processes]

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """METEOR of I tokenised candidates against the tokenised references of their images.

        Returns:
            the corpus score and the I single scores, in [0, 1].

        Raises:
            InputError: there is no Java, or a process died or fell silent, was started anew and did so again.
        """
        lines = [
            " ||| ".join(["SCORE", *of_image, candidate.replace("|||", "").replace("  ", " ")])
            for candidate, of_image in zip(candidates, references, strict=True)
        ]
        with self._lock:
            self.start()
            jvms = len(self._processes)
            with ThreadPoolExecutor(jvms) as pool:
                shares = [lines[len(lines) * jvm // jvms : len(lines) * (jvm + 1) // jvms] for jvm in range(jvms)]
                answers = pool.map(self._ask, range(jvms), shares, map(len, shares))
                statistics = [answer for share in answers for answer in share]
            evaluation = " ||| ".join(["EVAL", *statistics])
            *scores, corpus = map(float, self._ask(0, [evaluation], len(lines) + 1))
        return corpus, scores

    def close(self) -> None:
        """End the processes; a later `score` starts them again."""
        processes, self._processes = self._processes, [None] * len(self._processes)
        for process in filter(None, processes):
            process.stop()

    @property
    def pids(self) -> list[int]:
        """Process ids of the Java processes that have been started."""
        return [process.pid for process in self._processes if process]

    def _ask(self, jvm: int, lines: list[str], answers: int) -> list[str]:
        process = self._processes[jvm]
        try:
            return process.ask(lines, answers)
        except _Died as death:
            if self._processes[jvm] is not process:  # ended by close(), not by itself
                raise
            warnings.warn(f"METEOR: its Java process died ({death}); started anew", stacklevel=1)
            self._processes[jvm] = _Process()
        try:
            return self._processes[jvm].ask(lines, answers)
        except _Died as death:
            message = f"METEOR: its Java process died twice ({death}); free {METEOR_GIB} GiB of memory for each process"
            raise InputError(message) from None


class _Died(Exception):
    """The Java process ended before it had answered everything."""


class _Process:
    """One METEOR process: lines in, lines out."""

    def __init__(self) -> None:
        self._java = subprocess.Popen(
            [find_java(), *JVM_FLAGS, *_ARGUMENTS],
            cwd=_JAR.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for Python, which ends this process or keeps it
        )
        self.pid = self._java.pid
        self._silent = False
        # somebody must read the warnings: a full pipe would stop the process
        self._warnings: deque[bytes] = deque(maxlen=5)
        self._drain = threading.Thread(target=self._warnings.extend, args=(self._java.stderr,), daemon=True)
        self._drain.start()
        self.stop = weakref.finalize(self, _stop, self._java, os.getpid())

    def ask(self, lines: list[str], answers: int) -> list[str]:
        """Send `lines` while reading so many `answers`. _Died when the process ends first, or stops answering."""
        writer = threading.Thread(target=_write, args=(self._java.stdin, lines), daemon=True)
        writer.start()
        received: list[str] = []
        done = threading.Event()
        threading.Thread(target=self._end_silence, args=(received, done), daemon=True).start()
        try:
            while len(received) < answers:
                line = self._read_line()
                if not line.endswith(b"\n"):
                    raise _Died(self._last_words())
                received.append(line.decode().strip())
        except BaseException:
            self.stop()  # answers may still be under way, so the next ones would be mistaken for others
            raise
        finally:
            done.set()
        writer.join()
        return received

    def _read_line(self) -> bytes:
        try:
            return self._java.stdout.readline()
        except ValueError:  # stop() has closed it
            return b""

    def _end_silence(self, received: list[str], done: threading.Event) -> None:
        """Kill the process when no answer comes for long (it hangs, or somebody stopped it); the reader then sees its end."""
        seen = -1
        while len(received) > seen:
            seen = len(received)
            if done.wait(SECONDS_WITHOUT_ANSWER):
                return
        self._silent = True
        self._java.kill()

    def _last_words(self) -> str:
        status = self._java.wait()
        if self._silent:
            return f"no answer for {SECONDS_WITHOUT_ANSWER} seconds"
        self._drain.join(timeout=1)
        words = b" ".join(self._warnings).decode(errors="replace").split()
        return " ".join([f"exit status {status}", *words])[-300:]


def _write(pipe, lines: list[str]) -> None:
    # when the process is gone, the reader sees the end of the answers and says so
    with contextlib.suppress(OSError, ValueError):
        pipe.write("".join(f"{line}\n" for line in lines).encode())
        pipe.flush()


def _stop(java: subprocess.Popen, owner: int) -> None:
    if os.getpid() != owner:  # a forked worker of a data loader is not the one to end it
        return
    java.kill()
    java.wait()
    for pipe in (java.stdin, java.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
