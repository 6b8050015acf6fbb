"""Reading pickled files without running anything that is pickled in them, and ArtEmis' vocabulary.

A pickle can name any function of any installed package and have it called. Here every name is looked up in a short
list, and what the list gives is never the thing itself (but for plain containers): it is a stand-in that keeps the
arguments and the state it is handed and does nothing. Words and tensors are then taken from what the stand-ins hold.
Therefore neither `artemis` nor the torch that wrote a file need be installed.
"""

import io
import pickle
from pathlib import Path
from typing import Any, BinaryIO

from utils.data.pickle_limits import check_limits
from utils.errors import InputError
from utils.files import read_bytes

SPECIAL_SYMBOLS = ("<pad>", "<sos>", "<eos>", "<unk>")


class StandIn:
    """Stands for an object of a class that is not imported: keeps what the pickle gives it."""

    args: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        self = super().__new__(cls)
        self.args = args
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


def stand_ins(*names: str) -> dict[str, type]:
    """Full name -> a class of that name that stands for it."""
    return {name: type(name.rpartition(".")[2], (StandIn,), {}) for name in names}


class SafeUnpickler(pickle._Unpickler):
    """The standard library's unpickler in Python: the one in C takes gigabytes for a damaged memo index.

    Args:
        path: the file, for errors. file: where the next pickle begins.
        allowed: full name of a class or function -> what stands for it.
    """

    def __init__(self, path: str | Path, file: BinaryIO, allowed: dict[str, type]):
        super().__init__(file)
        self.path, self.file, self.allowed = path, file, allowed

    def load(self) -> Any:
        """Read one pickle; InputError when it names what is not allowed, any other error when it is damaged or a bomb."""
        check_limits(self.file)
        return super().load()

    def find_class(self, module: str, name: str) -> type:
        full_name = f"{module}.{name}"
        if full_name in self.allowed:
            return self.allowed[full_name]
        shown = full_name if full_name.isprintable() and len(full_name) < 120 else ascii(full_name[:120])
        raise InputError(f"{self.path}: refused: its pickle names {shown}; get this file anew from a source you trust")


def unreadable(path: str | Path, error: Exception) -> InputError:
    """The InputError for a file that an unpickler could not make sense of."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"{path}: damaged or not the file expected ({reason}); get it anew or make it with preprocess/")


def load_vocabulary(path: str | Path) -> dict[str, int]:
    """Read ArtEmis' `vocabulary.pkl`, a pickled `artemis.utils.vocabulary.Vocabulary`.

    Returns:
        word -> index 0 .. n - 1 in the order of the indices; <pad>, <sos>, <eos>, <unk> are 0 .. 3.

    Raises:
        InputError: the file is missing or damaged, names anything but that class, or is no such vocabulary.
    """
    file = io.BytesIO(read_bytes(path))
    try:
        vocabulary = SafeUnpickler(path, file, stand_ins("artemis.utils.vocabulary.Vocabulary")).load()
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
        raise unreadable(path, error) from None
    return dict(words)
