"""Files that would hang or kill a reader, and JSON that says a thing twice."""

import json
import os
import pickle
import signal
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cococaption import read_annotations, read_results
from preprocess.artemis_text import read_corrections, read_known_words
from preprocess.build_splits import read_annotations as read_csv_annotations
from preprocess.prepare_artemis import read_release
from preprocess.train_text2emotion import read_glove, read_splits
from utils.csv_rows import check_append_to
from utils.data.feature_cache import FeatureCache
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pickle_limits import MOST_OPCODES, check_limits
from utils.data.pretrained import find_config
from utils.data.records import read_records
from utils.data.safe_pickle import load_vocabulary
from utils.data.text2emotion_files import load_text2emotion
from utils.data.text_codec import SHIPPED_BPE, load_tokenizer
from utils.data.torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL, read_module_tensors, read_torch_file
from utils.data.vad_lookup import read_lexicon
from utils.errors import InputError
from utils.evaluation.report_tables import read_report
from utils.files import check_place, read_json, sha256, write_json

# ---- pipes, sockets, devices -----------------------------------------------------------------------------------------


def beside(*good: str) -> Callable[[Path, Callable], object]:
    """A reader of a folder, in which the file in question lies beside good ones."""

    def prepare(path: Path, read: Callable) -> object:
        for name in good:
            (path.parent / name).write_bytes((SHIPPED_BPE / name).read_bytes())
        return read(str(path.parent))

    return prepare


READERS = {
    "artEmisX_val.json": read_records,
    "annotations.json": read_annotations,
    "results.json": read_results,
    "report.json": read_report,
    "rows.csv": check_append_to,
    "release.csv": read_release,
    "artemis_preprocessed.csv": lambda path: read_csv_annotations(path, "v1"),
    "tokens.csv": lambda path: read_splits(path, {}),
    "glove.txt": lambda path: read_glove(path, {}, 0),
    "words.txt": read_known_words,
    "spelling.py": read_corrections,
    "spelling.json": read_corrections,
    "lexicon.txt": read_lexicon,
    "vocabulary.pkl": load_vocabulary,
    "best_model.pt": load_text2emotion,
    "text2emotion.safetensors": load_text2emotion,
    "stats.tar": read_torch_file,
    "clip.pt": lambda path: load_image_encoder(str(path)),
    "config.json": lambda path: find_config(str(path.parent), "--gpt2_model", "take another"),
    "header.json": lambda path: FeatureCache(path.parent),
    "hashed": sha256,
    "out.json": check_place,
    "vocab.json": lambda path: beside("merges.txt")(path, load_tokenizer),
    "merges.txt": lambda path: beside("vocab.json")(path, load_tokenizer),
    "tokenizer.json": lambda path: load_tokenizer(str(path.parent)),
    "tokenizer_config.json": lambda path: beside("vocab.json", "merges.txt")(path, load_tokenizer),
}


@pytest.fixture
def alarm():
    """A reader that waits for ever fails its test after ten seconds."""

    def ring(*_: object) -> None:
        raise TimeoutError("the reader waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, alarm, name):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(InputError, match=str(tmp_path)):
        READERS[name](path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=str(tmp_path)):
        READERS[name](path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to(path.name), "too many levels"),
        (lambda path: path.symlink_to("absent"), "no such file"),
        (lambda path: os.mkfifo(path), "is a pipe, socket or device"),
    ],
    ids=["missing", "folder", "loop", "dangling", "pipe"],
)
def test_what_is_no_file_is_called_by_its_name(tmp_path, make, message):
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


def test_names_that_no_file_can_have(tmp_path):
    for name in ("x" * 300, "x\0y", "x/" * 3000):
        with pytest.raises(InputError) as caught:
            read_json(f"{tmp_path}/{name}")
        assert len(str(caught.value)) < 700
        for load in (load_tokenizer, load_image_encoder):
            with pytest.raises(InputError, match="no such folder"):
                load(name)


# ---- JSON that says a thing twice ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"1": {},\n "1": {}}', "1"),
        ('{"1": {"a": 1, "b": {"a": 1}, "a": 2}}', "a"),
        ('[{"x": 1}, {"x": 2, "\\u0078": 3}]', "x"),
    ],
    ids=["records", "fields", "escaped"],
)
def test_a_name_twice_is_refused(tmp_path, text, name):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"x.json: not valid JSON .'{name}' is twice in one object.; make"):
        read_json(path)


def test_the_same_name_in_different_objects_is_fine(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": {"a": [{"a": 1}, {"a": 1}]}}, {"a": 1}]')
    assert read_json(tmp_path / "x.json")[1] == {"a": 1}


def test_looking_for_repeats_costs_little(tmp_path):
    """450 000 texts are read; most of the time is the parser's own."""
    texts = {str(image): {"explanations": ["a red boat"] * 6, "emotions": ["awe"] * 6} for image in range(4_000)}
    write_json(tmp_path / "x.json", texts)

    def fastest(read: Callable) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            read()
            times.append(time.perf_counter() - start)
        return min(times)

    plain = fastest(lambda: json.loads((tmp_path / "x.json").read_bytes()))
    assert fastest(lambda: read_json(tmp_path / "x.json")) < 3 * plain + 0.05


# ---- pickles that would fill the memory or the stack -----------------------------------------------------------------

BOMBS = {
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 10**6 + b".",
    "tuples in tuples as a key": b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s.",
    "a tuple doubled": b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.",
    "a list doubled by the memo": b"\x80\x02]q\x00" + b"(h\x00h\x00e" * 60 + b".",
    "a frame of 6 GiB": b"\x80\x04\x95" + struct.pack("<Q", 6 << 30) + b"N.",
    "bytes of 6 GiB": b"\x80\x04\x8e" + struct.pack("<Q", 6 << 30) + b"N.",
    "an integer of a megabyte": b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b".",
    "a far place in the memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "an empty stack": b"\x80\x02\x86.",
    "a mark that is not there": b"\x80\x02Nt.",
    "below a mark": b"\x80\x02N(\x85.",
    "no end": b"\x80\x02N",
}


def in_zip(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)


def in_legacy_file(path: Path, pickled: bytes) -> None:
    head = (LEGACY_MAGIC, LEGACY_PROTOCOL, {"protocol_version": LEGACY_PROTOCOL, "little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps([], 2))


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickle_bombs_are_refused_at_once(tmp_path, alarm, bomb):
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[bomb])
    with pytest.raises(InputError, match="bomb: damaged"):
        load_vocabulary(path)
    for put in (in_zip, in_legacy_file):
        put(path, BOMBS[bomb])
        for read in (read_torch_file, read_module_tensors):
            with pytest.raises(InputError, match="bomb: (torn|damaged)"):
                read(path)


def test_too_many_objects(tmp_path, monkeypatch):
    assert MOST_OPCODES <= 10**7
    monkeypatch.setattr("utils.data.pickle_limits.MOST_OPCODES", 1000)
    path = tmp_path / "many"
    in_zip(path, pickle.dumps(list(range(300)), 2))
    assert read_torch_file(path) == list(range(300))
    in_zip(path, pickle.dumps(list(range(1000)), 2))
    with pytest.raises(InputError, match="more than 1000 objects"):
        read_torch_file(path)


@pytest.mark.parametrize("protocol", range(6))
def test_limits_leave_every_usual_pickle_alone(tmp_path, protocol):
    values = {
        "a": [1, 2.5, None, True, 2**70, -1],
        "b": ("x", b"y", {"é": ()}),
        "c": [[[[]]]],
        "d": {1, 2},
        "e": [[]] * 9,
    }
    values["f"] = values["a"]
    with open(tmp_path / "usual", "wb+") as file:
        pickle.dump(values, file, protocol)
        file.seek(0)
        check_limits(file)
        assert file.tell() == 0


# ---- torch files -----------------------------------------------------------------------------------------------------


def same(ours: object, theirs: object) -> bool:
    if isinstance(theirs, torch.Tensor):
        return (ours.dtype, ours.shape, ours.stride()) == (
            theirs.dtype,
            theirs.shape,
            theirs.stride(),
        ) and ours.equal(theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and len(ours) == len(theirs) and all(map(same, ours, theirs))
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_hold_what_torch_reads_from_them(tmp_path, zipped):
    module = nn_with_states()
    torch.save(module, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_torch_file(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True))


def nn_with_states() -> dict:
    """The kinds of values in checkpoints: states of a module, of AdamW and of its schedule, plain values, views."""
    linear = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    shared = torch.arange(12).view(3, 4)
    return {
        "model": linear.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1.0).state_dict(),
        "plain": [1, 2.5, None, True, "x", (1, 2), {3: []}],
        "views": [shared, shared.t(), shared[1:, 2:], shared],
        "kinds": [torch.empty(0, 3), torch.tensor(3.0), torch.ones(2).half(), torch.ones(2).bfloat16(), shared > 3],
    }


@pytest.mark.parametrize("elements", [0, 5, 7, 2**40, -1])
def test_a_storage_of_another_length_is_refused(tmp_path, elements):
    """torch.load believes the length, and reads past the storage's end."""
    path = tmp_path / "x.pt"
    torch.save({"w": torch.arange(6.0)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = members["x/data.pkl"]
    said = pickle.dumps(elements, 2)[2:-1]
    assert pickled.count(b"K\x06t") == 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, pickled.replace(b"K\x06t", said + b"t") if name == "x/data.pkl" else content)
    with pytest.raises(InputError, match="x.pt: torn, altered or unsafe"):
        read_torch_file(path)


def test_archives_that_grow_are_refused(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="compressed"):
        read_torch_file(path)
