"""The training split as arrays: the same annotations as in the file, cached for the next run, never another file's."""

import json
import shutil

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data import records as records_module
from utils.data.records import (
    TrainingRecords,
    read_training_records,
    split_texts,
    whole_training_split,
)

TEXTS = ["the sky", "naïve — “so” 画\n\t", "a\x00b", " <pad> ", "ÿ\xff", "x" * 5000]


@pytest.fixture
def split() -> dict:
    """Three images with three, one and two annotations, image names with and without accents."""
    images = {
        "5": ("Baroque/a.jpg", ["awe", "something else", "awe"], TEXTS[:3]),
        str(2**62): ("Art_Nouveau/émile\u0301.jpg", ["fear"], TEXTS[3:4]),
        "17": ("Baroque/画 (1).jpg", ["contentment", "anger"], TEXTS[4:]),
    }
    return {
        image_id: {
            "emotions": emotions,
            "explanations": texts,
            "image_name": name,
            "origin_emotion_distribution": [0.75 if index == place else 0.03125 for index in range(9)],
        }
        for place, (image_id, (name, emotions, texts)) in enumerate(images.items())
    }


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


@pytest.mark.parametrize("mask", [[True, False, True], [False, True, False], [True, True, True]])
def test_selected_images(split, mask):
    rest = {image_id: record for (image_id, record), selected in zip(split.items(), mask, strict=True) if selected}
    some = TrainingRecords.from_records(split).select(np.array(mask))
    assert as_split(some) == rest and len(some) == len(rest)
    assert [list(some.image_emotions(place)) for place in range(len(rest))] == [
        [EMOTIONS.index(emotion) for emotion in record["emotions"]] for record in rest.values()
    ]


def test_a_file_is_parsed_once(split, tmp_path, monkeypatch):
    """The cached arrays are read while the file has the same bytes, wherever it lies, and the emotions their order."""
    file, cache, parsed, parse = tmp_path / "train.json", tmp_path / "cache", [], records_module.parse_records
    file.write_text(json.dumps(split))
    assert as_split(read_training_records(file, None)) == split and not cache.exists()
    monkeypatch.setattr(records_module, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    for path in (file, file, shutil.copy(file, tmp_path / "copy.json")):
        assert as_split(read_training_records(path, cache)) == split and parsed == [file]
    with monkeypatch.context() as patch:  # indices into another list are other emotions
        patch.setattr(records_module, "EMOTIONS", EMOTIONS[::-1])
        read_training_records(file, cache)
    split["5"]["explanations"][0] = "the sea"
    file.write_text(json.dumps(split))
    assert as_split(read_training_records(file, cache)) == split
    assert len(parsed) == len(list(cache.iterdir())) == 3


def test_whole_training_split(tmp_path):
    pairs, whole = tmp_path / "artEmisX_cl_train.json", tmp_path / "artEmisX_train.json"
    assert whole_training_split(pairs) == pairs
    whole.touch()
    assert whole_training_split(pairs) == whole == whole_training_split(whole)
