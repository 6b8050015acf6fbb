"""The inputs of a run: which images are left out, what is refused, and in which order."""

import pytest

from cococaption import CaptionScorer
from tests.bad_input import TRAIN, VAL, record, train_argv
from utils.command_line import check_paths, parse_args
from utils.data.load_inputs import Inputs, read_inputs
from utils.data.records import TrainingRecords, split_texts
from utils.errors import InputError


def read(box, flags: str = "") -> Inputs:
    args = parse_args(train_argv(flags))
    check_paths(args)
    return read_inputs(args)


def test_bad_images_are_left_out_of_all_inputs(box, capsys):
    """A bad image of either split: its record, annotations, name and file are gone."""
    box.json(
        VAL, lambda records: records.update({"22": record(0), "23": record(5)})
    )  # p0 is in both splits, p5 nowhere
    box.write("data/images/Baroque/p1.jpg", b"not an image")
    inputs = read(box, "--skip_bad_images")
    assert list(inputs.records) == ["21", "22"]
    expected = TrainingRecords.from_records({"11": record(0), "13": record(2, ("anger", "awe", "awe"))})
    assert inputs.train.image_ids.tolist() == [11, 13] and inputs.train.image_names == expected.image_names
    assert inputs.train.emotions.tolist() == expected.emotions.tolist()
    assert split_texts(inputs.train.explanations) == split_texts(expected.explanations)
    assert inputs.image_names == [f"Baroque/p{index}.jpg" for index in (3, 0, 2)]
    printed = capsys.readouterr().out
    assert f"{VAL}: left out 1 records whose image is missing or unreadable, e.g. Baroque/p5.jpg" in printed
    assert f"{TRAIN}: left out 1 records whose image is missing or unreadable, e.g. Baroque/p1.jpg" in printed


def test_special_tokens_of_both_splits_are_reported(box, capsys):
    for split, image_id in ((VAL, "21"), (TRAIN, "12")):
        box.json(
            split, lambda records, key=image_id: records[key]["explanations"].__setitem__(0, "ÿ a <pad> b<prefix>")
        )
    read(box)
    printed = capsys.readouterr().out
    for split in (VAL, TRAIN):
        assert f"{split}: 2 special tokens inside explanations (1 <pad>, 1 <prefix>)" in printed


def test_one_id_for_two_images_is_refused(box):
    """Features are cached by name, and the name is found by the id."""
    box.json(VAL, lambda records: records.update({"12": record(3)}))
    with pytest.raises(
        InputError, match=f"{TRAIN}: record 12: is Baroque/p1.jpg, but Baroque/p3.jpg in {VAL}; give every"
    ):
        read(box)


def test_one_emotion_is_refused_before_images_are_opened(box, monkeypatch):
    """Opening tens of thousands of images takes a while; a file that is wrong anyway is refused before."""
    monkeypatch.setattr("utils.data.load_inputs.images_found", None)
    box.json(TRAIN, lambda records: records["12"].update(emotions=["awe", "awe"]))
    with pytest.raises(InputError, match=f"{TRAIN}: record 12: all its explanations have one emotion"):
        read(box)
    with pytest.raises(TypeError):  # without the contrastive loss the images come next
        read(box, "--no-use_cl_loss")


def test_missing_references_are_refused_before_images_are_opened(box, monkeypatch):
    monkeypatch.setattr("utils.data.load_inputs.images_found", None)
    args = parse_args(train_argv(""))
    check_paths(args)
    scorer = CaptionScorer(args.annFileExp, ["bleu"], args.cache_dir)
    del scorer.references[21]
    with pytest.raises(InputError, match=f"lacks 1 images of {VAL}, 21 for one"):
        read_inputs(args, scorer)
