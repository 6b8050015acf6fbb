"""A clean stop when a signal asks for one."""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from utils.errors import silence_stdout
from utils.processes import SAVE, STOP


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP ask for a state and a stop, SIGUSR1 and SIGUSR2 for a state; at the next step boundary.

    The main process says so on stderr, as stdout may be a pipe that nobody reads any more; its last line ends with what `how_to_continue` gives.
    A second SIGINT stops at once. `immediate` is for times when there is nothing to save (until the first update is
    made, and in evaluations): the main process then unwinds at the first signal, so that locks and Java end with it; the
    others have nothing to tidy and are left to the signal's default action, which also ends a process that waits inside a
    collective call.
    Signals that were ignored when the program started stay so (nohup), but for SIGINT and SIGTERM.

    Attributes:
        save: a state was asked for; whoever writes it resets this.
        stop: the number of the signal that asked for a stop, or None.
    """

    def __init__(self, main_process: bool = True, how_to_continue: Callable[[], str] = str) -> None:
        self.save = False
        self.stop: int | None = None
        self._immediate = True
        self._main_process, self._how_to_continue = main_process, how_to_continue
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        try:
            for number in (*STOP, *SAVE):
                if number in STOP[:2] or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._received)
        except ValueError:  # not in the main thread: leave signals alone
            return self
        self.immediate = True
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if isinstance(error, BrokenPipeError):  # of stdout, while loading or in an evaluation
            silence_stdout()
            self.end(signal.SIGPIPE)

    @property
    def immediate(self) -> bool:
        """Whether the first signal stops at once. Setting it stops at once when a stop has been asked for already."""
        return self._immediate

    @immediate.setter
    def immediate(self, immediate: bool) -> None:
        self._immediate = immediate
        if immediate and self.stop is not None:
            self.end(self.stop)
        if not self._main_process:
            for number in self._previous.keys() & set(STOP):
                signal.signal(number, signal.SIG_DFL if immediate else self._received)

    def _received(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:  # a forked helper that multiprocessing ends, or that shares our process group
            os._exit(128 + number)
        if number in SAVE:
            self.save = True
        else:
            self.ask(number)

    def ask(self, number: int) -> None:
        """Ask for a state and a stop, as the signal `number` does."""
        if self._immediate or (self.stop is not None and number == signal.SIGINT):
            self.end(number)
        if self.stop is None:
            ctrl_c = "a second Ctrl-C" if number == signal.SIGINT else "Ctrl-C"
            self._write(f"{_name(number)}: a state is being written, then the run stops; {ctrl_c} stops it without")
        self.stop = number

    def end(self, number: int) -> NoReturn:
        """End the run now."""
        self._write(f"stopped by {_name(number)}; {self._how_to_continue()}")
        raise SystemExit(128 + number)

    def _write(self, line: str) -> None:
        if self._main_process:
            # print is not safe in a handler, which may have interrupted another print; the terminal may be gone
            with contextlib.suppress(OSError):
                os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}\n".encode())


def _name(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name} (nobody reads the output)" if name == "SIGPIPE" else name
