"""The longest runs, beside the other tests: those use one core. They are started first, and the tests that wait for them
come last."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# fixture -> the command whose end it waits for; README's command for the demo, with one thread
COMMANDS = {
    "demo": ["-m", "accelerate.commands.launch", REPOSITORY / "artEmisX_train.py", "--demo", "--cpu_threads", "1"],
    "killed_runs": [REPOSITORY / "tests" / "torture.py", "--kills", "3", "--seed", "1"],
}


@dataclass
class Ended:
    """A command's working directory, and what it printed."""

    folder: Path
    output: str


class Background:
    """A command under way in a folder and a process group of its own."""

    def __init__(self, command: list[str | Path], folder: Path):
        self.folder = folder
        with open(folder / "stdout", "wb") as output, open(folder / "stderr", "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def end(self, seconds: float = 900) -> Ended:
        """Wait for the command; AssertionError with what it printed if it failed."""
        status = self.process.wait(timeout=seconds)
        output, errors = ((self.folder / name).read_text("utf-8", "replace") for name in ("stdout", "stderr"))
        assert status == 0, f"status {status}\n{output[-3000:]}\n{errors[-3000:]}"
        return Ended(self.folder, output)

    def kill(self) -> None:
        """Kill what is left: the tests were interrupted, or none of them has waited."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def awaited(item: pytest.Item) -> set[str]:
    """The commands whose end a test needs."""
    return COMMANDS.keys() & set(getattr(item, "fixturenames", ()))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: bool(awaited(item)))  # stable: the others keep their order


@pytest.fixture(scope="session", autouse=True)
def background(request, tmp_path_factory):
    """The commands that the chosen tests need, by name, under way before the first test begins."""
    needed = set().union(*map(awaited, request.session.items))
    started = {name: Background(COMMANDS[name], tmp_path_factory.mktemp(name)) for name in sorted(needed)}
    yield started
    for command in started.values():
        command.kill()


@pytest.fixture(scope="session")
def demo(background) -> Ended:
    """The demo, trained."""
    return background["demo"].end()


@pytest.fixture(scope="session")
def killed_runs(background) -> Ended:
    """The short form of tests/torture.py, one kill of each kind."""
    return background["killed_runs"].end()
