"""Where a run writes: one run per folder, however its owner ends; users' own files and broken links are refused and left."""

import os
import signal
import socket
import subprocess
import sys

import pytest

import artEmisX_train
from tests.conftest import REPOSITORY
from utils.command_line import check_paths, parse_args
from utils.errors import InputError
from utils.files import remove, run_lock

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
        with run_lock(tmp_path):
            refused(tmp_path, f"process {os.getpid()} on")
        os.kill(child, signal.SIGKILL)  # which is still there


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


@pytest.mark.parametrize("name", ["ckpts", "results", "ckpts/resume", "results/log.jsonl"])
def test_a_broken_link_is_refused_before_work(workspace, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(InputError, match=f"{name}: .*remove it"):
        check_paths(parse_args(workspace.argv(tmp_path)))
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["ckpts/resume", "ckpts/nle_model_best-acc", "ckpts/ckpt_stats_best-res.tar/note"])
def test_users_own_files_are_refused_before_work(workspace, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("a note")
    with pytest.raises(InputError, match=f"{name.removesuffix('/note')}: is not what a training writes there"):
        check_paths(parse_args(workspace.argv(tmp_path)))
    assert path.read_text() == "a note"


def test_links_to_folders_are_taken(workspace, tmp_path):
    for place in ("ckpts", "results"):
        (tmp_path / "elsewhere" / place).mkdir(parents=True)
        (tmp_path / place).symlink_to(tmp_path / "elsewhere" / place)
    check_paths(parse_args(workspace.argv(tmp_path)))


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "folder"
    link.symlink_to(tmp_path / "disk")
    remove(link)
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
