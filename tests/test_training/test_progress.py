"""utils/progress.py: a bar in a terminal, a plain line every few minutes elsewhere, nothing in the other processes."""

import sys

import pytest

from utils.progress import ProgressLine, format_rate


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_plain_line_every_few_minutes(clock, capsys):
    with ProgressLine("epoch 3", 1000, "pairs", done=100, more=lambda: "loss 2.0", clock=clock) as line:
        for clock.now, done in ((100, 200), (179, 300), (180, 400), (200, 450), (361, 500)):
            line.advance(done)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "epoch 3: 400 of 1000 pairs (40 %), 1.7 pairs/s, 0:06:00 left, loss 2.0",
        "epoch 3: 500 of 1000 pairs (50 %), 1.1 pairs/s, 0:07:31 left, loss 2.0",
    ]
    assert printed.err == ""


def test_a_bar_in_a_terminal(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("epoch 3", 10, "pairs", more=lambda: "loss 2.0", clock=clock) as line:
        clock.now = 1000
        line.advance(6)
        assert "epoch 3" in str(line.bar) and " 60%|" in str(line.bar) and "loss 2.0" in str(line.bar)
    assert capsys.readouterr().out == ""


def test_slow_work_has_a_rate_above_zero():
    rates = [format_rate(rate, "runs") for rate in (12.345, 1.0, 0.04, 0.001)]
    assert rates == ["12.3 runs/s", "1.0 runs/s", "2.4 runs/min", "3.6 runs/h"]


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_print_nothing(clock, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with ProgressLine("epoch 3", 10, "pairs", hidden=True, clock=clock) as line:
        clock.now = 1000
        line.advance(5)
    assert capsys.readouterr() == ("", "")
