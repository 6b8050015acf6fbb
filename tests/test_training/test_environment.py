"""What a script finds around it: the C locale, few cores, other programs' variables and packages, a reader that ends."""

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


def run(code, folder, **variables):
    """Run `code`, after prepare_environment, as a script in `folder`."""
    script = folder / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nfrom utils.processes import prepare_environment\n"
        f"prepare_environment()\n{code}\n",
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment | variables,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        timeout=60,
    )


@pytest.mark.parametrize("variable", ["LC_ALL", "LANG"])
def test_c_locale_takes_umlauts(tmp_path, variable):
    """In paths, texts and what is printed, here and in Java, which goes by these variables."""
    folder = tmp_path / "Umläute, 'quotes' and \"blanks\""
    folder.mkdir()
    code = (
        "import os\nopen('ü.txt', 'w').write('ß')\nprint(__file__, os.environ.get('LC_ALL') or os.environ['LC_CTYPE'])"
    )
    done = run(code, folder, **{variable: "C"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/script.py C.UTF-8\n"
    assert (folder / "ü.txt").read_text(encoding="utf-8") == "ß"


def test_a_terminal_without_a_check_mark(tmp_path):
    assert run("print('\u2713')", tmp_path, PYTHONIOENCODING="latin-1").stdout == "\\u2713\n"


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


def test_variables(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(environment, "cores", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    prepare_environment()
    assert "MPLBACKEND" not in os.environ and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["OMP_NUM_THREADS"] == "1"
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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_cores_go_by_affinity():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_fsync_and_locks(monkeypatch, tmp_path, number):
    for place in ("os.fsync", "fcntl.flock", "fcntl.lockf"):
        monkeypatch.setattr(place, failing(number))
    with run_lock(tmp_path / "run"):
        write_text(tmp_path / "run" / "file", "text")
    assert (tmp_path / "run" / "file").read_text() == "text"


def test_a_disk_that_fails_to_sync_is_an_error(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    assert run_script(lambda: sync(tmp_path)) == 1
    assert f"error: {tmp_path}: " in capsys.readouterr().err


def test_a_failed_renaming_names_the_new_file(monkeypatch, tmp_path, capsys):
    def replace(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", replace)
    assert run_script(lambda: write_text(tmp_path / "wörter.json", "{}")) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'wörter.json'}: ") and "permissions" in message
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_of_a_pool_is_one_line(capsys):
    def kill_one():
        with ProcessPoolExecutor(1) as pool:
            pool.submit(os._exit, 9).result()

    assert run_script(kill_one) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: one of the processes that share the work was killed")
    assert message.count("\n") == 1


def test_too_many_open_files_name_the_limit(capsys):
    assert run_script(failing(errno.EMFILE)) == 1
    assert "ulimit -n" in capsys.readouterr().err
