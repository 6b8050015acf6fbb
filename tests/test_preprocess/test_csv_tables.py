"""Tables as spreadsheets save them: delimiters, encodings, workbooks, paths of Windows."""

import csv
import sys

import pytest

from preprocess import build_splits, resize_wikiart
from preprocess.csv_tables import read_table
from preprocess.prepare_artemis import read_release
from utils.errors import InputError
from utils.files import read_json

COMMA = "reason, in words"
HEADER = ("image", "emotion", COMMA)
ROWS = [(f"Cubism\\{i}.jpg", emotion, f"so {i}, big") for i in range(20) for emotion in ("awe", "fear")]


def write(path, rows=ROWS, header=HEADER, encoding="utf-8", first="", **dialect):
    with open(path, "w", newline="", encoding=encoding) as file:
        file.write(first)
        csv.writer(file, **dialect).writerows([header, *rows])
    return path


def build(path, text=COMMA, *more):
    out = path.parent / "out"
    columns = ["--columns", f"text={text}", *more]
    build_splits.main(["--dataset", "table", "--csv", str(path), "--out_dir", str(out), *columns])
    return [record for part in ("train", "val", "test") for record in read_json(out / f"artEmisX_{part}.json").values()]


FORMS = {
    "commas": ("t.csv", {}),
    "semicolons": ("t.csv", {"delimiter": ";"}),
    "tabs": ("t.csv", {"delimiter": "\t"}),
    "tabs in a .txt": ("t.txt", {"delimiter": "\t", "lineterminator": "\r"}),
    "bars, everything quoted": ("t.csv", {"delimiter": "|", "quoting": csv.QUOTE_ALL}),
    "Excel's first line": ("t.csv", {"delimiter": ";", "first": "sep=;\r\n"}),
    "Excel's first line, another delimiter": ("t.csv", {"delimiter": "^", "first": '"sep=^"\n'}),
    "a byte order mark": ("t.csv", {"delimiter": ";", "encoding": "utf-8-sig", "first": "sep=;\n"}),
    "Excel's Unicode text": ("t.txt", {"delimiter": "\t", "encoding": "utf-16"}),
    "commas in a .tsv": ("t.tsv", {}),
}


@pytest.mark.parametrize(("name", "form"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("text", [COMMA, "reason; why", "reason\twhy\tso"])
def test_tables_of_spreadsheets_are_read(tmp_path, name, form, text):
    """Whatever other delimiters stand in a column's name and in the sentences. Folders of Windows are folders."""
    header = ("image", "emotion", text)
    records = build(write(tmp_path / name, [(*row[:2], row[2] + "; yes") for row in ROWS], header, **form), text)
    assert len(records) == 20
    record = next(record for record in records if record["image_name"] == "Cubism/7.jpg")
    assert record["explanations"] == ["so 7 big yes"] * 2 and record["emotions"] == ["awe", "fear"]


def test_the_columns_asked_for_decide_the_delimiter(tmp_path):
    path = write(tmp_path / "t.csv", [("a, b", "c")], ("x, y", "z"), delimiter=";")
    assert read_table(path, ["z"], "").z.tolist() == ["c"]
    path.write_text("x;a,y\n1;2,3\n")
    assert read_table(path, ["a,y"], "").iloc[0, 0] == "2,3" and read_table(path, ["x;a"], "").iloc[0, 0] == "1;2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image:emotion:text\na:awe:b\n", "it has: image:emotion:text; put commas, semicolons or tabs between columns"),
        ("image;emotion;text\na;awe;b;c;d\n", "not a readable csv .*; read with semicolons between columns"),
        (
            "image;emotion;text\nGem\u00e4lde;awe;sch\u00f6n\n".encode("cp1252"),
            "line 2: not UTF-8 text .*Gem\u00e4lde.*Windows-1252",
        ),
        ("image;emotion;text\n".encode("utf-16")[:-1], "begins as UTF-16 text but is not; save it as CSV UTF-8"),
        (
            "image;emotion;text\nC:\\pics\\a.jpg;awe;b\n",
            "row 1: image name 'C:/pics/a.jpg' is not a file in the image fold",
        ),
        ("image;emotion;text\n\\\\disk\\a.jpg;awe;b\n", "row 1: image name '//disk/a.jpg' is not a file"),
        (b"\xd0\xcf\x11\xe0 of Excel 97", "is a spreadsheet; export it as CSV"),
        (b"PK\3\4 and no more", "Excel workbook"),
    ],
)
def test_refused_tables(tmp_path, content, message):
    path = tmp_path / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"mine.csv: .*{message}"):
        build(path, "text")
    assert list(tmp_path.iterdir()) == [path]


def test_releases_are_read_like_other_tables(tmp_path):
    header = ("art_style", "painting", "emotion", "utterance", "repetition")
    rows = [("Baroque", "jos\u00e9, seated", "awe", "so big; yes", "8"), ("Baroque", "a", "fear", "null", "2")]
    path = write(tmp_path / "r.txt", rows, header, encoding="utf-16", delimiter="\t")
    table = read_release(path)
    assert table["utterance"].tolist() == ["so big; yes", "null"] and table["repetition"].tolist() == [8, 2]
    assert resize_wikiart.annotated_names([path]) == ["Baroque/a.jpg", "Baroque/jos\u00e9, seated.jpg"]
    path.write_text("art_style;painting\na;b\n")
    with pytest.raises(InputError, match="no column emotion, utterance, .*read with semicolons between columns"):
        read_release(path)


def test_workbooks(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [HEADER, *ROWS[:20], (), *ROWS[20:], ("", None, "")]:
        book.active.append(row)
    book.create_sheet("notes").append(["of no interest"])
    for name in ("mine.xlsx", "mine.csv"):
        book.save(tmp_path / name)
        records = build(tmp_path / name)
        assert len(records) == 20 and {len(record["emotions"]) for record in records} == {2}
    book.active["B4"] = "joy"
    book.active["D1"], book.active["D2"] = "repetition", 8
    book.save(tmp_path / "mine.xlsx")
    table = read_table(tmp_path / "mine.xlsx", ["repetition", "emotion"], "")
    assert table.iloc[0].tolist() == ["8", "awe"] and table.loc[2, "emotion"] == "joy"
    with pytest.raises(InputError, match="mine.xlsx: has no column mood"):
        read_table(tmp_path / "mine.xlsx", ["mood"], "")


def test_workbooks_without_openpyxl(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "mine.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match="mine.xlsx: is an Excel workbook; pip install openpyxl to read it, or export"):
        build(tmp_path / "mine.xlsx")
