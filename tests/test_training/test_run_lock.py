"""One run per folder, however its owner ends."""

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

# holds the folder and waits for the end of stdin; its child prints its own process id
HOLD = """
import os, sys, time, pathlib, utils.files as files
with files.run_lock(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    sys.stdin.read()
"""


def refused(folder, match):
    with pytest.raises(InputError, match=match), run_lock(folder):
        pass


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path):
    """Killed, it leaves files, and a child that goes on: neither is an obstacle."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        child = int(other.stdout.readline())
        for _ in range(2):  # a refusal changes nothing
            refused(tmp_path, f"another run is at work here .process {other.pid} on {socket.gethostname()}.; wait")
        other.kill()
        other.wait()
        try:
            with run_lock(tmp_path):
                refused(tmp_path, f"process {os.getpid()} on")
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("folder", ["ckpts", "results"])
def test_a_training_in_a_folder_in_use_is_refused(workspace, tmp_path, folder):
    message = f"{folder}: another run is at work.*{os.getpid()}"
    with run_lock(tmp_path / folder), pytest.raises(InputError, match=message):
        artEmisX_train.main(workspace.argv(tmp_path))


def test_folders_that_stay_empty_are_removed(tmp_path):
    with run_lock(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())
    with run_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "result").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]
