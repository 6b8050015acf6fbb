"""utils.inspect: statistics of splits, their images, and the page of random records."""

import json

import pytest
from PIL import Image

from utils import inspect
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import read_records
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer


def test_inspect(workspace, tmp_path, capsys):
    val, test = (str(workspace.data / f"artEmisX_{split}.json") for split in ("val", "test"))
    more = ["--image_root", str(workspace.data / IMAGE_FOLDERS[0]), "--max_seq_len", "20", "--number", "5"]
    more += ["--vad_lexicon", str(workspace.data / "demo-VAD-Lexicon.txt")]
    inspect.main([val, test, *more, "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")])
    facts = json.loads((tmp_path / "a.json").read_text())
    of_val, images = facts["splits"][val], len(read_records(val))
    assert of_val["images"] == of_val["image_files"]["found"] == images and 0 < of_val["lexicon"]["known"] < 1
    shown, cut = capsys.readouterr().out, of_val["tokens"]["cut"]
    assert "share 0 images" in shown and f"{cut} ({cut / of_val['explanations']:.1%}) are cut at 20" in shown
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg") == 5
    assert f"5 of {images + facts['splits'][test]['images']} images" in page


def test_tokens_are_counted_as_in_training(workspace):
    records = read_records(workspace.data / "artEmisX_val.json")
    codec = TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 60)
    emotions = [emotion for record in records.values() for emotion in record["emotions"]]
    texts = [text for record in records.values() for text in record["explanations"]]
    lengths = (codec.encode(emotions, texts).input_ids != codec.pad_id).sum(axis=1)
    assert inspect.text_lengths(records).tolist() == lengths.tolist()
    tokens = inspect.split_facts(records, int(lengths.max()) - 1)["tokens"]
    assert tokens["cut"] == (lengths == lengths.max()).sum() and tokens["max"] == lengths.max()


def record(name: str, emotions: list[str], explanations: list[str], majority: float = 0.6) -> dict:
    texts = {"emotions": emotions, "explanations": explanations, "image_name": name}
    return texts | {"origin_emotion_distribution": [majority, 1 - majority, *[0.0] * 7]}


def test_facts_by_hand():
    records = {
        "1": record("a/x.jpg", ["awe", "awe", "fear"], ["a", "a", "b"]),  # one of three pairs agrees
        "2": record("a/y.jpg", ["awe", "fear"], ["c", "b"], majority=0.5),  # none of one
        "3": record("b/z.jpg", ["anger"], ["d"]),
    }
    facts = inspect.split_facts(records, 30)
    assert (facts["images"], facts["explanations"], facts["explanations_per_image"], facts["repeated"]) == (3, 6, 2, 2)
    assert facts["agreement"] == pytest.approx((1 / 3 + 0) / 2) and facts["majority"] == pytest.approx(2 / 3)
    assert facts["emotions"] == dict.fromkeys(EMOTIONS, 0) | {"awe": 3 / 6, "fear": 2 / 6, "anger": 1 / 6}
    assert inspect.split_facts({"3": records["3"]}, 30)["agreement"] is None
    renamed = {"9": record("a/x.png", ["awe"], ["b"]), "8": record("new.jpg", ["awe"], ["new"])}
    assert inspect.overlaps({"p": records, "q": renamed, "r": {}}) == [
        {"splits": ["p", "q"], "images": 1, "explanations": 1},
        {"splits": ["p", "r"], "images": 0, "explanations": 0},
        {"splits": ["q", "r"], "images": 0, "explanations": 0},
    ]
    words = {"1": record("a.jpg", ["awe"], ["The sky, the sea and the BOAT!"])}
    found = inspect.lexicon_coverage(words, {"sky", "the"}.__contains__)
    assert found == {"words": 7, "known": 4 / 7, "unknown": ["sea", "and", "boat"]}


def test_sizes_of_images(tmp_path):
    for name, size in (("a.jpg", (40, 30)), ("b.jpg", (20, 60)), ("c.jpg", (50, 50))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "d.jpg").write_bytes(b"<html>")
    records = {str(n): record(f"{name}.jpg", ["awe"], ["a"]) for n, name in enumerate("abcde", 1)}
    assert inspect.image_sizes(records, tmp_path) == {
        **{"found": 3, "missing": 1, "unreadable": 1},
        **{"longer_side": [40, 50, 60], "shorter_side": [20, 30, 50]},
    }
