"""Tables as spreadsheets save them: delimiters, encodings, workbooks, and the tables that are refused."""

import csv
import sys

import pytest

from preprocess.csv_tables import read_table
from tests.test_preprocess.helpers import write_table
from utils.errors import InputError

FORMS = {
    "commas": ("t.csv", {}),
    "semicolons": ("t.csv", {"delimiter": ";"}),
    "tabs": ("t.csv", {"delimiter": "\t"}),
    "tabs in a .txt": ("t.txt", {"delimiter": "\t", "lineterminator": "\r"}),
    "bars, everything quoted": ("t.csv", {"delimiter": "|", "quoting": csv.QUOTE_ALL}),
    "Excel's first line": ("t.csv", {"delimiter": ";", "first": "sep=;\r\n"}),
    "Excel's first line, another delimiter": ("t.csv", {"delimiter": "^", "first": '"sep=^"\n'}),
    "a byte order mark": ("t.csv", {"encoding": "utf-8-sig"}),
    "both": ("t.csv", {"delimiter": ";", "encoding": "utf-8-sig", "first": "sep=;\n"}),
    "Excel's Unicode text": ("t.txt", {"delimiter": "\t", "encoding": "utf-16"}),
    "commas in a .tsv": ("t.tsv", {}),
}


@pytest.mark.parametrize("text", ["reason", "reason, in words", "reason; why", "reason\twhy\tso", 'a "reason"; b | c'])
@pytest.mark.parametrize(("name", "form"), FORMS.values(), ids=FORMS)
def test_tables_of_spreadsheets_are_read(tmp_path, name, form, text):
    """Whatever other delimiters stand in a column's quoted name and in the cells; words like "null" stay words."""
    rows = [[f"{n}.jpg", "null" if n % 2 else "NA", f"so {n}, big; yes\tor | no"] for n in range(5)]
    path = write_table(tmp_path / name, rows, ["image", "emotion", text], **form)
    assert read_table(path, [text, "image"], "").to_numpy().tolist() == [[row[2], row[0]] for row in rows]
    whole = read_table(path, [], "", all_columns=True, likely=["image", text])
    assert whole.columns.tolist() == ["image", "emotion", text] and whole.to_numpy().tolist() == rows


def test_columns_without_a_name_are_not_repeated_names(tmp_path):
    path = write_table(tmp_path / "t.csv", [("a", "1", "b", "2")], ("image", "", "text", ""))
    assert read_table(path, [], "", all_columns=True).iloc[0].tolist() == ["a", "1", "b", "2"]


def test_the_columns_asked_for_decide_the_delimiter(tmp_path):
    path = write_table(tmp_path / "t.csv", [("a, b", "c")], ("x, y", "z"), delimiter=";")
    assert read_table(path, ["z"], "").z.tolist() == ["c"]
    path.write_text("x;a,y\n1;2,3\n")
    assert read_table(path, ["a,y"], "").iloc[0, 0] == "2,3" and read_table(path, ["x;a"], "").iloc[0, 0] == "1;2"


def test_the_delimiter_that_divides_rows_like_the_header_wins(tmp_path):
    """Of two that divide the header, the columns being unknown; in a file of which only the beginning is looked at."""
    rows = [(f"{n}.jpg", "a, b, c" if n % 3 else "a", "b" * 20) for n in range(4000)]
    path = write_table(tmp_path / "t.csv", rows, ("image", "one, two, three, four", "text"), delimiter=";")
    table = read_table(path, [], "", all_columns=True)
    assert table.columns[0] == "image" and table.iloc[-1].tolist() == list(rows[-1]) and len(table) == 4000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image:mood\na:awe\n", "has no column text .it has one column; put commas, semicolons or tabs"),
        ("image;mood;text\na;awe;b;c;d\n", "not a readable csv .*; read with semicolons between columns"),
        ("image;mood\na;awe\n", "has no column text .read with semicolons between columns.; mend it"),
        ("text,text\na,b\n", "has two columns 'text'; rename one"),
        ("text\n", "has no rows; mend it"),
        ("text\nGem\u00e4lde\n".encode("cp1252"), "line 2: not UTF-8 text .*Gem\u00e4lde.*Windows-1252"),
        ("image;mood;text\n".encode("utf-16")[:-1], "begins as UTF-16 text but is not; save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0 of Excel 97", "is a spreadsheet; export it as CSV"),
        (b"PK\3\4 and no more", ".*Excel workbook"),
    ],
)
def test_refused_tables(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"mine.csv: {message}"):
        read_table(path, ["text"], "mend it", all_columns=True)


@pytest.mark.parametrize(
    ("content", "row"), [('sep=,\nimage,text,style\na.jpg,"x\ny",z\n\nb.jpg,x', 2), ("image,text,style\na.jpg,x", 1)]
)
def test_a_truncated_table_is_refused(tmp_path, content, row):
    """Its last row has too few cells, which pandas would fill up; rows are counted without the header and empty lines."""
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InputError, match=f"t.csv: row {row}: has too few cells; download it again"):
        read_table(tmp_path / "t.csv", ["image"], "download it again")


def test_workbooks(tmp_path):
    """The first sheet; rows that are empty do not count, words like "NA" stay words."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    header = ("image", "emotion", "", "repetition")
    for row in (header, ("a.jpg", "awe", None, 8), (), ("b.jpg", "NA", "x", 9), (None, "")):
        book.active.append(row)
    book.create_sheet("notes").append(["of no interest"])
    for name in ("mine.xlsx", "mine.csv"):  # whatever its name
        book.save(tmp_path / name)
        table = read_table(tmp_path / name, ["repetition", "emotion"], "")
        assert table.to_numpy().tolist() == [["8", "awe"], ["9", "NA"]]
        assert table.index.tolist() == [0, 2]  # rows of the sheet, without its header
    with pytest.raises(InputError, match="mine.xlsx: has no column mood; mend it"):
        read_table(tmp_path / "mine.xlsx", ["mood"], "mend it")


def test_workbooks_without_openpyxl(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "mine.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match="mine.xlsx: is an Excel workbook; pip install openpyxl to read it, or export"):
        read_table(tmp_path / "mine.xlsx", ["text"], "")
