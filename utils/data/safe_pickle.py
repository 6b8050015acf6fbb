"""Read pickled files without running code from them, and read ArtEmis' vocabulary.

A pickle can name any function of any installed package and have it called. Here every name is looked up in a short list
of allowed names. Except for plain containers, an allowed name gives a stand-in, which stores its arguments and its
state and does nothing. Words and tensors are then read from the stand-ins. Therefore neither `artemis` nor the version
of torch that wrote a file must be installed.
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
    """Represents an object of a class that is not imported; it stores the pickled arguments and state."""

    args: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any) -> Any:
        self = super().__new__(cls)
        self.args = args
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


def stand_ins(*names: str) -> dict[str, type]:
    """Map each full name to a stand-in class of that name."""
    return {name: type(name.rpartition(".")[2], (StandIn,), {}) for name in names}


class SafeUnpickler(pickle._Unpickler):
    """An unpickler that accepts only allowed names.

    It extends the standard library's Python version, because the C version allocates gigabytes for a damaged memo
    index.

    Args:
        path: the file's path, for error messages.
        file: the open file, positioned at a pickle.
        allowed: full name of a class or function -> its stand-in.
    """

    def __init__(self, path: str | Path, file: BinaryIO, allowed: dict[str, type]):
        super().__init__(file)
        self.path, self.file, self.allowed = path, file, allowed

    def load(self) -> Any:
        """Read one pickle.

        Raises:
            InputError: the pickle names something that is not allowed.
            Exception: any other error means that the pickle is damaged or exceeds the limits of `check_limits`.
        """
        check_limits(self.file)
        return super().load()

    def find_class(self, module: str, name: str) -> type:
        full_name = f"{module}.{name}"
        if full_name in self.allowed:
            return self.allowed[full_name]
        shown = full_name if full_name.isprintable() and len(full_name) < 120 else ascii(full_name[:120])
        raise InputError(
            f"{self.path}: refused: its pickle names {shown}; download this file again from a source you trust"
        )


def unreadable(path: str | Path, error: Exception) -> InputError:
    """The InputError for a file that could not be unpickled."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(
        f"{path}: damaged or not the expected file ({reason}); download it again or make it with preprocess/"
    )


def vocabulary_path(classifier: str | Path, given: str | Path | None = None) -> Path | None:
    """The vocabulary.pkl of a text-to-emotion classifier: two folders above it unless given; None: the file carries its own."""
    if Path(classifier).suffix == ".safetensors":
        return None
    return Path(given or Path(classifier).absolute().parents[2] / "vocabulary.pkl")


def load_vocabulary(path: str | Path) -> dict[str, int]:
    """Read ArtEmis' `vocabulary.pkl`, a pickled `artemis.utils.vocabulary.Vocabulary`.

    Returns:
        word -> index 0 .. n - 1, in the order of the indices; <pad>, <sos>, <eos>, <unk> are 0 .. 3.

    Raises:
        InputError: the file is missing, damaged or not such a vocabulary, or it names any other class.
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
    except Exception as error:  # a damaged pickle can raise any error
        raise unreadable(path, error) from None
    return dict(words)
