"""Lists of the images in folders, as users name them on a command line."""

import os
from collections.abc import Iterator
from pathlib import Path

from utils.data.image_names import EXTENSIONS, is_system_file
from utils.errors import InputError, brief


def image_files(folder: Path, within: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """The images in a folder and the folders below it, in the order of their paths. Nothing is opened.

    A file is an image by its suffix; hidden and system files are left out (`is_system_file`). Links are followed, but
    not to a folder that holds them. A link that leads nowhere counts as an image if it has an image's suffix, or, as a
    folder's would, none at all.

    Args:
        folder: where to look.
        within: device and inode of the folders around it.

    Raises:
        OSError: a folder cannot be listed.
    """
    status = os.stat(folder)
    place = (status.st_dev, status.st_ino)
    if place in within:
        return
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if is_system_file(name):
            continue
        if os.path.isdir(path):
            yield from image_files(path, within | {place})
        elif path.suffix.lower() in EXTENSIONS and os.path.isfile(path):
            yield path
        elif path.suffix.lower() in ("", *EXTENSIONS) and not os.path.exists(path):
            yield path


def list_pictures(places: list[Path]) -> list[Path]:
    """Files as they are named, and the images in folders (see `image_files`); each once.

    Raises:
        InputError: nothing is there under a name, or a folder holds no image.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            images = list(image_files(place))
            if not images:
                raise InputError(f"{brief(place)}: no picture in this folder ({', '.join(EXTENSIONS)}); name another")
            found += images
        elif os.path.lexists(place):
            found.append(place)
        else:
            raise InputError(f"{brief(place)}: no such picture or folder; check the name")
    return list(dict.fromkeys(found))
