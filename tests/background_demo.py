"""The demo, trained once per run of the tests: it takes minutes, so it runs beside the other tests, which come first."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# one thread: the other core is the tests'
COMMAND = [str(REPOSITORY / "artEmisX_train.py"), "--demo", "--cpu_threads", "1"]


def needs_demo(item: pytest.Item) -> bool:
    return "demo" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=needs_demo)  # stable: all others keep their order


@pytest.fixture(scope="session", autouse=True)
def demo_beside_the_tests(request, tmp_path_factory):
    """README's command, started before the first test if any of them needs it; yields its process and folder, or None."""
    if not any(map(needs_demo, request.session.items)):
        yield None
        return
    folder = tmp_path_factory.mktemp("demo")
    with open(folder / "stdout", "wb") as output, open(folder / "stderr", "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "accelerate.commands.launch", *COMMAND],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
    yield process, folder
    if process.poll() is None:  # interrupted, or no test has waited for it: the launcher ends with what it launched
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="session")
def demo(demo_beside_the_tests) -> tuple[Path, str]:
    """The demo's folder, once it is trained, and what it printed."""
    process, folder = demo_beside_the_tests
    status = process.wait(timeout=900)
    assert status == 0, (folder / "stderr").read_text(errors="replace")[-3000:]
    return folder / "runs" / "demo", (folder / "stdout").read_text(encoding="utf-8")
