"""METEOR 1.5 as in pycocoevalcap 1.2, in Java processes that are kept between evaluations.

Starting METEOR takes about eight seconds, because it reads a compressed paraphrase table of 61 MB. Scoring takes one or
two. A process is therefore started early, kept, and sent a whole evaluation at once instead of line by line.
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

import numpy as np
from pycocoevalcap.meteor import meteor

from cococaption.tokenizer import JVM_FLAGS, find_java
from utils.constants import METEOR_GIB
from utils.errors import InputError

_JAR = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
# -Xmn64m (a small young generation) saves 0.15 GiB at the same speed
_ARGUMENTS = ("-Xmx2G", "-Xmn64m", "-jar", str(_JAR), "-", "-", "-stdio", "-l", "en", "-norm")
# Its own table, named: by itself the jar does not find it where the path holds a blank or an umlaut.
_ARGUMENTS += ("-a", str(Path("data", "paraphrase-en.gz")))
# Longest wait for the next answer. A caption takes about a millisecond, loading the tables about eight seconds.
SECONDS_WITHOUT_ANSWER = 300
# More than Python's own: the tables load on a core that a starting run needs more.
NICENESS = 5

# METEOR 1.5's weights for English ("-l en", task "rank"), Denkowski and Lavie, 2014
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MODULES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase


def meteor_of_statistics(totals: np.ndarray) -> np.ndarray:
    """METEOR, [...] in [0, 1], of sums of its statistics, [..., 23].

    These are: words of candidate and reference, function words of both, for each of the four modules the matches of
    content words in candidate and reference and of function words in both, chunks, and matched words of both.
    """
    totals = np.asarray(totals, np.float64)
    lengths, function_words = totals[..., 0:2], totals[..., 2:4]
    matches = totals[..., 4:20].reshape(
        *totals.shape[:-1], 4, 2, 2
    )  # module, content or function, candidate or reference
    chunks, matched = totals[..., 20], totals[..., 21:23]
    weighted = np.einsum("m,...mkt,k->...t", MODULES, matches, [DELTA, 1 - DELTA])
    words = DELTA * (lengths - function_words) + (1 - DELTA) * function_words
    precision, recall = np.moveaxis(np.divide(weighted, words, out=np.zeros_like(words), where=words > 0), -1, 0)
    some = (precision > 0) & (recall > 0)
    precision, recall = np.where(some, precision, 1), np.where(some, recall, 1)
    mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
    fragments = chunks / np.where(some, matched.mean(axis=-1), 1)
    return np.where(some, mean * (1 - GAMMA * fragments**BETA), 0)


class Meteor:
    """METEOR in `jvms` Java processes of METEOR_GIB each; `score` may be called from several threads.

    The processes end with `close()` or when this object is deleted. They also end when Python is killed, because their
    input closes; a process that is loading its tables finishes that first, which takes some seconds.
    """

    def __init__(self, jvms: int = 1):
        self._processes: list[_Process | None] = [None] * jvms
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the processes and return immediately; they load their tables in the background.

        Raises:
            InputError: Java is missing.
        """
        self._processes = [process if process and process.stop.alive else _Process() for process in self._processes]

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """METEOR of I tokenised candidates against the tokenised references of their images.

        Returns:
            the corpus score and the I scores of single images, in [0, 1].

        Raises:
            InputError: as `score_with_statistics`.
        """
        corpus, scores, _ = self._score(candidates, references)
        return corpus, scores

    def score_with_statistics(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[float], np.ndarray]:
        """As `score`, with METEOR's statistics of every image, float64 [I, 23], of which `meteor_of_statistics` is made.

        Raises:
            InputError: Java is missing; or a process died or stopped answering, was restarted, and failed again.
        """
        corpus, scores, statistics = self._score(candidates, references)
        rows = np.array([answer.split() for answer in statistics], np.float64)
        # a candidate that is its reference has no fragments: the jar counts its one chunk as none, also in the sum
        rows[(rows[:, 21:23] == rows[:, 0:2]).all(axis=1) & (rows[:, 20] == 1), 20] = 0
        return corpus, scores, rows

    def _score(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[float], list[str]]:
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
        return corpus, scores, statistics

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
            if self._processes[jvm] is not process:  # close() has ended the process
                raise
            warnings.warn(f"METEOR: its Java process died ({death}); restarted", stacklevel=1)
            self._processes[jvm] = _Process()
        try:
            return self._processes[jvm].ask(lines, answers)
        except _Died as death:
            message = f"METEOR: its Java process died twice ({death}); free {METEOR_GIB} GiB of memory for each process"
            raise InputError(message) from None


class _Died(Exception):
    """The Java process ended before it had answered everything."""


class _Process:
    """One METEOR process, which reads lines from stdin and answers with lines on stdout."""

    def __init__(self) -> None:
        self._java = subprocess.Popen(
            [find_java(), *JVM_FLAGS, *_ARGUMENTS],
            cwd=_JAR.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C must reach only Python, which decides about this process
        )
        self.pid = self._java.pid
        with contextlib.suppress(OSError):  # it has died; the first answer will say so
            os.setpriority(os.PRIO_PGRP, self.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        self._silent = False
        # read stderr all the time: a full pipe would block the process
        self._warnings: deque[bytes] = deque(maxlen=5)
        self._drain = threading.Thread(target=self._warnings.extend, args=(self._java.stderr,), daemon=True)
        self._drain.start()
        self.stop = weakref.finalize(self, _stop, self._java, os.getpid())

    def ask(self, lines: list[str], answers: int) -> list[str]:
        """Send `lines` and read `answers` lines meanwhile.

        Raises:
            _Died: the process ended, or it gave no answer for SECONDS_WITHOUT_ANSWER.
        """
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
            self.stop()  # unread answers would be taken for the answers to the next call
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
        """Kill the process when it gives no answer for SECONDS_WITHOUT_ANSWER.

        It may hang, or somebody may have stopped it. The reader then sees the end of its output.
        """
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
    # a dead process closes the pipe; the reader reports it
    with contextlib.suppress(OSError, ValueError):
        pipe.write("".join(f"{line}\n" for line in lines).encode())
        pipe.flush()


def _stop(java: subprocess.Popen, owner: int) -> None:
    if os.getpid() != owner:  # a forked data loader worker must not end its parent's process
        return
    java.kill()
    java.wait()
    for pipe in (java.stdin, java.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
