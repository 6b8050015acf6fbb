"""Paths that are not a readable file, and JSON objects that have a name twice."""

import os

import pytest

from utils.errors import InputError
from utils.files import read_json


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to("absent"), "no such file"),
        (lambda path: os.mkfifo(path), "is a pipe, socket or device"),
    ],
    ids=["missing", "folder", "dangling", "pipe"],
)
def test_paths_that_are_not_a_file(tmp_path, make, message):
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"1": {},\n "1": {}}', "1"),
        ('{"1": {"a": 1, "b": {"a": 1}, "a": 2}}', "a"),
        ('[{"x": 1}, {"x": 2, "\\u0078": 3}]', "x"),
    ],
    ids=["records", "fields", "escaped"],
)
def test_a_name_twice_is_refused(tmp_path, text, name):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"x.json: not valid JSON .'{name}' is twice in one object.; make"):
        read_json(path)


def test_the_same_name_in_different_objects_is_fine(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": {"a": [{"a": 1}, {"a": 1}]}}, {"a": 1}]')
    assert read_json(tmp_path / "x.json")[1] == {"a": 1}
