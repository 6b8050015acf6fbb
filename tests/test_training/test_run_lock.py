"""One run per folder, however its owner ends."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

import artEmisX_train
from tests.conftest import REPOSITORY
from utils.errors import InputError
from utils.files import run_lock

HOLD = "import os, sys, time, pathlib, utils.files as files\nwith files.run_lock(pathlib.Path(sys.argv[1])):\n    "


def holder(folder, then="print('held', flush=True); sys.stdin.read()"):
    """A process that holds the folder; its stdout has a first line once it does."""
    command = [sys.executable, "-c", HOLD + then, str(folder)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def refused(folder, match):
    with pytest.raises(InputError, match=match), run_lock(folder):
        pass


def test_a_second_run_is_refused_by_name(tmp_path):
    with holder(tmp_path) as other:
        assert other.stdout.readline() == "held\n"
        for _ in range(2):  # a refusal changes nothing
            refused(tmp_path, f"another run is at work here .process {other.pid} on {socket.gethostname()}.; wait")
        other.communicate()
    assert other.returncode == 0
    with run_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_training_in_a_folder_in_use_is_refused(workspace, tmp_path):
    with run_lock(tmp_path / "ckpts"), pytest.raises(InputError, match=f"ckpts: another run is at work.*{os.getpid()}"):
        artEmisX_train.main(workspace.argv(tmp_path))


def test_the_lock_ends_with_its_owner_not_with_what_it_forked(tmp_path):
    then = "child = os.fork()\n    print(child, flush=True) if child else time.sleep(60)\n    sys.stdin.read()"
    with holder(tmp_path, then) as other:
        child = int(other.stdout.readline())
        refused(tmp_path, str(other.pid))
        other.kill()
        other.wait()
        try:
            with run_lock(tmp_path):  # the files that the dead run left are no obstacle
                refused(tmp_path, f"process {os.getpid()} on")
            os.kill(child, 0)  # it is still there
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_link_to_the_folder_is_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with run_lock(tmp_path / "link"):
        refused(tmp_path / "run", f"another run .*{os.getpid()}")


def test_folders_that_stay_empty_are_removed(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with run_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with run_lock(tmp_path / "ckpts"):
        (tmp_path / "ckpts/x").touch()
    assert "has no locks" in capsys.readouterr().out and [path.name for path in (tmp_path / "ckpts").iterdir()] == ["x"]
