"""Two processes over gloo: the losses and scores of one, one verdict for all, and one end when a process fails."""

import json
import os
import re
import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY, logged_losses
from tests.stop_matrix import JOB_FLAGS, final_state, run_as_job, same_end
from utils.errors import InputError
from utils.processes import PROCESS_GROUP_TIMEOUT

pytestmark = pytest.mark.slow

# negatives come from a process's own images, and dropout from its own random numbers
SAME_IN_ANY_NUMBER = (
    "--no-use_cl_loss",
    "--dropout",
    "0",
    "--log_steps",
    "1",
    "--use_emotion_loss",
    "--use_label_loss",
)


def torchrun(script, argv, seconds=240):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(script),
        *argv,
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=REPOSITORY)


def test_two_processes_train_as_one(workspace, tmp_path):
    """45 images: two processes make each step of 16 of a window of four batches. The last window is uneven: three batches of 4
    and one image, for which the second process has only a filler. Stops early on the verdict of the first process."""
    one, two = tmp_path / "one", tmp_path / "two"
    stop = ("--stop_after_evals", "0", "--num_train_epochs", "8")
    assert artEmisX_train.main(workspace.argv(one, *SAME_IN_ANY_NUMBER, *stop, "--batch_size", "16")) == 0
    windows = ("--batch_size", "2", "--gradient_accumulation_steps", "4")
    ended = torchrun(REPOSITORY / "artEmisX_train.py", workspace.argv(two, *SAME_IN_ANY_NUMBER, *stop, *windows))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "stopped early" in ended.stdout and ended.stdout.count("stopped early") == 1
    assert len(logged_losses(one)) == len(logged_losses(two)) >= 6
    for ours, theirs in zip(logged_losses(two), logged_losses(one), strict=True):
        del ours["step"], theirs["step"]  # of a window's last batch
        assert ours == pytest.approx(theirs, abs=1e-5)
    for kind in ("scores_exp", "unf_captions_full", "unf_captions_exp"):
        ours, theirs = (sorted((out / "results").glob(f"{kind}_*_step.json")) for out in (two, one))
        assert len(ours) == len(theirs) >= 2
        for path, other in zip(ours, theirs, strict=True):
            values, others = json.loads(path.read_text()), json.loads(other.read_text())
            if kind == "scores_exp":
                assert values == pytest.approx(others)
            else:
                assert values == others


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("raise InputError('the second process has had enough; give it a rest')", "error: the second process has had"),
        ("os.kill(os.getpid(), 9)", "error: process 0 cannot reach the others"),
    ],
)
def test_a_failing_process_ends_all(workspace, tmp_path, end, said):
    """One line of ours comes first; what follows it is torchrun's."""
    script = tmp_path / "failing.py"
    script.write_text(
        "import os, sys, artEmisX_train as t\n"
        "from utils.errors import InputError, run_script\n"
        "step = t.between_updates\n"
        "def between_updates(run, steps):\n"
        "    if os.environ['RANK'] == '1' and run.progress.step == 3:\n"
        f"        {end}\n"
        "    step(run, steps)\n"
        "t.between_updates = between_updates\n"
        "sys.exit(run_script(t.main))\n"
    )
    began = time.monotonic()
    ended = torchrun(script, workspace.argv(tmp_path, "--batch_size", "4"))
    assert ended.returncode != 0 and time.monotonic() - began < 100
    lines = [line for line in re.split("[\r\n]+", ended.stderr) if "rror:" in line or "Traceback" in line]
    assert said in lines[0], ended.stderr[-3000:]
    assert not any("error: process 1" in line for line in lines)


def test_slurm_script_of_the_readme(workspace, tmp_path):
    """Warned on the way, it writes a state, asks to be started anew, and ends as a run that nobody warned. stop_matrix.py
    --slurm does it with two processes."""
    whole, out = tmp_path / "whole", tmp_path / "job"
    out.mkdir()
    assert artEmisX_train.main(workspace.argv(whole, *JOB_FLAGS)) == 0
    output, statuses = run_as_job(out, workspace.argv(out, *JOB_FLAGS), 1, whole_group=False)
    assert len(statuses) == 2 and statuses[0] != 0 == statuses[1], output[-3000:]
    assert "stopped by" in output and "resumed at epoch" in output and "DataLoader" not in output
    assert same_end(final_state(out), final_state(whole))


OF_TWO = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}


def test_processes_wait_for_hours(workspace, tmp_path, monkeypatch):
    """Checking images or tagging texts may take one process longer than the 10 or 30 minutes that torch waits."""
    given = {}

    def init_process_group(*_, **options):
        given.update(options)
        raise InputError("far enough")

    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    for name, value in OF_TWO.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="far enough"):
        artEmisX_train.main(workspace.argv(tmp_path))
    assert given["timeout"] == PROCESS_GROUP_TIMEOUT >= timedelta(hours=6)


def test_killed_runs_end_as_if_never_killed(killed_runs):
    assert "3 of 3 equal" in killed_runs.output
