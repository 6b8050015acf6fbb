"""Training files that are no records."""

import json

import pytest

from tests.bad_input import ANNOTATIONS, BRACKETS, SHARES, TRAIN, VAL, check_training_refused, record

RECORD = f"{TRAIN}: record '?12'?: .*"
ANEW = ".*build_splits.py"
NINE = f"{RECORD}not a list of 9 numbers"

# what -> (field of record 12, value, message)
FIELDS = {
    "unequal lists": ("emotions", ["awe"], f"{RECORD}1 emotions but 2 explanations{ANEW}"),
    "no annotations of an image": ("emotions", [], f"{RECORD}0 emotions but 2"),
    "emotions no list": ("emotions", "awe", f"{RECORD}must be lists{ANEW}"),
    "unknown emotion": ("emotions", ["awe", "joy"], f"{RECORD}unknown emotion 'joy' .*sadness{ANEW}"),
    "emotion in capitals": ("emotions", ["awe", "Fear"], f"{RECORD}unknown emotion 'Fear'"),
    "emotion is a list": ("emotions", ["awe", ["fear"]], f"{RECORD}unknown emotion"),
    "one emotion where pairs are asked for": (
        "emotions",
        ["awe", "awe"],
        f"{TRAIN}: record 12.*artEmisX_cl_train.json.*--no-use_cl_loss",
    ),
    "empty explanation": ("explanations", ["a", " \n"], f"{RECORD}explanation 1 is empty{ANEW}"),
    "explanation is null": ("explanations", ["a", None], f"{RECORD}explanation 1{ANEW}"),
    "half a character": ("explanations", ["a", "b\ud800"], f"{RECORD}explanation 1 .*half a character"),
    "eight shares": ("origin_emotion_distribution", SHARES[:8], f"{NINE}{ANEW}"),
    "shares sum to 2": ("origin_emotion_distribution", [0.5] * 4 + [0] * 5, f"{RECORD}sums to 2, not{ANEW}"),
    "NaN share": ("origin_emotion_distribution", [float("nan")] + SHARES[1:], f"{RECORD}non-finite{ANEW}"),
    "negative share": ("origin_emotion_distribution", [-0.5, 1.5] + [0] * 7, f"{RECORD}negative{ANEW}"),
    "shares as text": ("origin_emotion_distribution", ["1"] + [0] * 8, NINE),
    "shares as booleans": ("origin_emotion_distribution", [True] + [0] * 8, f"{RECORD}not a list of 9"),
    "image name is empty": ("image_name", "", f"{RECORD}image_name is empty{ANEW}"),
    "image name is a number": ("image_name", 3, f"{RECORD}image_name"),
}


@pytest.mark.parametrize(("field", "value", "message"), FIELDS.values(), ids=FIELDS)
def test_field(box, field, value, message):
    box.json(TRAIN, lambda records: records["12"].update({field: value}))
    check_training_refused(box, message)


def test_annotations_of_another_split(box):
    def renumber(annotations):
        for entry in annotations["images"]:
            entry["id"] = 22
        for entry in annotations["annotations"]:
            entry["image_id"] = 22

    box.json(ANNOTATIONS, renumber)
    check_training_refused(box, f"{ANNOTATIONS}: lacks 1 images of {VAL}, 21 for one; .*same split")


def test_missing_field(box):
    box.json(TRAIN, lambda records: records["12"].pop("image_name"))
    check_training_refused(box, f"{RECORD}has no 'image_name'")


def test_record_is_a_number(box):
    box.json(TRAIN, lambda records: records.update({"12": 3}))
    check_training_refused(box, f"{RECORD}JSON object{ANEW}")


IDS = {
    "of letters": "abc",
    "negative": "-12",
    "of 64 bits": str(2**63),
    "of 5000 digits": "1" * 5000,
    "in Arabic digits": "١٢",
    "empty": "",
    "zero": "0",
    "with a leading zero": "012",
    "with a newline": "12\n",
}


@pytest.mark.parametrize("image_id", IDS.values(), ids=IDS)
def test_image_id(box, image_id):
    box.json(TRAIN, lambda records: records.update({image_id: record(1)}))
    check_training_refused(box, f"{TRAIN}: record .*: the image id is not a positive 63-bit integer{ANEW}")


def with_share(number: str) -> str:
    """A file of one record, with a number that Python would not write."""
    return '{"12": ' + json.dumps(record(1)).replace("0.75", number) + "}"


# what -> (content of the training file, message)
FILES = {
    "no records": ("{}", f"{TRAIN}: holds no records; {ANEW}"),
    "list of records": ("[1]", f"{TRAIN}: a JSON object of image id -> record{ANEW}"),
    "infinite share": (with_share("1e999"), f"{RECORD}non-fin"),
    "integer beyond floats": (with_share("9" * 999), RECORD),
    "deep brackets": (BRACKETS, f"{TRAIN}: JSON nested too deeply.*make the file again"),
    "truncated JSON": ('{"12": {"emotions": ["awe"', f"{TRAIN}: not valid JSON.*line 1.*make the file"),
    "empty JSON": ("", f"{TRAIN}: not valid JSON"),
    "latin-1 JSON": ('{"12": "é"}'.encode("latin-1"), f"{TRAIN}: not UTF-8 text.*save the file as UTF-8"),
    "binary JSON": (bytes(range(256)), f"{TRAIN}: not "),
    "integer of 5000 digits": ("1" * 5000, f"{TRAIN}: not valid JSON.*make the file again"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_file(box, content, message):
    box.write(TRAIN, content)
    check_training_refused(box, message)


def test_validation_file_of_deep_objects(box):
    box.write(VAL, '{"a":' * 100_000)
    check_training_refused(box, f"{VAL}: JSON nested too deeply")


def test_training_file_is_a_folder(box):
    check_training_refused(box, "data: ", "--nle_data_train_path data")


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_no_file(box, name):
    box.remove(name)
    check_training_refused(box, f"{name}: no such file; make it with preprocess/build_splits")
