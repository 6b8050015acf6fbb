"""The training split as arrays: the same annotations as in the file, kept for the next run, never another file's."""

import json
import shutil

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data import records as training_records
from utils.data.array_cache import keep, read_kept
from utils.data.records import TrainingRecords, join_texts, read_training_records, split_texts
from utils.errors import InputError

TEXTS = ["the sky", "naïve — “so” 画\n\t", "a\x00b", " <pad> ", "ÿ\xff", "x" * 5000]


def shares(place: int) -> list[float]:
    return [0.75 if index == place else 0.03125 for index in range(9)]


@pytest.fixture
def split() -> dict:
    """Three images with three, one and two annotations, image names with and without accents."""
    names = ["Baroque/a.jpg", "Art_Nouveau/émile\u0301.jpg", "Baroque/画 (1).jpg"]
    rows = [slice(0, 3), slice(3, 4), slice(4, 6)]
    emotions = ["awe", "something else", "awe", "fear", "contentment", "anger"]
    return {
        image_id: {
            "emotions": emotions[part],
            "explanations": TEXTS[part],
            "image_name": name,
            "origin_emotion_distribution": shares(place),
        }
        for place, (image_id, name, part) in enumerate(zip(("5", str(2**62), "17"), names, rows, strict=True))
    }


@pytest.fixture
def file(split, tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(split))
    return path


def as_split(records: TrainingRecords) -> dict:
    """The JSON split that arrays stand for."""
    texts = split_texts(records.explanations)
    spans = [slice(*records.first_row[index : index + 2]) for index in range(len(records))]
    return {
        str(image_id): {
            "emotions": [EMOTIONS[place] for place in records.emotions[span]],
            "explanations": texts[span],
            "image_name": name,
            "origin_emotion_distribution": distribution,
        }
        for image_id, name, distribution, span in zip(
            records.image_ids.tolist(), records.image_names, records.distributions.tolist(), spans, strict=True
        )
    }


def test_arrays_hold_what_the_file_holds(split, file, tmp_path):
    assert as_split(read_training_records(file, None)) == split
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    assert as_split(TrainingRecords.of(split)) == split


@pytest.mark.parametrize("texts", [[], [""], ["", "a", ""], TEXTS])
def test_joined_texts_are_split_again(texts):
    assert split_texts(join_texts(texts)) == texts


@pytest.mark.parametrize("kept", [[True, False, True], [False, True, False], [True, True, True]])
def test_some_of_the_images(split, kept):
    rest = {image_id: record for (image_id, record), is_kept in zip(split.items(), kept, strict=True) if is_kept}
    some = TrainingRecords.of(split).only(np.array(kept))
    assert as_split(some) == rest
    expected = TrainingRecords.of(rest)
    assert some.explanations == expected.explanations and some.first_row.tolist() == expected.first_row.tolist()


def test_a_file_is_parsed_once(split, file, tmp_path, monkeypatch, capsys):
    """What is kept is read while the file has the same bytes, wherever it lies; damage is noticed."""
    cache, parsed, parse = tmp_path / "cache", [], training_records.parse_records
    monkeypatch.setattr(training_records, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    for number in range(3):
        assert as_split(read_training_records(file, cache)) == split and len(parsed) == 1, number
    elsewhere = shutil.copy(file, tmp_path / "copy.json")
    assert as_split(read_training_records(elsewhere, cache)) == split and len(parsed) == 1
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    for damage in (b"", whole[:-1], whole[:200] + b"\x01" + whole[201:]):
        kept.write_bytes(damage)
        assert as_split(read_training_records(file, cache)) == split and kept.read_bytes() == whole
        assert capsys.readouterr().out == f"{kept}: damaged; recreating it\n"
    monkeypatch.setattr(training_records, "EMOTIONS", EMOTIONS[::-1])
    read_training_records(file, cache)
    assert len(parsed) == 5 and len(list(cache.iterdir())) == 2  # places in another list are other emotions
    monkeypatch.undo()
    monkeypatch.setattr(training_records, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    split["5"]["explanations"][0] = "the sea"
    file.write_text(json.dumps(split))
    parsed.clear()
    assert as_split(read_training_records(file, cache)) == split and len(parsed) == 1
    assert len(list(cache.iterdir())) == 3 and capsys.readouterr().out == ""


def test_every_kept_array_comes_back(tmp_path):
    """Small ones, too, and an empty one at the end."""
    arrays = [np.arange(3), np.float32(0.5), np.array([[7, 8]], np.uint8), np.zeros((0, 3), np.int32)]
    for count in range(len(arrays) + 1):
        keep(tmp_path / "kept.npy", b"key", *arrays[:count])
        found = read_kept(tmp_path / "kept.npy", b"key")
        assert [array.dtype for array in found] == [array.dtype for array in arrays[:count]]
        assert all(np.array_equal(*pair) for pair in zip(found, arrays[:count], strict=True))
        assert read_kept(tmp_path / "kept.npy", b"another key") is None


def test_whole_files_of_other_arrays_are_made_anew(split, file, tmp_path, capsys):
    """They bear the right hash; no run writes them, but none is to train on them."""
    read_training_records(file, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    key = training_records.cache_key(file.read_bytes())
    ids, distributions, first, emotions, names, texts = arrays = read_kept(kept, key)
    damages = {
        "fewer arrays": arrays[:-1],
        "another type": [ids.astype(np.int32), *arrays[1:]],
        "no image": [array[:0] for array in (ids, distributions)] + [first[:1]] + [array[:0] for array in arrays[3:]],
        "a number for an array": [ids[0], *arrays[1:]],
        "fewer shares": [ids, distributions[:, :8], *arrays[2:]],
        "an image without annotations": [ids, distributions, np.array([0, 3, 3, 6]), emotions, names, texts],
        "an image's rows less": [ids, distributions, np.array([0, 3, 6]), emotions, names, texts],
        "rows from the second on": [ids, distributions, np.array([1, 3, 4, 6]), emotions, names, texts],
        "rows beyond the last": [ids, distributions, np.array([0, 3, 4, 7]), emotions, names, texts],
        "a tenth emotion": [ids, distributions, first, emotions + 9, names, texts],
        "a name less": [ids, distributions, first, emotions, names[:14], texts],
        "a text less": [ids, distributions, first, emotions, names, texts[8:]],
    }
    for what, wrong in damages.items():
        keep(kept, key, *wrong)
        assert as_split(read_training_records(file, tmp_path / "cache")) == split, what
        assert capsys.readouterr().out == f"{kept}: damaged; recreating it\n", what


def test_a_bad_file_is_refused_and_nothing_kept(split, file, tmp_path):
    split["17"]["emotions"][1] = "joy"
    file.write_text(json.dumps(split))
    with pytest.raises(InputError, match=f"{file}: record '17': unknown emotion 'joy'"):
        read_training_records(file, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
