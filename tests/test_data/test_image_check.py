"""Every image is opened once; what was found good is remembered, unless the memory is damaged."""

import json

import pytest
from PIL import Image

from utils.data import image_check
from utils.data.image_check import check_images
from utils.data.image_files import ImageFolder


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the images that were opened."""
    names = []
    open_image = image_check.open_image
    monkeypatch.setattr(
        image_check, "open_image", lambda path, **more: names.append(path.name) or open_image(path, **more)
    )
    return names


def test_memory(tmp_path, opened, capsys):
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{name}.png")
    records = {name: {"image_name": f"{name}.png"} for name in "ab"}

    def look() -> list[str]:
        opened.clear()
        check_images(records, ImageFolder(tmp_path / "images"), False, tmp_path / "cache", tmp_path / "split.json")
        return sorted(opened)

    assert look() == ["a.png", "b.png"] and look() == []
    Image.new("RGB", (5, 4)).save(tmp_path / "images" / "a.png")
    assert look() == ["a.png"]
    (memory,) = (tmp_path / "cache").iterdir()
    whole = json.loads(memory.read_text())
    assert capsys.readouterr().out == ""
    damages = [whole["good"], whole | {"good": whole["good"][1:]}, whole | {"sha256": 1}, {}, whole | {"good": [1]}, 7]
    for damage in [json.dumps(damage) for damage in damages] + ["", "{", memory.read_text().replace("b.png", "c.png")]:
        memory.write_text(damage)
        assert look() == ["a.png", "b.png"], damage
        assert capsys.readouterr().out.startswith(f"{memory}: damaged or of another version: every image is looked at")
        assert look() == []
