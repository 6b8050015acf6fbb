"""A full disk stops a run with a clear message, and everything older stays as it was."""

import os
import subprocess

import pytest

import artEmisX_train
from utils.errors import run_script
from utils.training import training_run
from utils.training.resume_states import load_state

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 60 MB: room for two states of the tiny model, not for a third."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(workspace, small_disk, tmp_path, capsys):
    argv = workspace.argv(tmp_path, "--ckpt_path", str(small_disk / "ckpts"))
    (small_disk / "ballast").write_bytes(b"x")
    save_state = training_run.save_state
    saved = []

    def fill_before_the_second(ckpt_path, *arguments):
        if len(saved) == 1:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "ballast").write_bytes(b"x" * max(free - 2_000_000, 0))
        saved.append(1)
        save_state(ckpt_path, *arguments)

    training_run.save_state = fill_before_the_second
    try:
        assert run_script(lambda: artEmisX_train.main(argv)) == 1
    finally:
        training_run.save_state = save_state
    assert "error: the disk is full" in capsys.readouterr().err
    found, notes = load_state(small_disk / "ckpts")
    assert found.state["progress"]["epoch"] == 0 and not notes
    left = {path.name for path in (small_disk / "ckpts" / "resume").iterdir()}
    assert len(left) == 1
    (small_disk / "ballast").unlink()
    assert artEmisX_train.main([*argv, "--resume"]) == 0
