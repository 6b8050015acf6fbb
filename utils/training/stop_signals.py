"""A clean stop when a signal asks for one."""

import os
import signal
from typing import NoReturn

from utils.processes import SAVE, STOP


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP ask for a state and a stop, SIGUSR1 and SIGUSR2 for a state; at the next step boundary.

    A second SIGINT stops at once. `immediate` is for times when there is nothing to save (loading, evaluations): the
    main process then unwinds at the first signal, so that locks and Java end with it; the others have nothing to tidy
    and are left to the signal's default action, which also ends a process that waits inside a collective call.
    Signals that were ignored when the program started stay so (nohup), but for SIGINT and SIGTERM.

    Attributes:
        save: a state was asked for; whoever writes it resets this.
        stop: the number of the signal that asked for a stop, or None.
    """

    def __init__(self, main_process: bool = True) -> None:
        self.save = False
        self.stop: int | None = None
        self._immediate = True
        self._main_process = main_process
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

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @property
    def immediate(self) -> bool:
        """Whether the first signal stops at once. Setting it stops at once when a stop has been asked for already."""
        return self._immediate

    @immediate.setter
    def immediate(self, immediate: bool) -> None:
        self._immediate = immediate
        if immediate and self.stop is not None:
            _stop(self.stop)
        if not self._main_process:
            for number in self._previous.keys() & set(STOP):
                signal.signal(number, signal.SIG_DFL if immediate else self._received)

    def _received(self, number: int, _frame: object) -> None:
        if os.getpid() != self._pid:  # a forked helper that multiprocessing ends, or that shares our process group
            os._exit(128 + number)
        if number in SAVE:
            self.save = True
        elif self._immediate or (self.stop is not None and number == signal.SIGINT):
            _stop(number)
        else:
            self.stop = number


def _stop(number: int) -> NoReturn:
    # print is not safe in a handler, which may have interrupted another print
    os.write(2, f"stopped by {signal.Signals(number).name}; continue with --resume\n".encode())
    raise SystemExit(128 + number)
