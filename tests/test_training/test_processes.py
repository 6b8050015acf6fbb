"""Several processes: losses and scores of one, the same early stop, and one end when a process fails; killed and warned runs."""

import json
import subprocess
import sys

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY, logged_losses
from tests.tools.stop_matrix import JOB_FLAGS, LAUNCHERS, case, run_as_job, same_end
from utils.errors import InputError
from utils.launcher import start_accelerator
from utils.training.run_log import read_log

pytestmark = pytest.mark.slow

# without negatives, which come from a process's own images, and dropout, which has random numbers of each process
COMPARABLE = ("--no-use_cl_loss", "--dropout", "0", "--log_steps", "1", "--use_emotion_loss", "--use_label_loss")


def test_two_processes_train_as_one(workspace, tmp_path):
    """45 images: two processes make each step of 16 of a window of four batches. The last window is uneven: three batches
    of 4 and one image, for which the second process has only a filler. Both stop early when the first one does."""
    one, two = tmp_path / "one", tmp_path / "two"
    stop = ("--stop_after_evals", "0", "--num_train_epochs", "8")
    assert artEmisX_train.main(workspace.argv(one, *COMPARABLE, *stop, "--batch_size", "16")) == 0
    windows = ("--batch_size", "2", "--gradient_accumulation_steps", "4")
    command = [*LAUNCHERS["torchrun"], "artEmisX_train.py", *workspace.argv(two, *COMPARABLE, *stop, *windows)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=REPOSITORY)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("stopped early") == 1
    fingerprints = read_log(two / "results" / "log.jsonl").fingerprints
    assert [fingerprints[name] for name in ("images_per_step", "processes", "images")] == [4, 2, 45]
    assert len(logged_losses(one)) == len(logged_losses(two)) >= 6
    for of_two, of_one in zip(logged_losses(two), logged_losses(one), strict=True):
        del of_two["step"], of_one["step"]  # of a window's last batch
        assert of_two == pytest.approx(of_one, abs=1e-5)
    for kind in ("scores_exp", "unf_captions_full", "unf_captions_exp"):
        files = [sorted((out / "results").glob(f"{kind}_*_step.json")) for out in (two, one)]
        assert len(files[0]) == len(files[1]) >= 2
        for paths in zip(*files, strict=True):
            of_two, of_one = (json.loads(path.read_text()) for path in paths)
            assert of_two == (pytest.approx(of_one) if kind == "scores_exp" else of_one)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes that their parent is gone")
@pytest.mark.parametrize(
    ("launcher", "target", "name", "message"),
    [
        ("torchrun", "worker", "KILL", "error: process 0 cannot reach the others"),
        ("torchrun", "launcher", "KILL", "stopped by SIGTERM; continue with --resume"),
        ("accelerate", "launcher", "KILL", "stopped by SIGTERM; continue with --resume"),
        ("python", "group", "TERM", "stopped by SIGTERM; continue with --resume"),
    ],
)
def test_one_end_of_all_processes_with_a_state(workspace, launcher, target, name, message):
    """A short form of tests/tools/stop_matrix.py. Loader processes live until the state is written, and no longer."""
    row, good = case(workspace, launcher, "training", target, name)
    assert good and message in row and "TRACEBACK" not in row, row


def test_slurm_script_of_the_readme(workspace, tmp_path):
    """Warned while it trains, it writes a state, is requeued, and ends as a run without a warning. stop_matrix.py --slurm
    does this with two processes."""
    whole, out = tmp_path / "whole", tmp_path / "job"
    out.mkdir()
    assert artEmisX_train.main(workspace.argv(whole, *JOB_FLAGS)) == 0
    output, statuses = run_as_job(out, workspace.argv(out, *JOB_FLAGS), 1, whole_group=False)
    assert len(statuses) == 2 and statuses[0] != 0 == statuses[1], output[-3000:]
    assert "stopped by" in output and "resumed at epoch" in output and "DataLoader" not in output
    assert same_end(out, whole)


def test_processes_wait_for_hours(monkeypatch):
    """Checking images or tagging texts may take one process longer than the 10 or 30 minutes that torch waits."""

    def init_process_group(*_, timeout, **__):
        raise InputError(f"waits for {timeout.total_seconds() / 3600} hours")

    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="waits for 12.0 hours"):
        start_accelerator()


def test_killed_runs_end_as_if_never_killed(tmp_path):
    """The short form of tests/tools/torture.py, with one kill of each kind."""
    command = [sys.executable, str(REPOSITORY / "tests" / "tools" / "torture.py"), "--kills", "3", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "3 of 3 equal" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
