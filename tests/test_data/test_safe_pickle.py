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

from utils.data.safe_pickle import load_grouped_references, load_text2emotion_state, load_vocabulary
from utils.errors import InputError

NETS = Path(__file__).parents[1] / "data/artemis/preprocess_data_nets"
LSTM = NETS / "txt_to_emotion/lstm_based"
READERS = {
    "vocabulary.pkl": load_vocabulary,
    "artemis_gt_references_grouped.pkl": load_grouped_references,
    "txt_to_emotion/lstm_based/best_model.pt": load_text2emotion_state,
    "txt_to_emotion/lstm_based/best_model_zip.pt": load_text2emotion_state,
}


def table(rows: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "art_style": ["Baroque"] * rows,
            "painting": [f"p{row}" for row in range(rows)],
            "emotion": [[0, 8]] * rows,
            "references_pre_vocab": [["a é", "b"]] * rows,
            "references": [["a <unk>", "b"]] * rows,
        }
    )


def grouped(path: Path, frame: pd.DataFrame, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(1, protocol) + pickle.dumps({"train": frame}, protocol))
    return path


def test_vocabulary():
    vocabulary = load_vocabulary(NETS / "vocabulary.pkl")
    assert list(vocabulary.values()) == list(range(112))
    assert list(vocabulary)[:6] == ["<pad>", "<sos>", "<eos>", "<unk>", "they", "have"]


def test_grouped_references_equal_what_pandas_reads():
    path = NETS / "artemis_gt_references_grouped.pkl"
    with path.open("rb") as file:  # a fixture of ours, so plain unpickling is safe here
        assert pickle.load(file) == 1
        expected = pickle.load(file)
    frames = load_grouped_references(path)
    assert {split: len(frame) for split, frame in frames.items()} == {"rest": 4, "test": 16, "train": 132, "val": 8}
    for split, frame in frames.items():
        pd.testing.assert_frame_equal(frame, expected[split], check_column_type=False)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    "frame",
    [
        table(),
        table().astype(object),
        table().iloc[::-1],
        table().iloc[:0],
        table().assign(number=np.arange(3.0)),
    ],
    ids=["str", "object", "int index", "empty", "floats"],
)
def test_grouped_references_as_todays_pandas_writes_them(tmp_path, frame, protocol):
    loaded = load_grouped_references(grouped(tmp_path / "g.pkl", frame, protocol))["train"]
    assert loaded.to_dict("list") == frame.to_dict("list")
    assert loaded.index.tolist() == frame.index.tolist()


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


def test_grouped_references_of_old_pandas(tmp_path):
    """pandas 0.25: the frame's `_data`, a manager whose state has the "0.14.1" layout, an Int64Index."""

    def objects(shape, items):
        dtype = Object("numpy.dtype", "O8", 0, 1, state=(3, "|", None, None, None, -1, -1, 63))
        array = Object("numpy.core.multiarray._reconstruct", Global("numpy.ndarray"), (0,), b"b")
        array.state = (1, shape, dtype, False, items)
        return array

    def longs(items):
        dtype = Object("numpy.dtype", "i8", 0, 1, state=(3, "<", None, None, None, -1, -1, 0))
        array = Object("numpy.core.multiarray._reconstruct", Global("numpy.ndarray"), (0,), b"b")
        array.state = (1, (len(items),), dtype, False, struct.pack(f"<{len(items)}q", *items))
        return array

    expected = table(2)
    new_index = "pandas.core.indexes.base._new_Index"
    columns = Object(
        new_index, Global("pandas.core.indexes.base.Index"), {"data": objects((5,), list(expected)), "name": None}
    )
    index = Object(new_index, Global("pandas.core.indexes.numeric.Int64Index"), {"data": longs([7, 9]), "name": None})
    cells = [cell for column in expected for cell in expected[column]]
    block = {"values": objects((5, 2), cells), "mgr_locs": Object("__builtin__.slice", 0, 5, 1)}
    layout = {"0.14.1": {"axes": [columns, index], "blocks": [block]}}
    manager = Object("pandas.core.internals.managers.BlockManager", state=([columns, index], [], [], layout))
    frame = Object("pandas.core.frame.DataFrame", state={"_data": manager, "_typ": "dataframe", "_metadata": []})
    path = tmp_path / "g.pkl"
    path.write_bytes(pickle.dumps(1, 2) + dumps({"train": frame}))
    loaded = load_grouped_references(path)["train"]
    assert loaded.to_dict("list") == expected.to_dict("list")
    assert loaded.index.tolist() == [7, 9]


def test_both_formats_of_the_model_hold_the_same_tensors():
    legacy, today = (load_text2emotion_state(LSTM / name) for name in ("best_model.pt", "best_model_zip.pt"))
    assert list(legacy) == list(today) and len(legacy) == 18
    for name in legacy:
        assert legacy[name].dtype == today[name].dtype and legacy[name].equal(today[name])
    assert legacy["text_encoder.word_embedding.0.weight"].shape == (112, 20)
    assert legacy["clf_head.net.1.num_batches_tracked"].shape == ()


def test_grouped_references_as_a_call_with_columns(tmp_path):
    path = tmp_path / "g.pkl"
    path.write_bytes(pickle.dumps(1, 2) + dumps({"train": Object("pandas.DataFrame", table().to_dict("list"))}))
    assert load_grouped_references(path)["train"].to_dict("list") == table().to_dict("list")


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
    state = load_text2emotion_state(legacy_file(tmp_path / "m.pt", 2, (2, 2), (1, 2)))
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
        load_text2emotion_state(path)


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
    elif name.startswith("artemis_gt"):
        path.write_bytes(pickle.dumps(1, 2) + pickled)
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
            InputError, match=f"^{path}: refused: its pickle names .*{function.__name__}; get"
        ) as caught:
            READERS[name](path)
        assert "\n" not in str(caught.value)
    for refused in ("builtins.getattr", "torch.load", "torch.storage._load_from_bytes", "artemis.utils.os.system"):
        put(path, dumps(Object(refused, "x")), name)
        with pytest.raises(InputError, match=f"names {refused}; get"):
            READERS[name](path)
    assert not proof.exists()


def test_an_attack_hidden_in_the_real_files_is_refused(tmp_path):
    """The refused name stands where a harmless one stood, deep in an otherwise genuine file."""
    path = tmp_path / "vocabulary.pkl"
    content = (NETS / "vocabulary.pkl").read_bytes()
    path.write_bytes(content.replace(b"cartemis.utils.vocabulary\nVocabulary\n", b"cposix\nsystem\n"))
    with pytest.raises(InputError, match="posix.system"):
        load_vocabulary(path)
    path = tmp_path / "grouped.pkl"
    content = (NETS / "artemis_gt_references_grouped.pkl").read_bytes()
    path.write_bytes(content.replace(b"c__builtin__\nslice\n", b"c__builtin__\neval\n"))
    with pytest.raises(InputError, match="__builtin__.eval"):
        load_grouped_references(path)
    path = tmp_path / "best_model.pt"
    content = (LSTM / "best_model.pt").read_bytes()
    path.write_bytes(content.replace(b"ctorch._utils\n_rebuild_parameter\n", b"csubprocess\ncall\n"))
    with pytest.raises(InputError, match="subprocess.call"):
        load_text2emotion_state(path)


@pytest.mark.parametrize(
    ("dtype", "data", "columns"),
    [("O8", b"\x00" * 8, 1), ("V8", b"\x00" * 8, 1), ("i8", b"\x00" * 8, 2**40)],
    ids=["bytes as pointers", "fields", "endless columns"],
)
def test_tables_that_reach_beyond_the_file_are_refused(tmp_path, dtype, data, columns):
    """An object array from bytes, or an array type with fields, would turn bytes of the file into pointers."""
    array = Object("numpy.core.multiarray._reconstruct", Global("numpy.ndarray"), (0,), b"b")
    array.state = (1, (1, 1), Object("numpy.dtype", dtype, state=(3, "<", None, None, None, -1, -1, 0)), False, data)
    axes = [
        Object("pandas.core.indexes.base._new_Index", Global("pandas.Index"), {"start": 0, "stop": stop, "step": 1})
        for stop in (columns, 1)
    ]
    block = Object("pandas._libs.internals._unpickle_block", array, Object("__builtin__.slice", 0, 1, 1), 2)
    manager = Object("pandas.core.internals.managers.BlockManager", (block,), axes)
    path = tmp_path / "g.pkl"
    path.write_bytes(pickle.dumps(1, 2) + dumps({"train": Object("pandas.DataFrame", state={"_mgr": manager})}))
    with pytest.raises(InputError, match="damaged.*(array of type|no list|columns of a table)"):
        load_grouped_references(path)


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


@pytest.mark.parametrize(
    "frame",
    [
        table().drop(columns="references"),
        table().assign(emotion=1),
        table().assign(references=[["a"]] * 3),
        table().assign(emotion=[["awe", "fear"]] * 3),
    ],
)
def test_wrong_tables_are_refused(tmp_path, frame):
    with pytest.raises(InputError, match="split 'train'"):
        load_grouped_references(grouped(tmp_path / "g.pkl", frame, 4))
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(2) + pickle.dumps({}))
    with pytest.raises(InputError, match="count 1"):
        load_grouped_references(tmp_path / "g.pkl")
