"""The array cache: arrays come back as they were written; a damaged file or another key is noticed."""

import numpy as np
import pytest

from utils.data.array_cache import load_or_compute, read_arrays, write_arrays

ARRAYS = [np.arange(3), np.float32(0.5), np.array([[7, 8]], np.uint8), np.zeros((0, 3), np.int32)]


@pytest.mark.parametrize("count", range(len(ARRAYS) + 1))
def test_arrays_come_back(tmp_path, count):
    write_arrays(tmp_path / "a.npy", b"key", ARRAYS[:count])
    found = read_arrays(tmp_path / "a.npy", b"key")
    assert [array.dtype for array in found] == [array.dtype for array in ARRAYS[:count]]
    assert all(np.array_equal(*pair) for pair in zip(found, ARRAYS[:count], strict=True))
    assert read_arrays(tmp_path / "a.npy", b"another key") is None


def test_computed_once_and_again_when_damaged(tmp_path, capsys):
    calls = []

    def load() -> list:
        (values,) = load_or_compute(tmp_path, "x", b"key", lambda: calls.append(1) or [ARRAYS[0]])
        return values.tolist()

    assert load() == load() == [0, 1, 2] and len(calls) == 1
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for count, damaged in enumerate((b"", whole[:-1], whole[:140] + b"\x01" + whole[141:]), start=2):
        path.write_bytes(damaged)
        assert load() == [0, 1, 2] and len(calls) == count and path.read_bytes() == whole
        assert capsys.readouterr().out == f"{path}: damaged; recreating it\n"
