"""Check every image before training starts, so that a run does not stop at a damaged file after hours."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from utils.data.image_folder import ImageFolder, shorten
from utils.data.image_opening import open_image
from utils.errors import InputError, escaped
from utils.files import read_json, write_json

PATCH = 16  # pixels; side of a patch of ViT-B/16
PART = 64  # images that a thread checks at a time: handing them over one by one takes longer than a look at a known one


def check_images(
    image_ids: Sequence[int | str],
    image_names: Sequence[str],
    folder: ImageFolder,
    skip_bad: bool,
    cache_dir: Path | None,
    source: Path,
) -> list[bool]:
    """Open every image of a split once.

    Pictures smaller than one patch are named in a line; like all, they are stretched to the encoder's square.

    Images that were readable are remembered by path, size and modification time, and not opened again in later runs.

    Args:
        image_ids, image_names: of the records of one split, N each.
        folder: where the images are.
        skip_bad: leave out records with a bad image instead of raising an error.
        cache_dir: folder of the file that remembers readable images; None: remember nothing.
        source: the JSON file of the records, for messages.

    Returns:
        whether each of the N images can be read.

    Raises:
        InputError: an image is missing or unreadable and `skip_bad` is False; or no record is left.
    """
    memory = None
    if cache_dir is not None:
        root = hashlib.sha256(str(folder.root.resolve()).encode()).hexdigest()[:16]
        memory = Path(cache_dir) / f"images-{root}.json"
    good = _remembered(memory)

    prefix = os.path.join(folder.root, "")

    def problem_of(image_name: str) -> tuple[str | None, str]:
        """What is wrong with an image (None: nothing), and the line that identifies its file in the memory."""
        try:
            path = folder.exact(image_name) or folder.find(image_name)
            if path is None:
                doubt = folder.look_up(image_name).doubt
                return f"no image {shorten(image_name)} under {folder.root}{f' ({doubt})' if doubt else ''}", ""
        except InputError as error:  # the name points outside the folder
            return str(error), ""
        try:
            status = os.stat(path)
        except OSError as error:
            return f"{path}: {error.strerror}", ""
        name = os.fsencode(str(path).removeprefix(prefix)).decode("utf-8", "backslashreplace")
        stamp = f"{name} {status.st_size} {status.st_mtime_ns}"
        if stamp in good:
            return None, stamp
        try:
            # decoding a JPEG at an eighth of its size is enough to check it
            size = open_image(path, draft_size=64).size
        except InputError as error:
            return str(error), stamp
        if min(size) < PATCH:
            small.append(f"{shorten(path, 300)} ({size[0]} x {size[1]} pixels)")
        return None, stamp

    def problems_of(image_names: list[str]) -> list[tuple[str | None, str]]:
        return [problem_of(image_name) for image_name in image_names]

    small: list[str] = []
    parts = [image_names[start : start + PART] for start in range(0, len(image_names), PART)]
    found: list[tuple[str | None, str]] = []
    progress = {"total": len(image_names), "desc": "checking images", "unit": "image", "leave": False}
    with ThreadPoolExecutor() as pool, tqdm(**progress) as bar:
        try:
            for of_part in pool.map(problems_of, parts):
                found += of_part
                bar.update(len(of_part))
        except BaseException:  # e.g. Ctrl-C: stop now, not after the last image
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    readable = [problem is None for problem, _ in found]
    problems = [
        f"record {image_id}: {problem}" for image_id, (problem, _) in zip(image_ids, found, strict=True) if problem
    ]
    if memory is not None:
        seen = good | {stamp for problem, stamp in found if problem is None}
        if seen != good:
            write_json(memory, {"good": sorted(seen), "sha256": _hash(seen)})
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
    return readable


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
