"""A clean stop when a signal asks for one."""

import contextlib
import signal


class StopSignals:
    """SIGINT and SIGTERM ask for a state and a stop, SIGUSR1 (Slurm's warning) for a state; at the next step boundary.

    A second SIGINT stops at once. `immediate` (while there is nothing to save, as in an evaluation) stops at the first.
    """

    def __init__(self) -> None:
        self.save = False
        self.stop: int | None = None  # the signal's number
        self.immediate = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignals":
        with contextlib.suppress(ValueError):  # not in the main thread: leave signals alone
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _received(self, number: int, _frame: object) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif self.immediate or (self.stop is not None and number == signal.SIGINT):
            raise SystemExit(128 + number)
        else:
            self.stop = number
