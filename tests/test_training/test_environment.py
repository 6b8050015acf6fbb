"""Programs where something is missing or left over: locale, home folder, cores, other programs' variables. And memory:
freed buffers are reused, forked processes share weights, garbage collection pauses."""

import gc
import os
import subprocess
import sys

import pytest
from torch import nn

from tests.conftest import REPOSITORY
from utils import processes as environment
from utils.processes import cores, prepare_environment, share_weights, without_collections

# ---- in a process of its own -----------------------------------------------------------------------------------------


BEFORE = f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nfrom utils.processes import prepare_environment\n"


def run(code, folder, **variables):
    """Run `code`, after prepare_environment, as a script in `folder`."""
    script = folder / "script.py"
    script.write_text(f"{BEFORE}prepare_environment()\n{code}\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    how = {"env": kept | variables, "cwd": folder, "timeout": 60}
    return subprocess.run([sys.executable, str(script)], capture_output=True, encoding="utf-8", **how)


def test_c_locale_takes_umlauts(tmp_path):
    """In paths, texts and what is printed, here and in Java, which goes by LC_ALL."""
    folder = tmp_path / "Umläute, 'quotes' and \"blanks\""
    folder.mkdir()
    code = "import os\nopen('ü.txt', 'w').write('ß')\nprint(__file__, os.environ['LC_ALL'])"
    done = run(code, folder, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}/script.py C.UTF-8\n".replace("ä", r"\xe4")
    assert (folder / "ü.txt").read_text(encoding="utf-8") == "ß"


def test_what_transformers_cannot_bear(tmp_path):
    """Packages for another torch count as not installed; optimised Python lacks docstrings, which transformers reads."""
    names = ["torchvision", "torchaudio", "torchao", "soundfile"]
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = f"import importlib.util\nprint(sys.flags.optimize, [importlib.util.find_spec(name) for name in {names}])"
    done = run(code, tmp_path, PYTHONPATH=str(tmp_path), PYTHONOPTIMIZE="2")
    assert done.stdout == "0 [None, None, None, None]\n", done.stderr


# ---- in this process -------------------------------------------------------------------------------------------------


def test_variables(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError: no passwd entry
    monkeypatch.setattr(environment, "cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    prepare_environment()
    assert "MPLBACKEND" not in os.environ and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.path.isabs(os.path.expanduser("~")) and os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's own
    prepare_environment()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_cores(monkeypatch, tmp_path):
    """The smallest of affinity, Slurm's task and the CPU time of the control groups, in both of their versions."""
    monkeypatch.setattr(environment, "CGROUPS", tmp_path)
    monkeypatch.setattr(environment, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.delattr(os, "process_cpu_count", raising=False)  # of Python 3.13, which knows the affinity as well
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert cores() == 16
    for file, content, expected in (
        ("own", "5:cpu,cpuacct:/docker/a\n3:cpuset:/b\n0::/pod/task\n", 16),
        ("pod/task/cpu.max", "max 100000\n", 16),
        ("pod/cpu.max", "950000 100000\n", 10),
        ("cpu/cpu.cfs_period_us", "50000\n", 10),  # inside a container its own group is at the root
        ("cpu/cpu.cfs_quota_us", "-1\n", 10),
        ("cpu/cpu.cfs_quota_us", "350000\n", 7),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content)
        assert cores() == expected, file
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "5")
    assert cores() == 5


# ---- memory ----------------------------------------------------------------------------------------------------------

FAULTS = """
import resource
from utils.processes import reuse_freed_memory
def faults():
    bytearray(200_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for prepare in (int, reuse_freed_memory):
    prepare()
    faults()
    print(-(faults() - faults()))
"""


def test_a_second_buffer_has_no_page_faults(tmp_path):
    before, after = map(int, run(FAULTS, tmp_path).stdout.split())
    if before < 10_000:
        pytest.skip("malloc keeps large buffers here anyway, or pages are huge")
    assert after < 100


def test_forked_processes_share_weights():
    """Neither copies the pages that the other writes to."""
    model = nn.ModuleDict({"one": nn.Linear(3, 2), "other": nn.Linear(3, 2)})
    model["other"].weight = model["one"].weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    share_weights(model)
    assert model["other"].weight is model["one"].weight
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    weight = model["one"].weight.data.numpy()
    child = os.fork()
    if child == 0:
        weight[0, 0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert weight[0, 0] == 7


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_collection_is_as_before_afterwards(was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(KeyError), without_collections():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
