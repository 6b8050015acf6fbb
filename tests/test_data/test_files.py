"""Reading JSON: paths that are not a readable file, texts that are not JSON, names that are twice in an object."""

import os

import pytest

from utils.errors import InputError
from utils.files import read_json

# what is wrong -> how such a file is made
FILES = {
    "no such file": lambda path: path.symlink_to("absent"),
    "is a folder": lambda path: path.mkdir(),
    "is a pipe, socket or device": os.mkfifo,
    "not valid JSON .'1' is twice in one object.; make": b'{"1": {},\n "1": {}}',
    "'a' is twice in one object": b'{"1": {"a": 1, "b": {"a": 1}, "a": 2}}',
    "'x' is twice in one object": b'[{"x": 1}, {"x": 2, "\\u0078": 3}]',
    "not UTF-8 text .byte 2.; save the file as UTF-8": b'["\xe9"]',
    "not valid JSON .Expecting value": b'{"a": ',
}


@pytest.mark.parametrize(("message", "content"), FILES.items(), ids=FILES)
def test_refused(tmp_path, message, content):
    path = tmp_path / "x.json"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    with pytest.raises(InputError, match=f"x.json: .*{message}"):
        read_json(path)


def test_the_same_name_in_different_objects_is_fine(tmp_path):
    (tmp_path / "x.json").write_text('[{"a": {"a": [{"a": 1}, {"a": 1}]}}, {"a": 1}]')
    assert read_json(tmp_path / "x.json")[1] == {"a": 1}
