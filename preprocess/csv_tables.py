"""Read the tables of users, as spreadsheets save them. Errors name the file, the row and the remedy."""

import codecs
import contextlib
import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.errors import InputError, brief
from utils.files import check_regular

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
WORKBOOKS, OTHER_SPREADSHEETS = (".xlsx", ".xlsm"), (".xls", ".ods", ".numbers")
SAMPLE = 1 << 16  # characters from which the delimiter is guessed


class TableLayout(NamedTuple):
    """A table's encoding, delimiter, whether Excel's line "sep=..." comes first, and column names."""

    encoding: str
    delimiter: str
    has_sep_line: bool
    header: list[str]


def read_table(
    path: str | Path, columns: list[str], remedy: str, all_columns: bool = False, likely: Collection[str] = ()
) -> pd.DataFrame:
    """Read a CSV or TSV file, or the first sheet of an Excel workbook. Every cell is text, because annotators use words
    like "null" and "NA". See `table_layout` for delimiters and encodings.

    Args:
        path: the file.
        columns: the columns that the file must have.
        remedy: what the user can do about a wrong file; it ends the error message.
        all_columns: keep the file's other columns as well, in the file's order.
        likely: further columns that the file may have; they help to find the delimiter.

    Returns:
        the columns; the index counts the file's rows from 0.

    Raises:
        InputError: the file is missing, is not a table, lacks a column or has it twice, has a row of another length, or
            has no rows.
    """
    check_regular(path, remedy)
    if _is_workbook(path):
        table = _read_workbook(path, remedy)
        _check_header(list(table.columns), "", columns, all_columns, path, remedy)
        table.columns = [name or f"Unnamed: {number}" for number, name in enumerate(table.columns)]
    else:
        layout = table_layout(path, [*columns, *likely])
        divided = f"read with {DELIMITERS.get(layout.delimiter, repr(layout.delimiter))} between columns"
        _check_header(layout.header, divided, columns, all_columns, path, remedy)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would drop surplus cells
                table = pd.read_csv(
                    path,
                    sep=layout.delimiter,
                    usecols=None if all_columns else columns,
                    dtype=str,
                    keep_default_na=False,
                    encoding=layout.encoding,
                    skiprows=int(layout.has_sep_line),
                    index_col=False,
                    compression=None,  # do not guess it from the file's extension
                )
        except UnicodeDecodeError:
            raise _wrong_encoding(path, layout.encoding) from None
        except (ValueError, pd.errors.ParserWarning) as error:  # pandas' ParserError is a ValueError
            raise InputError(f"{path}: not a readable csv ({brief(error)}; {divided}); {remedy}") from None
        _check_rows(path, layout, remedy)
    if table.empty:
        raise InputError(f"{path}: has no rows; {remedy}")
    return table if all_columns else table[columns]


def table_layout(path: str | Path, likely: Collection[str] = ()) -> TableLayout:
    """How a CSV or TSV file is to be read: UTF-8, or UTF-16 with a byte order mark, and one of DELIMITERS, or the one
    that a first line "sep=..." names. The delimiter is the one that finds most of the columns `likely`, divides the
    first rows like the header, and gives most columns.

    Raises:
        InputError: the file is in another encoding.
    """
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    try:
        with open(path, encoding=encoding, newline="") as file:
            sample = file.read(SAMPLE)
    except UnicodeError:
        raise _wrong_encoding(path, encoding) from None
    named = re.match(r'"?sep=([^\r\n"])[^\r\n]*(?:\r\n|\r|\n)', sample, re.IGNORECASE)
    if named:
        sample = sample[named.end() :]
    layouts = []
    for delimiter in [named[1]] if named else DELIMITERS:
        header, *rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row] or [[]]
        fitting = sum(len(row) == len(header) for row in rows) / max(len(rows), 1)
        known = sum(name in header for name in likely)
        layouts.append(((known, len(header) > 1, fitting, len(header)), delimiter, header))
    _, delimiter, header = max(layouts, key=lambda layout: layout[0])
    return TableLayout(encoding, delimiter, bool(named), header)


def _check_header(
    header: list[str], divided: str, columns: list[str], all_columns: bool, path: str | Path, remedy: str
) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        if divided:
            how = "it has one column; put commas, semicolons or tabs between columns" if len(header) == 1 else divided
            divided = f" ({how})"
        raise InputError(f"{path}: has no column {', '.join(missing)}{divided}; {remedy}")
    twice = [name for name, count in Counter(header).items() if name and count > 1 and (all_columns or name in columns)]
    if twice:
        raise InputError(f"{path}: has two columns {twice[0][:40]!r}; rename one")


def _check_rows(path: str | Path, layout: TableLayout, remedy: str) -> None:
    """InputError for a row with fewer cells than the header, such as the last of a truncated file: pandas fills it up."""
    with open(path, encoding=layout.encoding, newline="") as file, contextlib.suppress(csv.Error, UnicodeError):
        rows = (row for row in csv.reader(file, delimiter=layout.delimiter) if row)
        for number, row in enumerate(rows, start=-int(layout.has_sep_line)):
            if number > 0 and len(row) < len(layout.header):
                raise InputError(f"{path}: row {number}: has too few cells; {remedy}")


def _wrong_encoding(path: str | Path, encoding: str) -> InputError:
    if encoding == "utf-16":
        return InputError(f"{path}: begins as UTF-16 text but is not; save it as CSV UTF-8")
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                text = line[max(0, error.start - 20) : error.start + 20].decode("cp1252", errors="replace").strip()
                problem = f"line {number}: not UTF-8 text ({text!r} in Windows-1252?)"
                return InputError(f"{path}: {problem}; save it as CSV UTF-8")
    return InputError(f"{path}: not UTF-8 text; save it as CSV UTF-8")


def _is_workbook(path: str | Path) -> bool:
    """Whether a file is an Excel workbook, whatever its name; InputError for other spreadsheets."""
    with open(path, "rb") as file:
        beginning = file.read(4)
    suffix = Path(path).suffix.lower()
    if suffix in OTHER_SPREADSHEETS or beginning == b"\xd0\xcf\x11\xe0":  # the format of .xls
        raise InputError(f"{path}: is a spreadsheet; export it as CSV (UTF-8), or save it as .xlsx")
    return suffix in WORKBOOKS or beginning == b"PK\3\4"


def _read_workbook(path: str | Path, remedy: str) -> pd.DataFrame:
    try:
        import openpyxl  # noqa: F401 - pandas uses it
    except ImportError:
        raise InputError(
            f"{path}: is an Excel workbook; pip install openpyxl to read it, or export it as CSV (UTF-8)"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validation rules
            cells = pd.read_excel(path, header=None, dtype=str, na_filter=False, engine="openpyxl")
    except Exception as error:  # openpyxl raises errors of every kind about damaged files
        raise InputError(f"{path}: not a readable Excel workbook ({brief(error)}); {remedy}") from None
    cells = cells[(cells != "").any(axis=1)]
    rows = cells.iloc[1:]
    rows.index -= 1
    return rows.set_axis(cells.iloc[0].tolist() if len(cells) else [], axis=1)


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
