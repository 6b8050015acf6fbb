"""The pictures that a command line names: files, and folders of them."""

import os
from pathlib import Path

from utils.data.image_names import EXTENSIONS
from utils.errors import InputError, brief


def list_pictures(places: list[Path]) -> list[Path]:
    """Files as they are named, and the pictures in folders and the folders below them, sorted; each once.

    In a folder a file is a picture by its suffix; hidden ones are passed over. Nothing is opened.

    Raises:
        InputError: nothing is there under a name, or a folder holds no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
            pictures = sorted(path for path in inside if path.suffix.lower() in EXTENSIONS and path.name[0] != ".")
            if not pictures:
                raise InputError(f"{brief(place)}: no picture in this folder ({', '.join(EXTENSIONS)}); name another")
            found += pictures
        elif os.path.lexists(place):
            found.append(place)
        else:
            raise InputError(f"{brief(place)}: no such picture or folder; check the name")
    return list(dict.fromkeys(found))
