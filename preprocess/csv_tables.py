"""Reading csv files so that what is wrong with them is named."""

import csv
import warnings
from pathlib import Path

import pandas as pd

from utils.errors import InputError
from utils.files import check_regular


def read_table(path: str | Path, columns: list[str], remedy: str, all_columns: bool = False) -> pd.DataFrame:
    """Read a UTF-8 csv file, every cell as text exactly as written ("null" and "NA" are words that annotators use).

    Args:
        path: the file.
        columns: the columns that must be there.
        remedy: what to do when the file is not what was expected; ends the error's line.
        all_columns: keep the file's other columns as well, in its order.

    Raises:
        InputError: the file is missing, no UTF-8 csv, lacks a column, has a row of another length, or has no rows.
    """
    check_regular(path, remedy)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        missing = [column for column in columns if column not in header]
        if missing:
            raise InputError(f"{path}: has no column {', '.join(missing)}; {remedy}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of cells that would be left out
            table = pd.read_csv(
                path,
                usecols=None if all_columns else columns,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                compression=None,  # not by the name's ending
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
    """A text column as integers; "8" and "8.0" are both 8.

    Raises:
        InputError: naming the file and the first row (counted from 1, without the header) that holds something else.
    """
    numbers = pd.to_numeric(table[column], errors="coerce")
    wrong = numbers.isna() | (numbers % 1 != 0) | (numbers.abs() >= 2**53)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise InputError(
            f"{path}: row {row + 1}: {column} {table[column].iloc[row][:40]!r} is no whole number; {remedy}"
        )
    return numbers.astype(int)


def check_emotions(table: pd.DataFrame, emotions: tuple[str, ...], path: str | Path, remedy: str) -> None:
    """InputError naming the first row whose `emotion` is none of `emotions`."""
    wrong = ~table["emotion"].isin(emotions)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        emotion = table["emotion"].iloc[row][:40]
        raise InputError(f"{path}: row {row + 1}: unknown emotion {emotion!r} (known: {', '.join(emotions)}); {remedy}")
