"""Check every image before training starts, so that a run does not stop at a damaged file after hours."""

import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from utils.data.image_folder import ImageFolder, Picture, picture_at, shorten
from utils.data.image_opening import open_image
from utils.environment import cores
from utils.errors import InputError, escaped
from utils.files import read_json, write_json
from utils.processes import leave_signals_to_parent

PATCH = 16  # pixels; side of a patch of ViT-B/16
PART = 64  # images that a process checks at a time: handing them over one by one takes longer than reading a small one
ALONE = 256  # up to so many images one process checks alone
# Processes that open images: so many more than there are cores, as those that wait for a disk need none; and at most.
BEYOND_CORES, MOST_OPENERS = 4, 32


class Verdict(NamedTuple):
    """What is wrong with an image (None: nothing); its name and size if it is smaller than a patch."""

    problem: str | None
    small: str | None = None


def check_images(
    image_ids: Sequence[int | str],
    image_names: Sequence[str],
    folder: ImageFolder,
    skip_bad: bool,
    cache_dir: Path | None,
    source: Path,
) -> list[Picture | None]:
    """Look for every image of a split, and open those that are not known to be readable.

    Pictures smaller than one patch are named in a line; like all, they are stretched to the encoder's square.

    Images that were readable are remembered by path, size and modification time, and not opened again in later runs.

    Args:
        image_ids, image_names: of the records of one split, N each.
        folder: where the images are.
        skip_bad: give None for a bad image, whose record the caller leaves out, instead of raising an error.
        cache_dir: folder of the file that remembers readable images; None: remember nothing.
        source: the JSON file of the records, for messages.

    Returns:
        for each of the N images its file, or None if it cannot be read.

    Raises:
        InputError: an image is missing or unreadable and `skip_bad` is False; or no record is left.
    """
    memory = None
    if cache_dir is not None:
        root = hashlib.sha256(str(folder.root.resolve()).encode()).hexdigest()[:16]
        memory = Path(cache_dir) / f"images-{root}.json"
    good = _remembered(memory)
    looking = tqdm(image_names, "looking for images", unit="image", leave=False)
    found = [_look(folder, image_name) for image_name in looking]
    stamps = [None if isinstance(picture, str) else _stamp(folder, picture) for picture in found]
    unknown = [index for index, stamp in enumerate(stamps) if stamp is not None and stamp not in good]
    fresh: set[str] = set()
    small: list[str] = []
    opened = _open_all([found[index].path for index in unknown])
    progress = tqdm(opened, "checking images", len(unknown), unit="image", leave=False)
    try:
        for index, verdict in zip(unknown, progress, strict=True):
            found[index] = verdict.problem or found[index]
            if verdict.problem is None:
                fresh.add(stamps[index])
            if verdict.small is not None:
                small.append(verdict.small)
    finally:  # also after Ctrl-C: the next run goes on from here
        if memory is not None and fresh:
            seen = good | fresh
            write_json(memory, {"good": sorted(seen), "sha256": _hash(seen)})
    pictures = [None if isinstance(picture, str) else picture for picture in found]
    problems = [
        f"record {image_id}: {problem}"
        for image_id, problem in zip(image_ids, found, strict=True)
        if isinstance(problem, str)
    ]
    if problems and not skip_bad:
        raise InputError(
            f"{source}: {problems[0]} ({len(problems)} bad images in all); repair them, see "
            "preprocess/resize_wikiart.py's manifest, or give --skip_bad_images"
        )
    if len(problems) == len(found):
        raise InputError(f"{source}: none of its {len(found)} images can be read; is {folder.root} the right folder?")
    if small:
        print(
            escaped(f"{source}: {len(small)} pictures are smaller than one patch and are stretched, e.g. {min(small)}")
        )
    if problems:
        print(f"{source}: left out {len(problems)} records with bad images, e.g. {problems[0]}")
    return pictures


def _look(folder: ImageFolder, image_name: str) -> Picture | str:
    """An image's file, or what is wrong."""
    try:
        path = folder.locate(image_name)
        if path is None:
            doubt = folder.look_up(image_name).doubt
            return f"no image {shorten(image_name)} under {folder.root}{f' ({doubt})' if doubt else ''}"
    except InputError as error:  # the name points outside the folder
        return str(error)
    try:
        return picture_at(path)
    except OSError as error:
        return f"{path}: {error.strerror}"


def _stamp(folder: ImageFolder, picture: Picture) -> str:
    """The line that identifies a file in the memory."""
    name = os.fsencode(str(picture.path).removeprefix(os.path.join(folder.root, "")))
    return f"{name.decode('utf-8', 'backslashreplace')} {picture.size} {picture.mtime_ns}"


def _open_all(paths: list[str | Path]) -> Iterator[Verdict]:
    """The verdicts on images, in order. Many are opened by several processes: threads would wait for each other.

    Whoever leaves the iterator early cancels what has not begun.
    """
    if len(paths) <= ALONE:
        yield from map(_open, paths)
        return
    fork = "fork" if "fork" in multiprocessing.get_all_start_methods() else None  # others would import everything anew
    workers = min(cores() + BEYOND_CORES, MOST_OPENERS)
    done = 0
    with ProcessPoolExecutor(workers, multiprocessing.get_context(fork), leave_signals_to_parent) as pool:
        try:
            for verdict in pool.map(_open, paths, chunksize=PART):
                yield verdict
                done += 1
        except BrokenProcessPool:
            raise InputError(
                f"{shorten(paths[done])} or one of the next {workers * PART} images: the process that opened it was killed, "
                "perhaps for want of memory; start again (good images are not opened a second time), or leave that image out"
            ) from None


def _open(path: str | Path) -> Verdict:
    try:
        # decoding a JPEG at an eighth of its size is enough to check it
        size = open_image(path, draft_size=64).size
    except InputError as error:
        return Verdict(str(error))
    return Verdict(None, f"{shorten(path, 300)} ({size[0]} x {size[1]} pixels)" if min(size) < PATCH else None)


def _remembered(memory: Path | None) -> set[str]:
    if memory is None or not memory.is_file():
        return set()
    try:
        kept = read_json(memory)
        good = set(kept["good"])
        if kept["sha256"] == _hash(good):
            return good
    except (InputError, KeyError, TypeError, UnicodeEncodeError):
        pass
    print(f"{memory}: damaged or of another version; checking every image again", flush=True)
    return set()


def _hash(stamps: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(stamps)).encode()).hexdigest()
