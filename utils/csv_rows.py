"""Csv files: one of test reports that several runs append to, and tables that are written at once."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import atomic_path, read_bytes


def check_append_to(path: Path) -> None:
    """Refuse, before a long run, a file that its row could not be appended to (InputError)."""
    if os.path.lexists(path):
        _read_rows(path)


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row; columns that the file lacks are added to it. Runs that end together do not lose each other's row."""
    from filelock import FileLock  # here, as its import takes 0.1 s

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")  # not the file itself, which is replaced
    with FileLock(lock):
        columns, rows = _read_rows(path) if path.exists() else ([], [])
        columns += [name for name in row if name not in columns]
        write_rows(path, columns, [*rows, row])
        lock.unlink()  # runs that wait make another: filelock takes no lock on a file that was removed meanwhile


def write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a csv file atomically: a header, then the rows; what a row lacks stays empty."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        for cells in (dict(zip(columns, columns, strict=True)), *rows):
            writer.writerow({name: _without_formula(cell) for name, cell in cells.items()})


def _without_formula(cell: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe in front, which makes it a text there too."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell  # a number below zero


def _read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8"), newline=""), strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error}); name another with --append_to") from None
    columns = list(reader.fieldnames or [])
    if (columns or rows) and ("test_set" not in columns or any(None in row or None in row.values() for row in rows)):
        raise InputError(f"{path}: not a CSV file of test reports; name another with --append_to")
    return columns, rows
