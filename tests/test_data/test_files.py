"""Reading JSON: paths that are not a readable file, texts that are not JSON, names that are twice in an object."""

import os

import pytest

from utils.errors import InputError
from utils.files import read_json

PATHS = {
    "no such file": lambda path: path.symlink_to("absent"),
    "is a folder": lambda path: path.mkdir(),
    "is a pipe, socket or device": os.mkfifo,
}


@pytest.mark.parametrize(("message", "make"), PATHS.items(), ids=PATHS)
def test_paths_that_are_not_a_file(tmp_path, message, make):
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=f"x.json: {message}"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"1": {},\n "1": {}}', "not valid JSON .'1' is twice in one object.; make"),
        (b'{"1": {"a": 1, "b": {"a": 1}, "a": 2}}', "'a' is twice in one object"),
        (b'[{"x": 1}, {"x": 2, "\\u0078": 3}]', "'x' is twice in one object"),
        (b'["\xe9"]', "not UTF-8 text .byte 2.; save the file as UTF-8"),
        (b'{"a": ', "not valid JSON .Expecting value"),
    ],
)
def test_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=f"x.json: .*{message}"):
        read_json(tmp_path / "x.json")


def test_the_same_name_in_different_objects_is_fine(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": {"a": [{"a": 1}, {"a": 1}]}}, {"a": 1}]')
    assert read_json(tmp_path / "x.json")[1] == {"a": 1}
