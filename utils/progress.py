"""Progress for people: one bar in a terminal, one plain line every few minutes in a log file."""

import functools
import io
import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 180
SECONDS_TO_FIRST_LINE = 10  # of a download
print_now = functools.partial(print, flush=True)


class PlainBar(tqdm):
    """A tqdm bar for a log file: whole lines, the first after ten seconds and the next every few minutes."""

    def __init__(self, *args, **options):
        self.due = time.monotonic() + SECONDS_TO_FIRST_LINE
        pace = {"delay": SECONDS_TO_FIRST_LINE, "mininterval": SECONDS_TO_FIRST_LINE, "miniters": 1}
        super().__init__(*args, **options | pace | {"disable": False, "file": io.StringIO()})  # no line ends of its own

    def display(self, *_, **__) -> None:
        if time.monotonic() >= self.due or self.disable:  # disabled: it is closed, after it has been shown
            self.due = time.monotonic() + SECONDS_BETWEEN_LINES
            print(self, file=sys.stderr, flush=True)


class ProgressLine:
    """How far a loop is: a tqdm bar on stderr where that is a terminal, else a plain line on stdout now and then.

    Used as a context manager; `advance` after each piece of work.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        done: int = 0,
        hidden: bool = False,
        more: Callable[[], str] = str,
        seconds: float = SECONDS_BETWEEN_LINES,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = print_now,
    ):
        """
        Args:
            total, done: pieces of work, and how many of them were done before.
            hidden: on all processes but one.
            more: gives what stands at the end of the line, such as losses.
            seconds: between two plain lines.
            write: prints a plain line.
        """
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.more, self.seconds, self.clock, self.write = more, seconds, clock, write
        self.terminal = sys.stderr.isatty()
        self.plain = not hidden and not self.terminal
        self.first, self.began = done, clock()
        self.said = self.began
        self.bar = tqdm(
            total=total,
            desc=title,
            initial=done,
            unit=f" {unit}",
            disable=hidden or not self.terminal,
            leave=False,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    @property
    def rate(self) -> float:
        """Pieces of work per second since the beginning, 0.0 before there are any."""
        seconds = self.clock() - self.began
        return (self.done - self.first) / seconds if seconds > 0 else 0.0

    def advance(self, done: int) -> None:
        """`done` pieces of work are done now."""
        if self.terminal:
            self.bar.set_postfix_str(self.more(), refresh=False)
            self.bar.update(done - self.done)
        self.done = done
        if self.plain and self.clock() - self.said >= self.seconds:
            self.said = self.clock()
            self.write(self.text())

    def text(self) -> str:
        """The plain line."""
        share = 100 * self.done / max(self.total, 1)
        parts = [f"{self.done} of {self.total} {self.unit} ({share:.0f} %)"]
        if self.rate:
            left = duration((self.total - self.done) / self.rate)
            parts += [f"{self.rate:.1f} {self.unit}/s", f"{left} left"]
        if more := self.more():
            parts.append(more)
        return f"{self.title}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Seconds as hours:minutes:seconds."""
    return str(timedelta(seconds=round(seconds)))
