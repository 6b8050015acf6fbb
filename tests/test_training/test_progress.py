"""utils/progress.py: a bar in a terminal, a plain line every few minutes elsewhere, nothing in the other processes."""

import sys
from types import SimpleNamespace

from utils.progress import ProgressLine, format_rate


def work(monkeypatch, terminal: bool, hidden: bool = False) -> str:
    """Half of 1000 pairs in six minutes; returns the bar."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    time = SimpleNamespace(now=0.0)
    options = {"hidden": hidden, "more": lambda: "loss 2.0", "clock": lambda: time.now}
    with ProgressLine("epoch 3", 1000, "pairs", done=100, **options) as line:
        for time.now, done in ((100, 200), (179, 300), (180, 400), (200, 450), (361, 500)):
            line.advance(done)
        return str(line.bar)


def test_a_plain_line_every_few_minutes(monkeypatch, capsys):
    work(monkeypatch, terminal=False)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "epoch 3: 400 of 1000 pairs (40 %), 1.7 pairs/s, 0:06:00 left, loss 2.0",
        "epoch 3: 500 of 1000 pairs (50 %), 1.1 pairs/s, 0:07:31 left, loss 2.0",
    ]
    assert printed.err == ""


def test_a_bar_in_a_terminal(monkeypatch, capsys):
    bar = work(monkeypatch, terminal=True)
    assert "epoch 3" in bar and " 50%|" in bar and "loss 2.0" in bar
    assert capsys.readouterr().out == ""


def test_other_processes_print_nothing(monkeypatch, capsys):
    for terminal in (True, False):
        work(monkeypatch, terminal, hidden=True)
    assert capsys.readouterr() == ("", "")


def test_slow_work_has_a_rate_above_zero():
    rates = [format_rate(rate, "runs") for rate in (12.345, 1.0, 0.04, 0.001)]
    assert rates == ["12.3 runs/s", "1.0 runs/s", "2.4 runs/min", "3.6 runs/h"]
