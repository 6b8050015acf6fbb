"""The training split as arrays: the same annotations as in the file, cached for the next run, never another file's."""

import json
import shutil

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data import records as training_records
from utils.data.records import TrainingRecords, join_texts, read_training_records, split_texts
from utils.errors import InputError

TEXTS = ["the sky", "naïve — “so” 画\n\t", "a\x00b", " <pad> ", "ÿ\xff", "x" * 5000]


def distribution(place: int) -> list[float]:
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
            "origin_emotion_distribution": distribution(place),
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
    assert as_split(TrainingRecords.from_records(split)) == split


@pytest.mark.parametrize("texts", [[], [""], ["", "a", ""], TEXTS])
def test_joined_texts_are_split_again(texts):
    assert split_texts(join_texts(texts)) == texts


@pytest.mark.parametrize("mask", [[True, False, True], [False, True, False], [True, True, True]])
def test_selected_images(split, mask):
    rest = {image_id: record for (image_id, record), selected in zip(split.items(), mask, strict=True) if selected}
    some = TrainingRecords.from_records(split).select(np.array(mask))
    assert as_split(some) == rest
    expected = TrainingRecords.from_records(rest)
    assert some.explanations == expected.explanations and some.first_row.tolist() == expected.first_row.tolist()


def test_a_file_is_parsed_once(split, file, tmp_path, monkeypatch):
    """The cached arrays are read while the file has the same bytes, wherever it lies."""
    cache, parsed, parse = tmp_path / "cache", [], training_records.parse_records
    monkeypatch.setattr(training_records, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    for number in range(3):
        assert as_split(read_training_records(file, cache)) == split and len(parsed) == 1, number
    elsewhere = shutil.copy(file, tmp_path / "copy.json")
    assert as_split(read_training_records(elsewhere, cache)) == split and len(parsed) == 1
    monkeypatch.setattr(training_records, "EMOTIONS", EMOTIONS[::-1])
    read_training_records(file, cache)
    assert len(parsed) == 2 and len(list(cache.iterdir())) == 2  # indices into another list are other emotions
    monkeypatch.undo()
    monkeypatch.setattr(training_records, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    split["5"]["explanations"][0] = "the sea"
    file.write_text(json.dumps(split))
    parsed.clear()
    assert as_split(read_training_records(file, cache)) == split and len(parsed) == 1
    assert len(list(cache.iterdir())) == 3


def test_a_bad_file_is_refused_and_nothing_cached(split, file, tmp_path):
    split["17"]["emotions"][1] = "joy"
    file.write_text(json.dumps(split))
    with pytest.raises(InputError, match=f"{file}: record '17': unknown emotion 'joy'"):
        read_training_records(file, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
