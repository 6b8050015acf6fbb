"""`python -m cococaption`: results that cannot be scored, and bad command lines."""

import json

import pytest

from cococaption.__main__ import main
from tests.bad_input import ANNOTATIONS, BRACKETS, check_accepted, check_refused, check_refused_in_shell

GOOD = f"--annotations {ANNOTATIONS} --results results.json --metrics bleu"

# what -> (content of results.json, message behind its name)
RESULTS = {
    "brackets": (BRACKETS, "JSON nested too deeply"),
    "an object": ("{}", "a JSON list.*one record per image"),
    "no caption": ('[{"image_id": 21}]', "record 0: has no 'caption'; one record"),
    "id as text": ('[{"image_id": "21", "caption": "a"}]', "record 0: image_id: '21' is not a 64-bit"),
    "two captions": (
        json.dumps([{"image_id": 21, "caption": "a"}] * 2),
        "record 1: a second caption for image 21",
    ),
    "half a character": (
        '[{"image_id": 21, "caption": "\\ud800"}]',
        "record 0: caption: .*half a character.*repair",
    ),
    "line separator": (
        '[{"image_id": 21, "caption": "a\\u2028b"}]',
        "record 0: caption: .*U.2028; replace it by a space",
    ),
}


@pytest.mark.parametrize(("content", "message"), RESULTS.values(), ids=RESULTS)
def test_results(box, content, message):
    box.write("results.json", content)
    check_refused(box, main, GOOD, f"results.json: {message}")


def test_results_of_other_images(box):
    box.write("results.json", '[{"image_id": 5, "caption": "a"}]')
    check_refused(box, main, GOOD, f"{ANNOTATIONS}: lacks 1 of the images.*same split")


def test_no_results(box):
    box.remove("results.json")
    check_refused(box, main, GOOD, "results.json: no such file")


# command line -> message
ARGV = {
    GOOD.replace(ANNOTATIONS, "gone.json"): "gone.json: no such file",
    f"{GOOD} --json data": "data: is a folder; give the name of a file",
    f"{GOOD} --json vit/config.json/out.json": "vit/config.json",
    f"{GOOD} wer": "--metrics.*wer",
    f"{GOOD} --meteor_jvms 0": "--meteor_jvms: 0 is not between 1 and 32",
    f"{GOOD} --rouge": "--rouge",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, f"{GOOD} --json out/scores.json")


def test_in_the_shell(box):
    box.write("results.json", BRACKETS)
    check_refused_in_shell(box, f"-m cococaption {GOOD}", "error: results.json: JSON nested too deeply")
