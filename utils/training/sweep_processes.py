"""Several runs as processes: some at a time, each with a log file; a signal stops them so that they can go on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import InputError, brief
from utils.processes import STOP, die_with_parent

SECONDS_BETWEEN_LOOKS = 0.2
# A launcher that dies of SIGTERM at once leaves its training behind, which still writes its state.
SECONDS_FOR_STATE = 120


@dataclass
class Job:
    """One run: commands that follow each other, all with their output appended to `log`.

    failure: its last error line, once one of its commands has failed.
    """

    name: str
    commands: list[list[str]]
    log: Path
    failure: str | None = None
    process: subprocess.Popen | None = None
    began: float = 0.0
    log_begins: int = 0  # where in the file the output of the running command begins


class Jobs:
    """Runs jobs, at most `at_once` together.

    SIGINT, SIGTERM and SIGHUP are passed on as SIGTERM: the trainings write their states and stop, and no further one
    begins. A second signal kills them. The processes have sessions of their own, so that a terminal's Ctrl-C reaches
    them only from here; on Linux they are stopped as well when this process is killed.

    Attributes:
        stop: the signal that asked for a stop, or None.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.running: list[Job] = []
        self.stop: int | None = None

    def run(self, jobs: list[Job], on_end: Callable[[Job], None], look: Callable[["Jobs"], None]) -> None:
        """Run all jobs. `on_end` is called for each that has ended by itself, `look` a few times a second."""
        waiting = list(jobs)
        with self._signals():
            while self.running or (waiting and self.stop is None):
                while waiting and self.stop is None and len(self.running) < self.at_once:
                    self._begin(waiting.pop(0))
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for job in list(self.running):
                    self._look_after(job, on_end)
                look(self)

    def _begin(self, job: Job) -> None:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.began = time.monotonic()
        self._begin_command(job)
        self.running.append(job)

    def _begin_command(self, job: Job) -> None:
        with job.log.open("ab") as log:
            job.log_begins = log.tell()
            try:
                job.process = subprocess.Popen(
                    job.commands.pop(0),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: die_with_parent(signal.SIGTERM),
                )
            except OSError as error:
                raise InputError(f"{error.filename}: cannot be started ({error.strerror}); see --launcher") from None
        if self.stop is not None:  # the signal came while it was started
            _signal_group(job.process.pid, signal.SIGTERM)

    def _look_after(self, job: Job, on_end: Callable[[Job], None]) -> None:
        status = job.process.poll()
        if status is None:
            return
        if self.stop is not None:
            _wait_for_group(job.process.pid)
        elif status:
            job.failure = failure_of(job, status)
        elif job.commands:
            self._begin_command(job)
            return
        self.running.remove(job)
        if self.stop is None:
            on_end(job)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._received) for number in STOP}
        try:
            yield
        finally:
            for job in self.running:  # an error of ours, not of the runs
                _signal_group(job.process.pid, signal.SIGTERM)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _received(self, number: int, _frame: Any) -> None:
        passed_on = signal.SIGTERM if self.stop is None else signal.SIGKILL
        self.stop = self.stop or number
        for job in self.running:
            _signal_group(job.process.pid, passed_on)


def _signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; False when all of it has ended."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for_group(group: int) -> None:
    until = time.monotonic() + SECONDS_FOR_STATE
    while time.monotonic() < until and _signal_group(group, 0):
        time.sleep(SECONDS_BETWEEN_LOOKS)


def failure_of(job: Job, status: int) -> str:
    """The last line that says what was wrong, from the output of the command that failed."""
    with job.log.open("rb") as log:
        log.seek(job.log_begins)
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = brief((errors or lines or ["no output"])[-1].removeprefix("error: "))
    if status < 0:
        return f"ended by {signal.Signals(-status).name} ({last})"
    return last
