"""Read files of torch.save, state dicts and ArtEmis' two pickles so that no code in them runs.

A pickle can name any function of any installed package and have it called. torch.load with `weights_only` calls only what
tensors and plain values need. It cannot read ArtEmis' files, which name ArtEmis' own classes; `RestrictedUnpickler` reads
these. torch.load without `weights_only` would not be safe with any unpickler, as it runs the code of TorchScript archives.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from utils.errors import InputError, brief
from utils.files import check_regular, read_bytes

if TYPE_CHECKING:  # build_splits.py reads a vocabulary without importing torch
    from torch import Tensor

SPECIAL_SYMBOLS = ("<pad>", "<sos>", "<eos>", "<unk>")
REMEDY = "download it again from a source you trust, or make it with preprocess/"


class StandIn:
    """In place of a class that is not imported: it ignores its arguments, and its pickled state becomes its attributes."""

    def __init__(self, *_: Any):
        pass


# What a pickle may name besides classes of ArtEmis and torch.nn.modules. A storage's name gives its dtype.
NAMES = {
    "__builtin__.set": set,
    "builtins.set": set,
    "collections.OrderedDict": OrderedDict,
    "torch.FloatStorage": "float32",
    "torch.LongStorage": "int64",
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_tensor_v2": lambda storage, start, size, stride, *_: storage.as_strided(size, stride, start),
    "torch.nn.backends.thnn._get_thnn_function_backend": StandIn,  # every module has it up to torch 1.3
}


class RestrictedUnpickler(pickle.Unpickler):
    """Imports nothing: it knows only `NAMES`, and gives a stand-in for every class of ArtEmis and torch.nn.modules.

    `storages` holds the storages that tensors refer to, by their keys: tensors [elements], to be filled after `load`.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("artemis.", "torch.nn.modules.")):
            return type("StandIn", (StandIn,), {})
        if f"{module}.{name}" not in NAMES:
            raise pickle.UnpicklingError(f"its pickle names {module}.{name}")
        return NAMES[f"{module}.{name}"]

    def persistent_load(self, identity: tuple) -> Any:
        import torch

        kind, cls, *rest = identity
        if kind == "module":  # before torch 1.6: a class, with the file and the text of its source code
            return cls
        key, _device, elements, *_ = rest
        if key not in self.storages:
            self.storages[key] = torch.empty(elements, dtype={"float32": torch.float32, "int64": torch.int64}[cls])
        return self.storages[key]


def vocabulary_path(classifier: str | Path, given: str | Path | None = None) -> Path | None:
    """The vocabulary.pkl of a text-to-emotion classifier: two folders above it unless given; None if its file contains one."""
    if Path(classifier).suffix == ".safetensors":
        return None
    return Path(given or Path(classifier).absolute().parents[2] / "vocabulary.pkl")


def load_vocabulary(path: str | Path) -> dict[str, int]:
    """Read ArtEmis' `vocabulary.pkl`, a pickled `artemis.utils.vocabulary.Vocabulary`.

    Returns:
        word -> index 0 .. n - 1, in the order of the indices; <pad>, <sos>, <eos>, <unk> are 0 .. 3.

    Raises:
        InputError: the file is missing, damaged or not such a vocabulary, or names other classes or functions.
    """
    file = io.BytesIO(read_bytes(path))
    try:
        indices = RestrictedUnpickler(file).load().word2idx
        words = sorted(indices, key=indices.get)
        if sorted(indices.values()) != list(range(len(words))) or tuple(words[:4]) != SPECIAL_SYMBOLS:
            raise ValueError(f"its words are not numbered from 0, beginning with {' '.join(SPECIAL_SYMBOLS)}")
    except Exception as error:  # a damaged pickle can raise any error
        raise _refused(path, error, REMEDY) from None
    return {word: index for index, word in enumerate(words)}


def read_module_tensors(path: str | Path) -> "dict[str, Tensor]":
    """Read the tensors of ArtEmis' `best_model.pt`, a whole module that torch.save wrote, in either of its formats.

        zip file (torch >= 1.6)     <name>/data.pkl, and <name>/data/<key> for each storage
        legacy file (torch < 1.6)   pickles of a magic number, a version, the machine, the module and the storages' keys;
                                    then the number of elements (8 bytes) and the bytes of each storage

    Returns:
        name -> tensor on the CPU: parameters and buffers, with the names that the module's `state_dict()` would have.

    Raises:
        InputError: the file is missing or damaged, or names other classes or functions.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
            file.seek(0)
            return dict(_named_tensors(_read_zip(file) if zipped else _read_legacy(file)))
    except Exception as error:  # a damaged file can raise any error
        raise _refused(path, error, REMEDY) from None


def _read_zip(file: BinaryIO) -> StandIn:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        unpickler = RestrictedUnpickler(io.BytesIO(archive.read(pickled)))
        module = unpickler.load()
        for key, storage in unpickler.storages.items():
            _fill(storage, archive.read(f"{pickled.removesuffix('.pkl')}/{key}"))
    return module


def _read_legacy(file: BinaryIO) -> StandIn:
    for _ in ("magic number", "version", "machine"):
        RestrictedUnpickler(file).load()
    unpickler = RestrictedUnpickler(file)
    module = unpickler.load()
    for key in RestrictedUnpickler(file).load():
        storage = unpickler.storages[key]
        _elements, content = file.read(8), file.read(storage.nbytes)
        _fill(storage, content)
    return module


def _fill(storage: "Tensor", content: bytes) -> None:
    import torch

    storage.copy_(torch.frombuffer(bytearray(content), dtype=storage.dtype))


def _named_tensors(module: StandIn, prefix: str = "") -> "Iterator[tuple[str, Tensor]]":
    for name, tensor in (module._parameters | module._buffers).items():
        if tensor is not None:
            yield f"{prefix}{name}", tensor
    for name, part in module._modules.items():
        if part is not None:
            yield from _named_tensors(part, f"{prefix}{name}.")


def read_torch_file(path: str | Path, remedy: str = "use another file") -> Any:
    """Read a torch.save file of tensors, numbers and texts, and of lists, tuples and dictionaries of these, onto the CPU.

    Raises:
        InputError: the file is missing or damaged, or names classes or functions.
    """
    import torch

    check_regular(path, remedy)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about files that it refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any error
        raise _refused(path, error, remedy) from None


def read_state_dict(path: str | Path, remedy: str = "use another file") -> "dict[str, Tensor]":
    """Read named tensors of a .safetensors file, or of a file of torch.save, onto the CPU.

    Raises:
        InputError: the file is missing or damaged, or holds something else.
    """
    from safetensors.torch import load_file
    from torch import Tensor

    check_regular(path, remedy)
    if Path(path).suffix != ".safetensors":
        state = read_torch_file(path, remedy)
    else:
        try:
            state = load_file(path)
        except Exception as error:  # safetensors raises its own errors
            raise _refused(path, error, remedy) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: holds something other than named tensors; {remedy}")
    return state


def _refused(path: str | Path, error: Exception, remedy: str) -> InputError:
    """The InputError for a file that a library could not read; torch's long advice is left out."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    reason = f"its pickle names {named[1]}" if named else brief(error).partition(". ")[0] or type(error).__name__
    if "TorchScript" in reason:
        reason = "a TorchScript archive, which can hold code"
    return InputError(f"{path}: truncated, modified or unsafe ({reason}); {remedy}")
