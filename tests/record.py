"""Record what the program computes, as one JSON file of numbers and hashes, to hold a refactoring against bit for bit.

    python tests/record.py before.json
    python tests/record.py after.json [--only data run variants/bf16 ...]
    python tests/record.py --compare before.json after.json

Only commands are run, so modules may be renamed: `main(argv)` of the training and of preprocess/, and `python -m NAME` (in
this process, as importing torch takes longer than most commands). --compare prints what differs and exits with 1 if anything
does. The section nltk needs NLTK's data in $NLTK_DATA, and is left out without it.
"""

import argparse
import base64
import contextlib
import difflib
import hashlib
import importlib
import io
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.record_sections import SECTIONS, make_from_data, make_inputs

# Left out by name. Fields: versions, random ids, paths, hashes of files with such fields, flags. Files: times and hashes.
# Folders, at the top of a section: what another section records, and caches.
FIELDS = {"transformers_version", "generation", "image_root", "sha256", "index_sha256", "sevlm_settings", "start"}
FILES = {"manifest.json", "settings.json", "rows.bin", ".run.lock"}
FOLDERS = {"data", "cache"}
LONGEST = 20_000  # bytes of a text file that is recorded whole, not as a hash

COMMAND = re.compile(r"(?:SIG\w+ |torchrun )?(?:artEmisX_train|cococaption|(?:preprocess|utils|tests)\.\w+) ")

# ---- running a section -----------------------------------------------------------------------------------------------


def in_process(argv: list[str]) -> str:
    """Run a command here; returns what it printed. RuntimeError where its status is not 0."""
    import torch
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(1)
    output, errors, name = io.StringIO(), io.StringIO(), argv[0]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), patch.object(sys, "argv", argv):
        try:
            if name == "artEmisX_train" or name.startswith("preprocess."):
                status = importlib.import_module(name).main(argv[1:])
            else:
                status = runpy.run_module(name, run_name="__main__", alter_sys=True) and 0
        except SystemExit as end:
            status = end.code
    if status:
        raise RuntimeError(f"{name}: status {status}: {errors.getvalue()[-500:]}")
    return output.getvalue()


def in_child(number: int, argv: list[str]) -> None:
    """Run a command in a child that sends itself a signal after its 13th update, in the second epoch."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    if not (child := os.fork()):
        updates = iter(range(1, 1000))
        register_optimizer_step_post_hook(lambda *_: next(updates) == 13 and os.kill(os.getpid(), number))
        with contextlib.suppress(RuntimeError):
            in_process(argv)
            os._exit(0)
        os._exit(128 + number)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) not in (-number, 128 + number):
        raise RuntimeError(f"{argv[0]} was not ended by signal {number}")


def in_two_processes(argv: list[str]) -> None:
    script = [str(REPOSITORY / f"{argv[0]}.py"), *argv[1:]]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *script]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-1000:])


def save_data(figure: Any, path: Path, **_: Any) -> None:
    """In place of Figure.savefig: the lines, bars and matrices that are drawn."""
    data = [
        [[line.get_xydata() for line in axes.lines], [bar.get_path().vertices for bar in axes.patches]]
        + [image.get_array() for image in axes.images]
        for axes in figure.axes
    ]
    Path(path).write_text(json.dumps(data, default=lambda array: array.tolist()))


def run_section(name: str, found: dict[str, Any]) -> None:
    """Run and record a section, after those whose folders its commands name, in `found`; or what it failed with."""
    text = " ".join(SECTIONS[name].replace("OUT", name).split())
    starts = [match.start() for match in COMMAND.finditer(text)]
    commands = [text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    needed = [other for other in SECTIONS if other != name and re.search(rf" {other}(/| |$)", text)]
    needed += ["data"] if name == "runs/demo" or "few.json" in text else []
    for other in needed:
        if other not in found:
            run_section(other, found)
    began, printed = time.monotonic(), ""
    try:
        if failed := [other for other in needed if "failed" in found[other]]:
            raise RuntimeError(f"needs {', '.join(failed)}")
        for argv in map(shlex.split, commands):
            if argv[0].startswith("SIG"):
                in_child(signal.Signals[argv[0]], argv[1:])
            elif argv[0] == "torchrun":
                in_two_processes(argv[1:])
            else:
                output = in_process(argv)
                printed += output if argv[0] != "artEmisX_train" else ""  # which tells times and memory
        found[name] = {"printed": plain(printed), "files": files(Path(name))}
        if name == "data":
            make_from_data()
    except Exception as error:
        found[name] = {"failed": plain(f"{type(error).__name__}: {error}")}
    print(f"{name}: {found[name].get('failed', 'done')}, {time.monotonic() - began:.1f} s", flush=True)


# ---- what is recorded of values and files ----------------------------------------------------------------------------


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def plain(value: Any) -> Any:
    """A value as JSON holds it: tensors as type, shape, norm and hash of their bytes; texts without this run's folder."""
    import torch

    if isinstance(value, torch.Tensor):
        content = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {list(value.shape)} norm {float(value.double().norm())!r} {digest(content)}"
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key not in FIELDS}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.replace(os.getcwd(), ".") if isinstance(value, str) else value


def file(path: Path) -> Any:
    """What a file holds; of an HTML page its pictures, and its numbers with a decimal point."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return plain(load_file(path))
    if path.suffix in (".pt", ".tar"):
        return plain(torch.load(path, map_location="cpu", weights_only=True))
    content = path.read_bytes().replace(os.getcwd().encode(), b".")
    if path.suffix == ".html":
        pictures = re.findall(rb"data:image/\w+;base64,([\w+/=]+)", content)
        shown = re.sub(rb"<(script|style)\b.*?</\1>|base64,[\w+/=]+", b" ", content, flags=re.DOTALL).decode()
        return [digest(base64.b64decode(picture)) for picture in pictures] + re.findall(r"-?\d+\.\d+", shown)
    if path.suffix not in (".json", ".jsonl", ".csv", ".md", ".txt", ".svg") or len(content) > LONGEST:
        return digest(content)
    if path.suffix in (".json", ".svg"):  # .svg: of save_data
        return plain(json.loads(content))
    return [plain(json.loads(line)) for line in content.splitlines()] if path.suffix == ".jsonl" else content.decode()


def files(folder: Path) -> dict[str, Any]:
    """Every file below a folder, by its path."""
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    kept = {name: path for name, path in paths.items() if path.name not in FILES and name.split("/")[0] not in FOLDERS}
    return {name: file(path) for name, path in kept.items()}


# ---- comparing -------------------------------------------------------------------------------------------------------


def leaves(value: Any, place: str) -> dict[str, Any]:
    """Place -> value, of all that is in dictionaries and lists."""
    if not isinstance(value, dict | list) or not value:
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {inner: leaf for key, item in items for inner, leaf in leaves(item, f"{place} > {key}").items()}


def difference(before: Any, after: Any) -> str:
    """Both values; of longer texts the lines that differ, and whether their numbers do."""
    if not (isinstance(before, str) and isinstance(after, str) and "\n" in before):
        return f"\n    - {before!r:.300}\n    + {after!r:.300}"
    numbers = [re.findall(r"\d+(?:\.\d+)?", text) for text in (before, after)]
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""))[2:]
    return "\n    ".join(["; same numbers" if numbers[0] == numbers[1] else "; other numbers", *lines[:40]])


def compare(before: dict[str, Any], after: dict[str, Any], names: list[str]) -> int:
    """Print what differs, or failed in both; returns in how many places."""
    total = 0
    for name in [name for name in names if name in before or name in after]:
        if name not in before or name not in after:
            print(f"{name}: in one of the files only")
            total += 1
            continue
        a, b = (leaves(record[name], "") for record in (before, after))
        both = {place: (a.get(place, "absent"), b.get(place, "absent")) for place in {**a, **b}}
        places = [place for place, (x, y) in both.items() if json.dumps(x) != json.dumps(y) or place == " > failed"]
        for place in places[:30]:
            print(f"{name}{place}{difference(*both[place])}")
        print(f"{name}: {len(places)} of {len(both)} differ")
        total += len(places)
    return total


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="to write; with --compare the two to compare"
    )
    parser.add_argument("--compare", action="store_true", help="print what differs between two files")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="NAME", help=", ".join(SECTIONS))
    args = parser.parse_args(argv)
    names = args.only or [name for name in SECTIONS if name != "nltk" or "NLTK_DATA" in os.environ]
    if len(args.files) != 1 + args.compare:
        parser.error("give one file to write, or --compare and two files")
    if args.compare:
        return int(compare(*(json.loads(path.read_text()) for path in args.files), args.only or list(SECTIONS)) > 0)
    from matplotlib.figure import Figure

    out, began, found = args.files[0].absolute(), time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder, patch.object(Figure, "savefig", save_data):
        os.chdir(folder)
        make_inputs()
        for name in names:
            if name not in found:
                run_section(name, found)
        os.chdir(out.parent)
    out.write_text(json.dumps({name: found[name] for name in names}, indent=1))
    print(f"{out}: {len(names)} sections in {time.monotonic() - began:.0f} s")
    return int(any("failed" in found[name] for name in names))


if __name__ == "__main__":
    sys.exit(main())
