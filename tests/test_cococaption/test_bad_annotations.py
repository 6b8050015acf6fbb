"""COCO annotations that a training cannot score with."""

import json

import pytest

from tests.bad_input import ANNOTATIONS, BRACKETS, check_training_refused

OTHER_SPLIT = json.dumps(
    {"info": {}, "licenses": [], "type": "captions", "images": [{"id": 9}]}
    | {"annotations": [{"id": 1, "image_id": 9, "caption": "a"}]}
)

# what -> (content, message)
CONTENTS = {
    "brackets": (BRACKETS, f"{ANNOTATIONS}: JSON nested too deeply"),
    "no object": ("[]", f"{ANNOTATIONS}: .*build_annotations"),
    "another split": (OTHER_SPLIT, f"{ANNOTATIONS}: lacks .*same split"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_content(box, content, message):
    box.write(ANNOTATIONS, content)
    check_training_refused(box, message)


def test_annotation_without_caption(box):
    box.json(ANNOTATIONS, lambda content: content["annotations"][1].pop("caption"))
    check_training_refused(box, rf"{ANNOTATIONS}: annotations\[1\]: has no 'caption'.*build_annot")


def test_no_file(box):
    box.remove(ANNOTATIONS)
    check_training_refused(box, "--annFileExp .*no such file; make it with preprocess/build_annot")
