"""METEOR 1.5 as in pycocoevalcap 1.2, in Java processes that stay alive between evaluations.

Starting METEOR takes about eight seconds, because it reads a compressed paraphrase table of 61 MB. Scoring takes one or
two. A process is therefore started early, kept, and sent a whole evaluation at once instead of line by line.
"""

import contextlib
import os
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from pycocoevalcap.meteor import meteor

from cococaption.tokenizer import JVM_FLAGS, find_java
from utils.constants import METEOR_GIB
from utils.errors import InputError

_JAR = Path(meteor.__file__).with_name(meteor.METEOR_JAR)
# -Xmn64m (a small young generation) saves 0.15 GiB at the same speed
_ARGUMENTS = ("-Xmx2G", "-Xmn64m", "-jar", str(_JAR), "-", "-", "-stdio", "-l", "en", "-norm")
# The paraphrase table is named, because the jar does not find it by itself if its path contains a space or an umlaut.
_ARGUMENTS += ("-a", str(Path("data", "paraphrase-en.gz")))
NICENESS = 5  # added to Python's: the tables load while a starting run needs the cores more

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
    # module, content or function, candidate or reference
    matches = totals[..., 4:20].reshape(*totals.shape[:-1], 4, 2, 2)
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
    """METEOR in `jvms` Java processes of METEOR_GIB each.

    The processes end with `close()`. They also end with Python, even if it is killed, because their input closes; a
    process that is loading its tables finishes that first, which takes some seconds.
    """

    def __init__(self, jvms: int = 1):
        self._jvms = jvms
        self._processes: list[_Process] = []

    def start(self) -> None:
        """Start the processes that are not running and return immediately; they load their tables in the background.

        Raises:
            InputError: Java is missing.
        """
        running = [process for process in self._processes if process.java.poll() is None]
        self._processes = running + [_Process() for _ in range(self._jvms - len(running))]

    def score(
        self, candidates: Sequence[str], references: Sequence[Sequence[str]]
    ) -> tuple[float, list[float], np.ndarray]:
        """METEOR of I tokenised candidates against the tokenised references of their images.

        Returns:
            the corpus score and the I scores of single images, in [0, 1]; and METEOR's statistics of every image,
            float64 [I, 23], see `meteor_of_statistics`.

        Raises:
            InputError: Java is missing; or a process died, was restarted, and died again.
        """
        lines = [
            " ||| ".join(["SCORE", *texts, candidate.replace("|||", "").replace("  ", " ")])
            for candidate, texts in zip(candidates, references, strict=True)
        ]
        try:
            return self._evaluate(lines)
        except _Died as death:
            if not self._processes:  # close() was called in the meantime
                raise
            warnings.warn(f"METEOR: its Java process died ({death}); restarted", stacklevel=1)
        try:
            return self._evaluate(lines)
        except _Died as death:
            message = f"METEOR: its Java process died twice ({death}); free {METEOR_GIB} GiB of memory for each process"
            raise InputError(message) from None

    def _evaluate(self, lines: list[str]) -> tuple[float, list[float], np.ndarray]:
        self.start()
        bounds = [len(lines) * part // self._jvms for part in range(self._jvms + 1)]
        parts = [lines[start:end] for start, end in pairwise(bounds)]
        with ThreadPoolExecutor(self._jvms) as pool:
            answers = pool.map(_Process.ask, self._processes, parts, map(len, parts))
            statistics = [answer for part in answers for answer in part]
        *scores, corpus = map(float, self._processes[0].ask([" ||| ".join(["EVAL", *statistics])], len(lines) + 1))
        rows = np.array([answer.split() for answer in statistics], np.float64)
        # a candidate that equals its reference has no fragments: the jar counts its one chunk as none, also in the sum
        rows[(rows[:, 21:23] == rows[:, 0:2]).all(axis=1) & (rows[:, 20] == 1), 20] = 0
        return corpus, scores, rows

    def close(self) -> None:
        """End the processes; a later `score` starts them again."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.java.kill()
            process.java.wait()
            for pipe in (process.java.stdin, process.java.stdout):
                with contextlib.suppress(OSError):  # what was not written yet cannot be
                    pipe.close()


class _Died(Exception):
    """The Java process ended before it had answered everything."""


class _Process:
    """One METEOR process, which reads lines from stdin and answers with lines on stdout."""

    def __init__(self) -> None:
        self._stderr = tempfile.TemporaryFile()  # not a pipe, which would block the process when full
        self.java = subprocess.Popen(
            [find_java(), *JVM_FLAGS, *_ARGUMENTS],
            cwd=_JAR.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            process_group=0,  # Ctrl-C must reach only Python, which decides about this process
        )
        os.setpriority(os.PRIO_PGRP, self.java.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)

    def ask(self, lines: list[str], answers: int) -> list[str]:
        """Send `lines` and, at the same time, read `answers` lines: neither fits into a pipe.

        Raises:
            _Died: the process ended.
        """
        writer = threading.Thread(target=self._write, args=(lines,), daemon=True)
        writer.start()
        received: list[str] = []
        while len(received) < answers:
            try:
                line = self.java.stdout.readline()
            except ValueError:  # close() has closed the pipe
                line = b""
            if not line.endswith(b"\n"):
                raise _Died(self._cause())
            received.append(line.decode().strip())
        writer.join()
        return received

    def _write(self, lines: list[str]) -> None:
        with contextlib.suppress(OSError, ValueError):  # the process has died, which `ask` reports
            self.java.stdin.write("".join(f"{line}\n" for line in lines).encode())
            self.java.stdin.flush()

    def _cause(self) -> str:
        status = self.java.wait()
        self._stderr.seek(0)
        words = self._stderr.read().decode(errors="replace").split()
        return " ".join([f"exit status {status}", *words])[-300:]
