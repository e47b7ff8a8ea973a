"""CSV files before they are read: what parts their columns, how these are called, and rows that would be misread."""

from __future__ import annotations

import csv
import gzip
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from dataset_builders.folders import image_suffixes

_SEPARATORS = ",;\t|"
DAMAGED = (gzip.BadGzipFile, EOFError)  # what Python says of a file that is not whole
_QUOTES = (
    "A field that holds quotation marks begins and ends with one more, and has each of its own twice; or save the table as "
    "JSON lines."
)
_SHOWN = 3  # files that a message names


def unreadable(files: Sequence[Path], error: Exception) -> ValueError:
    """An error of one of these files that cannot be read."""
    reason = " ".join(str(error.__cause__ or error).split()).rstrip(".")
    return ValueError(f"{' or '.join(map(str, files[:_SHOWN]))} cannot be read: {reason}. Correct it there.")


def headers(files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """What parts the columns of each of the files of a split, and the names of their columns, which are the same.

    Raises:
        ValueError: as `_header`, or a file with other columns than the first.
    """
    separators, named = zip(*map(_header, files))
    for file, header in zip(files, named):
        if set(header) != set(named[0]):
            raise ValueError(
                f"{files[0]} has the columns {', '.join(named[0])}, and {file} of the same split {', '.join(header)}: "
                "give them the same columns, or name the file that is meant."
            )
    return list(separators), named[0]


def _header(file: Path) -> tuple[str, list[str]]:
    """What parts the columns, by the first line, and their names.

    Raises:
        ValueError: it names no columns, or one twice, or is no UTF-8.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as content:
            line = content.readline().partition(b"\r")[0].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: save it as UTF-8.") from error
    except DAMAGED as error:
        raise unreadable([file], error) from error
    separator = "\t" if ".tsv" in file.suffixes else max(_SEPARATORS, key=line.count)
    names = next(csv.reader([line], delimiter=separator), [])
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None or any(map(is_image_name, names)):
        reason = (
            f"two columns {twice!r}"
            if twice is not None
            else f"no names of columns ({', '.join(names) or 'it is empty'})"
        )
        raise ValueError(f"The first line of {file} has {reason}: give every column a name there.")
    return separator, names


def check_fields(file: Path, separator: str) -> None:
    """Refuse rows that would be read otherwise than they are meant.

    Where rows have more fields than the first line has names, all fields would move to other columns. A quotation mark that
    opens a field and does not close it would make the rows behind it a part of that field; where another mark happens to
    close it, tabs in a field over several lines give it away, and a warning says so. Spaces behind the mark that closes a
    field do no harm.

    Raises:
        ValueError: naming the line.
    """
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8-sig", newline="") as text:
            joined = _check_rows(file, text, separator)
    except (UnicodeDecodeError, *DAMAGED) as error:
        raise unreadable([file], error) from error
    finally:
        csv.field_size_limit(limit)
    if joined:
        warnings.warn(
            f"Lines {joined} of {file} are read as one row: a field begins with a quotation mark on the first and ends with "
            f"one on the last. If they are several rows: {_QUOTES}",
            stacklevel=2,
        )


def _check_rows(file: Path, text: Iterable[str], separator: str) -> str:
    """The lines of the first row that may be several, or nothing.

    Raises:
        ValueError: a row has too many fields, or a field no end.
    """
    spaces = re.compile(rf'" +(?=[{re.escape(separator)}\r\n]|$)')
    lines = (spaces.sub('"', line) if '" ' in line else line for line in text)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    ended, columns, joined = 0, 0, ""
    try:
        for row in rows:
            first, ended = ended + 1, rows.line_num
            columns = columns or len(row)  # of the first one
            if len(row) > columns:
                raise _too_many_fields(file, first, row, columns, separator)
            if separator == "\t" and ended > first and not joined and any({"\t", "\n"} <= set(field) for field in row):
                joined = f"{first} to {ended}"
    except csv.Error as error:
        several = rows.line_num > ended + 1 or "end of data" in str(error)
        read = "rows behind it would become a part of it" if several else "it would be read without these marks"
        raise ValueError(
            f"Line {ended + 1} of {file} has a field that begins with a quotation mark, and where one ends it no column "
            f"follows: {read}. {_QUOTES}"
        ) from error
    return joined


def _too_many_fields(file: Path, line: int, row: Sequence[str], columns: int, separator: str) -> ValueError:
    way_out = (
        f"A field that holds {separator!r} stands in quotation marks, and every column has a name"
        if any(row[columns:])
        else f"Leave out the {separator!r} at its end"
    )
    return ValueError(
        f"Line {line} of {file} has {len(row)} fields, and the first line names {columns} column{'s' * (columns > 1)}. "
        f"{way_out}."
    )


def is_image_name(value: str) -> bool:
    """Whether it ends as names of image files do."""
    return Path(value).suffix.lower() in image_suffixes()
