"""Read files of torch.save and TorchScript archives without torch.load and torch.jit.load, which trust the file.

torch.jit.load compiles and calls the archive's own `__setstate__`. torch.load accepts only listed names, but takes the
length of a storage from the file and reads past its end. Here `SafeUnpickler` reads the pickle and builds stand-ins,
and tensors are views of the storages' bytes.

    zip file (torch >= 1.6, TorchScript)    <name>/data.pkl, and <name>/data/<key> for each storage
    legacy file (torch < 1.6)               pickles of a magic number, a version, the machine, the object and the
                                            storages' keys; then the length and the bytes of each storage
"""

import io
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from utils.data.safe_pickle import SafeUnpickler, StandIn, stand_ins, unreadable
from utils.errors import InputError, brief
from utils.files import check_regular

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
MOST_DIMENSIONS = 16
MOST_NAMES = 10**5  # limit of a module's tensors and submodules; shared parts count each time

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


class _Tensor(StandIn):
    """The arguments of `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, counted in elements."""


class _Storage(StandIn):
    """The key and the number of elements of a storage."""

    dtype: torch.dtype


class _First(StandIn):
    """A wrapper function that is replaced by its first argument."""

    def __new__(cls, first: Any, *_: Any) -> Any:
        return first


class _Size(StandIn):
    def __new__(cls, numbers: tuple = ()) -> tuple:
        return tuple(numbers)


STATE_NAMES = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": _Size,
    "torch._utils._rebuild_parameter": _First,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    **{f"torch.{name}Storage": type(name, (_Storage,), {"dtype": dtype}) for name, dtype in DTYPES.items()},
}
MODULE_NAMES = STATE_NAMES | {
    "__builtin__.set": set,
    "builtins.set": set,
    **stand_ins("torch.nn.backends.thnn._get_thnn_function_backend"),  # every module has it up to torch 1.3
}
SCRIPT_NAMES = STATE_NAMES | {
    **stand_ins("torch.device"),
    **{
        f"torch.jit._pickle.{function}": _First
        for function in ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
    },
}
# classes whose objects contain only tensors and other modules
MODULE_CLASSES = re.compile(r"(artemis\.neural_models|torch\.nn\.modules)\.\w+\.\w+")
SCRIPT_CLASSES = re.compile(r"__torch__(\.\w+)+")


class _TorchUnpickler(SafeUnpickler):
    """Reads storages from persistent ids, and accepts module classes that match `classes` as stand-ins."""

    def __init__(self, path: Path, file: BinaryIO, allowed: dict[str, type], classes: re.Pattern | None = None):
        super().__init__(path, file, allowed)
        self.classes = classes
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> type:
        if self.classes is not None and self.classes.fullmatch(f"{module}.{name}"):
            return type(name, (StandIn,), {})
        return super().find_class(module, name)

    def persistent_load(self, identity: tuple) -> Any:
        kind, cls, *rest = identity
        if kind == "module":  # legacy torch.save also stores the source code of a module's class
            return cls
        key, _, elements, *view = rest
        if kind != "storage" or not issubclass(cls, _Storage) or (view and view[0] is not None):
            raise ValueError("a storage of an unknown kind")
        if not isinstance(key, str) or not isinstance(elements, int) or elements < 0:
            raise ValueError("a storage without name and length")
        known = self.storages.setdefault(key, cls(key, elements))
        if type(known) is not cls or known.args[1] != elements:
            raise ValueError("a storage of two kinds or lengths")
        return known


def read_torch_file(path: str | Path) -> Any:
    """Read a torch.save file of tensors, numbers and strings, and of lists, tuples and dictionaries of these.

    Tensors are on the CPU. An OrderedDict becomes a dictionary, a Parameter a tensor.

    Raises:
        InputError: the file is missing, torn or altered, contains or names anything else, or would fill the memory.
    """
    check_regular(path)
    try:
        value, storages = _read(path, STATE_NAMES, None)
        return _Builder(storages).build(value)
    except Exception as error:  # a damaged pickle can raise any error
        reason = brief(error).removeprefix(f"{path}: ") or type(error).__name__
        raise InputError(f"{path}: torn, altered or unsafe ({reason}); take another file") from None


def read_module_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a whole module written by torch.save, such as ArtEmis' `best_model.pt`.

    Returns:
        name -> tensor on the CPU: parameters and buffers, with the names that the module's `state_dict()` would have.

    Raises:
        InputError: the file is missing or damaged, or names anything but modules, tensors and plain containers.
    """

    def parts(state: dict) -> tuple[dict, dict]:
        return state["_parameters"] | state["_buffers"], state["_modules"]

    return _module_tensors(path, MODULE_NAMES, MODULE_CLASSES, parts)


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, such as OpenAI's CLIP files. InputError if it is not a regular file."""
    check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except Exception:  # not a zip file, or a damaged one
        return False


def read_torchscript_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive without running its code.

    Returns:
        name -> tensor on the CPU: parameters, buffers and other tensor attributes of the modules.

    Raises:
        InputError: the file is missing or damaged, or one of its modules needs its own code to load (`__setstate__`).
    """

    def parts(state: dict) -> tuple[dict, dict]:
        tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
        return tensors, {name: value for name, value in state.items() if isinstance(value, StandIn) and value.state}

    return _module_tensors(path, SCRIPT_NAMES, SCRIPT_CLASSES, parts)


def _module_tensors(
    path: str | Path, allowed: dict[str, type], classes: re.Pattern, parts: Callable[[dict], tuple[dict, dict]]
) -> dict[str, Tensor]:
    """Read the tensors of a module and its submodules by name; `parts` splits a state into tensors and submodules."""
    try:
        root, storages = _read(path, allowed, classes)
        builder = _Builder(storages)
        found: dict[str, Tensor] = {}
        modules = [("", root)]
        for met in range(MOST_NAMES):
            if not modules:
                return found
            prefix, module = modules.pop()
            if not isinstance(module.state, dict):
                raise ValueError(f"module {prefix[:80]!r} needs its own code to load, which is not run")
            tensors, inner = parts(module.state)
            for name, tensor in tensors.items():
                if tensor is not None:
                    found[f"{prefix}{name}"] = builder.tensor(tensor)
            modules += [(f"{prefix}{name}.", part) for name, part in reversed(inner.items()) if part is not None]
            if met + len(found) + len(modules) > MOST_NAMES:
                break
        raise ValueError(f"a module of more than {MOST_NAMES} parts")
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise any error
        raise unreadable(path, error) from None


def _read(path: str | Path, allowed: dict[str, type], classes: re.Pattern | None) -> tuple[Any, dict[str, Tensor]]:
    """Read the file's pickle as stand-ins, and its storages as tensors [elements]."""
    check_regular(path)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
        file.seek(0)
        return (_read_zip if zipped else _read_legacy)(path, file, allowed, classes)


def _read_zip(
    path: str | Path, file: BinaryIO, allowed: dict[str, type], classes: re.Pattern | None
) -> tuple[Any, dict[str, Tensor]]:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        (pickled,) = (name for name in members if re.fullmatch(r"[^/]*/data\.pkl", name))
        folder = pickled.removesuffix("data.pkl")
        ours = [member for name, member in members.items() if name == pickled or name.startswith(f"{folder}data/")]
        if any(member.compress_type != zipfile.ZIP_STORED for member in ours):
            raise ValueError("a compressed archive, which torch.save does not write")
        if sum(member.file_size for member in ours) > file.seek(0, 2) or len(members) != len(archive.infolist()):
            raise ValueError("an archive of overlapping parts")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("saved on a big-endian machine")
        unpickler = _TorchUnpickler(path, io.BytesIO(archive.read(pickled)), allowed, classes)
        value = unpickler.load()
        storages = {}
        for key, storage in unpickler.storages.items():
            with archive.open(f"{folder}data/{key}") as part:
                storages[key] = _fill(storage, part, members[f"{folder}data/{key}"].file_size)
        return value, storages


def _read_legacy(
    path: str | Path, file: BinaryIO, allowed: dict[str, type], classes: re.Pattern | None
) -> tuple[Any, dict[str, Tensor]]:
    size = file.seek(0, 2)
    file.seek(0)
    magic, version, machine = (SafeUnpickler(path, file, {}).load() for _ in range(3))
    if magic != LEGACY_MAGIC or version != LEGACY_PROTOCOL or machine["little_endian"] is not True:
        raise ValueError("not a torch.save file of a little-endian machine")
    unpickler = _TorchUnpickler(path, file, allowed, classes)
    value = unpickler.load()
    storages = {}
    for key in SafeUnpickler(path, file, {}).load():
        storage = unpickler.storages[key]
        if int.from_bytes(file.read(8), "little", signed=True) != storage.args[1]:
            raise ValueError("a storage that is not as long as its tensors need")
        storages[key] = _fill(storage, file, min(_bytes(storage), size - file.tell()))
    return value, storages


def _bytes(storage: _Storage) -> int:
    return storage.args[1] * storage.dtype.itemsize


def _fill(storage: _Storage, part: BinaryIO, size: int) -> Tensor:
    """Read a storage as a tensor of its elements; `size` is the number of bytes available."""
    if size != _bytes(storage):
        raise ValueError("a storage that is not as long as its tensors need")
    if not size:
        return torch.empty(0, dtype=storage.dtype)
    content = bytearray(size)
    if part.readinto(content) != size:
        raise ValueError("the file ends within a tensor")
    return torch.frombuffer(content, dtype=storage.dtype)


class _Builder:
    """Turns stand-ins into tensors and containers; a shared object is built only once."""

    def __init__(self, storages: dict[str, Tensor]):
        self.storages = storages
        self.built: dict[int, Any] = {}

    def build(self, value: Any) -> Any:
        """Build a value. ValueError if it is neither a tensor nor plain data."""
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return value
        if id(value) in self.built:
            return self.built[id(value)]
        if isinstance(value, _Tensor):
            built = self.tensor(value)
        elif isinstance(value, dict):
            built = self.built[id(value)] = {}
            for name, part in OrderedDict.items(value) if isinstance(value, OrderedDict) else value.items():
                built[self.build(name)] = self.build(part)
        elif isinstance(value, list):
            built = self.built[id(value)] = []
            built += map(self.build, value)
        elif isinstance(value, tuple):
            built = tuple(map(self.build, value))
        else:
            raise ValueError(f"holds a {type(value).__name__[:40]}")
        self.built[id(value)] = built
        return built

    def tensor(self, tensor: _Tensor) -> Tensor:
        """Build a tensor as a view of its storage; torch refuses a view beyond the storage's end."""
        storage, offset, size, stride = tensor.args[:4]
        values = self.storages[storage.args[0]]
        if not all(type(number) is int and number >= 0 for number in (offset, *size, *stride)):
            raise ValueError("a tensor without offset, size and stride")
        if len(size) > MOST_DIMENSIONS or math.prod(size) > len(values):
            raise ValueError("a tensor that its storage is too short for")
        return values.as_strided(tuple(size), tuple(stride), offset)
