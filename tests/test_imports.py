"""Which file may import which, and what importing and --help need."""

import ast
import graphlib
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# The shared root of utils/. Any other file there is a command.
SHARED = "command_line constants errors files flags hub launcher layout opts processes progress run_record".split()

# A room imports from itself and from the rooms before it; from preprocess only the commands do.
ROOMS = "shared models cococaption data preprocess evaluation training visualize commands".split()


def room(module: str) -> str:
    if module == "artEmisX_train":
        return "commands"
    folder, _, name = module.partition(".")
    if folder != "utils":
        return folder
    name = name.partition(".")[0]
    return "shared" if not name or name in SHARED else name if name in ROOMS else "commands"


def modules() -> dict[str, str]:
    """The source of every module of the program; a package goes by its folder's name."""
    paths = [REPOSITORY / "artEmisX_train.py"]
    for folder in ("models", "utils", "preprocess", "cococaption"):
        paths += (REPOSITORY / folder).rglob("*.py")
    names = (".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(zip(names, paths, strict=True))}


def imported(source: str, known: set[str]) -> set[str]:
    """The known modules that a source text imports anywhere: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def graph() -> dict[str, set[str]]:
    found = modules()
    return {name: imported(source, set(found)) - {name} for name, source in found.items()}


def allowed(importer: str, target: str) -> bool:
    if room(importer) == "models" != room(target):
        return target == "utils.constants"
    if room(target) == "preprocess" != room(importer):
        return room(importer) == "commands"
    return ROOMS.index(room(target)) <= ROOMS.index(room(importer))


def test_rooms_import_from_those_before_them():
    edges = graph()
    assert {"utils.run_record", "utils.opts"} <= edges["utils.command_line"]  # else it would show nothing
    assert "utils.training.run" in edges["utils.training.summary"]  # under TYPE_CHECKING
    assert not allowed("utils.data.records", "utils.training.resume")
    assert not allowed("utils.training.run", "preprocess.build_splits")
    assert [edge for name in edges for edge in product([name], edges[name]) if not allowed(*edge)] == []


def test_no_circle():
    graphlib.TopologicalSorter(graph()).prepare()


# ---- in a process of its own -----------------------------------------------------------------------------------------


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess:
    code = f"import importlib, sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{code}"
    without_warning = ("-W", "ignore:only soft file lock")  # filelock's, where fcntl does not exist
    return subprocess.run(
        [sys.executable, *without_warning, "-c", code], cwd=folder, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_every_module_imports_without_data_and_locks(tmp_path):
    """In an empty folder, offline, where fcntl does not exist: nothing is read, written, printed or started."""
    code = f"sys.modules['fcntl'] = None\nfor name in {list(modules())}:\n    importlib.import_module(name)"
    done = run_python(code.replace("'cococaption.__main__', ", ""), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    assert list(tmp_path.iterdir()) == []


# what takes seconds to import
HEAVY = ["torch", "torchvision", "transformers", "accelerate", "safetensors", "tokenizers"]
HEAVY += ["nltk", "matplotlib"]  # they fail without a home folder, and with a notebook's MPLBACKEND
NEEDS_TORCH = {"preprocess.train_text2emotion"}  # it defines a torch module of its own


def commands() -> list[str]:
    """Modules with a parser and a main function; a room's shared files have none."""
    found = [name for name, source in modules().items() if '__name__ == "__main__"' in source]
    assert {"artEmisX_train", "cococaption.__main__", "preprocess.build_splits", "utils.report"} <= set(found)
    return [name for name in found if name not in NEEDS_TORCH]


def test_help_needs_no_torch_and_no_locks(tmp_path):
    code = f"""
import os, runpy, warnings
warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, of a command that another one has imported
sys.modules["fcntl"] = None
for name in {commands()}:
    sys.argv = [name, "--help"]
    os.environ.pop("OMP_WAIT_POLICY", None)
    try:
        runpy.run_module(name, run_name="__main__")
    except SystemExit as end:
        assert not end.code, (name, end.code)
    assert not {{name for name in {HEAVY} if sys.modules.get(name)}}, name
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE", name  # torch reads it when it is imported
"""
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.count("usage: ") == len(commands())
    assert list(tmp_path.iterdir()) == []
