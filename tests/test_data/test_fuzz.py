"""Damaged and invented files: every reader gives a clean result or an InputError of one line, never anything else."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cococaption import read_annotations, read_results
from preprocess.build_splits import read_annotations as read_csv_annotations
from preprocess.build_splits import read_distributions
from preprocess.csv_tables import read_table
from preprocess.prepare_artemis import read_release
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.data.vad_lexicon import read_lexicon
from utils.errors import InputError
from utils.evaluation.tables import read_report
from utils.files import read_json, sha256
from utils.training.checkpoints import load_named
from utils.training.resume import load_state, save_state

pytestmark = pytest.mark.slow

# no example database: the repository stays as it is; the same examples on every run
fuzz = settings(
    deadline=None, max_examples=80, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

RECORD = {
    "emotions": ["awe", "fear"],
    "explanations": ["the sky is dark", "a café"],
    "image_name": "Baroque/p1.jpg",
    "origin_emotion_distribution": [0.25, 0.75, 0, 0, 0, 0, 0, 0, 0],
}
RECORDS = json.dumps({"12": RECORD, "9223372036854775807": RECORD}).encode()
ANNOTATIONS = json.dumps(
    {"images": [{"id": 5}], "annotations": [{"id": 1, "image_id": 5, "caption": "a red boat"}]}
).encode()
RESULTS = b'[{"image_id": 5, "caption": "a boat"}]'
LEXICON = b"term\tvalence\tarousal\tdominance\nsky\t0.9\t0.4\t0.5\ncaf\xc3\xa9\t-0.25\t0.5\t0.4\n"
RELEASE = (
    b'art_style,painting,emotion,utterance,repetition\nBaroque,p1,awe,"the sky, and more",5\nBaroque,p2,fear,dark,6\n'
)
HISTOGRAM = b'art_style,painting,emotion_histogram\nBaroque,p1,"[0.0, 2.0, 0, 0, 0, 0, 1.0, 0, 0]"\n'
NETS = b"art_style,painting,emotion,repetition,split,utterance_spelled\nBaroque,p1,awe,5,train,the sky\n"


@st.composite
def damaged(draw, original: bytes) -> bytes:
    """`original` with one to five bytes or stretches changed, cut off, put in or taken out."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(("change", "cut", "insert", "remove", "repeat")))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place:]
        elif kind == "insert":
            pieces = st.sampled_from(
                (b"\0", b'"', b"[", b"{", b"\n", b"\t", b",", b"NaN", b"1e999", b"\xff", b"\\ud800")
            )
            content[place:place] = draw(pieces | st.binary(max_size=6))
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 20))]
        else:
            content[place:place] = content[place : place + draw(st.integers(1, 60))]
    return bytes(content)


def outcome(read: Callable, content: bytes, name: str = "file") -> object:
    """What a reader makes of a file of this content, or None when it refuses it as it should."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return refused_or(lambda: read(path), str(path))


def refused_or(read: Callable, named: str) -> object:
    try:
        return read()
    except InputError as error:
        message = str(error)
        assert named in message and message.isprintable() and len(message) < len(named) * 2 + 700
        return None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def records(draw) -> bytes:
    """Splits in which any field of any record may be of any kind."""
    content = {}
    for key in draw(st.lists(st.sampled_from(("1", "12", "007", "-3", "x", "")) | st.text(max_size=20), max_size=3)):
        content[key] = dict(RECORD)
        for field in draw(st.lists(st.sampled_from(list(RECORD)), max_size=2)):
            texts = st.lists(st.sampled_from((*EMOTIONS, "joy", "")) | json_values, max_size=3)
            shares = st.lists(st.floats() | st.integers() | st.booleans(), min_size=8, max_size=10)
            content[key][field] = draw(json_values | texts | shares)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def check_records(found: dict | None) -> None:
    for image_id, record in (found or {}).items():
        assert 0 < int(image_id) < 2**63 and str(int(image_id)) == image_id
        assert 1 <= len(record["emotions"]) == len(record["explanations"])
        assert set(record["emotions"]) <= set(EMOTIONS)
        assert all(text.encode().strip() for text in record["explanations"])
        assert record["image_name"].encode()
        shares = record["origin_emotion_distribution"]
        assert len(shares) == 9 and min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-3


@fuzz
@given(records() | damaged(RECORDS) | json_values.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_records(content):
    check_records(outcome(read_records, content))


def test_good_files_pass():
    """Else refusing everything would do."""
    assert len(outcome(read_records, RECORDS)) == 2
    assert len(outcome(read_annotations, ANNOTATIONS)) == len(outcome(read_results, RESULTS)) == 1
    assert len(outcome(read_lexicon, LEXICON).values) == 2
    assert len(outcome(read_release, RELEASE)) == 2
    assert len(outcome(read_distributions, HISTOGRAM)) == len(outcome(in_v1, NETS)) == 1


@fuzz
@given(st.binary() | st.text().map(str.encode) | damaged(RECORDS))
def test_json(content):
    outcome(read_json, content)


@fuzz
@given(damaged(ANNOTATIONS) | json_values.map(lambda value: json.dumps(value).encode()))
def test_annotations(content):
    for image_id, captions in (outcome(read_annotations, content) or {}).items():
        assert -(2**63) <= image_id < 2**63 and captions and all(caption.encode() is not None for caption in captions)


@fuzz
@given(damaged(RESULTS) | json_values.map(lambda value: json.dumps([value]).encode()))
def test_results(content):
    for image_id, caption in (outcome(read_results, content) or {}).items():
        assert -(2**63) <= image_id < 2**63 and caption.encode() is not None


@fuzz
@given(damaged(b'{"test_set": "v1.0", "seed": 3, "scores": {"sub_acc": 0.5}}'))
def test_reports(content):
    scores = (outcome(read_report, content) or {"scores": {}})["scores"]
    assert all(isinstance(value, int | float) for value in scores.values())


@fuzz
@given(damaged(RELEASE) | st.binary())
def test_tables(content):
    table = outcome(lambda path: read_table(path, ["art_style", "utterance"], "mend it"), content)
    if table is not None:
        assert list(table.columns) == ["art_style", "utterance"] and len(table)
        assert all(type(cell) is str for row in table.itertuples(index=False) for cell in row)


@fuzz
@given(damaged(RELEASE))
def test_release(content):
    table = outcome(read_release, content)
    assert table is None or (
        set(table["emotion"]) <= set(EMOTIONS) and pd.api.types.is_integer_dtype(table["repetition"])
    )


def in_v1(path: Path) -> pd.DataFrame:
    return read_csv_annotations(path, "v1")


@fuzz
@given(damaged(NETS))
def test_preprocessed_annotations(content):
    table = outcome(in_v1, content)
    assert table is None or set(table["split"]) <= {"train", "val", "test", "rest"}


@fuzz
@given(damaged(HISTOGRAM))
def test_histograms(content):
    for shares in (outcome(read_distributions, content) or {}).values():
        assert len(shares) == 9 and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-6


lines = st.lists(st.lists(st.text(max_size=5) | st.floats().map(str), max_size=5).map("\t".join), max_size=5)


@fuzz
@given(damaged(LEXICON) | lines.map(lambda found: "\n".join(found).encode("utf-8", "replace")) | st.binary())
def test_lexicon(content):
    lexicon = outcome(read_lexicon, content)
    if lexicon is not None:
        assert lexicon.values and all(-1 <= value <= 1 for entry in lexicon.values.values() for value in entry)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> dict[str, bytes]:
    """A checkpoint without a manifest in its three files, as bytes; tensors of a few numbers."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file({"lm.weight": torch.arange(6.0).view(2, 3)}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"n_embd": 4, "len_prefix": 0}))
    torch.save({"epoch": 3, "best_acc": 0.5, "emo_encoder_state_dict": {"w": torch.ones(3)}}, folder / "stats.tar")
    names = {"model.safetensors": "nle_model_a/model.safetensors", "config.json": "nle_model_a/config.json"}
    return {names.get(path.name, "ckpt_stats_a.tar"): path.read_bytes() for path in folder.iterdir()}


def written(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@fuzz
@given(data=st.data())
def test_named_checkpoint_with_its_manifest(checkpoint, data):
    """With a manifest a changed file is refused: none but the original gets through."""
    name = data.draw(st.sampled_from(sorted(checkpoint)))
    content = data.draw(damaged(checkpoint[name]))
    with tempfile.TemporaryDirectory() as folder:
        written(checkpoint, Path(folder))
        hashes = {Path(file).name: sha256(Path(folder) / file) for file in checkpoint}
        (Path(folder) / "nle_model_a/manifest.json").write_text(json.dumps({"sha256": hashes}))
        written({name: content}, Path(folder))
        found = refused_or(lambda: load_named(folder, "a"), folder)
    assert (found is None) == (content != checkpoint[name])


@fuzz
@given(data=st.data())
def test_manifest(checkpoint, data):
    with tempfile.TemporaryDirectory() as folder:
        written(checkpoint, Path(folder))
        hashes = {Path(file).name: sha256(Path(folder) / file) for file in checkpoint}
        manifest = data.draw(damaged(json.dumps({"sha256": hashes}).encode()))
        (Path(folder) / "nle_model_a/manifest.json").write_bytes(manifest)
        refused_or(lambda: load_named(folder, "a"), folder)


@fuzz
@given(data=st.data())
def test_states(data):
    """Of two states the newest whole one is taken, whichever file is damaged; of two damaged ones none is."""
    with tempfile.TemporaryDirectory() as folder:
        for step in (1, 2):
            save_state(Path(folder), 0, step, {"step": step}, {})
        files = sorted((Path(folder) / "resume").glob("*/*"))
        chosen = data.draw(st.sets(st.integers(0, len(files) - 1), min_size=1))
        changed = set()
        for path in (files[index] for index in sorted(chosen)):
            content = path.read_bytes()
            path.write_bytes(data.draw(damaged(content)))
            if path.read_bytes() != content:
                changed.add(path)
        broken = {path.parent for path in changed if path.suffix == ".pt"}
        try:
            found, notes = load_state(Path(folder))
        except InputError as error:
            assert len({path.parent for path in changed}) == 2 and str(error).isprintable()
            return
        assert len(broken) < 2 and len(notes) < 2
        assert found.state == {"step": 1 if notes else 2}
