"""The test report: table, files, CSV rows, aggregation over seeds, bad command lines, and doubts about the split."""

import csv
import json
import threading
from pathlib import Path

import pytest

from tests.bad_input import ANNOTATIONS, BRACKETS, check_accepted, check_refused, record
from utils import report
from utils.errors import InputError
from utils.evaluation.report import split_warnings
from utils.evaluation.tables import WIDTH, aggregate, aligned_table, format_summary, write_report
from utils.files import check_append_to

SCORES = {"sub_acc": 0.6561, "Bleu_1": 0.5, "Bleu_4": 0.0951, "METEOR": 0.139, "ROUGE_L": 0.304, "CIDEr": 0.114}


def run(seed: int = 0, **changes) -> dict:
    facts = {
        "test_set": "v1.0",
        "images": 7933,
        "references_per_image": 5.3571,
        "checkpoint": "best-res",
        "lexicon_sha256": "ab12",
        "judge": "text2emotion.safetensors",
        "seed": seed,
    }
    return {"scores": dict(SCORES)} | facts | changes


def rows_of(table: str) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_run_stands_beside_the_published_rows(tmp_path):
    text = write_report(tmp_path / "r", run())
    rows = rows_of(text)
    assert rows[""] == ["ACC", "B-1", "B-2", "B-3", "B-4", "METEOR", "ROUGE-L", "CIDEr"]
    assert rows["this run"] == ["65.6", "50.0", "-", "-", "9.5", "13.9", "30.4", "11.4"]
    assert rows["SEVLM (published)"] == ["65.6", "54.2", "30.3", "16.4", "9.2", "13.9", "30.4", "-"]
    assert rows["NLX-GPT (published)"][:5] == ["63.6", "53.8", "29.9", "16.3", "9.3"]
    assert rows["SAEA, 2026 (published)"][-3:] == ["14.8", "31.2", "-"]
    for fact in ("images: 7933", "references per image: 5.36", "checkpoint: best-res", "lexicon sha256: ab12"):
        assert f"- {fact}" in text
    assert "data set: v1.0" in text and "judge: text2emotion.safetensors" in text and "WARNING" not in text
    assert text in (tmp_path / "r/report.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8")) == run() | {"data_set": "v1.0"}
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["report.json", "report.md"]


def test_a_wide_table_is_continued_below():
    cells = [["run", *(f"score {number:02}" for number in range(11))]]
    cells += [["a run", *["12.3"] * 11], ["published", *["45.6"] * 9, "-", "-"]]
    head, tail = aligned_table(cells).split("\n\n")  # 13 + 9 * 11 characters; a tenth column would make it 123
    assert max(len(line) for line in head.splitlines()) == 112 <= WIDTH
    assert list(rows_of(head)) == ["run", "---------", "a run", "published"]
    assert rows_of(head)["run"] == [f"score {number:02}" for number in range(9)]
    assert rows_of(head)["published"] == ["45.6"] * 9
    assert rows_of(tail) == {
        "run": ["score 09", "score 10"],
        "---------": ["-------:", "-------:"],
        "a run": ["12.3", "12.3"],  # the other row has no values here
    }
    assert "\n\n" not in aligned_table([row[:10] for row in cells])
    # a row without any value stays in the first part
    assert rows_of(aligned_table([["", "B-1"], ["no scores", "-"]]))["no scores"] == ["-"]


def test_v2_and_unnamed_test_sets(tmp_path):
    rows = rows_of(write_report(tmp_path, run(test_set="test_all")))
    assert rows["SEVLM (published)"][:5] == ["44.2", "51.8", "30.4", "17.2", "10.1"]
    assert rows["SAEA, 2026 (published)"][:3] == ["56.2", "54.7", "33.4"] and "NLX-GPT (published)" not in rows
    for test_set, words in (("test_new", "published for test_new"), (None, "an unnamed test set")):
        text = write_report(tmp_path, run(test_set=test_set))
        assert words in text and "SEVLM" not in text
    assert json.loads((tmp_path / "report.json").read_text())["data_set"] is None


def test_warnings_come_first_and_all_scores_are_shown(tmp_path):
    scores = SCORES | {"Unique": 0.5, "max_lcs": 4.567, "distinct_words": 1234, "EA_more_than_half": 0.5}
    matrix = [[0] * 10 for _ in range(9)]
    matrix[1][9] = 77
    text = write_report(tmp_path, run(scores=scores, warnings=["val scored"], confusion_matrix=matrix))
    assert text.startswith("**WARNING: val scored**")
    assert rows_of(text)[""][-3:] == ["EA > 1/2", "Unique", "max-LCS"]
    assert rows_of(text)["this run"][-3:] == ["50.0", "50.0", "4.57"] and "- distinct words: 1234" in text
    assert "| awe | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 77 |" in (tmp_path / "report.md").read_text()
    assert "77" not in text


def test_rows_are_appended(tmp_path):
    table = tmp_path / "deep/all.csv"
    write_report(tmp_path / "a", run(1, note='a "quoted", one\nof two lines'), table)
    write_report(tmp_path / "b", run(2, judge=None, extra=3), table)
    check_append_to(table)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2"] and [row["extra"] for row in rows] == ["", "3"]
    assert rows[0]["note"] == 'a "quoted", one\nof two lines' and rows[1]["judge"] == ""
    assert float(rows[0]["sub_acc"]) == SCORES["sub_acc"] and rows[0]["test_set"] == "v1.0"
    assert [path.name for path in table.parent.iterdir()] == ["all.csv"]


def test_runs_that_end_together_lose_no_row(tmp_path):
    table = tmp_path / "all.csv"
    threads = [
        threading.Thread(target=write_report, args=(tmp_path / str(seed), run(seed), table)) for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with table.open(newline="", encoding="utf-8") as file:
        assert sorted(row["seed"] for row in csv.DictReader(file)) == list("01234567")


def test_facts_cannot_act_as_markdown(tmp_path):
    text = write_report(tmp_path, run(checkpoint="a|b\n# <c> [x](y) `z` **w** \x1b[2J"))
    escaped = r"a\|b # \<c\> \[x\](y) \`z\` \*\*w\*\*  \[2J"
    assert f"- checkpoint: {escaped}\n" in text and text in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_texts_from_files_cannot_act_as_formulas(tmp_path):
    path = tmp_path / "rows.csv"
    for seed, text in enumerate(("=cmd|' /C calc'!A0", "+1+1", "-2+3", "plain = text")):
        write_report(tmp_path / "r", run(seed=seed, checkpoint=text), path)
    with path.open(encoding="utf-8", newline="") as file:
        checkpoints = [row["checkpoint"] for row in csv.DictReader(file)]
    assert checkpoints == ["'=cmd|' /C calc'!A0", "'+1+1", "'-2+3", "plain = text"]


@pytest.mark.parametrize("content", [b"hello", b"a,b\n1,2\n", b"\xff\xfe\x00", b"test_set,b\n1,2,3\n"])
def test_another_files_content_is_never_overwritten(tmp_path, content):
    table = tmp_path / "all.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match="all.csv: not a CSV file"):
        check_append_to(table)
    with pytest.raises(InputError, match="all.csv: not a CSV file"):
        write_report(tmp_path / "r", run(), table)
    assert table.read_bytes() == content
    assert (tmp_path / "r/report.json").exists()  # the scores themselves are kept


def test_aggregation(tmp_path, capsys):
    for seed, accuracy in enumerate((0.6, 0.62, 0.67)):
        write_report(tmp_path / f"{seed}", run(seed, scores=SCORES | {"sub_acc": accuracy}))
    write_report(tmp_path / "other", run(0, test_set="test_new"))
    paths = [str(tmp_path / name / "report.json") for name in ("0", "1", "2", "other")]
    assert not report.main([*paths, "--json", str(tmp_path / "summary.json")])
    output = capsys.readouterr().out
    first = rows_of(output.split("\n\n|")[0])
    assert first["mean of 3 runs"][0] == "63.0" and first["standard deviation"][0] == "3.61"
    assert first["SEVLM (published)"][0] == "65.6" and "- seeds: 0, 1, 2" in output
    assert "2 groups" in output and "| one run" in output and "WARNING" not in output
    three, one = json.loads((tmp_path / "summary.json").read_text())
    assert three["runs"] == 3 and three["mean"]["sub_acc"] == pytest.approx(0.63)
    assert three["std"]["sub_acc"] == pytest.approx((0.0026 / 2) ** 0.5) and three["std"]["Bleu_1"] == 0
    assert one["test_set"] == "test_new" and "std" not in one


def test_aggregation_warns_of_a_repeated_seed_and_leaves_out_scores_that_not_all_runs_have():
    runs = {"a": run(1), "b": run(1, scores={"sub_acc": 0.5})}
    (summary,) = aggregate(runs)
    assert list(summary["mean"]) == ["sub_acc"]
    assert "the same seed more than once" in format_summary(summary)


def test_aggregation_names_the_facts_in_which_runs_differ(tmp_path, capsys):
    """Other training texts: no max-LCS. Another encoder: a warning. Other references or another lexicon: not averaged."""
    base = run(1, scores=SCORES | {"max_lcs": 2.0}, training_texts_sha256="a", image_encoder_sha256="a", num_beams=1)
    (same,) = aggregate({"a": base, "b": base | {"seed": 2}})
    assert same["mean"]["max_lcs"] == 2 and same["notes"] == []
    changes = {"seed": 2, "training_texts_sha256": "b", "image_encoder_sha256": "b", "num_beams": 4}
    (summary,) = aggregate({"a": base, "b": base | changes})
    assert "max_lcs" not in summary["mean"] and "max_lcs" not in summary["std"] and summary["mean"]["Bleu_1"] == 0.5
    shown = format_summary(summary)
    assert "- **left out: max-LCS, as the runs differ in training texts**" in shown
    assert "- **WARNING: a mean of runs that differ in image encoder, num beams**" in shown
    for fact in ("references_sha256", "evaluated_sha256", "lexicon_sha256"):
        for name, other in (("a", base), ("b", base | {fact: "b"})):
            write_report(tmp_path / name, other)
        report.main([str(tmp_path / name / "report.json") for name in "ab"])
        words = fact.removesuffix("_sha256")
        assert f"2 groups, not averaged with each other: the runs differ in {words}." in capsys.readouterr().out


# ---- bad files and command lines -------------------------------------------------------------------------------------

NO_REPORT = "report.json: not a test report"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BRACKETS, "report.json: JSON nested too deeply"),
        ("x", "report.json: "),
        ("[]", NO_REPORT),
        ('{"scores": 3}', NO_REPORT),
        ('{"scores": {"sub_acc": "high"}}', NO_REPORT),
    ],
    ids=["brackets", "no JSON", "list", "no scores", "text"],
)
def test_other_files_are_refused(box, content, message):
    box.write("report.json", content)
    check_refused(box, report.main, "report.json", message)


# command line -> message
ARGV = {
    "": "reports",
    "gone.json": "gone.json: no such file",
    ANNOTATIONS: "not a test report .it has no scores.; name the report.json",
    "report.json --json data": "data: is a folder",
    "report.json --json vit/config.json/a.json": "vit/config.json",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_bad_command_lines(box, argv, message):
    check_refused(box, report.main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, report.main, "report.json --json out/summary.json")


# ---- doubts about the split ------------------------------------------------------------------------------------------


def records(*images: int) -> dict:
    return {str(image): {"image_name": f"Baroque/{image}.jpg"} for image in images}


def warnings(name: str, evaluated: dict, training: dict | None, test_set: str | None, folder: Path = Path("nowhere")):
    return split_warnings(folder / name, evaluated, training, test_set)


def test_a_sound_split_gives_no_warning():
    assert warnings("artEmisX_test.json", records(*range(7933)), records(9000), "v1.0") == []
    assert warnings("artEmisX_test_new.json", records(1), records(2), "test_new") == []
    assert warnings("artEmisX_test.json", records(1), records(2), "test_all") == []
    assert warnings("artEmisX_val.json", records(1), records(2), None) == []
    assert warnings("artEmisX_val.json", records(1), None, None) == []


def test_doubts_about_the_split(tmp_path):
    (found,) = warnings("artEmisX_val.json", records(1), records(2), "test_all")
    assert "artEmisX_val.json is scored as test set test_all, but its name says val" in found
    (found,) = warnings("artEmisX_cl_train.json", records(1), records(2), "test_all")
    assert "says train" in found
    (found,) = warnings("artEmisX_test_old.json", records(1), records(2), "test_all")
    assert "says test_old" in found
    (found,) = warnings("artEmisX_test.json", records(1, 2), records(3), "v1.0")
    assert "has 2 images, the v1.0 test split has 7933" in found
    (found,) = warnings("artEmisX_test.json", records(1), None, "test_all")
    assert "no training file" in found
    assert split_warnings(Path("test.json"), records(1), None, "test_all", "the texts are gone") == [
        "the texts are gone"
    ]
    assert len(split_warnings(Path("test.json"), records(1), records(1), "test_all", "other texts")) == 2
    (found,) = warnings("artEmisX_val.json", records(1, 2, 3), records(3, 1), None)
    assert found.startswith("2 of the 3 images of artEmisX_val.json are in the training file") and "Baroque/1" in found
    renumbered = {"77": {"image_name": "Baroque/2.jpg"}}  # another preprocessing's id for the same image
    (found,) = warnings("artEmisX_test.json", records(1, 2), renumbered, "test_all")
    assert found.startswith("1 of the 2 images")


def test_a_validation_split_under_another_name_is_noticed(tmp_path):
    (tmp_path / "artEmisX_val.json").write_text(json.dumps({"1": record(1), "2": record(2)}))
    split = {"2": record(2), "3": record(3)}
    (found,) = warnings("artEmisX_test.json", split, records(9), "test_all", tmp_path)
    assert "1 of the 2 images of artEmisX_test.json are in artEmisX_val.json" in found
    (tmp_path / "artEmisX_val.json").write_text("damaged")
    assert warnings("artEmisX_test.json", split, records(9), "test_all", tmp_path) == []
