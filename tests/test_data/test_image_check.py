"""Every image is opened once; what was found good is remembered, unless the memory is damaged."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from utils.data import image_check
from utils.data.image_check import check_images
from utils.data.image_folder import ImageFolder
from utils.errors import InputError


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the images that were opened."""
    names = []
    open_image = image_check.open_image
    monkeypatch.setattr(
        image_check, "open_image", lambda path, **more: names.append(Path(path).name) or open_image(path, **more)
    )
    return names


def readable(*args) -> list[bool]:
    return [picture is not None for picture in check_images(*args)]


def test_memory(tmp_path, opened, capsys):
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / f"{name}.png")

    def look() -> list[str]:
        opened.clear()
        folder = ImageFolder(tmp_path / "images")
        check_images("ab", ["a.png", "b.png"], folder, False, tmp_path / "cache", tmp_path / "split.json")
        return sorted(opened)

    assert look() == ["a.png", "b.png"] and look() == []
    Image.new("RGB", (17, 16)).save(tmp_path / "images" / "a.png")
    assert look() == ["a.png"]
    (memory,) = (tmp_path / "cache").iterdir()
    whole = json.loads(memory.read_text())
    assert capsys.readouterr().out == ""
    damages = [whole["good"], whole | {"good": whole["good"][1:]}, whole | {"sha256": 1}, {}, whole | {"good": [1]}, 7]
    for damage in [json.dumps(damage) for damage in damages] + ["", "{", memory.read_text().replace("b.png", "c.png")]:
        memory.write_text(damage)
        assert look() == ["a.png", "b.png"], damage
        assert capsys.readouterr().out.startswith(
            f"{memory}: damaged or of another version; checking every image again"
        )
        assert look() == []


def test_names_that_are_no_utf8_are_remembered(tmp_path, monkeypatch, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / os.fsdecode("café.jpg".encode("latin-1")))
    check = (["1"], ["café.jpg"], ImageFolder(tmp_path / "images"), False, tmp_path / "cache", Path("train.json"))
    assert readable(*check) == [True]
    said = capsys.readouterr().out
    assert said.startswith("train.json: 1 pictures are smaller than one patch and are stretched, e.g. ")
    assert said.endswith("jpg (8 x 6 pixels)\n") and said.encode()
    monkeypatch.setattr(image_check, "open_image", lambda *args, **kwargs: pytest.fail("looked at twice"))
    assert readable(*check) == [True]


def test_pipes_and_monstrous_names_are_one_line_each(tmp_path, capsys):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["a.jpg", "pipe.jpg", "b" * 300, "c" * 1_000_000]
    for index, problem in enumerate(("no image pipe.jpg", "no image bbb", "is too long"), start=1):
        with pytest.raises(InputError, match=f"record {index}: .*{problem}") as refusal:
            check_images([str(index)], [names[index]], ImageFolder(tmp_path), False, None, Path("train.json"))
        assert len(str(refusal.value)) < 600
    found = readable(range(4), names, ImageFolder(tmp_path), True, None, Path("train.json"))
    assert found == [True, False, False, False]
    assert "left out 3 records" in capsys.readouterr().out


@pytest.mark.parametrize("part", [1, 2, 3, 100])
def test_every_record_keeps_its_own_verdict(tmp_path, monkeypatch, capsys, part):
    """However the pictures are divided; what is remembered is told by its place below the folder."""
    monkeypatch.setattr(image_check, "PART", part)
    folder = tmp_path / "images"
    (folder / "style").mkdir(parents=True)
    names = [f"style/{number}.png" for number in range(7)]
    for name in names:
        Image.new("RGB", (16, 16)).save(folder / name)
    (folder / names[2]).unlink()
    (folder / names[5]).write_bytes(b"no picture")
    found = readable(range(7), names, ImageFolder(folder), True, tmp_path / "cache", Path("train.json"))
    assert found == [number not in (2, 5) for number in range(7)]
    assert "left out 2 records with bad images, e.g. record 2: no image style/2.png" in capsys.readouterr().out
    (memory,) = (tmp_path / "cache").iterdir()
    good = json.loads(memory.read_text())["good"]
    assert [line.split()[0] for line in good] == [names[number] for number in (0, 1, 3, 4, 6)]


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    (tmp_path / "style").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("utils.data.image_folder.os.scandir", refuse)
    with pytest.raises(PermissionError):
        check_images(["1"], ["style/a.png"], ImageFolder(tmp_path), True, None, Path("train.json"))


def test_splits_of_one_folder_share_a_memory(tmp_path, opened):
    for name in "ab":
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    for expected in (["a.png", "b.png"], []):
        opened.clear()
        for name in ("a.png", "b.png"):
            check_images(["1"], [name], ImageFolder(tmp_path), False, tmp_path / "cache", Path("split.json"))
        assert opened == expected


def test_a_file_that_goes_while_it_is_looked_at_is_a_bad_image(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    monkeypatch.setattr(image_check, "picture_at", lambda path: os.stat(f"{path}.gone"))
    with pytest.raises(InputError, match=f"train.json: record 1: {tmp_path / 'a.png'}: No such file"):
        check_images(["1"], ["a.png"], ImageFolder(tmp_path), False, None, Path("train.json"))


def pictures_in(folder: Path, number: int) -> list[str]:
    names = [f"{index}.png" for index in range(number)]
    for name in names:
        Image.new("RGB", (16, 16)).save(folder / name)
    return names


def test_several_processes_say_what_one_says(tmp_path, monkeypatch, capsys):
    names = pictures_in(tmp_path, 20)
    (tmp_path / names[3]).write_bytes(b"no picture")
    (tmp_path / names[11]).unlink()
    Image.new("RGB", (20, 6)).save(tmp_path / names[17])
    said = []
    for alone in (100, 0):
        monkeypatch.setattr(image_check, "ALONE", alone)
        monkeypatch.setattr(image_check, "PART", 3)
        found = readable(range(20), names, ImageFolder(tmp_path), True, None, Path("train.json"))
        assert found == [number not in (3, 11) for number in range(20)]
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "1 pictures are smaller" in said[0] and "left out 2 records" in said[0]


@pytest.mark.parametrize("alone", [100, 0])
def test_an_interrupted_check_goes_on_where_it_was(tmp_path, monkeypatch, alone):
    """In one process, and in several."""
    (tmp_path / "images").mkdir()
    names = pictures_in(tmp_path / "images", 20)
    monkeypatch.setattr(image_check, "ALONE", alone)
    monkeypatch.setattr(image_check, "PART", 2)
    checked = (range(20), names, ImageFolder(tmp_path / "images"), False, tmp_path / "cache", Path("train.json"))
    real = image_check.open_image

    def until_the_tenth(path, **more):
        if Path(path).name == "10.png":
            raise KeyboardInterrupt
        return real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(image_check, "open_image", until_the_tenth)
        with pytest.raises(KeyboardInterrupt):
            check_images(*checked)
    (memory,) = (tmp_path / "cache").iterdir()
    assert sorted(line.split()[0] for line in json.loads(memory.read_text())["good"]) == sorted(names[:10])
    monkeypatch.setattr(image_check, "ALONE", 100)
    opened = []
    monkeypatch.setattr(
        image_check, "open_image", lambda path, **more: opened.append(Path(path).name) or real(path, **more)
    )
    assert all(check_images(*checked)) and opened == names[10:]


def test_an_interruption_opens_no_more(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    names = pictures_in(tmp_path / "images", 200)
    monkeypatch.setattr(image_check, "ALONE", 0)
    monkeypatch.setattr(image_check, "PART", 1)
    opened = tmp_path / "opened"

    def interrupted(path, **more):
        with open(opened, "a") as file:
            file.write("x")
        time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(image_check, "open_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_images(range(200), names, ImageFolder(tmp_path / "images"), False, None, Path("train.json"))
    assert 1 <= len(opened.read_text()) < 100


def test_processes_leave_signals_to_the_script(tmp_path, monkeypatch):
    """Ctrl-C goes to all of them at once; each would print a traceback."""
    names = pictures_in(tmp_path, 2)
    monkeypatch.setattr(image_check, "ALONE", 0)

    def refuse(path, **more):
        raise InputError(f"{signal.getsignal(signal.SIGINT)!r} in a group of its own: {os.getpgrp() == os.getpid()}")

    monkeypatch.setattr(image_check, "open_image", refuse)
    with pytest.raises(InputError, match="SIG_IGN.*: True"):
        check_images(range(2), names, ImageFolder(tmp_path), False, None, Path("train.json"))


def test_a_process_that_is_killed_is_said(tmp_path, monkeypatch):
    """With the first image of the part it was at, as far as that is known."""
    names = pictures_in(tmp_path, 10)
    monkeypatch.setattr(image_check, "ALONE", 0)
    monkeypatch.setattr(image_check, "PART", 2)
    real = image_check.open_image

    def killed_at_the_seventh(path, **more):
        if Path(path).name == "7.png":
            time.sleep(0.5)  # meanwhile the others end
            os.kill(os.getpid(), signal.SIGKILL)
        return real(path, **more)

    monkeypatch.setattr(image_check, "open_image", killed_at_the_seventh)
    with pytest.raises(
        InputError, match="/6.png or one of the next [0-9]+ images: the process that opened it was killed"
    ):
        check_images(range(10), names, ImageFolder(tmp_path), True, None, Path("train.json"))
