"""Programs where something is missing or left over: streams, locale, home folder, cores, other programs' variables."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.conftest import REPOSITORY
from utils import processes as environment
from utils.errors import run_script
from utils.files import run_lock, sync, write_text
from utils.processes import cores, prepare_environment

# ---- in a process of its own -----------------------------------------------------------------------------------------


def run(code, folder, redirections="", **variables):
    """Run `code`, after prepare_environment, as a script in `folder`, by a shell with these redirections."""
    script = folder / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nfrom utils.processes import prepare_environment\n"
        f"prepare_environment()\n{code}\n",
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = f'exec "$0" "$1" {redirections}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, str(script)],
        env=environment | variables,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        timeout=60,
    )


def test_c_locale_takes_umlauts(tmp_path):
    """In paths, texts and what is printed, here and in Java, which goes by LC_ALL."""
    folder = tmp_path / "Umläute, 'quotes' and \"blanks\""
    folder.mkdir()
    code = "import os\nopen('ü.txt', 'w').write('ß')\nprint(__file__, os.environ['LC_ALL'])"
    done = run(code, folder, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/script.py C.UTF-8\n".replace("ä", r"\xe4")
    assert (folder / "ü.txt").read_text(encoding="utf-8") == "ß"


@pytest.mark.parametrize("redirections", ["2>&-", "2< script.py", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path, redirections):
    """Files that are opened later do not get their numbers; 2 is open for reading in a bash script without stderr."""
    code = (
        "import os\nassert open(__file__).fileno() > 2\nprint('to stderr', file=sys.stderr, flush=True)\n"
        "print('to stdout', flush=True)\nopen('done', 'w').write(str(sys.stderr.isatty()))"
    )
    done = run(code, tmp_path, redirections)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout == ("" if ">&- 2" in redirections else "to stdout\n")
    assert (tmp_path / "done").read_text() == "False"


def test_optimised_python_keeps_docstrings(tmp_path):
    """transformers reads its own."""
    done = run("def f():\n    'text'\nprint(f.__doc__)", tmp_path, PYTHONOPTIMIZE="2")
    assert done.stdout == "text\n"


@pytest.mark.slow
def test_packages_for_another_torch_do_no_harm(tmp_path):
    for name in environment.UNUSED_PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
        (tmp_path / f"{name}-0.1.dist-info").mkdir()
        (tmp_path / f"{name}-0.1.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
        )
    done = run("import models.decoder, accelerate\nprint('imported')", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.stdout == "imported\n", done.stderr


@pytest.mark.parametrize("user", ["", "with PYTHONSAFEPATH"])
def test_training_script_finds_its_modules(tmp_path, user):
    environment = os.environ | ({"PYTHONSAFEPATH": "1"} if user else {})
    command = [sys.executable, str(REPOSITORY / "artEmisX_train.py"), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "usage: artEmisX_train.py" in done.stdout and done.returncode == 0


# ---- in this process -------------------------------------------------------------------------------------------------


def test_variables(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError: no passwd entry
    monkeypatch.setattr(environment, "cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    prepare_environment()
    assert "MPLBACKEND" not in os.environ and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.path.isabs(os.path.expanduser("~")) and os.environ["OMP_NUM_THREADS"] == "1"
    for name, value in {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"}.items():
        monkeypatch.setenv(name, value)  # the user's own
        prepare_environment()
        assert os.environ[name] == value


def test_cores(monkeypatch, tmp_path):
    """The smallest of affinity, Slurm's task and the CPU time of the control groups, in both of their versions."""
    monkeypatch.setattr(environment, "CGROUPS", tmp_path)
    monkeypatch.setattr(environment, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert cores() == 16
    (tmp_path / "own").write_text("5:cpu,cpuacct:/docker/a\n3:cpuset:/b\n0::/pod/task\n")
    (tmp_path / "pod" / "task").mkdir(parents=True)
    (tmp_path / "pod" / "task" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "pod" / "cpu.max").write_text("950000 100000\n")
    assert cores() == 10
    (tmp_path / "cpu").mkdir()  # inside a container its own group is at the root
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("50000\n")
    assert cores() == 10
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("350000\n")
    assert cores() == 7
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    assert cores() == 5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("1000\n")
    assert cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system knows no affinity")
def test_cores_go_by_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


# ---- file systems that lack an operation -----------------------------------------------------------------------------


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "ENOSYS", "EPERM"])
def test_writes_and_locks_go_on_without_fsync_and_locks(monkeypatch, tmp_path, name):
    number = getattr(errno, name)
    for place in ("os.fsync", "fcntl.flock", "fcntl.lockf"):
        monkeypatch.setattr(place, failing(number))
    with run_lock(tmp_path / "run"):
        write_text(tmp_path / "run" / "file", "text")
    assert (tmp_path / "run" / "file").read_text() == "text"


def test_a_folder_that_cannot_be_opened_is_written_to(monkeypatch, tmp_path):
    """As on Windows, or in a folder that may be written to but not listed."""
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    write_text(tmp_path / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_fails_to_sync_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    assert run_script(lambda: sync(tmp_path)) == 1
    assert f"error: {tmp_path}: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "ENOSYS", "EPERM", "EXDEV"])
def test_renaming_that_is_not_supported_is_one_line(monkeypatch, tmp_path, capsys, name):
    def replace(source, target):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", replace)
    assert run_script(lambda: write_text(tmp_path / "wörter.json", "{}")) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'wörter.json'}: ") and said.count("\n") == 1
    assert ("permissions" if name == "EPERM" else "name a folder on another one") in said
    assert list(tmp_path.iterdir()) == []


# ---- the end of a program --------------------------------------------------------------------------------------------


def test_a_killed_process_of_a_pool_is_one_line(capsys):
    def kill_one():
        with ProcessPoolExecutor(1) as pool:
            pool.submit(os._exit, 9).result()

    assert run_script(kill_one) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: one of the processes that share the work was killed") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.ENOENT, "No usable temporary directory found in ['/tmp']", "set TMPDIR"),
        (errno.EMFILE, "Too many open files", "ulimit -n"),
    ],
)
def test_what_a_container_lacks_is_named(capsys, number, reason, remedy):
    assert run_script(lambda: (_ for _ in ()).throw(OSError(number, reason))) == 1
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize("end", ["sys.exit(3)", "print('x' * 99999)"])
def test_no_traceback_where_nobody_reads_stdout(tmp_path, end):
    """Else Python itself would write a traceback at exit, and end with 120."""
    code = (
        "import os\nfrom utils.errors import run_script\nreading, writing = os.pipe()\nos.close(reading)\n"
        f"os.dup2(writing, 1)\nsys.exit(run_script(lambda: (print('text'), {end})))"
    )
    done = run(code, tmp_path)
    assert done.returncode == (3 if "exit" in end else 1)
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr
