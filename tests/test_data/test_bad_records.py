"""Training files with wrong records."""

import pytest

from tests.bad_input import ANNOTATIONS, SHARES, TRAIN, VAL, check_training_refused, record

RECORD = f"{TRAIN}: record '?12'?: .*"
REBUILD = ".*build_splits.py"
NINE = f"{RECORD}not a list of 9 probabilities"

# what -> (field of record 12, value, message)
FIELDS = {
    "unequal lists": ("emotions", ["awe"], f"{RECORD}1 emotions but 2 explanations{REBUILD}"),
    "emotions no list": ("emotions", "awe", f"{RECORD}must be lists{REBUILD}"),
    "unknown emotion": ("emotions", ["awe", "joy"], f"{RECORD}unknown emotion 'joy' .*sadness{REBUILD}"),
    "one emotion where pairs are asked for": (
        "emotions",
        ["awe", "awe"],
        f"{TRAIN}: record 12.*artEmisX_cl_train.json.*--no-use_cl_loss",
    ),
    "empty explanation": ("explanations", ["a", " \n"], f"{RECORD}explanation 1 is empty{REBUILD}"),
    "explanation is null": ("explanations", ["a", None], f"{RECORD}explanation 1{REBUILD}"),
    "eight probabilities": ("origin_emotion_distribution", SHARES[:8], f"{NINE}{REBUILD}"),
    "sum of 2": ("origin_emotion_distribution", [0.5] * 4 + [0] * 5, f"{RECORD}sums to 2, not{REBUILD}"),
    "NaN": ("origin_emotion_distribution", [float("nan")] + SHARES[1:], NINE),
    "negative probability": ("origin_emotion_distribution", [-0.5, 0.5, 1] + [0] * 6, NINE),
    "probabilities as text": ("origin_emotion_distribution", ["1"] + [0] * 8, NINE),
    "image name is empty": ("image_name", "", f"{RECORD}image_name is empty{REBUILD}"),
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
    check_training_refused(box, f"{RECORD}JSON object{REBUILD}")


IDS = {
    "of letters": "abc",
    "negative": "-12",
    "of 64 bits": str(2**63),
    "with a leading zero": "012",
}


@pytest.mark.parametrize("image_id", IDS.values(), ids=IDS)
def test_image_id(box, image_id):
    box.json(TRAIN, lambda records: records.update({image_id: record(1)}))
    check_training_refused(box, f"{TRAIN}: record .*: the image id is not a positive 63-bit integer{REBUILD}")


# what -> (content of the training file, message)
FILES = {
    "no records": ("{}", f"{TRAIN}: holds no records; {REBUILD}"),
    "list of records": ("[1]", f"{TRAIN}: a JSON object of image id -> record{REBUILD}"),
    "truncated JSON": ('{"12": {"emotions": ["awe"', f"{TRAIN}: not valid JSON.*line 1.*make the file"),
    "latin-1 JSON": ('{"12": "é"}'.encode("latin-1"), f"{TRAIN}: not UTF-8 text.*save the file as UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_file(box, content, message):
    box.write(TRAIN, content)
    check_training_refused(box, message)


def test_training_file_is_a_folder(box):
    check_training_refused(box, "data: ", "--nle_data_train_path data")


@pytest.mark.parametrize("name", [TRAIN, VAL])
def test_no_file(box, name):
    box.remove(name)
    check_training_refused(box, f"{name}: no such file; make it with preprocess/build_splits")
