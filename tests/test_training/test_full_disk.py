"""A full disk stops a run with a clear message, and everything older stays as it was."""

import os
import subprocess

import pytest

import artEmisX_train
from utils.errors import run_script
from utils.training import resume
from utils.training import run as run_setup
from utils.training.resume import load_state

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
    save_state = resume.save_state
    saved = []

    def fill_before_the_second(ckpt_path, *arguments):
        if len(saved) == 1:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "ballast").write_bytes(b"x" * max(free - 2_000_000, 0))
        saved.append(1)
        save_state(ckpt_path, *arguments)

    resume.save_state = fill_before_the_second
    try:
        assert run_script(lambda: artEmisX_train.main(argv)) == 1
    finally:
        resume.save_state = save_state
    assert "error: the disk is full" in capsys.readouterr().err
    found, notes = load_state(small_disk / "ckpts")
    assert found.state["progress"]["epoch"] == 0 and not notes
    left = {path.name for path in (small_disk / "ckpts" / "resume").iterdir()}
    assert len(left) == 1
    (small_disk / "ballast").unlink()
    assert artEmisX_train.main([*argv, "--resume"]) == 0


@pytest.mark.parametrize("size", ["2m", "10m", "14m"])
def test_disks_that_fill_elsewhere(workspace, tmp_path, capsys, monkeypatch, size):
    """Within the first state, within the tokenizer, within a named checkpoint: one line, nothing half-written."""
    # there was room when the run began; somebody else has filled it since
    monkeypatch.setattr(run_setup, "check_disk", lambda *_: "disk: enough")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        assert run_script(lambda: artEmisX_train.main(workspace.argv(tmp_path, "--ckpt_path", f"{folder}/c"))) == 1
        assert "error: the disk is full" in capsys.readouterr().err
        assert not [path for path in folder.rglob("*") if path.suffix in (".old", ".tmp")]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("largest", [100_000, 2_000_000])
def test_a_limit_on_the_size_of_files(workspace, tmp_path, capsys, largest):
    """As a quota: torch and others report it in their own words, while the disk has room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        assert run_script(lambda: artEmisX_train.main(workspace.argv(tmp_path))) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "rror" in line]
    assert len(lines) == 1 and "/ckpts/resume/" in lines[0]
