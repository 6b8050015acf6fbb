"""One run per folder: whatever lies where the lock file should, whoever removes it, and however its owner ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY
from utils.errors import InputError
from utils.training.folder_lock import LOCK_FILE, locked

HOLD = "import sys, pathlib, utils.training.folder_lock as lock\nwith lock.locked(pathlib.Path(sys.argv[1])):\n    "


def holder(folder, then="print('held', flush=True); sys.stdin.read()"):
    """A process that holds the folder; its stdout has a first line once it does."""
    command = [sys.executable, "-c", HOLD + then, str(folder)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def refused(folder, match):
    with pytest.raises(InputError, match=match), locked(folder):
        pass


def test_removed_lock_file_lets_nobody_in(tmp_path):
    with holder(tmp_path) as other:
        assert other.stdout.readline() == "held\n"
        refused(tmp_path, f"another run is at work here .*{other.pid}")
        (tmp_path / LOCK_FILE).unlink()
        refused(tmp_path, "another run is at work here")
        other.communicate()
    assert other.returncode == 0
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_lock_ends_with_its_owner_not_with_what_it_forked(tmp_path):
    then = "child = os.fork(); print(child or os.getpid(), flush=True) if child else time.sleep(60); sys.stdin.read()"
    with holder(tmp_path, "import os, time; " + then.replace("; print", "\n    print")) as other:
        child = int(other.stdout.readline())
        refused(tmp_path, str(other.pid))
        other.kill()
        other.wait()
        os.kill(child, 0)  # it is still there
        for _ in range(100):  # it gives its copy up first thing, but a busy machine may let it wait for its turn
            try:
                with locked(tmp_path):
                    break
            except InputError:
                time.sleep(0.1)
        else:
            pytest.fail("the forked process keeps the lock")
        os.kill(child, 0)
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["link", "dangling link", "loop", "folder", "fifo", "hard link", "file"])
def test_what_is_no_lock_file_stays_as_it_is(tmp_path, kind):
    precious, folder = tmp_path / "precious", tmp_path / "run"
    precious.write_text("ten years of work")
    folder.mkdir()
    path = folder / LOCK_FILE
    match kind:
        case "link":
            path.symlink_to(precious)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "loop":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "hard link":
            path.hardlink_to(precious)
        case "file":
            path.write_text("not a lock")
    before = path.lstat()
    refused(folder, "no lock file of ours")
    assert precious.read_text() == "ten years of work" and not (tmp_path / "nowhere").exists()
    assert path.lstat().st_ino == before.st_ino and path.lstat().st_size == before.st_size


def test_a_link_to_the_folder_is_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with locked(tmp_path / "link"):
        assert (tmp_path / "run" / LOCK_FILE).is_file()
        refused(tmp_path / "run", f"another run .*{os.getpid()}")


def test_import_and_refusal_without_fcntl(tmp_path):
    """As on Windows, which has neither fcntl nor most signals."""
    program = (
        "import sys, signal, pathlib\n"
        "sys.modules['fcntl'] = None\n"
        "for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2'): delattr(signal, name)\n"
        "import utils.report, utils.training.stop_signals, utils.processes, utils.training.folder_lock as lock\n"
        "with lock.locked(pathlib.Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert "InputError: " in ended.stderr and "cannot lock a folder" in ended.stderr, ended.stderr
