"""The look at every image before training."""

import os
from pathlib import Path

import pytest
from PIL import Image

from utils.data import image_check
from utils.data.image_check import check_images
from utils.data.image_folder import ImageFolder
from utils.errors import InputError


def test_names_that_are_no_utf8_are_remembered(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / os.fsdecode("café.jpg".encode("latin-1")))
    records = {"1": {"image_name": "café.jpg"}}
    check = (records, ImageFolder(tmp_path / "images"), False, tmp_path / "cache", Path("train.json"))
    assert check_images(*check) == records
    monkeypatch.setattr(image_check, "open_image", lambda *args, **kwargs: pytest.fail("looked at twice"))
    assert check_images(*check) == records


def test_pipes_and_monstrous_names_are_one_line_each(tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["a.jpg", "pipe.jpg", "b" * 300, "c" * 1_000_000]
    records = {str(index): {"image_name": name} for index, name in enumerate(names)}
    for index, problem in enumerate(("no image pipe.jpg", "no image bbb", "is too long"), start=1):
        with pytest.raises(InputError, match=f"record {index}: .*{problem}") as refusal:
            check_images({str(index): records[str(index)]}, ImageFolder(tmp_path), False, None, Path("train.json"))
        assert len(str(refusal.value)) < 600
    assert list(check_images(records, ImageFolder(tmp_path), True, None, Path("train.json"))) == ["0"]
    assert "left out 3 records" in capsys.readouterr().out
