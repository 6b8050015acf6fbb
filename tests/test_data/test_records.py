"""The training split as arrays: the same annotations as in the file, cached for the next run, never another file's."""

import json
import shutil

from utils.constants import EMOTIONS
from utils.data import records as records_module
from utils.data.records import TrainingRecords, read_training_records, split_texts


def image(name: str, emotions: list[str], texts: list[str]) -> dict:
    distribution = [0.75 if place == len(texts) else 0.03125 for place in range(9)]
    record = {"emotions": emotions, "explanations": texts, "image_name": name}
    return record | {"origin_emotion_distribution": distribution}


# with texts and names of all kinds
SPLIT = {
    "5": image("Baroque/a.jpg", ["awe", "something else", "awe"], ["the sky", "naïve — “so” 画\n\t", "a\x00b"]),
    str(2**62): image("Art_Nouveau/émile\u0301.jpg", ["fear"], [" <pad> "]),
    "17": image("Baroque/画 (1).jpg", ["contentment", "anger"], ["ÿ\xff", "x" * 5000]),
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


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    """The cached arrays are read while the file has the same bytes, wherever it lies, and the emotions their order."""
    file, cache, parsed, parse = tmp_path / "train.json", tmp_path / "cache", [], records_module.parse_records
    file.write_text(json.dumps(SPLIT))
    assert as_split(read_training_records(file, None)) == SPLIT and not cache.exists()
    monkeypatch.setattr(records_module, "parse_records", lambda *args: parsed.append(args[1]) or parse(*args))
    for path in (file, file, shutil.copy(file, tmp_path / "copy.json")):
        assert as_split(read_training_records(path, cache)) == SPLIT and parsed == [file]
    with monkeypatch.context() as patch:  # indices into another list are other emotions
        patch.setattr(records_module, "EMOTIONS", EMOTIONS[::-1])
        read_training_records(file, cache)
    other = SPLIT | {"5": SPLIT["17"]}
    file.write_text(json.dumps(other))
    assert as_split(read_training_records(file, cache)) == other
    assert len(parsed) == len(list(cache.iterdir())) == 3
