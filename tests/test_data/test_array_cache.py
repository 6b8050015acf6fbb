"""The array cache: arrays come back as they were written; a damaged file or another key is noticed."""

import numpy as np

from utils.data.array_cache import load_or_compute


def test_computed_once_for_each_key_and_again_when_damaged(tmp_path, capsys):
    computed = []

    def load(kind: str = "x", key: bytes = b"key", folder=tmp_path) -> list:
        (values,) = load_or_compute(folder, kind, key, lambda: computed.append(kind) or [np.frombuffer(key, np.uint8)])
        return bytes(values)

    assert load() == load() == b"key" and computed == ["x"]
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for count, damaged in enumerate((b"", whole[:-1], whole[:130] + b"\x01" + whole[131:]), start=2):
        path.write_bytes(damaged)
        assert load() == b"key" and len(computed) == count and path.read_bytes() == whole
        assert capsys.readouterr().out == f"{path}: damaged; recreating it\n"
    assert load(key=b"other") == load(key=b"other") == b"other" and load("y") == b"key" == load()
    assert load(folder=None) == load(folder=None) == b"key" and computed[4:] == ["x", "y", "x", "x"]
    assert len(list(tmp_path.iterdir())) == 3 and capsys.readouterr().out == ""
