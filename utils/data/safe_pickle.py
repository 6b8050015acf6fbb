"""Reading ArtEmis' pickled files without running anything that is pickled in them.

A pickle can name any function of any installed package and have it called. Here every name is looked up in a short
list, and what the list gives is never the thing itself (but for plain containers): it is a stand-in that keeps the
arguments and the state it is handed and does nothing. Tables and tensors are then built from what the stand-ins hold.
Therefore neither `artemis` nor the pandas or torch that wrote a file need be installed.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pandas as pd

from utils.errors import InputError
from utils.files import read_bytes

if TYPE_CHECKING:
    import torch

SPECIAL_SYMBOLS = ("<pad>", "<sos>", "<eos>", "<unk>")
GROUPED_COLUMNS = ("art_style", "painting", "emotion", "references_pre_vocab", "references")

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of a torch.save file before torch 1.6
LEGACY_PROTOCOL = 1001


class _StandIn:
    """Stands for an object of a class that is not imported: keeps what the pickle gives it."""

    args: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        self = super().__new__(cls)
        self.args = args
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _stand_ins(*names: str) -> dict[str, type]:
    return {name: type(name.rpartition(".")[2], (_StandIn,), {}) for name in names}


class _Encode(_StandIn):
    """`_codecs.encode`, by which pickle protocols 0 to 2 spell bytes."""

    def __new__(cls, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise ValueError("bytes in an unknown encoding")
        return text.encode("latin1")


class _First(_StandIn):
    """A call that wraps its first argument in a way that does not matter here."""

    def __new__(cls, first: Any, *_: Any) -> Any:
        return first


class _Dtype(_StandIn):
    def numpy(self) -> np.dtype:
        name = str(self.args[0])
        if not re.fullmatch(r"O8?|[iuf][1248]|b1", name):  # nothing with fields, which could reach into memory
            raise ValueError(f"array of type {name[:20]!r}")
        order = self.state[1] if self.state else "<"
        return np.dtype(object) if name[0] == "O" else np.dtype(("|" if name[1] == "1" else order) + name)


class _Scalar(_StandIn):
    def __new__(cls, dtype: _Dtype, raw: bytes) -> Any:
        return np.frombuffer(raw, dtype.numpy())[0].item()


class _Array(_StandIn):
    """`numpy.ndarray`, rebuilt from the state (version, shape, dtype, Fortran order, list of objects or raw bytes)."""

    def numpy(self) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        return _build_array(data, dtype, shape, "F" if fortran else "C")


class _FromBuffer(_StandIn):
    """`numpy._core.numeric._frombuffer`, which protocol 5 uses for arrays of numbers."""

    def numpy(self) -> np.ndarray:
        return _build_array(*self.args)


class _BackedArray(_StandIn):
    """A pandas extension array over one numpy array, which is somewhere in its state."""

    def numpy(self) -> np.ndarray:
        return next(part for part in self.state if isinstance(part, _Array | _FromBuffer)).numpy()


def _build_array(data: list | bytes, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    kind = dtype.numpy()
    if kind.kind != "O":
        return np.frombuffer(data, kind).reshape(shape, order=order)
    if not isinstance(data, list):  # bytes taken for object pointers would reach into memory
        raise ValueError("objects in an array that are no list")
    return np.fromiter(data, dtype=object, count=len(data)).reshape(shape, order=order)


class _Index(_StandIn):
    """`_new_Index(class, {"data": array, ...})`, or {"start", "stop", "step"} for a range."""

    def values(self) -> list | range:
        fields = self.args[1]
        if "data" in fields:
            return fields["data"].numpy().tolist()
        return range(fields["start"], fields["stop"], fields["step"])


class _Frame(_StandIn):
    """`pandas.DataFrame`: a block manager under the name `_data` (pandas < 1.1) or `_mgr`, or a call with the columns."""

    def pandas(self) -> pd.DataFrame:
        if self.state is None:  # DataFrame({column: list}), as preprocess/prepare_artemis.py writes it
            (columns,) = self.args
            return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
        manager = self.state["_mgr"] if "_mgr" in self.state else self.state["_data"]
        if manager.state is None:  # pandas >= 1.3: BlockManager((_unpickle_block(values, placement, ndim), ...), axes)
            blocks, axes = manager.args
            parts = [block.args[:2] for block in blocks]
        else:  # before: (axes, block values, block items, {"0.14.1": {"axes": ..., "blocks": [...]}})
            layout = manager.state[3]["0.14.1"]
            axes, parts = layout["axes"], [(block["values"], block["mgr_locs"]) for block in layout["blocks"]]
        columns, index = (axis.values() for axis in axes)
        rows = [np.atleast_2d(values.numpy()) for values, _ in parts]
        if sum(map(len, rows)) != len(columns):
            raise ValueError("the columns of a table are not what its blocks hold")
        series: dict[int, pd.Series] = {}
        for block, (_, placement) in zip(rows, parts, strict=True):
            places = np.arange(len(columns))[placement if isinstance(placement, slice) else placement.numpy()]
            for place, row in zip(places.tolist(), block, strict=True):
                series[place] = pd.Series(row, index=index, dtype=row.dtype)
        frame = pd.DataFrame({place: series[place] for place in range(len(columns))})
        return frame.set_axis(columns, axis="columns")


class _Tensor(_StandIn):
    """`_rebuild_tensor_v2(storage, offset, size, stride, ...)`; counts in elements."""


class _Storage(_StandIn):
    dtype = ""


_CONTAINERS = {
    "__builtin__.set": set,
    "builtins.set": set,
    "__builtin__.slice": slice,
    "builtins.slice": slice,
    "collections.OrderedDict": OrderedDict,
}
_VOCABULARY = _stand_ins("artemis.utils.vocabulary.Vocabulary")
_PANDAS = {
    **_CONTAINERS,
    "_codecs.encode": _Encode,
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "pandas.DataFrame": _Frame,
    "pandas.core.frame.DataFrame": _Frame,
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked": _BackedArray,
    **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _FromBuffer for core in ("core", "_core")},
    **{f"pandas.{base}._new_Index": _Index for base in ("core.indexes.base", "indexes.base", "core.index")},
    **_stand_ins(
        "pandas.Index",
        "pandas.RangeIndex",
        "pandas.StringDtype",
        "pandas.arrays.StringArray",
        "pandas.core.arrays.string_.StringArray",
        "pandas.core.arrays.string_.StringDtype",
        "pandas.core.index.Index",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.numeric.Int64Index",
        "pandas.core.indexes.range.RangeIndex",
        "pandas.indexes.base.Index",
        "pandas.indexes.numeric.Int64Index",
        "pandas.indexes.range.RangeIndex",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.internals.blocks.new_block",
        "pandas.core.internals.managers.BlockManager",
        "pandas.core.internals.BlockManager",
    ),
}
_DTYPES = {"Double": "float64", "Float": "float32", "Half": "float16", "Long": "int64", "Int": "int32"}
_TORCH = {
    **_CONTAINERS,
    "torch._utils._rebuild_parameter": _First,
    "torch._utils._rebuild_tensor_v2": _Tensor,
    **{f"torch.{name}Storage": type(name, (_Storage,), {"dtype": dtype}) for name, dtype in _DTYPES.items()},
    **_stand_ins("torch.nn.backends.thnn._get_thnn_function_backend"),  # an attribute of every module up to torch 1.3
}
_MODULE_CLASS = re.compile(r"(artemis\.neural_models|torch\.nn\.modules)\.\w+\.\w+")


class _Unpickler(pickle._Unpickler):
    """The standard library's unpickler in Python: the one in C takes gigabytes for a damaged memo index."""

    def __init__(self, path: str | Path, file: BinaryIO, allowed: dict[str, type], module_classes: bool = False):
        super().__init__(file)
        self.path, self.allowed, self.module_classes = path, allowed, module_classes
        self.widths: dict[str, int] = {}  # of the storages met, in bytes per element

    def find_class(self, module: str, name: str) -> type:
        full_name = f"{module}.{name}"
        if full_name in self.allowed:
            return self.allowed[full_name]
        if self.module_classes and _MODULE_CLASS.fullmatch(full_name):
            return type(name, (_StandIn,), {})
        shown = full_name if full_name.isprintable() and len(full_name) < 120 else ascii(full_name[:120])
        raise InputError(f"{self.path}: refused: its pickle names {shown}; get this file anew from a source you trust")

    def persistent_load(self, identity: tuple) -> Any:
        kind, cls, *rest = identity
        if kind == "module":  # legacy torch.save keeps the source text of a module's class beside it
            return cls
        key, _, elements, *view = rest
        if kind != "storage" or not issubclass(cls, _Storage) or (view and view[0] is not None):
            raise ValueError("a storage of an unknown kind")
        self.widths[key] = np.dtype(cls.dtype).itemsize
        return cls(key, elements)


def _unreadable(path: str | Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{path}: damaged or not the file expected ({reason}); get it anew or make it with preprocess/")


def load_vocabulary(path: str | Path) -> dict[str, int]:
    """Read ArtEmis' `vocabulary.pkl`, a pickled `artemis.utils.vocabulary.Vocabulary`.

    Returns:
        word -> index 0 .. n - 1 in the order of the indices; <pad>, <sos>, <eos>, <unk> are 0 .. 3.

    Raises:
        InputError: the file is missing or damaged, names anything but that class, or is no such vocabulary.
    """
    try:
        vocabulary = _Unpickler(path, io.BytesIO(read_bytes(path)), _VOCABULARY).load()
        words = sorted(vocabulary.state["word2idx"].items(), key=lambda item: item[1])
        if not all(type(word) is str and type(index) is int for word, index in words):
            raise ValueError("word2idx is not a dictionary of word to index")
        if [index for _, index in words] != list(range(len(words))):
            raise ValueError("the indices are not 0, 1, 2, ...")
        if tuple(word for word, _ in words[:4]) != SPECIAL_SYMBOLS:
            raise ValueError(f"the first words are not {' '.join(SPECIAL_SYMBOLS)}")
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _unreadable(path, error) from None
    return dict(words)


def load_grouped_references(path: str | Path) -> dict[str, pd.DataFrame]:
    """Read `artemis_gt_references_grouped.pkl`: the count 1, then a dictionary of split -> table.

    Files written by old and by new pandas alike (block managers of pandas 0.14 to 3).

    Returns:
        split ("train", "val", "test", "rest") -> DataFrame of one row per artwork with art_style, painting (texts),
        emotion (list of labels 0 .. 8), references_pre_vocab and references (lists of texts, parallel to emotion).

    Raises:
        InputError: the file is missing or damaged, names anything that such tables do not need, or is something else.
    """
    try:
        file = io.BytesIO(read_bytes(path))
        count = _Unpickler(path, file, _PANDAS).load()
        if count != 1:
            raise ValueError("it does not start with the count 1")
        frames = {split: frame.pandas() for split, frame in _Unpickler(path, file, _PANDAS).load().items()}
        for split, frame in frames.items():
            _check_grouped(split, frame)
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise _unreadable(path, error) from None
    return frames


def _check_grouped(split: str, frame: pd.DataFrame) -> None:
    missing = [column for column in GROUPED_COLUMNS if column not in frame.columns]
    if missing or type(split) is not str:
        raise ValueError(f"split {split!r} has no column {', '.join(missing)}")
    types = {"art_style": str, "painting": str, "emotion": list, "references_pre_vocab": list, "references": list}
    for column, kind in types.items():
        if not all(type(value) is kind for value in frame[column]):
            raise ValueError(f"split {split!r}, column {column}: {kind.__name__} expected in every row")
    for column, kind in (("emotion", int), ("references_pre_vocab", str), ("references", str)):
        if not all(type(item) is kind for values in frame[column] for item in values):
            raise ValueError(f"split {split!r}, column {column}: lists of {kind.__name__} expected")
        if not all(len(values) == len(emotions) for values, emotions in zip(frame[column], frame.emotion, strict=True)):
            raise ValueError(f"split {split!r}: {column} is not parallel to emotion")


def load_text2emotion_state(path: str | Path) -> "dict[str, torch.Tensor]":
    """Read the tensors of ArtEmis' `best_model.pt`, a whole module saved by torch before 1.6 or since.

    Returns:
        name -> tensor on the CPU, parameters and buffers, named as `state_dict()` of the saved module would.

    Raises:
        InputError: the file is missing or damaged, or names anything but modules, tensors and plain containers.
    """
    content = read_bytes(path)
    try:
        module, storages = _read_zip(path, content) if content[:2] == b"PK" else _read_legacy(path, content)
        return {name: _build_tensor(tensor, storages) for name, tensor in _named_tensors(module, "").items()}
    except InputError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        raise _unreadable(path, error) from None


def _read_zip(path: str | Path, content: bytes) -> tuple[Any, dict[str, bytes]]:
    """torch >= 1.6: a zip file of <name>/data.pkl and one <name>/data/<key> for each storage."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a compressed archive, which torch.save does not write")
        (pickled,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]*/data\.pkl", name))
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("saved on a big-endian machine")
        module = _Unpickler(path, io.BytesIO(archive.read(pickled)), _TORCH, module_classes=True).load()
        data = f"{folder}data/"
        return module, {
            name.removeprefix(data): archive.read(name) for name in archive.namelist() if name.startswith(data)
        }


def _read_legacy(path: str | Path, content: bytes) -> tuple[Any, dict[str, bytes]]:
    """torch < 1.6: pickles of a magic number, a version, the machine, the object, its storage keys; raw data."""
    file = io.BytesIO(content)
    magic, version, machine = (_Unpickler(path, file, {}).load() for _ in range(3))
    if magic != LEGACY_MAGIC or version != LEGACY_PROTOCOL or machine["little_endian"] is not True:
        raise ValueError("no file of torch.save from a little-endian machine")
    unpickler = _Unpickler(path, file, _TORCH, module_classes=True)
    module = unpickler.load()
    storages = {}
    for key in _Unpickler(path, file, {}).load():
        elements = int.from_bytes(file.read(8), "little", signed=True)
        storages[key] = file.read(elements * unpickler.widths[key])
        if len(storages[key]) != elements * unpickler.widths[key]:
            raise ValueError("the file ends within a tensor")
    return module, storages


def _named_tensors(module: Any, prefix: str) -> dict[str, _Tensor]:
    """Parameters and buffers of a module's stand-in and of its parts, by name."""
    tensors = {}
    for kind in ("_parameters", "_buffers"):
        for name, tensor in module.state[kind].items():
            if tensor is not None:
                tensors[f"{prefix}{name}"] = tensor
    for name, part in module.state["_modules"].items():
        if part is not None:
            tensors |= _named_tensors(part, f"{prefix}{name}.")
    return tensors


def _build_tensor(tensor: _Tensor, storages: dict[str, bytes]) -> "torch.Tensor":
    import torch

    storage, offset, size, stride = tensor.args[:4]
    key, elements = storage.args
    values = torch.from_numpy(np.frombuffer(storages[key], storage.dtype).copy())
    if len(values) != elements or np.prod(size, dtype=object) > elements:
        raise ValueError(f"storage {key[:20]} is not as long as its tensors need")
    return values.as_strided(size, stride, offset).clone()  # torch checks that this stays within the storage
