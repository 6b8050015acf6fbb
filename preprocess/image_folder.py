"""Find the file of an annotation's `<art_style>/<painting>.jpg`, in whatever spelling the archive has it.

Only preprocessing does this: resize_wikiart.py names its files as the annotations do, and build_splits.py writes the
files' names into the JSON splits.
"""

import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from preprocess.image_names import EQUAL, ReducedName, identity, reduce_name, spellings, split_number
from utils.data.images import EXTENSIONS, is_system_file, shorten, split_name
from utils.errors import InputError

# How a file was found, the most reliable way first. All but the first count as "spelled differently".
EXACT, EXTENSION = EQUAL[0], "another extension"
GUESSES = ("artist's damaged name", "letters without accents", "odd characters replaced", "odd characters dropped")
FOUND_BY = (EXACT, EXTENSION, *EQUAL[1:], *GUESSES)


class Found(NamedTuple):
    """The files that match a name, best first; how the best one was found; if none, why candidates were rejected."""

    paths: list[Path]
    found_by: str = ""
    reason: str = ""


class ImageFolder:
    """Find the images of annotations under `root`.

    Each folder is listed once, at its first look-up; files that appear later are not found. Links are followed, also
    out of `root`: users keep images on another disk, or in the store of git-annex or DVC. Hidden files are not found
    (see `is_system_file`).

    Raises:
        InputError: `root` is not a folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise InputError(f"{root}: no such image folder; give the one that contains <art_style>/<painting>.jpg")
        self._listings: dict[Path, _Listing] = {}

    def find(self, image_name: str) -> Path | None:
        """The file that fits `image_name` best, see `look_up`; None if there is none."""
        return next(iter(self.look_up(image_name).paths), None)

    def look_up_all(self, image_names: Sequence[str]) -> list[Found]:
        """`look_up` for a list of names; in addition, a guess never takes a file that fits another name of the list."""
        results = [self.look_up(name) for name in image_names]
        names_of: dict[Path, list[tuple[int, str]]] = {}  # file -> rank and name of those that it was found for
        for name, found in zip(image_names, results, strict=True):
            if found.paths:
                names_of.setdefault(found.paths[0], []).append((FOUND_BY.index(found.found_by), name))
        for index, (name, found) in enumerate(zip(image_names, results, strict=True)):
            if not found.paths or len(names_of[found.paths[0]]) == 1 or found.found_by == EXACT:
                continue
            rank, file = FOUND_BY.index(found.found_by), found.paths[0]
            for other_rank, other in names_of[file]:
                if other_rank <= rank and _identity(other) != _identity(name):
                    results[index] = Found([], reason=f"{shorten(file.name)} could also be {shorten(other)}")
                    break
        return results

    def look_up(self, image_name: str) -> Found:
        """The files of `image_name` ("<art_style>/<painting>.jpg"); more than one means that the name is ambiguous.

        If several files match, the most similar spelling comes first: the exact name, another extension, then the
        spellings in EQUAL. If none matches, the name may be damaged, and the rules in GUESSES are tried; they need a
        single matching file.
        """
        parts = PurePosixPath(image_name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            return Found([], reason="the name leads out of the image folder; it must be <art_style>/<painting>.jpg")
        name, listings = parts[-1], self._listings_of(parts[:-1])
        files = [(listing.folder, file) for listing in listings for file in listing.equal(name)]
        if files:
            return Found([folder / file for folder, file in files], _spelled_by(name, files[0][1]))
        found_by, files = _guess(name, listings)
        if len({split_name(file)[0] for _, file in files}) > 1:
            return Found([], reason=f"could be {' or '.join(shorten(file) for _, file in files[:3])}")
        if not files:
            return Found([], reason=broken_link(self.root / image_name))
        return Found([folder / file for folder, file in files], found_by)

    def _listings_of(self, folder_names: Sequence[str]) -> list["_Listing"]:
        """The listings of all folders that fit these names, one inside the other from the root on."""
        folders = [self.root]
        for name in folder_names:
            folders = [
                folder / fitting for folder in folders for fitting in self._listing(folder).matching_folders(name)
            ]
        return [self._listing(folder) for folder in folders]

    def _listing(self, folder: Path) -> "_Listing":
        if folder not in self._listings:
            self._listings[folder] = _Listing(folder)
        return self._listings[folder]


class _Listing:
    """The files and folders directly inside one folder. Tables for misspelled names are built when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folders: list[str] = []
        self.stems: dict[str, str] = {}  # file name -> name without extension
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if is_system_file(entry.name):
                continue
            if entry.is_dir():
                self.folders.append(entry.name)
            elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                self.stems[entry.name] = split_name(entry.name)[0]

    def matching_folders(self, name: str) -> list[str]:
        if name in self.folders:
            return [name, *(other for other in self.folders if other != name and other.casefold() == name.casefold())]
        wanted = spellings(name)[-1]
        return [other for other in self.folders if spellings(other)[-1] == wanted]

    def equal(self, name: str) -> list[str]:
        """The files whose name equals `name` in the most general of `spellings`, most similar first."""
        stem = split_name(name)[0]
        names = self._by_spelling.get(spellings(stem)[-1], [])
        base, number = split_number(stem)
        if number and base.endswith(" "):  # the annotation itself names a numbered copy
            names = [other for other in names if split_number(self.stems[other])[1] == number]
        return names if len(names) == 1 else sorted(names, key=partial(_unlikeness, name))

    def with_equal_form(self, form: str, value: str) -> list[tuple[str, ReducedName]]:
        """The files whose name has this value in one form of ReducedName."""
        return self._by_form[form].get(value, [])

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for name, stem in self.stems.items():
            table.setdefault(spellings(stem)[-1], []).append(name)
        return table

    @cached_property
    def _by_form(self) -> dict[str, dict[str, list[tuple[str, ReducedName]]]]:
        tables: dict[str, dict[str, list[tuple[str, ReducedName]]]] = {"plain": {}, "replaced": {}, "dropped": {}}
        for name, stem in self.stems.items():
            reduced = reduce_name(spellings(stem)[-1])
            for form, table in tables.items():
                table.setdefault(getattr(reduced, form), []).append((name, reduced))
        return tables


def _guess(name: str, listings: list[_Listing]) -> tuple[str, list[tuple[Path, str]]]:
    """The first rule in GUESSES that finds files for a damaged name, and these files with their folders."""
    wanted = reduce_name(spellings(split_name(name)[0])[-1])
    rules = (("plain", GUESSES[0] if wanted.artist else GUESSES[1]), ("replaced", GUESSES[2]), ("dropped", GUESSES[3]))
    for form, rule in rules:
        value = getattr(wanted, form)
        files = [
            (listing.folder, file)
            for listing in listings
            for file, reduced in listing.with_equal_form(form, value)
            if value and (form == "plain" or wanted.odd != reduced.odd)
        ]
        if files:
            return rule, files
    return "", []


def _spelled_by(wanted: str, name: str) -> str:
    """The first spelling in which two equal names agree: one of FOUND_BY."""
    level, extension, *_ = _unlikeness(wanted, name)
    return EXTENSION if level == 0 and extension else EQUAL[level]


def _unlikeness(wanted: str, name: str) -> tuple:
    """A sort key for names that match `wanted`: by the first spelling in which they agree, then by extension."""
    if wanted == name:
        return (0, False)
    (wanted_stem, wanted_extension), (stem, extension) = split_name(wanted), split_name(name)
    pairs = zip(spellings(wanted_stem), spellings(stem), strict=True)
    return (
        next(level for level, (wanted_spelling, spelling) in enumerate(pairs) if wanted_spelling == spelling),
        extension != wanted_extension,
        extension.lower() != wanted_extension.lower(),
        not unicodedata.is_normalized("NFC", stem),
        name,
    )


def _identity(image_name: str) -> str:
    folder, _, name = image_name.rpartition("/")
    return f"{spellings(folder)[-1]}/{identity(split_name(name)[0])}"


def broken_link(path: Path) -> str:
    """Which link keeps a file from being found: the path's own or a folder's, to something that does not exist."""
    for part in (path, *path.parents):
        if os.path.islink(part) and not os.path.exists(part):
            return f"{shorten(part)} is a broken link; fetch or mount its target"
    return ""
