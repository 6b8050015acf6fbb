"""`python -m cococaption` and a training refuse files that cannot be scored with one line, and write nothing."""

import json

import pytest

from cococaption.__main__ import main
from tests.bad_input import (
    ANNOTATIONS,
    BRACKETS,
    check_accepted,
    check_refused,
    check_refused_in_shell,
    check_training_refused,
)

GOOD = f"--annotations {ANNOTATIONS} --results results.json --metrics bleu"

# content of results.json -> message
RESULTS = {
    BRACKETS: "results.json: JSON nested too deeply",
    '[{"image_id": 21, "caption": "\\ud800"}]': "results.json: record 0: caption: .*half a character.*repair",
    '[{"image_id": 5, "caption": "a"}]': f"{ANNOTATIONS}: lacks 1 of the images.*same split",
}


@pytest.mark.parametrize(("content", "message"), RESULTS.items(), ids=["brackets", "half a character", "other images"])
def test_results(box, content, message):
    box.write("results.json", content)
    check_refused(box, main, GOOD, message)


# command line -> message
ARGV = {
    GOOD.replace(ANNOTATIONS, "gone.json"): "gone.json: no such file",
    GOOD.replace("results.json", "gone.json"): "gone.json: no such file",
    f"{GOOD} --json data": "data: is a folder; give the name of a file",
    f"{GOOD} --json vit/config.json/out.json": "vit/config.json",
    f"{GOOD} wer": "--metrics.*wer",
    f"{GOOD} --meteor_jvms 0": "--meteor_jvms: 0 is not between 1 and 32",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, f"{GOOD} --json out/scores.json")


def test_in_the_shell(box):
    box.write("results.json", BRACKETS)
    check_refused_in_shell(box, f"-m cococaption {GOOD}", "error: results.json: JSON nested too deeply")


def test_training_without_annotations(box):
    box.remove(ANNOTATIONS)
    check_training_refused(box, "--annFileExp .*no such file; make it with preprocess/build_annot")


def test_training_with_the_annotations_of_another_split(box):
    other = {"images": [{"id": 9}], "annotations": [{"id": 1, "image_id": 9, "caption": "a"}]}
    box.write(ANNOTATIONS, json.dumps(other))
    check_training_refused(box, f"{ANNOTATIONS}: lacks .*same split")
