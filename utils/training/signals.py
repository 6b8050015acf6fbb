"""A clean stop when a signal asks for one."""

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from utils.processes import SAVE, STOP


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP ask for a state and a stop, SIGUSR1 and SIGUSR2 for a state, after the current update.

    The main process logs this on stderr, as stdout may be a closed pipe; `how_to_continue` gives the end of its last line.
    A second SIGINT stops at once. So does the first signal while `immediate` is set, when there is nothing to save: until
    the first update is done, and in evaluations. The main process then unwinds, so that it releases its locks and ends
    Java; the others, which may wait inside a collective call, are left to the signal's default action.
    SIGHUP, SIGUSR1 and SIGUSR2 stay ignored if they were when the program started (nohup).

    Attributes:
        save: a state was asked for; whoever writes it resets this.
        stop: the number of the signal that asked for a stop, or None.
    """

    def __init__(self, main_process: bool = True, how_to_continue: Callable[[], str] = str) -> None:
        self.save = False
        self.stop: int | None = None
        self.immediate = True
        self._main_process, self._how_to_continue = main_process, how_to_continue
        self._pid = os.getpid()
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        for number in (*STOP, *SAVE):
            if number in STOP[:2] or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._receive)
        self.set_immediate(True)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def set_immediate(self, immediate: bool) -> None:
        """Set whether the first signal stops at once; ends the run if a stop was asked for before."""
        self.immediate = immediate
        if immediate and self.stop is not None:
            self.end(self.stop)
        if not self._main_process:
            for number in self._previous.keys() & set(STOP):
                signal.signal(number, signal.SIG_DFL if immediate else self._receive)

    def _receive(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:  # a forked helper, which multiprocessing ends with SIGTERM
            os._exit(128 + number)
        if number in SAVE:
            self.save = True
        else:
            self.ask(number)

    def ask(self, number: int) -> None:
        """Ask for a state and a stop, as signal `number` does."""
        if self.immediate or (self.stop is not None and number == signal.SIGINT):
            self.end(number)
        if self.stop is None:
            ctrl_c = "a second Ctrl-C" if number == signal.SIGINT else "Ctrl-C"
            self._log(f"{_name(number)}: saving a state, then the run stops; {ctrl_c} stops it without saving")
        self.stop = number

    def end(self, number: int) -> NoReturn:
        """End the run now."""
        self._log(f"stopped by {_name(number)}; {self._how_to_continue()}")
        raise SystemExit(128 + number)

    def _log(self, line: str) -> None:
        if self._main_process:
            # not print, which a handler may have interrupted; and the terminal may be closed
            with contextlib.suppress(OSError):
                os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}\n".encode())


def _name(number: int) -> str:
    name = signal.Signals(number).name
    return f"{name} (nobody reads the output)" if name == "SIGPIPE" else name
