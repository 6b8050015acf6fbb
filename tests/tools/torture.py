"""Kill training runs at random moments, resume them, and compare what they end with to a run that was never killed.

    python tests/tools/torture.py --kills 30

A shortened demo: same code, 64 images, 2 epochs, BLEU only. Every run is killed with SIGKILL, its whole process group at
once: a third at any moment, a third inside an evaluation, a third inside the writing of a checkpoint. It is then resumed, and
the SHA-256 of its final weights, its scores and its captions must be those of the uninterrupted run. Exit status 1 if any
differs.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads do not survive the fork

import torch

import artEmisX_train
from tests.conftest import Workspace
from utils.errors import run_script
from utils.evaluation.evaluator import Evaluator
from utils.files import sha256
from utils.training import resume

MOMENTS = ("any moment", "evaluation", "checkpoint")
PICTURES, EPOCHS = 64, 2


def announce(pipe: int, moment: str, function):
    """`function`, telling the parent when it starts."""

    def announced(*args, **kwargs):
        os.write(pipe, moment[:1].encode())
        return function(*args, **kwargs)

    return announced


def start(argv: list[str], log: Path) -> tuple[int, int]:
    """Run the training script in a child with a process group of its own; returns its pid and the pipe it announces on.

    A fork, as importing torch anew would take longer than the training.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    Evaluator.__call__ = announce(writing, "evaluation", Evaluator.__call__)
    torch.save = announce(writing, "checkpoint", torch.save)  # the largest file of a state and of a named checkpoint
    os._exit(run_script(lambda: artEmisX_train.main(argv)))


def kill_at(pid: int, pipe: int, moment: str, seconds: float, nth: int) -> bool:
    """Kill the child's group `seconds` after its start, or after the nth time it announces `moment`; False if it ended first."""
    while nth and moment != "any moment" and (letter := os.read(pipe, 1)):  # nothing is read of a child that has ended
        nth -= letter == moment[:1].encode()
    time.sleep(seconds)
    if os.waitpid(pid, os.WNOHANG)[0]:
        return False
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def finish(argv: list[str], log: Path) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    pid, pipe = start(argv, log)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(pipe)
    if status:
        raise SystemExit(f"a run that nobody killed ended with status {status}; see {log}")
    return time.monotonic() - began


def outcome(out: Path) -> dict[str, object]:
    """Final weights and progress, scores, captions and named checkpoints, as hashes."""
    state, weights = resume.load_state(out / "ckpts")[0].state, hashlib.sha256()
    for name, tensor in sorted(state["model"].items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    files = [*(out / "results").glob("*.json"), *(out / "ckpts").glob("nle_model_*/model.safetensors")]
    hashes = {str(path.relative_to(out)): sha256(path) for path in sorted(files)}
    return hashes | {"weights": weights.hexdigest(), "progress": state["progress"]}


def torture(root: Path, kills: int, seed: int) -> int:
    """Returns how many of the killed runs ended differently."""
    workspace, rng = Workspace(root, PICTURES), random.Random(seed)
    flags = ["--num_train_epochs", str(EPOCHS), "--save_steps", "3", "--dropout", "0.1"]
    whole = root / "whole"
    duration = finish(workspace.argv(whole, *flags), root / "whole.log")
    expected = outcome(whole)
    print(f"uninterrupted: {duration:.1f} s, weights {expected['weights'][:16]}", flush=True)
    different = killed = 0
    while killed < kills:
        moment = MOMENTS[killed % len(MOMENTS)]
        seconds = rng.uniform(0, duration if moment == "any moment" else 0.15)
        out = root / f"run-{killed:02d}"
        argv, log = workspace.argv(out, *flags), out.with_suffix(".log")
        pid, pipe = start(argv, log)
        was_killed = kill_at(pid, pipe, moment, seconds, rng.randint(1, EPOCHS))
        os.close(pipe)
        if not was_killed:
            continue  # it had ended already: another try
        workers = str(rng.choice((0, 1, 4)))
        finish([*argv, "--resume", "--num_workers", workers], log)
        found = outcome(out)
        wrong = [name for name in expected if found.get(name) != expected[name]]
        killed, different = killed + 1, different + bool(wrong)
        result = f"DIFFERENT: {', '.join(wrong)}" if wrong else "equal"
        print(f"{killed:3d}  {moment:<11} after {seconds:5.2f} s, resumed with {workers} workers: {result}", flush=True)
    print(f"{kills - different} of {kills} equal")
    return different


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="runs to kill (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return int(torture(Path(folder), args.kills, args.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
