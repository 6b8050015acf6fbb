"""The image manifest: a csv file that says for every image whether and how it was found, its size and its problem."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from preprocess.image_folder import EXACT, GUESSES, ImageFolder
from preprocess.image_names import spellings
from utils.data.images import image_size, open_image, shorten, split_name
from utils.errors import InputError
from utils.files import atomic_path

ARCHIVE_SIZE = 81_446  # images in the complete WikiArt archive, which has one for every artwork of ArtEmis

# These files are damaged in the public WikiArt archive itself; downloading it again does not help.
KNOWN_CORRUPT = (
    "rembrandt_woman-standing-with-raised-hands",
    "vincent-van-gogh_l-arlesienne-portrait-of-madame-ginoux-1890",
)


class ManifestRow(NamedTuple):
    """One artwork's image: its file, its size in pixels, its problem, and how it was found (one of FOUND_BY).

    Fields are empty if unknown; `problem` is empty if there is none.
    """

    image_name: str
    found_path: str = ""
    width: int | str = ""
    height: int | str = ""
    problem: str = ""
    found_by: str = ""


class Tally(NamedTuple):
    """Counts of a manifest.

    problems: images per problem, "missing", "unreadable", "ambiguous" or "" (none). otherwise: files spelled
    differently from the list. guessed: how many of these were guessed from a damaged name.
    """

    problems: Counter[str]
    otherwise: int
    guessed: int

    def line(self, path: Path, complete: str | None) -> str:
        """The counts in one line.

        Args:
            path: the manifest's.
            complete: what WikiArt's complete archive contains; None: the images are not WikiArt's.
        """
        whole = f"{complete}, {len(KNOWN_CORRUPT)} of them unreadable" if complete else "training needs all of them"
        bad = ", ".join(f"{self.problems[problem]} {problem}" for problem in ("missing", "unreadable", "ambiguous"))
        return (
            f"{'WARNING: ' if self.problems['missing'] else ''}{self.problems.total()} images: {self.problems['']} without a "
            f"problem, {bad}; {self.otherwise} spelled differently from the list ({self.guessed} of them guessed); "
            f"{whole}; the list: {path}"
        )


def describe(folder: ImageFolder, image_name: str) -> ManifestRow:
    """Look one image up. The problem is "missing ..." if there is no file and "ambiguous ..." if there are several."""
    try:
        found = folder.look_up(image_name)
    except InputError as error:
        return ManifestRow(image_name, problem=f"unreadable ({error})")
    if not found.paths:
        doubt = f" ({found.doubt})" if found.doubt else _remark(image_name)
        return ManifestRow(image_name, problem=f"missing{doubt}")
    others = ", ".join(shorten(path.name) for path in found.paths[1:])
    problem = f"ambiguous (also {others})" if others else ""
    return ManifestRow(image_name, str(found.paths[0]), problem=problem, found_by=found.found_by)


def measure(row: ManifestRow, decode: bool = False, apply_orientation: bool = True) -> ManifestRow:
    """Add the image's size to a row of `describe`, or the problem "unreadable ...".

    With `decode` the whole image is decoded, which detects truncated files; otherwise only its header is read.
    `apply_orientation` is that of `image_size`.
    """
    if not row.found_path:
        return row
    try:
        width, height = open_image(row.found_path).size if decode else image_size(row.found_path, apply_orientation)
    except InputError as error:
        return unreadable(row, error)
    return row._replace(width=width, height=height)


def unreadable(row: ManifestRow, error: InputError) -> ManifestRow:
    """The row with the problem "unreadable (...)": the error, or that the file is corrupt in the public archive."""
    return row._replace(width="", height="", problem=f"unreadable{_remark(row.image_name) or f' ({error})'}")


def is_known_corrupt(image_name: str) -> bool:
    """Whether this artwork's file is one of the two damaged files in the public WikiArt archive."""
    return spellings(split_name(PurePosixPath(image_name).name)[0])[-1] in KNOWN_CORRUPT


def _remark(image_name: str) -> str:
    return " (known to be corrupt in the public WikiArt archive)" if is_known_corrupt(image_name) else ""


def manifest(
    folder: ImageFolder, image_names: Sequence[str], path: str | Path, decode: bool = False, jobs: int = 1
) -> Tally:
    """Look up and measure every image and write a csv with the columns of ManifestRow.

    Args:
        folder: where the images are.
        image_names: "<art_style>/<painting>.jpg"; one row each, in this order.
        path: the csv file.
        decode: decode every image completely, which detects truncated files.
        jobs: number of processes.

    Returns:
        the counts.
    """
    folder.claim(image_names)
    rows = [describe(folder, name) for name in image_names]
    look = partial(measure, decode=decode)
    progress = partial(tqdm, total=len(rows), desc="images", unit="file", mininterval=1)
    if jobs <= 1:
        return write_manifest(path, progress(map(look, rows)))
    with ProcessPoolExecutor(jobs) as pool:
        return write_manifest(path, progress(pool.map(look, rows, chunksize=64)))


def write_manifest(path: str | Path, rows: Iterable[ManifestRow]) -> Tally:
    """Write manifest rows as csv (atomically) and count them. Bytes of a path that are not UTF-8 are escaped."""
    problems: Counter[str] = Counter()
    found_by: Counter[str] = Counter()
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(ManifestRow._fields)
            for row in rows:
                problems[row.problem.partition(" ")[0]] += 1
                found_by[row.found_by] += bool(row.found_by)
                writer.writerow(row)
    return Tally(problems, found_by.total() - found_by[EXACT], sum(found_by[guess] for guess in GUESSES))
