"""Two processes over gloo: the losses and scores of one, one verdict for all, and one end when a process fails."""

import json
import os
import subprocess
import sys
import time

import pytest

import artEmisX_train
from tests.conftest import REPOSITORY, logged_losses

# negatives come from a process's own images, and dropout from its own random numbers
SAME_IN_ANY_NUMBER = ("--no-use_cl_loss", "--dropout", "0", "--log_steps", "1", "--use_emotion_loss")


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
    """45 images: the last global batch of 5 is dealt out as 3 and 2. Stops early on the verdict of the first process."""
    one, two = tmp_path / "one", tmp_path / "two"
    stop = ("--stop_after_evals", "0", "--num_train_epochs", "6")
    assert artEmisX_train.main(workspace.argv(one, *SAME_IN_ANY_NUMBER, *stop)) == 0
    ended = torchrun(
        REPOSITORY / "artEmisX_train.py", workspace.argv(two, *SAME_IN_ANY_NUMBER, *stop, "--batch_size", "4")
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "stopped early" in ended.stdout and ended.stdout.count("stopped early") == 1
    assert len(logged_losses(one)) == len(logged_losses(two)) >= 12
    for ours, theirs in zip(logged_losses(two), logged_losses(one), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for path in sorted((one / "results").glob("*_step.json")):
        assert (
            json.loads((two / "results" / path.name).read_text()) == pytest.approx(json.loads(path.read_text()))
            if (path.name.startswith("scores"))
            else (two / "results" / path.name).read_bytes() == path.read_bytes()
        )


def test_a_failing_process_ends_all(workspace, tmp_path):
    script = tmp_path / "failing.py"
    script.write_text(
        "import os, sys, artEmisX_train as t\n"
        "from utils.errors import InputError, run_script\n"
        "step = t.between_updates\n"
        "def between_updates(run, steps):\n"
        "    if os.environ['RANK'] == '1' and run.progress.step == 3:\n"
        "        raise InputError('the second process has had enough; give it a rest')\n"
        "    step(run, steps)\n"
        "t.between_updates = between_updates\n"
        "sys.exit(run_script(t.main))\n"
    )
    began = time.monotonic()
    ended = torchrun(script, workspace.argv(tmp_path, "--batch_size", "4"))
    assert ended.returncode != 0 and time.monotonic() - began < 100
    assert "error: the second process has had enough" in ended.stderr


def test_killed_runs_end_as_if_never_killed():
    """The short form of tests/torture.py, one kill of each kind; it forks, so it must not share this process's threads."""
    command = [sys.executable, str(REPOSITORY / "tests" / "torture.py"), "--kills", "3", "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0 and "3 of 3 equal" in ended.stdout, ended.stdout + ended.stderr[-2000:]
