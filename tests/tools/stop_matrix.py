"""What a signal does to a run: at its launcher and at a worker, in training and in an evaluation, as a table.

    python tests/tools/stop_matrix.py                  (all; some ten minutes on two cores)
    python tests/tools/stop_matrix.py --launcher torchrun --signals TERM USR1
    python tests/tools/stop_matrix.py --slurm          (the Slurm script of utils/training/README.md, with a stand-in for Slurm)

Runs are of tiny models, with two loader processes and with METEOR's Java, started as users start them: torchrun with two
processes, accelerate's launcher with one, plain python. Each row: who was signalled with what; whether the launcher ended, and
after how many seconds all processes of the run were gone; which were still there after a minute (orphans, ended then); whether a
state was written after the signal; what stood on the terminal. SIGHUP goes to the terminal's foreground group, as when it is
closed. Exit status 1 when an orphan stayed, a traceback of ours was printed, or a stop left no state.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.conftest import REPOSITORY, Workspace

LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_processes", "1"],
    "python": [sys.executable],
}
SIGNALS = ("TERM", "INT", "HUP", "USR1", "USR2", "KILL")
MOMENTS = ("training", "evaluation", "loading")
TARGETS = ("launcher", "worker", "group")
# slows the run so that a signal finds it where it should, and says where it is
SCRIPT = """
import os, sys, time
sys.path.insert(0, {repository!r})
from utils.processes import prepare_script
prepare_script()
import artEmisX_train as script
import utils.training.run as run
from utils.errors import run_script

def slowed(module, name, moment, seconds):
    function = getattr(module, name)
    def slow(*args, **kwargs):
        value = function(*args, **kwargs)
        with open(os.path.join({folder!r}, f"{{moment}}-{{os.getpid()}}"), "a") as file:
            file.write("x")
        time.sleep(seconds)
        return value
    setattr(module, name, slow)

slowed(run, "read_inputs", "loading", {loading})
slowed(script, "update", "training", 0.1)
import utils.evaluation.evaluator as evaluator
slowed(evaluator, "caption_batch", "evaluation", {evaluation})
sys.exit(run_script(script.main))
"""


def marked(folder: Path) -> dict[str, str]:
    """The environment of processes that `processes_of` finds."""
    return os.environ | {"RUN_OF_MATRIX": str(folder)}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes whose environment carries this run's mark, zombies left out."""
    return [
        process
        for process in psutil.process_iter(["environ", "status", "name"])
        if (process.info["environ"] or {}).get("RUN_OF_MATRIX") == str(folder)
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def kill_all(folder: Path) -> list[str]:
    """Kill what is left of a run; returns its names."""
    left = processes_of(folder)
    for process in left:
        process.kill()
    return sorted(process.info["name"] for process in left)


def wait_for(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def start(workspace: Workspace, folder: Path, launcher: str, moment: str) -> subprocess.Popen:
    """Start a slowed run, in a session of its own, as a terminal's; the leader stands for the shell."""
    seconds = {"loading": 4 * (moment == "loading"), "evaluation": 8 * (moment == "evaluation")}
    script = folder / "script.py"
    script.write_text(SCRIPT.format(repository=str(REPOSITORY), folder=str(folder), **seconds))
    flags = "--batch_size 4 --num_workers 2 --metrics bleu meteor --num_train_epochs 4".split()
    flags += ["--eval_steps", "3"] if moment == "evaluation" else []
    with open(folder / "log", "w") as log:
        return subprocess.Popen(
            [*LAUNCHERS[launcher], str(script), *workspace.argv(folder, *flags)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=REPOSITORY,
            env=marked(folder),
        )


def case(workspace: Workspace, launcher: str, moment: str, target: str, name: str) -> tuple[str, bool]:
    """One row of the table, and whether it is as it should be."""
    folder = Path(tempfile.mkdtemp(dir=workspace.root))
    started, log = start(workspace, folder, launcher, moment), folder / "log"
    times = 4 if moment == "training" else 1
    many = 2 if launcher == "torchrun" and moment != "loading" else 1

    def workers() -> set[int]:
        """The processes that have got to the moment."""
        return {int(path.name.split("-")[1]) for path in folder.glob(f"{moment}-*") if path.stat().st_size >= times}

    def over() -> bool:
        return started.poll() is not None and not processes_of(folder)

    wait_for(lambda: len(workers()) >= many or started.poll() is not None, 120)
    if len(workers()) < many or started.poll() is not None:
        raise SystemExit(f"{launcher}, {moment}: the run did not get there:\n{log.read_text()[-2000:]}")
    began = time.time()
    signalled = max(workers()) if target == "worker" else started.pid  # the second of two workers, as a rule
    (os.killpg if target == "group" else os.kill)(signalled, getattr(signal, f"SIG{name}"))
    # a process saves at USR1 and USR2 and goes on
    goes_on = name.startswith("USR") and (target == "worker" or launcher == "python") and not wait_for(over, 6)
    if goes_on:
        kill_all(folder)
    gone, took = wait_for(over, 60), time.time() - began
    left = kill_all(folder)
    started.wait()
    states = [path.stat().st_mtime for path in (folder / "ckpts" / "resume").glob("*/state.pt")]
    saved = any(written >= began - 0.5 for written in states)
    output = log.read_text(errors="replace")
    said, traceback = re.findall(r"(?:error:|stopped by) [^\r\n]*", output), "Traceback" in without_launchers(output)
    nobody_left = name == "KILL" and target != "launcher"  # who could write
    good = gone and (nobody_left or ((moment != "training" or saved) and not traceback))
    ended = "goes on" if goes_on else f"exit {started.returncode}" if gone else "STAYS"
    state = "new" if saved else "older" if states else "none"
    row = f"{launcher:<10} {moment:<10} {name:<4} -> {target:<8} {ended:<8} {took:5.1f} s  state {state:<5}  left: "
    row += f"{', '.join(left) or '-'}  {'TRACEBACK ' if traceback else ''}{' / '.join(dict.fromkeys(said))[:150]}"
    return row + ("" if good else "   BAD"), good


def without_launchers(output: str) -> str:
    """The output without the tracebacks that the launchers print of themselves."""
    blocks = re.split(r"(?=Traceback \(most recent call last\))", output)
    of_launchers = re.compile("torch/distributed/(launcher|elastic)|accelerate/commands")
    return "".join(block for block in blocks if not (block.startswith("Traceback") and of_launchers.search(block)))


# ---- Slurm -----------------------------------------------------------------------------------------------------------


def job_script(processes: int) -> str:
    """The Slurm script of utils/training/README.md, for this machine."""
    text = (REPOSITORY / "utils/training/README.md").read_text()
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", text, re.S).group(1)
    before, found, after = script.partition("torchrun --standalone --nproc_per_node 4")
    assert found
    return f"{before}{' '.join(LAUNCHERS['torchrun'][:-1])} {processes}{after}"


def run_as_job(
    folder: Path, argv: list[str], processes: int, whole_group: bool, warnings: int = 1
) -> tuple[str, list[int]]:
    """Stand in for Slurm: run the documented script, warn it once it trains, and start it anew as often as it asks for it.

    Args:
        whole_group: send USR1 to every process of the job's group, not to the batch shell alone.
        warnings: runs to warn; the ones after these go on to their end.

    Returns:
        what the runs printed, and each one's exit status.
    """
    (folder / "job.sh").write_text(job_script(processes))
    scontrol, requeued = folder / "bin" / "scontrol", folder / "requeued"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {shlex.quote(str(requeued))}\n')
    scontrol.chmod(0o755)
    environment = marked(folder) | {"SLURM_JOB_ID": "17", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    command, log, statuses = ["bash", str(folder / "job.sh"), *argv], folder / "job.log", []
    while not statuses or requeued.is_file():
        requeued.unlink(missing_ok=True)
        before = losses_logged(folder)
        with open(log, "ab") as output:
            job = subprocess.Popen(
                command, stdout=output, stderr=output, cwd=REPOSITORY, env=environment, start_new_session=True
            )
        if len(statuses) < warnings:
            wait_for(lambda job=job, before=before: losses_logged(folder) > before + 1 or job.poll() is not None, 120)
            (os.killpg if whole_group else os.kill)(job.pid, signal.SIGUSR1)
        statuses.append(job.wait(timeout=300))
        left = kill_all(folder)  # as Slurm would now
        assert not left, f"left behind: {left}"
        assert not requeued.is_file() or requeued.read_text() == "requeue 17\n"
    return log.read_text(errors="replace"), statuses


def losses_logged(folder: Path) -> int:
    """How many lines of losses a run's log has."""
    log = folder / "results" / "log.jsonl"
    return log.read_bytes().count(b'{"losses"') if log.is_file() else 0


def same_end(*runs: Path) -> bool:
    """Whether two runs ended with the same weights and scores."""
    import torch  # here, as tests import this file in processes that are to start at once

    from utils.training.resume import load_state

    left, right = (load_state(run / "ckpts")[0].state for run in runs)
    same = (torch.equal(left["model"][name], tensor) for name, tensor in right["model"].items())
    return left["progress"] == right["progress"] and all(same)


# long enough to be warned on the way
JOB_FLAGS = ("--num_workers", "1", "--num_train_epochs", "8", "--eval_steps", "1000000", "--log_steps", "1")


def slurm(workspace: Workspace) -> bool:
    """The documented Slurm script, with two processes, warned twice in both ways; whether all ended as an uninterrupted run."""
    good = True
    flags = [*JOB_FLAGS, "--batch_size", "4"]
    whole = workspace.root / "whole"
    command = [*LAUNCHERS["torchrun"], "artEmisX_train.py", *workspace.argv(whole, *flags)]
    subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
    for whole_group in (False, True):
        folder = workspace.root / f"job-{whole_group}"
        folder.mkdir()
        output, statuses = run_as_job(folder, workspace.argv(folder, *flags), 2, whole_group, warnings=2)
        resumed = re.findall(r"resumed at epoch \d+, step \d+", output)
        same = same_end(folder, whole)
        good &= same and len(resumed) == 2 and statuses[-1] == 0
        where, end = "process group" if whole_group else "batch shell", "equal" if same else "DIFFERENT"
        print(f"USR1 to the {where}: exit {statuses}, {', '.join(resumed)}, end {end}", flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launcher", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--slurm", action="store_true", help="try the documented Slurm script instead")
    args = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGINT):  # which may be ignored where this runs in the background
        signal.signal(number, signal.SIG_DFL)
    bad = 0
    with tempfile.TemporaryDirectory() as root:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            workspace = Workspace(Path(root))
        if args.slurm:
            return int(not slurm(workspace))
        for launcher, moment, name, target in product(args.launcher, MOMENTS, args.signals, TARGETS):
            if (launcher, target) != ("python", "worker"):
                row, good = case(workspace, launcher, moment, target, name)
                bad += not good
                print(row, flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
