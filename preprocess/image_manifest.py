"""The image manifest: a csv file that says for every image whether and how it was found, its size and its problem."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from preprocess.image_names import EXACT, GUESSES, ImageFolder, spellings
from utils.data.images import image_size, shorten, split_name
from utils.errors import InputError
from utils.files import atomic_path

ARCHIVE_SIZE = 81_446  # images in the complete WikiArt archive
ONE_PER_ARTWORK = "the complete archive has one for every artwork"  # of ArtEmis

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


class ManifestCounts(NamedTuple):
    """Counts of a manifest.

    problems: images per problem, "missing", "unreadable", "ambiguous" or "" (none). misspelled: files spelled
    differently from the list. guessed: how many of these were guessed from a damaged name.
    """

    problems: Counter[str]
    misspelled: int
    guessed: int

    def line(self, path: Path, complete: str | None) -> str:
        """The counts in one line.

        Args:
            path: the manifest's.
            complete: what WikiArt's complete archive contains; None: the images are not WikiArt's.
        """
        expected = f"{complete}, {len(KNOWN_CORRUPT)} of them unreadable" if complete else "training needs all of them"
        bad = ", ".join(f"{self.problems[problem]} {problem}" for problem in ("missing", "unreadable", "ambiguous"))
        return (
            f"{'WARNING: ' if self.problems['missing'] else ''}{self.problems.total()} images: {self.problems['']} "
            f"without a problem, {bad}; {self.misspelled} with another spelling or extension than in the list ({self.guessed} "
            f"of them guessed); {expected}; the list: {path}"
        )


def manifest_rows(folder: ImageFolder, image_names: Sequence[str]) -> list[ManifestRow]:
    """Look up the images of a list, "<art_style>/<painting>.jpg"; one row each, in this order.

    The problem is "missing ..." if there is no file and "ambiguous ..." if there are several.
    """
    rows = []
    for name, found in zip(image_names, folder.look_up_all(image_names), strict=True):
        if found.paths:
            others = ", ".join(shorten(path.name) for path in found.paths[1:])
            problem = f"ambiguous (also {others})" if others else ""
            rows.append(ManifestRow(name, str(found.paths[0]), problem=problem, found_by=found.found_by))
        else:
            rows.append(ManifestRow(name, problem=f"missing{f' ({found.reason})' if found.reason else _remark(name)}"))
    return rows


def measure(row: ManifestRow, apply_orientation: bool = True) -> ManifestRow:
    """Add the image's size (as of `image_size`) to a row of `manifest_rows`, or the problem "unreadable ..."."""
    if not row.found_path:
        return row
    try:
        width, height = image_size(row.found_path, apply_orientation)
    except InputError as error:
        return unreadable(row, error)
    return row._replace(width=width, height=height)


def unreadable(row: ManifestRow, error: InputError) -> ManifestRow:
    """The row with the problem "unreadable (...)": the error, or that the file is corrupt in the public archive."""
    return row._replace(width="", height="", problem=f"unreadable{_remark(row.image_name) or f' ({error})'}")


def _remark(image_name: str) -> str:
    known = spellings(split_name(PurePosixPath(image_name).name)[0])[-1] in KNOWN_CORRUPT
    return " (known to be corrupt in the public WikiArt archive)" if known else ""


def write_manifest(path: str | Path, rows: Iterable[ManifestRow]) -> ManifestCounts:
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
    return ManifestCounts(problems, found_by.total() - found_by[EXACT], sum(found_by[guess] for guess in GUESSES))
