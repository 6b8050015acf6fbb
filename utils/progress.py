"""Progress: a bar in a terminal, a plain line every few minutes in a log file."""

import functools
import io
import shutil
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 180
ROOM_OF_BAR = 56  # characters of a short bar, its percentage, rate and time left
SECONDS_TO_FIRST_LINE = 10  # of a download
print_now = functools.partial(print, flush=True)


class PlainBar(tqdm):
    """A tqdm bar for a log file: plain lines, the first after ten seconds and the next every few minutes."""

    def __init__(self, *args, **options):
        self.due = time.monotonic() + SECONDS_TO_FIRST_LINE
        pace = {"delay": SECONDS_TO_FIRST_LINE, "mininterval": SECONDS_TO_FIRST_LINE, "miniters": 1}
        super().__init__(
            *args, **options | pace | {"disable": False, "file": io.StringIO()}
        )  # `display` prints instead

    def display(self, *_, **__) -> None:
        if time.monotonic() >= self.due or self.disable:  # disabled: closed after it has been shown
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            print(self, file=sys.stderr, flush=True)


class ProgressLine:
    """The progress of a loop: a tqdm bar on stderr if that is a terminal, else plain lines on stdout, minutes apart.

    A context manager; call `advance` after each piece of work.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        done: int = 0,
        hidden: bool = False,
        more: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = print_now,
    ):
        """
        Args:
            total, done: pieces of work, and how many of them are done already.
            hidden: show nothing, as on all processes but one.
            more: returns the end of the line, such as losses.
            write: prints a plain line.
        """
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.more, self.clock, self.write = more, clock, write
        self.terminal = sys.stderr.isatty()
        self.plain = not hidden and not self.terminal
        self.first, self.began = done, clock()
        self.last_line = self.began
        self.bar = tqdm(
            total=total,
            desc=title,
            initial=done,
            unit=f" {unit}",
            disable=hidden or not self.terminal,
            leave=False,
            dynamic_ncols=True,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left{postfix}",
        )

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    @property
    def rate(self) -> float:
        """Pieces of work per second since the beginning; 0.0 before the first."""
        seconds = self.clock() - self.began
        return (self.done - self.first) / seconds if seconds > 0 else 0.0

    def advance(self, done: int) -> None:
        """Report that `done` pieces of work are done now."""
        if self.terminal:
            self.bar.set_postfix_str(self._fitting(self.more()), refresh=False)
            self.bar.update(done - self.done)
        self.done = done
        if self.plain and self.clock() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = self.clock()
            self.write(self.text())

    def _fitting(self, more: str) -> str:
        """The first of the values in `more`, two spaces apart, that leave the bar some room in the terminal."""
        room = shutil.get_terminal_size().columns - len(self.title) - ROOM_OF_BAR
        values = more.split("  ")
        while len(values) > 1 and len("  ".join(values)) > room:
            del values[-1]
        return "  ".join(values)

    def text(self) -> str:
        """The plain line."""
        percent = 100 * self.done / max(self.total, 1)
        parts = [f"{self.done} of {self.total} {self.unit} ({percent:.0f} %)"]
        if self.rate:
            parts.append(format_rate(self.rate, self.unit))
            if self.done < self.total:
                parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        if more := self.more():
            parts.append(more)
        return f"{self.title}: {', '.join(parts)}"


def format_rate(rate: float, unit: str) -> str:
    """A rate per second, minute or hour, whichever is the first with at least one piece of work.

    Args:
        rate: pieces of work per second. unit: their name, in the plural.
    """
    for seconds, name in ((1, "s"), (60, "min")):
        if rate * seconds >= 1:
            return f"{rate * seconds:.1f} {unit}/{name}"
    return f"{3600 * rate:.1f} {unit}/h"


def duration(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
