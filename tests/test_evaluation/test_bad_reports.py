"""`python -m utils.report`: reports that are none, and bad command lines."""

import pytest

from tests.bad_input import ANNOTATIONS, BRACKETS, check_accepted, check_refused
from utils.report import main

NO_REPORT = "report.json: no test report"

# what -> (content of report.json, more of the command line, message)
REPORTS = {
    "brackets": (BRACKETS, "", "report.json: JSON nested too deeply"),
    "score is a text": ('{"scores": {"sub_acc": "high"}}', "", NO_REPORT),
    "score is NaN": ('{"scores": {"sub_acc": NaN}}', "--json out.json", NO_REPORT),
    "score of 400 digits": ('{"scores": {"sub_acc": ' + "9" * 400 + "}}", "--json out.json", NO_REPORT),
    "test set is a list": ('{"test_set": [1], "scores": {"sub_acc": 1}}', "", NO_REPORT),
}


@pytest.mark.parametrize(("content", "more", "message"), REPORTS.values(), ids=REPORTS)
def test_report(box, content, more, message):
    box.write("report.json", content)
    check_refused(box, main, f"report.json {more}", message)


def test_seed_is_a_list(box):
    for name in ("report.json", "report2.json"):
        box.write(name, '{"seed": [1], "scores": {"sub_acc": 1}}')
    check_refused(box, main, "report.json report2.json", NO_REPORT)


# command line -> message
ARGV = {
    "": "reports",
    "gone.json": "gone.json: no such file",
    ANNOTATIONS: "no test report .it has no scores.; name the report.json",
    "report.json --json data": "data: is a folder",
    "report.json --json vit/config.json/a.json": "vit/config.json",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_argv(box, argv, message):
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, "report.json --json out/summary.json")
