"""utils/errors.py: what a user can put right is one line on stderr, and a bug keeps its traceback."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.conftest import REPOSITORY
from utils.errors import InputError, OneLineParser, escaped, print_once, run_script


def failed(error: Exception | int, capsys) -> str:
    """What run_script prints of an error (or of the system's error of this number), which is one line."""
    if isinstance(error, int):
        error = OSError(error, os.strerror(error), "some\x1bwhere")

    def fail():
        raise error

    assert run_script(fail) == (2 if isinstance(error, InputError) else 1)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "the disk is full (some\\x1bwhere): free some space"),
        (errno.EACCES, "some\\x1bwhere: Permission denied: check the permissions"),
        (errno.ENOTSUP, "name a folder on another one"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "some\\x1bwhere: Input/output error: check this path and its disk"),
        (errno.EPIPE, "nobody reads the output"),
    ],
)
def test_an_error_of_the_system_is_one_line_with_its_remedy(capsys, monkeypatch, number, remedy):
    monkeypatch.setattr("utils.errors.silence_stdout", lambda: None)
    assert remedy in failed(number, capsys)


def test_errors_without_a_path(capsys):
    reason = "No usable temporary directory found in ['/tmp']"
    assert "set TMPDIR" in failed(FileNotFoundError(errno.ENOENT, reason), capsys)
    with pytest.raises(OSError, match="no errno"):  # not of the system: a bug
        failed(OSError("no errno in it"), capsys)


def test_bad_input_is_one_line_without_control_characters(capsys):
    assert failed(InputError("a\x1b[2J: wrong\nfield"), capsys) == "error: a\\x1b[2J: wrong\\nfield\n"
    assert escaped("a\x1b\r\nb é\u202e", keep="\n") == "a\\x1b\\r\nb é\\u202e"


def test_statuses(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert [run_script(lambda status=status: status) for status in (None, 3)] == [0, 3]
    assert run_script(interrupted) == 130
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(RuntimeError, match="gloo"):  # one process has no others to lose
        failed(RuntimeError("gloo"), capsys)


def test_errors_of_one_of_several_processes(capsys, monkeypatch):
    """A lost process is one line. What a user can put right is said by one of them: the first, or, where it alone fails,
    another. What every process finds is printed by the first."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "process 0 cannot reach the others" in failed(RuntimeError("[gloo/pair.cc] closed"), capsys)
    with pytest.raises(RuntimeError, match="shape"):
        failed(RuntimeError("shape"), capsys)
    failed(InputError("wrong"), capsys)
    print_once("\x1b")
    assert capsys.readouterr().out == "\\x1b\n" and sum(waited) == 0
    monkeypatch.setenv("RANK", "1")
    print_once("\x1b")
    failed(InputError("wrong"), capsys)
    assert sum(waited) > 2


def test_a_killed_process_of_a_pool_is_one_line(capsys):
    with ProcessPoolExecutor(1) as pool:
        assert run_script(lambda: pool.submit(os._exit, 9).result()) == 1
    assert "error: one of the processes that share the work was killed" in capsys.readouterr().err


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("None", 1), ("print('x' * 99999)", 1)])
def test_no_traceback_where_nobody_reads_stdout(end, status):
    """Else Python itself would write a traceback at exit, and end with 120. Short texts stay in a buffer until the end."""
    code = (
        "import os, sys\nfrom utils.errors import run_script\nreading, writing = os.pipe()\nos.close(reading)\n"
        f"os.dup2(writing, 1)\nsys.exit(run_script(lambda: (print('text'), {end})))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == status and "Traceback" not in done.stderr and "ignored" not in done.stderr
    assert ("nobody reads the output" in done.stderr) == (status == 1)


def test_help_names_the_defaults_of_flags_that_take_a_value():
    parser = OneLineParser()
    parser.add_argument("--all", action="store_true", help="every image")
    parser.add_argument("--size", type=int, default=48, help="in pixels")
    parser.add_argument("--seed", default=7, help="7 by default")
    lines = [" ".join(line.split()) for line in parser.format_help().splitlines()]
    assert {"--all every image", "--size SIZE in pixels (default: 48)", "--seed SEED 7 by default"} <= set(lines)
