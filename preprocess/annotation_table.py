"""Read any table of image, emotion and sentence, one row per annotation, and divide its images into splits.

An image is known by its name without extension, in Unicode's composed form, so that "a/b" and "a/b.jpg" are one.
"""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from preprocess.artemis_files import split_artworks
from preprocess.artemis_text import tokenize
from preprocess.csv_tables import read_table
from preprocess.image_names import ImageFolder, image_id
from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.data.images import split_name
from utils.data.records import Records
from utils.errors import InputError, escaped

# What the columns are for. A column that --columns does not name is looked for under this name.
NEEDED = ("image", "emotion", "text")
COLUMNS = (*NEEDED, "split", "language")

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "rest": "rest",  # left out, as ArtEmis does with artworks annotated too often
}
LANGUAGE = "english"  # the rows that are taken if the table has a column of languages
MOST_LISTED = 12  # values in a message


def read_annotation_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Read a table as `read_table` does. Backslashes in image names, as Windows writes them, become slashes.

    Args:
        path: a CSV or TSV file, or an Excel workbook.
        columns: one of COLUMNS -> the file's column. "a/b" as the image joins the columns a and b by a slash.

    Returns:
        the columns image, emotion, text, and split and language if the file has them; empty rows are left out. The index
        counts the file's rows from 0.

    Raises:
        InputError: the file is missing or is not a table, or lacks a column.
    """
    names = {key: columns.get(key, key) for key in COLUMNS}
    likely = [*names.values(), *names["image"].split("/")]
    table = read_table(path, [], "export the table as CSV (UTF-8)", all_columns=True, likely=likely)
    has = f"it has: {_listed(table.columns)}"
    if len(table.columns) == 1:
        has += "; put commas, semicolons or tabs between columns"
    found = {}
    for key, name in names.items():
        if key not in columns and name not in table:
            if key in NEEDED:
                raise InputError(f"{path}: which column is the {key}? pass --columns {key}=COLUMN ({has})")
            continue
        parts = name.split("/") if key == "image" and name not in table else [name]
        if missing := [part for part in parts if part not in table]:
            raise InputError(f"{path}: has no column {missing[0]!r} for --columns {key}= ({has})")
        cells = [table[part].str.strip() for part in parts]
        found[key] = cells[0].str.cat(cells[1:], "/")
        if key == "image":
            found[key] = found[key].str.replace("\\", "/", regex=False)
    rows = pd.DataFrame(found)
    rows = rows[(rows != "").any(axis=1)]  # spreadsheets add empty rows at the end
    print(f"{path}: {len(rows)} rows; columns " + " ".join(f"{key}={names[key]}" for key in found))
    return rows


def _listed(values: Iterable[object]) -> str:
    """The first values, shortened for a message, and the number of the others."""
    texts = [str(value)[:80] or "an empty cell" for value in values]
    more = f" and {len(texts) - MOST_LISTED} more" if len(texts) > MOST_LISTED else ""
    return ", ".join(texts[:MOST_LISTED]) + more


def _counted(values: Iterable[str]) -> str:
    return "the column has: " + _listed(f"{value or 'an empty cell'} {n}" for value, n in Counter(values).most_common())


def select_language(table: pd.DataFrame, language: str | None, path: Path) -> pd.DataFrame:
    """The rows of one language, ignoring the case of its name. A table without a language column is taken whole.

    Raises:
        InputError: no row is in this language, or a language was requested and there is no such column.
    """
    if "language" not in table:
        if language:
            raise InputError(
                f"{path}: --language {language}: which column is the language? pass --columns language=..."
            )
        return table
    language = language or LANGUAGE
    selected = table["language"].str.casefold() == language.casefold()
    if not selected.any():
        raise InputError(f"{path}: no row is in {language}; pass --language ({_counted(table['language'])})")
    print(f"{selected.sum()} rows are in {language}, {(~selected).sum()} in other languages left out")
    return table[selected]


def normalize_emotions(
    table: pd.DataFrame, renamed: dict[str, str], path: Path, skip_unknown: bool = False
) -> pd.DataFrame:
    """The table with emotions as EMOTIONS spells them: lower case, blanks for underscores, and renamed.

    Args:
        renamed: emotion in the table -> one of EMOTIONS.
        skip_unknown: leave rows of other emotions out, and print how many there are of each.

    Raises:
        InputError: a rename names an emotion that the table lacks or that is not one of the nine; a row's emotion is
            unknown and `skip_unknown` is False, or all rows' are. The message lists the unknown ones with their counts
            and, where one is spelled alike, the nearest of the nine.
    """
    plain = table["emotion"].str.casefold().str.replace("_", " ")
    renamed = {old.casefold().replace("_", " "): new.casefold().replace("_", " ") for old, new in renamed.items()}
    for old, new in renamed.items():
        if new not in EMOTIONS:
            raise InputError(f"--rename_emotions {old}={new}: {new!r} is not one of the nine ({', '.join(EMOTIONS)})")
        if old not in set(plain):
            raise InputError(f"--rename_emotions {old}={new}: {path} has no emotion {old!r}; leave it out")
    plain = plain.replace(renamed)
    known = plain.isin(EMOTIONS)
    unknown = Counter(plain[~known])
    if unknown and skip_unknown and known.any():
        labels = ", ".join(f"{label[:40]!r} ({count})" for label, count in unknown.most_common())
        print(escaped(f"{unknown.total()} of {len(plain)} rows left out because their emotions are unknown: {labels}"))
    elif unknown:
        labels = _listed(f"{label[:40]!r} ({count}{_spelled_like(label)})" for label, count in unknown.most_common())
        raise InputError(
            f"{path}: {unknown.total()} of {len(plain)} rows have unknown emotions: {labels}; rename them with "
            "--rename_emotions OLD=NEW, leave them out with --skip_unknown_emotions, or correct the table (the nine: "
            f"{', '.join(EMOTIONS)})"
        )
    return table.assign(emotion=plain)[known]


def _spelled_like(label: str) -> str:
    """The nearest of the nine, if it is spelled alike: "sad", "angry", "excited", but neither "contempt" nor "joy"."""
    longer = [emotion for emotion in EMOTIONS if label and emotion.startswith(label)]
    near = longer or difflib.get_close_matches(label, EMOTIONS, n=1, cutoff=0.65)  # "contempt": 0.63
    return f", spelled like {near[0]}" if near else ""


def add_image_keys(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with a column `image_key`: the image's name in composed Unicode, without extension.

    Raises:
        InputError: a name is empty or leads out of the image folder, or two extensions are given for one image.
    """
    key_of: dict[str, str] = {}
    extension_of: dict[str, str] = {}
    for name in table["image"].unique():
        plain = str(PurePosixPath(unicodedata.normalize("NFC", name)))
        absolute = plain.startswith("/") or plain[1:3] == ":/"  # of Windows
        if not name or absolute or ".." in PurePosixPath(plain).parts:
            row = int((table["image"] == name).to_numpy().argmax())
            problem = f"image name {name[:60]!r} is not a file in the image folder"
            raise InputError(f"{path}: row {table.index[row] + 1}: {problem}; write it as folder/name.jpg or name.jpg")
        key, extension = split_name(plain)
        if extension and extension_of.setdefault(key, extension) != extension:
            both = f"{key}{extension_of[key]} and {key}{extension}"
            raise InputError(f"{path}: {both} would be one image; rename one, in the table and in the folder")
        key_of[name] = key
    return table.assign(image_key=table["image"].map(key_of))


def assign_splits(table: pd.DataFrame, seed: int, path: Path) -> pd.DataFrame:
    """The table with its own splits under standard names; if it has none, 85/5/10 of its images drawn with the seed.

    Rows of the split "rest" are left out.

    Raises:
        InputError: a split is unknown; an image is in two splits; there are too few images to be divided.
    """
    if "split" not in table:
        try:
            return table.assign(split=table["image_key"].map(split_artworks(table["image_key"], seed)))
        except InputError:
            count = table["image_key"].nunique()
            raise InputError(f"{path}: {count} images are too few for three splits; give at least 7") from None
    splits = table["split"].str.casefold().map(SPLIT_NAMES)
    if splits.isna().any():
        known = ", ".join(SPLIT_NAMES)
        raise InputError(f"{path}: unknown split (known: {known}; {_counted(table['split'])}); rename it in the table")
    if (rest := splits == "rest").any():
        print(f'{rest.sum()} rows of the split "rest" left out')
    table = table.assign(split=splits)[~rest]
    pairs = table[["image_key", "split"]].drop_duplicates()
    if (twice := pairs.duplicated("image_key")).any():
        key = pairs["image_key"][twice].iloc[0]
        both = " and ".join(pairs["split"][pairs["image_key"] == key])
        more = f" (so are {twice.sum() - 1} others)" if twice.sum() > 1 else ""
        raise InputError(f"{path}: {key[:80]} is in {both}{more}; put each image into one split")
    return table


def check_files_differ(table: pd.DataFrame, folder: ImageFolder, path: Path) -> None:
    """Raise InputError if two names mean one file, also by a link, because an image could then be in two splits."""
    names = table.drop_duplicates("image_key")["image"].tolist()
    name_of: dict[tuple[int, int], str] = {}
    for name, found in zip(names, folder.look_up_all(names), strict=True):
        if not found.paths:
            continue
        status = found.paths[0].stat()
        first = name_of.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            raise InputError(
                f"{path}: {first} and {name} are one file, {found.paths[0].resolve()}; use one name for it"
            )


def table_records(table: pd.DataFrame, keep_text: bool) -> dict[str, Records]:
    """The records of "train", "val" and "test", in the order of their first row.

    The distribution of an image is the histogram of the emotions in its rows. Rows without a word count in it, but
    give no annotation.

    Args:
        table: columns image, image_key, emotion, text, split.
        keep_text: leave the sentences unchanged, except for repeated blanks; else they become lower-case words without
            punctuation, as in ArtEmis. Spelling is not corrected.
    """
    sets: dict[str, Records] = {"train": {}, "val": {}, "test": {}}
    empty = 0
    groups = table.groupby("image_key", sort=False)
    # it takes minutes for 500 000 sentences
    for key, rows in tqdm(groups, "reading sentences", unit="image", leave=False, mininterval=1):
        texts = [" ".join(text.split() if keep_text else tokenize(text)) for text in rows["text"]]
        annotations = [(emotion, text) for emotion, text in zip(rows["emotion"], texts, strict=True) if text]
        empty += len(texts) - len(annotations)
        if not annotations:
            continue
        votes = [0] * len(EMOTIONS)
        for emotion in rows["emotion"]:
            votes[EMOTION_INDEX[emotion]] += 1
        folder, _, name = key.rpartition("/")
        sets[rows["split"].iloc[0]][image_id(folder, name)] = {
            "emotions": [emotion for emotion, _ in annotations],
            "explanations": [text for _, text in annotations],
            "image_name": rows["image"].iloc[0],
            "origin_emotion_distribution": [count / len(rows) for count in votes],
        }
    if empty:
        print(f"{empty} annotations without a word left out")
    return sets
