"""Find the file of an annotation's `<art_style>/<painting>.jpg`, in whatever spelling the archive has it.

Only preprocessing does this: resize_wikiart.py names its files as the annotations do, and build_splits.py writes the
files' names into the JSON splits.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from preprocess.image_names import EQUAL, Clues, clues, identity, spellings, split_number
from utils.data.images import EXTENSIONS, is_system_file, shorten, split_name
from utils.errors import InputError

# How a file was found, the most reliable way first. All but the first count as "spelled differently".
EXACT, EXTENSION = EQUAL[0], "another extension"
GUESSES = (
    "blank before the number",
    "artist's damaged name",
    "letters without accents",
    "odd characters replaced",
    "odd characters dropped",
)
FOUND_BY = (EXACT, EXTENSION, *EQUAL[1:], *GUESSES)

_NUMBER = re.compile(r"\S\(\d")  # WikiArt's own spelling, without a space before the bracket
LONGEST_NAME = 4096  # characters of an image name; no file system has longer paths


class Found(NamedTuple):
    """The files that match a name, best first; how the best one was found; if none, why candidates were rejected."""

    paths: list[Path]
    found_by: str = ""
    doubt: str = ""


class ImageFolder:
    """Find the images of annotations under `root`.

    Each folder is listed once, at its first look-up; files that appear later are not found. Only regular files count.
    Links are followed, also out of `root`: users keep images on another disk, or in the store of git-annex or DVC.
    Hidden files are not found (see `is_system_file`).

    Raises:
        InputError: `root` is not a folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not os.path.isdir(self.root):
            raise InputError(
                f"{shorten(self.root)}: no such image folder; give the one that holds <art_style>/<painting>.jpg"
            )
        self._listings: dict[Path, _Listing] = {}
        self._only: dict[str, _Listing | None] = {}  # folder name in annotations -> its listing, if it is unique
        self._claimed: list[str] = []

    def claim(self, image_names: Iterable[str]) -> None:
        """Register the names to be looked up. A guess then never takes a file that fits another of these names."""
        self._claimed += image_names
        vars(self).pop("_claims", None)

    @cached_property
    def _claims(self) -> dict[str, list[tuple[int, str]]]:
        """File -> index in FOUND_BY and image name of its claims. Not made while all names are found exactly."""
        claims: dict[str, list[tuple[int, str]]] = {}
        for image_name in self._claimed:
            if path := self.exact(image_name):
                claims.setdefault(path, []).append((0, image_name))
                continue
            try:
                found = self._look_up(image_name)
            except InputError:  # raised again when this name is looked up
                continue
            if found.paths:
                claims.setdefault(str(found.paths[0]), []).append((FOUND_BY.index(found.found_by), image_name))
        return claims

    def find(self, image_name: str) -> Path | None:
        """The file of `image_name` ("<art_style>/<painting>.jpg"), or None if there is none.

        If several files match, the most similar spelling is chosen: the exact name, another extension, then the
        spellings in EQUAL. If none matches, the name may be damaged, and the rules in GUESSES are tried; they need a
        single matching file.

        Raises:
            InputError: the name is too long, or leads out of the root.
        """
        path = self.locate(image_name)
        return None if path is None else Path(path)

    def locate(self, image_name: str) -> str | Path | None:
        """Like `find`, without making a Path of an exact name's file, which takes most of the time."""
        return self.exact(image_name) or next(iter(self.look_up(image_name).paths), None)

    def exact(self, image_name: str) -> str | None:
        """The file with exactly this name, if only one folder fits; else None, as for names that are refused."""
        folder, _, name = image_name.rpartition("/")
        if folder not in self._only:
            try:
                listings = self._listings_of(PurePosixPath(folder).parts)
            except InputError:  # raised again when the name is looked up
                return None
            self._only[folder] = listings[0] if len(listings) == 1 else None
        listing = self._only[folder]
        return f"{listing.prefix}{name}" if listing and name in listing.files else None

    def candidates(self, image_name: str) -> list[Path]:
        """All files that match `image_name`, best first; more than one means that the name is ambiguous."""
        return self.look_up(image_name).paths

    def look_up(self, image_name: str) -> Found:
        """Like `find`, but return all matching files and how they were found."""
        found = self._look_up(image_name)
        if not found.paths or found.found_by == EXACT:
            return found
        rank, ours = FOUND_BY.index(found.found_by), _identity(image_name)
        for theirs, claimant in self._claims.get(str(found.paths[0]), ()):
            if theirs <= rank and _identity(claimant) != ours:
                return Found([], doubt=f"{shorten(found.paths[0].name)} could also be {shorten(claimant)}")
        return found

    def _look_up(self, image_name: str) -> Found:
        if len(image_name) > LONGEST_NAME:
            raise InputError(f"image name {shorten(image_name)!r}: is too long; must be <art_style>/<painting>.jpg")
        parts = PurePosixPath(image_name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in image_name:
            name = shorten(image_name)
            raise InputError(f"image name {name!r}: leads out of {self.root}; must be <art_style>/<painting>.jpg")
        name, listings = parts[-1], self._listings_of(parts[:-1])
        files = [(listing, file) for listing in listings for file in listing.equal(name)]
        found_by, doubt = _spelled_by(name, files[0][1]) if files else "", ""
        if not files and listings:
            found_by, files = _guess(name, listings)
            if len({split_name(file)[0] for _, file in files}) > 1:
                doubt = f"could be {' or '.join(shorten(file) for _, file in files[:3])}"
                files = []
        if not files and not doubt:
            doubt = broken_link(self.root / image_name)
        return Found([listing.folder / file for listing, file in files], found_by if files else "", doubt)

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
        self.folder, self.prefix = folder, str(folder / "_")[:-1]  # "" for "."
        self.files: set[str] = set()
        self.folders: list[str] = []
        for entry in os.scandir(folder):
            if is_system_file(entry.name):
                continue
            try:
                if entry.is_dir():
                    self.folders.append(entry.name)
                elif entry.name[-5:].lower().endswith(EXTENSIONS) and entry.is_file():
                    self.files.add(entry.name)
            except OSError:  # a link to itself
                continue

    def matching_folders(self, name: str) -> list[str]:
        if name in self.folders:
            others = [other for other in self.folders if other != name and other.casefold() == name.casefold()]
            return [name, *sorted(others)]
        wanted = spellings(name)[-1]
        return sorted(other for other in self.folders if spellings(other)[-1] == wanted)

    def equal(self, name: str) -> list[str]:
        """The files whose name equals `name` in the most general of `spellings`, most similar first."""
        stem = split_name(name)[0]
        names = self._by_spelling.get(spellings(stem)[-1], [])
        base, number = split_number(stem)
        if number and base.endswith(" "):  # the annotation itself names a numbered copy
            names = [other for other in names if split_number(self.stems[other])[1] == number]
        return names if len(names) == 1 else sorted(names, key=partial(_unlikeness, name))

    def with_blank(self, name: str) -> list[str]:
        """Files "x (1)" for the name "x(1)", unless they look like copies: the folder has no "x" and no "y(1)"."""
        base, number = split_number(spellings(split_name(name)[0])[-1])
        if not number or self.has_numbers:
            return []
        numbers = {other: split_number(self.stems[other])[1] for other in self._by_spelling.get(base, [])}
        return [other for other, theirs in numbers.items() if theirs == number] if all(numbers.values()) else []

    def alike(self, kind: str, value: str) -> list[tuple[str, Clues]]:
        """The files whose clue `kind` has this value. Numbered copies are left out if there is also an original."""
        found = self._by_clue[kind].get(value, [])
        originals = [pair for pair in found if split_number(self.stems[pair[0]])[0] == self.stems[pair[0]]]
        return found if len(found) == 1 else originals or found

    @cached_property
    def stems(self) -> dict[str, str]:
        """Name -> name without extension."""
        return {name: split_name(name)[0] for name in sorted(self.files)}

    @cached_property
    def has_brackets(self) -> bool:
        return any("(" in name for name in self.files)

    @cached_property
    def has_numbers(self) -> bool:
        return any(_NUMBER.search(stem) for stem in self.stems.values())

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        table: dict[str, list[str]] = {}
        for name, stem in self.stems.items():
            table.setdefault(spellings(stem)[-1], []).append(name)
        return table

    @cached_property
    def _by_clue(self) -> dict[str, dict[str, list[tuple[str, Clues]]]]:
        tables: dict[str, dict[str, list[tuple[str, Clues]]]] = {"plain": {}, "replaced": {}, "dropped": {}}
        for name, stem in self.stems.items():
            theirs = clues(spellings(stem)[-1])
            for kind, table in tables.items():
                table.setdefault(getattr(theirs, kind), []).append((name, theirs))
        return tables


def _guess(name: str, listings: list[_Listing]) -> tuple[str, list[tuple[_Listing, str]]]:
    """The first rule in GUESSES that finds files for a damaged name, and these files."""
    spaced = [(listing, file) for listing in listings for file in listing.with_blank(name)]
    if spaced:
        return GUESSES[0], spaced
    ours = clues(spellings(split_name(name)[0])[-1])
    for kind in ("plain", "replaced", "dropped"):
        value, found = getattr(ours, kind), []
        for listing in listings:
            for file, theirs in listing.alike(kind, value) if value else ():
                if kind == "plain":
                    label = GUESSES[1] if ours.artist else GUESSES[2]
                elif ours.odd == theirs.odd or kind == "dropped" and listing.has_brackets and "(" in name + file:
                    continue
                else:
                    label = GUESSES[3] if kind == "replaced" else GUESSES[4]
                found.append((label, listing, file))
        if found:
            return found[0][0], [(listing, file) for _, listing, file in found]
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
    level = next(index for index, (ours, theirs) in enumerate(pairs) if ours == theirs)
    differs = extension != wanted_extension
    return (
        level,
        differs,
        extension.lower() != wanted_extension.lower(),
        not unicodedata.is_normalized("NFC", stem),
        name,
    )


def _identity(image_name: str) -> str:
    folder, _, name = image_name.rpartition("/")
    return f"{spellings(folder)[-1]}/{identity(split_name(name)[0])}"


def broken_link(path: Path) -> str:
    """Says which link keeps a file from being found: the path's own or a folder's, to something that is not there."""
    for part in (path, *path.parents):
        if os.path.islink(part) and not os.path.exists(part):
            return f"{shorten(part)} is a link that leads nowhere; fetch or mount what it links to"
    return ""
