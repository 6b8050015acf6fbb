"""ArtEmis' pickled files are read without importing what they name, and pickles that name anything else are refused."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from utils.data.safe_pickle import load_vocabulary
from utils.data.torch_files import read_module_tensors
from utils.errors import InputError

NETS = Path(__file__).parents[1] / "data/artemis/preprocess_data_nets"
LSTM = NETS / "txt_to_emotion/lstm_based"
READERS = {
    "vocabulary.pkl": load_vocabulary,
    "txt_to_emotion/lstm_based/best_model.pt": read_module_tensors,
    "txt_to_emotion/lstm_based/best_model_zip.pt": read_module_tensors,
}


def test_vocabulary():
    vocabulary = load_vocabulary(NETS / "vocabulary.pkl")
    assert list(vocabulary.values()) == list(range(112))
    assert list(vocabulary)[:6] == ["<pad>", "<sos>", "<eos>", "<unk>", "they", "have"]


class Global:
    """Pickles as the bare name of a class or function that need not exist."""

    def __init__(self, name: str):
        self.name = name


class Object:
    """Pickles as a call of a global, with a state."""

    def __init__(self, name: str, *args, state=None):
        self.call, self.state = (Global(name), args), state


class Writer(pickle._Pickler):
    """Writes protocol 2 pickles of names that are not installed here."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            module, _, name = value.name.rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        elif isinstance(value, Object):
            self.save(value.call[0])
            self.save(value.call[1])
            self.write(pickle.REDUCE)
            if value.state is not None:
                self.save(value.state)
                self.write(pickle.BUILD)
        else:
            super().save(value, save_persistent_id)


def dumps(value) -> bytes:
    file = io.BytesIO()
    Writer(file, 2).dump(value)
    return file.getvalue()


def test_both_formats_of_the_model_hold_the_same_tensors():
    legacy, today = (read_module_tensors(LSTM / name) for name in ("best_model.pt", "best_model_zip.pt"))
    assert list(legacy) == list(today) and len(legacy) == 18
    for name in legacy:
        assert legacy[name].dtype == today[name].dtype and legacy[name].equal(today[name])
    assert legacy["text_encoder.word_embedding.0.weight"].shape == (112, 20)
    assert legacy["clf_head.net.1.num_batches_tracked"].shape == ()


def module(tensor: Object) -> Object:
    state = {"_parameters": OrderedDict(weight=tensor), "_buffers": {}, "_modules": {}, "_backend": None}
    return Object("torch.nn.modules.linear.Linear", state=state)


def legacy_file(path: Path, offset: int, size: tuple, stride: tuple, elements: int = 6) -> Path:
    """A module of one tensor over a storage of 0, 1, ..., as torch < 1.6 saves it from a GPU."""

    class Storage:
        pass

    class LegacyWriter(Writer):
        def persistent_id(self, value):
            return ("storage", Global("torch.FloatStorage"), "1", "cuda:0", 6, None) if value is Storage else None

    content = io.BytesIO()
    tensor = Object("torch._utils._rebuild_tensor_v2", Storage, offset, size, stride, False, OrderedDict())
    LegacyWriter(content, 2).dump(module(Object("torch._utils._rebuild_parameter", tensor, True, OrderedDict())))
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    data = np.arange(elements, dtype="<f4").tobytes()
    path.write_bytes(
        b"".join(pickle.dumps(part, 2) for part in head)
        + content.getvalue()
        + pickle.dumps(["1"], 2)
        + struct.pack("<q", elements)
        + data
    )
    return path


def test_tensors_that_share_a_storage(tmp_path):
    state = read_module_tensors(legacy_file(tmp_path / "m.pt", 2, (2, 2), (1, 2)))
    assert state["weight"].tolist() == [[2, 4], [3, 5]]


@pytest.mark.parametrize(
    ("offset", "size", "stride", "elements"),
    [(3, (2, 2), (2, 1), 6), (0, (2**40,), (0,), 6), (-1, (2,), (1,), 6), (0, (6,), (1,), 5), (0, (6,), (1,), 2**50)],
    ids=["beyond the end", "huge by stride 0", "negative offset", "short storage", "lying length"],
)
def test_tensors_that_do_not_fit_their_storage_are_refused(tmp_path, offset, size, stride, elements):
    path = legacy_file(tmp_path / "m.pt", offset, size, stride, min(elements, 6))
    if elements > 6:
        path.write_bytes(path.read_bytes().replace(struct.pack("<q", 6), struct.pack("<q", elements)))
    with pytest.raises(InputError, match="m.pt: damaged"):
        read_module_tensors(path)


class Malicious:
    """Would create a file when unpickled freely."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def put(path: Path, pickled: bytes, name: str) -> None:
    """Put a pickle in the place where the reader of the file `name` expects one."""
    if name.endswith("best_model_zip.pt"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("best_model/data.pkl", pickled)
    elif name.endswith("best_model.pt"):
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps([], 2))
    else:
        path.write_bytes(pickled)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_refused_by_name(tmp_path, name, protocol):
    path, proof = tmp_path / Path(name).name, tmp_path / "proof"
    attacks = {
        os.system: f"touch {proof}",
        eval: f"open({str(proof)!r}, 'w')",
        exec: f"open({str(proof)!r}, 'w')",
        pd.read_pickle: str(proof),
        pd.DataFrame.eval: "x",
        np.load: str(proof),
    }
    for function, argument in attacks.items():
        if function is pd.DataFrame.eval and protocol < 4:
            continue
        put(path, pickle.dumps(Malicious(function, argument), protocol), name)
        with pytest.raises(
            InputError, match=f"^{path}: refused: its pickle names .*{function.__name__}; download"
        ) as caught:
            READERS[name](path)
        assert "\n" not in str(caught.value)
    for refused in ("builtins.getattr", "torch.load", "torch.storage._load_from_bytes", "artemis.utils.os.system"):
        put(path, dumps(Object(refused, "x")), name)
        with pytest.raises(InputError, match=f"names {refused}; download"):
            READERS[name](path)
    assert not proof.exists()


def test_an_attack_hidden_in_the_real_files_is_refused(tmp_path):
    """The refused name stands where a harmless one stood, deep in an otherwise genuine file."""
    path = tmp_path / "vocabulary.pkl"
    content = (NETS / "vocabulary.pkl").read_bytes()
    path.write_bytes(content.replace(b"cartemis.utils.vocabulary\nVocabulary\n", b"cposix\nsystem\n"))
    with pytest.raises(InputError, match="posix.system"):
        load_vocabulary(path)
    path = tmp_path / "best_model.pt"
    content = (LSTM / "best_model.pt").read_bytes()
    path.write_bytes(content.replace(b"ctorch._utils\n_rebuild_parameter\n", b"csubprocess\ncall\n"))
    with pytest.raises(InputError, match="subprocess.call"):
        read_module_tensors(path)


@pytest.mark.parametrize("name", READERS)
def test_truncated_and_damaged_files(tmp_path, name):
    content = (NETS / name).read_bytes()
    path = tmp_path / Path(name).name
    random = np.random.default_rng(0)
    for length in [0, 1, 2, 20, *random.integers(21, len(content) - 1, 12)]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=path.name):
            READERS[name](path)
    for garbage in (b"garbage", b"PK\x03\x04", b"\x80\x02r\xff\xff\xff\x7fN.", random.bytes(1000)):
        path.write_bytes(garbage)
        with pytest.raises(InputError, match=path.name):
            READERS[name](path)
    for _ in range(40):  # a changed byte may go unnoticed (a letter of a word), but nothing else may come of it
        damaged = bytearray(content)
        damaged[random.integers(min(len(content), 6000))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            READERS[name](path)
        except InputError as error:
            assert "\n" not in str(error)
    with pytest.raises(InputError, match="no such file"):
        READERS[name](tmp_path / "absent")


@pytest.mark.parametrize(
    ("word2idx", "problem"),
    [
        ({"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, "a": 5}, "not 0, 1, 2"),
        ({"a": 0, "b": 1, "c": 2, "d": 3}, "first words"),
        ({"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, "a": "4"}, "damaged"),
        ({"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, 7: 4}, "word to index"),
    ],
)
def test_a_wrong_vocabulary_is_refused(tmp_path, word2idx, problem):
    path = tmp_path / "vocabulary.pkl"
    path.write_bytes(dumps(Object("artemis.utils.vocabulary.Vocabulary", state={"word2idx": word2idx})))
    with pytest.raises(InputError, match=problem):
        load_vocabulary(path)
