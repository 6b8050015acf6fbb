"""Read csv files; error messages name what is wrong with them."""

import csv
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd

from utils.errors import InputError
from utils.files import check_regular


def read_table(
    path: str | Path, columns: list[str], remedy: str, all_columns: bool = False, delimiter: str = ","
) -> pd.DataFrame:
    """Read a UTF-8 csv file. Every cell stays the text in the file, because annotators use words like "null" and "NA".

    Args:
        path: the file.
        columns: the columns that the file must have.
        remedy: what the user can do about a wrong file; it ends the error message.
        all_columns: keep the file's other columns as well, in the file's order.
        delimiter: the character between two cells.

    Raises:
        InputError: the file is missing, is not a UTF-8 csv, lacks a column or has it twice, has a row of another
            length, or has no rows.
    """
    check_regular(path, remedy)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter), [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(f"{path}: has no column {', '.join(missing)}; {remedy}")
        twice = [
            name for name, count in Counter(header).items() if name and count > 1 and (all_columns or name in columns)
        ]
        if twice:
            raise InputError(f"{path}: has two columns {twice[0][:40]!r}; rename one")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop surplus cells
            table = pd.read_csv(
                path,
                sep=delimiter,
                usecols=None if all_columns else columns,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                compression=None,  # do not guess it from the file's extension
            )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8, or {remedy}") from None
    except (ValueError, csv.Error, pd.errors.ParserWarning) as error:  # pandas' ParserError is a ValueError
        raise InputError(f"{path}: not a readable csv ({' '.join(str(error).split())}); {remedy}") from None
    if table.empty:
        raise InputError(f"{path}: has no rows; {remedy}")
    short = table.isna().any(axis=1)
    if short.any():
        raise InputError(f"{path}: row {int(short.to_numpy().argmax()) + 1}: has too few cells; {remedy}")
    return table if all_columns else table[columns]


def column_of_integers(table: pd.DataFrame, column: str, path: str | Path, remedy: str) -> pd.Series:
    """Convert a text column to integers; "8" and "8.0" are both 8.

    Raises:
        InputError: a cell is not an integer; the message names the first such row, counted from 1 after the header.
    """
    numbers = pd.to_numeric(table[column], errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0) | (numbers.abs() >= 2**53)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: row {row + 1}: {column} {table[column].iloc[row][:40]!r} is not an integer; {remedy}"
        )
    return numbers.astype(int)


def check_emotions(table: pd.DataFrame, emotions: tuple[str, ...], path: str | Path, remedy: str) -> None:
    """Raise InputError if a row's `emotion` is not in `emotions`; the message names the first such row."""
    wrong = ~table["emotion"].isin(emotions)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        emotion = table["emotion"].iloc[row][:40]
        raise InputError(f"{path}: row {row + 1}: unknown emotion {emotion!r} (known: {', '.join(emotions)}); {remedy}")
