"""A full disk stops a run with one line, and everything older stays complete; a disk that is too small is refused before."""

import errno
import os
import shutil
import subprocess

import pytest

import artEmisX_train
from utils.errors import InputError, run_script
from utils.files import write_text
from utils.layout import list_names
from utils.training import checkpoints, resume
from utils.training import run as training_run
from utils.training.build_model import load_checkpoint
from utils.training.checkpoints import check_disk, state_size
from utils.training.resume import load_state


@pytest.fixture
def small_disk(request, tmp_path):
    """A disk of the given size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["60m"], indirect=True)
def test_a_disk_that_fills_before_the_second_state(workspace, small_disk, tmp_path, capsys, monkeypatch):
    """The first state is resumed once there is room."""
    flags = ("--num_train_epochs", "1", "--save_steps", "3")
    argv = workspace.argv(tmp_path, *workspace.gpt2, "--ckpt_path", str(small_disk / "ckpts"), *flags)
    save_state, saved = resume.save_state, []

    def fill_before_the_second(ckpt_path, *arguments):
        if len(saved) == 1:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "ballast").write_bytes(b"x" * max(free - 2_000_000, 0))
        saved.append(1)
        save_state(ckpt_path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_state", fill_before_the_second)
        assert run_script(lambda: artEmisX_train.main(argv)) == 1
    assert "error: the disk is full" in capsys.readouterr().err
    found, notes = load_state(small_disk / "ckpts")
    assert found.state["progress"]["step"] == 3 and not notes
    assert len(list((small_disk / "ckpts" / "resume").iterdir())) == 1
    (small_disk / "ballast").unlink()
    assert artEmisX_train.main([*argv, "--resume"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["14m"], indirect=True)
def test_a_disk_that_fills_within_a_named_checkpoint(workspace, small_disk, tmp_path, capsys, monkeypatch):
    """One line, nothing half-written, and the state before it stays."""
    # there was room when the run began; somebody else has filled it since
    monkeypatch.setattr(training_run, "check_disk", lambda *_: "disk: enough")
    argv = workspace.argv(tmp_path, *workspace.gpt2, "--ckpt_path", f"{small_disk}/c")
    assert run_script(lambda: artEmisX_train.main(argv)) == 1
    assert "error: the disk is full" in capsys.readouterr().err
    assert not [path for path in small_disk.rglob("*") if path.suffix in (".old", ".tmp")]
    assert load_state(small_disk / "c")[0] is not None and not list_names(small_disk / "c")


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(workspace, tmp_path, capsys):
    """As a quota: torch and others report it in their own words, while the disk has room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        assert run_script(lambda: artEmisX_train.main(workspace.argv(tmp_path, *workspace.gpt2))) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "rror" in line]
    assert len(lines) == 1 and "/ckpts/resume/" in lines[0]


# ---- before the first step -------------------------------------------------------------------------------------------


def set_free(monkeypatch, size: int) -> None:
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, size))


@pytest.mark.slow
def test_the_estimate_is_what_files_take(finished, tmp_path, monkeypatch):
    """Five times a state, without the fixed image encoder; files that the run replaces count as free."""
    model, folder = load_checkpoint(finished / "ckpts").model, finished / "ckpts"
    size, states = state_size(model), [path.stat().st_size for path in folder.glob("resume/*/state.pt")]
    named = [folder / "nle_model_best-res" / "model.safetensors", folder / "ckpt_stats_best-res.tar"]
    assert len(states) == 2 and size == pytest.approx(states[0], abs=2**18)
    assert size == pytest.approx(sum(path.stat().st_size for path in named), abs=2**18)
    set_free(monkeypatch, 5 * size)
    line = check_disk(model, tmp_path, False)
    assert "disk: up to 2 MiB" in line and "in use already" not in line
    set_free(monkeypatch, 5 * size - 1)
    assert "MiB of it are in use already" in check_disk(model, folder, True)
    message = f"up to 2 MiB in {tmp_path} for 2 states, 2 checkpoints .* are free; free some space"
    with pytest.raises(InputError, match=message):
        check_disk(model, tmp_path, False)
    model.image_encoder.fixed = False
    assert state_size(model) == size + sum(tensor.nbytes for tensor in model.image_encoder.state_dict().values())


def test_a_disk_that_is_too_small_is_refused_before_any_step(workspace, tmp_path, monkeypatch):
    set_free(monkeypatch, 10**6)
    with pytest.raises(InputError, match="only 1 MiB are free"):
        artEmisX_train.main(workspace.argv(tmp_path))
    assert not (tmp_path / "results" / "log.jsonl").exists()


# ---- other writes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("call", "number"), [("fsync", errno.EDQUOT), ("replace", errno.EXDEV)])
def test_a_write_that_fails_at_its_end_leaves_nothing(tmp_path, monkeypatch, call, number):
    """As on NFS with a quota, and where a file system cannot rename."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_text(tmp_path / "report.json", "{}")
    assert not list(tmp_path.iterdir())
