"""The longest runs, beside the other tests. They are started first, and the tests that wait for them come last.

With several test processes (pytest-xdist) the first of them starts a command, and all can wait for its end.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# fixture -> the command whose end it waits for; README's command for the demo, with one thread
COMMANDS = {
    "demo": ["-m", "accelerate.commands.launch", REPOSITORY / "artEmisX_train.py", "--demo", "--cpu_threads", "1"],
    "killed_runs": [REPOSITORY / "tests" / "torture.py", "--kills", "3", "--seed", "1"],
}
ROOT = pytest.StashKey[Path]()  # of the commands' working directories


@dataclass
class Ended:
    """A command's working directory, and what it printed."""

    folder: Path
    output: str


def start(command: list[str | Path], folder: Path) -> None:
    """Start a command in a process group of its own, unless another test process has: its folder is there then."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    with open(folder / "stdout", "wb") as output, open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(
            ["sh", "-c", '"$@"; echo $? > writing && mv writing status', "sh", sys.executable, *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    (folder / "group").write_text(str(process.pid))


def end(folder: Path, seconds: float = 900) -> Ended:
    """Wait for the command in a folder; AssertionError with what it printed if it failed or takes too long."""
    latest = time.monotonic() + seconds
    while not (folder / "status").exists() and time.monotonic() < latest:
        time.sleep(0.1)
    status = (folder / "status").read_text().strip() if (folder / "status").exists() else "unknown: it is still running"
    output, errors = ((folder / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
    assert status == "0", f"status {status}\n{output[-3000:]}\n{errors[-3000:]}"
    return Ended(folder, output)


def awaited(item: pytest.Item) -> set[str]:
    """The commands whose end a test needs."""
    return COMMANDS.keys() & set(getattr(item, "fixturenames", ()))


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {}).get("background")
    config.stash[ROOT] = Path(given or tempfile.mkdtemp(prefix="sevlm-tests-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a test process of pytest-xdist the folder of all."""
    node.workerinput["background"] = str(node.config.stash[ROOT])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Kill what is left: the tests were interrupted, or none of them has waited."""
    if hasattr(config, "workerinput") or ROOT not in config.stash:
        return
    for group in config.stash[ROOT].glob("*/group"):
        if not (group.parent / "status").exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(group.read_text()), signal.SIGKILL)
    shutil.rmtree(config.stash[ROOT], ignore_errors=True)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: bool(awaited(item)))  # stable: the others keep their order


@pytest.fixture(scope="session", autouse=True)
def background(request) -> Path:
    """The commands that the chosen tests need, under way before the first test begins, each in a folder of its name."""
    root = request.config.stash[ROOT]
    for name in sorted(set().union(*map(awaited, request.session.items))):
        start(COMMANDS[name], root / name)
    return root


@pytest.fixture(scope="session")
def demo(background) -> Ended:
    """The demo, trained."""
    return end(background / "demo")


@pytest.fixture(scope="session")
def killed_runs(background) -> Ended:
    """The short form of tests/torture.py, one kill of each kind."""
    return end(background / "killed_runs")
