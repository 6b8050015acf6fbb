"""The inputs of a run: wrong records, images and lexicons are refused, bad images left out, in time and in order."""

import numpy as np
import pytest

import artEmisX_train
from tests.bad_input import (
    ANNOTATIONS,
    LEXICON,
    SHARES,
    TRAIN,
    VAL,
    check_training_refused,
    content,
    record,
    removed,
    replaced,
    train_argv,
    unchanged,
)
from utils.command_line import check_paths, parse_args
from utils.data.load_inputs import Inputs, read_inputs
from utils.data.records import TrainingRecords
from utils.errors import InputError

IMAGE, VAD = "data/images/Baroque/p1.jpg", "data/NRC-VAD-Lexicon.txt"

# what -> (change, flags, message)
FILES = {
    "an id twice": (content(VAL, '{"1": {}, "1": {}}'), "", f"{VAL}: not valid JSON .'1' is twice in one object.;"),
    "not UTF-8": (content(VAL, b'["\xe9"]'), "", f"{VAL}: not UTF-8 text .byte 2.; save the file as UTF-8"),
    "a number for a record": (content(TRAIN, '{"12": 3}'), "", f"{TRAIN}: record '12': is not a JSON object"),
    "an empty record": (content(TRAIN, '{"12": {}}'), "", f"{TRAIN}: record '12': has no 'emotions'"),
    "no image": (
        removed(IMAGE),
        "",
        f"{TRAIN}: record 12: no image .*p1.jpg under .*1 missing in all.*--image_root.*--skip_bad",
    ),
    "no readable image": (removed("data/images/Baroque"), "--skip_bad_images", "none of its . images can be .*right f"),
    "no image folder": (removed("data/images"), "", "no image folder found: looked for .*--image_root"),
    "no lexicon": (removed(VAD), "", "no VAD lexicon found.*--vad_lexicon.*saifmohammad.com"),
    "folder for a lexicon": (unchanged, "--vad_lexicon data", "--vad_lexicon data: .*saifmohammad.com"),
    "empty lexicon": (content(VAD, ""), "", f"{VAD}: holds no line.*saifmohammad"),
    "lexicon in 1..9": (content(VAD, "sky\t7\t2\t5\n"), "", f"{VAD}: line 1: value outside -1..1"),
    "lexicon with NaN": (content(VAD, f"{LEXICON}sea\tnan\t0\t0\n"), "", f"{VAD}: line 4: value outside"),
    "lexicon of words": (content(VAD, f"{LEXICON}sea\thi\t0\t0\n"), "", f"{VAD}: line 4: .*not three numbers; corr"),
    "lexicon in latin-1": (content(VAD, b"\xe9\t1\t0\t0\n"), "", f"{VAD}: not UTF-8 text.*saifmohammad"),
    "no annotations": (removed(ANNOTATIONS), "", "--annFileExp .*no such file; make it with preprocess/build_annot"),
    "annotations of another split": (
        replaced(ANNOTATIONS, ": 21", ": 22", 3),
        "",
        f"{ANNOTATIONS}: lacks 1 images of {VAL}, 21 for one; .*same split",
    ),
}


@pytest.mark.parametrize(("change", "flags", "message"), FILES.values(), ids=FILES)
def test_wrong_files(box, change, flags, message):
    change(box)
    check_training_refused(box, message, flags)


NINE = "not a list of 9 probabilities"

# what -> (fields of record 12, message)
RECORDS = {
    "unequal lists": ({"emotions": ["awe"]}, "1 emotions but 2 explanations"),
    "emotions no list": ({"emotions": "awe"}, "must be lists"),
    "no annotations": ({"emotions": [], "explanations": []}, "has no annotations"),
    "unknown emotion": ({"emotions": ["awe", "joy"]}, "unknown emotion 'joy' .*sadness"),
    "empty explanation": ({"explanations": ["a", " \n"]}, "explanation 1 is empty"),
    "explanation is null": ({"explanations": ["a", None]}, "explanation 1"),
    "eight probabilities": ({"origin_emotion_distribution": SHARES[:8]}, NINE),
    "sum of 1.002": ({"origin_emotion_distribution": [0.5, 0.502] + [0] * 7}, "sums to 1.002, not"),
    "sum of 0.998": ({"origin_emotion_distribution": [0.5, 0.498] + [0] * 7}, "sums to 0.998, not"),
    "NaN": ({"origin_emotion_distribution": [float("nan")] + SHARES[1:]}, NINE),
    "negative probability": ({"origin_emotion_distribution": [-0.5, 0.5, 1] + [0] * 6}, NINE),
    "probability as text": ({"origin_emotion_distribution": ["1"] + [0] * 8}, NINE),
    "image name is empty": ({"image_name": ""}, "image_name is empty"),
}


@pytest.mark.parametrize(("fields", "message"), RECORDS.values(), ids=RECORDS)
def test_wrong_records(box, fields, message):
    box.json(TRAIN, lambda records: records["12"].update(fields))
    check_training_refused(box, f"{TRAIN}: record '12': .*{message}.*build_splits.py")


@pytest.mark.parametrize("image_id", ["abc", "-12", "0", "012", str(2**63)])
def test_wrong_image_ids(box, image_id):
    box.json(TRAIN, lambda records: records.update({image_id: record(1)}))
    check_training_refused(box, f"{TRAIN}: record .*: the image id is not a positive 63-bit integer.*build_splits.py")


def test_an_unreadable_image_ends_the_training_with_one_line(box):
    box.write(IMAGE, (box / IMAGE).read_bytes()[:300])
    with pytest.raises(InputError, match="p1.jpg: unreadable image.*--skip_bad_images"):
        artEmisX_train.main(train_argv())


def read(box, flags: str = "") -> Inputs:
    args = parse_args(train_argv(flags))
    check_paths(args)
    return read_inputs(args)


def test_bad_images_are_left_out_of_all_inputs(box, capsys):
    """A bad image of either split: its record, annotations and name are gone; p0 is in both splits, p5 nowhere."""
    box.json(VAL, lambda records: records.update({"22": record(0), "23": record(5)}))
    box.write(IMAGE, b"not an image")
    inputs = read(box, "--skip_bad_images")
    assert list(inputs.records) == ["21", "22"]
    expected = TrainingRecords.from_records({"11": record(0), "13": record(2, ("anger", "awe", "awe"))})
    for field, values in vars(expected).items():
        assert np.array_equal(getattr(inputs.train, field), values), field
    assert inputs.image_names == [f"Baroque/p{index}.jpg" for index in (3, 0, 2)]
    printed = capsys.readouterr().out
    for split, index in ((VAL, 5), (TRAIN, 1)):
        assert f"{split}: left out 1 records whose image is missing or unreadable, e.g. Baroque/p{index}.jpg" in printed


def test_special_tokens_of_both_splits_are_reported(box, capsys):
    read(box)
    assert "special tokens" not in capsys.readouterr().out
    for split, image_id in ((VAL, "21"), (TRAIN, "12")):
        texts = ["ÿ a <pad> b<prefix>", "<pad><b> pad"]
        box.json(split, lambda records, key=image_id, texts=texts: records[key].update(explanations=texts))
    for flags, reading in (("", "control tokens"), ("--plain_special_tokens", "ordinary text")):
        read(box, flags)
        printed = capsys.readouterr().out
        for split in (VAL, TRAIN):
            assert f"{split}: 3 special tokens inside explanations (2 <pad>, 1 <prefix>): read as {reading}" in printed


def test_one_id_for_two_images_is_refused(box):
    """Features are cached by name, and the name is found by the id."""
    box.json(VAL, lambda records: records.update({"12": record(3)}))
    message = f"{TRAIN}: record 12: is Baroque/p1.jpg, but Baroque/p3.jpg in {VAL}; give every"
    with pytest.raises(InputError, match=message):
        read(box)


def test_one_emotion_where_pairs_are_needed(box, monkeypatch):
    """It is refused before tens of thousands of images are opened."""
    monkeypatch.setattr("utils.data.load_inputs.images_found", None)
    box.json(TRAIN, lambda records: records["13"].update(emotions=["awe", "awe", "awe"]))
    message = f"{TRAIN}: record 13: all its explanations have one emotion.*artEmisX_cl_train.json.*--no-use_cl_loss"
    with pytest.raises(InputError, match=message):
        read(box)
    with pytest.raises(TypeError):  # without the contrastive loss the images come next
        read(box, "--no-use_cl_loss")
