"""The test report: table, files, CSV rows, aggregation over seeds, bad command lines, and doubts about the split."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.bad_input import check_refused, record
from utils import report
from utils.command_line import parse_args
from utils.errors import InputError
from utils.evaluation.report import checkpoint_facts, split_warnings
from utils.evaluation.tables import HEADINGS, WIDTH, aggregate, aligned_table, format_summary, write_report
from utils.files import check_append_to

SCORES = {"sub_acc": 0.6561, "Bleu_1": 0.5, "Bleu_4": 0.0951, "METEOR": 0.139, "ROUGE_L": 0.304, "CIDEr": 0.114}


def run(seed: int = 0, **changes) -> dict:
    facts = {"test_set": "v1.0", "images": 7933, "references_per_image": 5.3571, "checkpoint": "best-res"}
    facts |= {"lexicon_sha256": "ab12", "emotion_classifier": "text2emotion.safetensors", "seed": seed}
    return {"scores": dict(SCORES)} | facts | changes


def rows_of(table: str) -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_the_run_stands_beside_the_published_rows_of_its_test_set(tmp_path):
    text = write_report(tmp_path / "r", run())
    rows = rows_of(text)
    assert rows[""] == ["ACC", "B-1", "B-2", "B-3", "B-4", "METEOR", "ROUGE-L", "CIDEr"]
    assert rows["this run"] == ["65.6", "50.0", "-", "-", "9.5", "13.9", "30.4", "11.4"]
    assert rows["SEVLM (published)"] == ["65.6", "54.2", "30.3", "16.4", "9.2", "13.9", "30.4", "-"]
    for fact in ("images: 7933", "references per image: 5.36", "checkpoint: best-res", "lexicon sha256: ab12"):
        assert f"- {fact}" in text
    assert "WARNING" not in text and text in (tmp_path / "r/report.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8")) == run() | {"data_set": "v1.0"}
    rows = rows_of(write_report(tmp_path, run(test_set="test_all")))
    assert rows["SEVLM (published)"][0] == "44.2" and "NLX-GPT (published)" not in rows
    for test_set, words in (("test_new", "published for test_new"), (None, "an unnamed test set")):
        text = write_report(tmp_path, run(test_set=test_set))
        assert words in text and "SEVLM" not in text


def test_what_is_no_fraction_is_not_shown_in_percent(tmp_path):
    plain = ("max_lcs", "vad_distance", "head_KL", "likelihood_JS", "head_brier")
    scores = {name: 0.125 * place for place, name in enumerate(("sub_acc", "head_ece", *plain), start=1)}
    rows = rows_of(write_report(tmp_path, run(test_set=None, scores=scores)))
    shown = dict(zip(rows[""], rows["this run"], strict=True))
    assert (shown["ACC"], shown["head ECE"]) == ("12.5", "25.0")
    assert [shown[HEADINGS[name]] for name in plain] == [f"{scores[name]:.2f}" for name in plain]


def test_a_wide_table_is_continued_below():
    """With its first column, and without rows that have no value there."""
    cells = [["run", *(f"score {number:02}" for number in range(11))]]
    cells += [["a run", *["12.3"] * 11], ["published", *["45.6"] * 9, "-", "-"]]
    head, tail = aligned_table(cells).split("\n\n")  # 13 + 9 * 11 characters; a tenth column would make it 123
    assert {len(line) for line in head.splitlines()} == {112} and WIDTH == 120
    head, tail = rows_of(head), rows_of(tail)
    assert head["run"] == [f"score {number:02}" for number in range(9)] and head["published"] == ["45.6"] * 9
    assert (tail["run"], tail["a run"]) == (["score 09", "score 10"], ["12.3", "12.3"]) and "published" not in tail
    # a row without any value stays in the first part
    assert rows_of(aligned_table([["", "B-1"], ["no scores", "-"]]))["no scores"] == ["-"]


def test_everything_of_a_report_is_shown(tmp_path):
    """Warnings first, the bounds of each score below it, groups and confusion matrix in the Markdown only."""
    scores = SCORES | {"Unique": 0.5, "max_lcs": 4.567, "distinct_words": 1234, "EA_more_than_half": 0.5}
    matrix = [[0] * 10 for _ in range(9)]
    matrix[1][9] = 77
    more = {
        "intervals": {"sub_acc": [0.6, 0.7], "max_lcs": [4.1, 5.2]},
        "floor": {"emotion": "fear", "scores": {"sub_acc": 0.25}},
        "ceiling": {"images": 3, "scores": {"sub_acc": 0.81}},
        "per_style": {"Cubism": {"images": 12, "sub_acc": 0.33}},
        "of_right_emotion": {"images": 7, "Bleu_1": 0.44},
    }
    facts = {"warnings": ["val scored"], "checkpoint": "a|b\n# <c> [x](y) `z` **w** \x1b[2J"}
    text = write_report(tmp_path, run(scores=scores, confusion_matrix=matrix, **facts, **more))
    assert text.startswith("**WARNING: val scored**")
    escaped = r"- checkpoint: a\|b # \<c\> \[x\](y) \`z\` \*\*w\*\*  \[2J"
    assert escaped in text.splitlines()  # no Markdown, no escape code
    rows = rows_of(text)
    assert rows[""][-3:] == ["EA > 1/2", "Unique", "max-LCS"]
    assert rows["this run"][-3:] == ["50.0", "50.0", "4.57"] and "- distinct words: 1234" in text
    titles = ("95 % from", "95 % to", "constant answer", "one annotator")
    assert [rows[title][0] for title in titles] == ["60.0", "70.0", "25.0", "81.0"]
    assert (rows["95 % from"][-1], rows["95 % to"][-1]) == ("4.10", "5.20")
    page = (tmp_path / "report.md").read_text()
    assert "| awe | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 77 |" in page and "77" not in text
    assert rows_of(page)["Cubism (12)"] == ["33.0"] and rows_of(page)["all of them (7)"] == ["44.0"]


def rows_in(table: Path) -> list[dict]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_are_appended(tmp_path):
    """A row of other columns adds them; texts keep their signs and lines, and none is a formula."""
    table = tmp_path / "deep/all.csv"
    first = run(1, note='a "quoted", one\nof two lines', checkpoint="=cmd|' /C calc'!A0")
    second = run(2, emotion_classifier=None, extra=3, checkpoint="+1+1", warnings=["one", "two"])
    write_report(tmp_path / "a", first, table)
    check_append_to(table)
    write_report(tmp_path / "b", second, table)
    rows = rows_in(table)
    assert [row["seed"] for row in rows] == ["1", "2"] and [row["extra"] for row in rows] == ["", "3"]
    assert rows[0]["note"] == 'a "quoted", one\nof two lines' and rows[1]["emotion_classifier"] == ""
    assert [row["checkpoint"] for row in rows] == ["'=cmd|' /C calc'!A0", "'+1+1"]
    assert float(rows[0]["sub_acc"]) == SCORES["sub_acc"] and rows[0]["test_set"] == "v1.0"
    assert [row["warnings"] for row in rows] == ["", "one; two"]
    assert [path.name for path in table.parent.iterdir()] == ["all.csv"]


def test_runs_that_end_together_lose_no_row(tmp_path):
    table = tmp_path / "all.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: write_report(tmp_path / str(seed), run(seed), table), range(8)))
    assert sorted(row["seed"] for row in rows_in(table)) == list("01234567")


def test_another_files_content_is_never_overwritten(tmp_path):
    table = tmp_path / "all.csv"
    for content in (b"a,b\n1,2\n", b"\xff\xfe\x00"):
        table.write_bytes(content)
        for append in (lambda: check_append_to(table), lambda: write_report(tmp_path / "r", run(), table)):
            with pytest.raises(InputError, match="all.csv: not a CSV file"):
                append()
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
    assert "| one run" in output and "WARNING" not in output
    assert "2 groups, not averaged with each other: the runs differ in data set, test set." in output
    three, one = json.loads((tmp_path / "summary.json").read_text())
    assert three["runs"] == 3 and three["mean"]["sub_acc"] == pytest.approx(0.63)
    assert three["std"]["sub_acc"] == pytest.approx((0.0026 / 2) ** 0.5) and three["std"]["Bleu_1"] == 0
    assert one["test_set"] == "test_new" and "std" not in one


def test_reports_say_how_captions_were_decoded():
    sampling = "--eval_only --load_from_epoch 0 --rerank likelihood --num_samples 5 --top_p 0.5"
    for flags, decoding in (
        ("", "greedy"),
        ("--num_beams 3 --drop_last_token", "beam search with 3 beams, without a 25th token"),
        (sampling, "best of 5 samples by likelihood (temperature 1, top_p 0.5)"),
    ):
        args = parse_args(["--ckpt_path", "none", *flags.split()])
        assert checkpoint_facts(args, {"image_encoder_sha256": "a", "decoder_sha256": "b"})["decoding"] == decoding


def test_means_leave_out_what_not_all_runs_have_or_what_cannot_be_compared():
    """Other training texts: no max-LCS. Another encoder, decoder, lemmatizer, decoding, or the same seed: a warning."""
    warned = ("image_encoder_sha256", "decoder_sha256", "lemmatizer", "decoding")
    facts = dict.fromkeys(("training_texts_sha256", *warned), "a")
    base = run(1, scores={"Bleu_1": 0.5, "max_lcs": 2.0}, **facts)
    (same,) = aggregate({"a": base, "b": base | {"seed": 2}})
    assert same["mean"]["max_lcs"] == 2 and same["notes"] == []
    (summary,) = aggregate({"a": base, "b": base | dict.fromkeys(facts, "b") | {"seed": 2}})
    assert summary["mean"] == {"Bleu_1": 0.5} and summary["std"] == {"Bleu_1": 0}
    shown = format_summary(summary)
    assert "- **left out: max-LCS, as the runs differ in training texts**" in shown
    assert "- **WARNING: a mean of runs that differ in image encoder, decoder, lemmatizer, decoding**" in shown
    assert "same seed" not in shown
    assert "- seeds: 1, 2\n" in shown and "seed" not in format_summary(aggregate({"a": run(None), "b": run(None)})[0])
    (summary,) = aggregate({"a": run(1), "b": run(1, scores={"sub_acc": 0.5})})
    assert list(summary["mean"]) == ["sub_acc"] and "the same seed more than once" in format_summary(summary)


SAME = ("data_set", "test_set", "images", "references_per_image", "evaluated_sha256", "references_sha256")
SAME += ("lexicon_sha256", "emotion_classifier", "clip_score", "emotion_from")


def test_runs_that_differ_in_a_fact_are_not_averaged():
    """Captions of other programs, whose reports do not say it, name their emotions in the text."""
    for fact in SAME:
        groups = aggregate({"c": run(3, **{fact: "another"}), "a": run(1), "b": run(2)})
        assert [group["seeds"] for group in groups] == [[3], [1, 2]], fact
    assert len(aggregate({"a": run(1), "b": run(2, emotion_from="text")})) == 1


# ---- bad files and command lines -------------------------------------------------------------------------------------

NO_REPORT = "report.json: not a test report .it has no scores.; name the report.json"
# command line, content of report.json -> message
REFUSED = {
    ("report.json", "x"): "report.json: ",
    ("report.json", '{"scores": {"sub_acc": "high"}}'): NO_REPORT,
    ("", None): "no reports: name report.json files",
    ("gone.json", None): "gone.json: no such file",
    ("report.json --json vit/config.json/a.json", None): "vit/config.json",
    ("report.json --predictions results.json", None): "--predictions writes one report",
    ("--predictions results.json", None): "--predictions needs --records FILE",
}


@pytest.mark.parametrize(("case", "message"), REFUSED.items())
def test_refused_files_and_command_lines(box, case, message):
    argv, content = case
    if content is not None:
        box.write("report.json", content)
    check_refused(box, report.main, argv, message)


# ---- doubts about the split ------------------------------------------------------------------------------------------


def records(*images: int) -> dict:
    return {str(image): {"image_name": f"Baroque/{image}.jpg"} for image in images}


@pytest.mark.parametrize(
    ("name", "evaluated", "training", "test_set", "words"),
    [
        ("test", range(7933), (9000,), "v1.0", None),
        ("test", (1, 2), (3,), "v1.0", "artEmisX_test.json has 2 images, the v1.0 test split has 7933"),
        ("test_old", (1,), (2,), "test_all", "is scored as test set test_all, but its name says test_old"),
        ("val", (1,), (2,), "test_all", "artEmisX_val.json is scored as test set test_all, but its name says val"),
        ("test", (1,), None, "test_all", "no training file was found"),
        ("val", (1,), None, None, None),
        ("val", (1, 2, 3), (3, 1), None, "2 of the 3 images of artEmisX_val.json are in the training file as well"),
    ],
)
def test_doubts_about_the_split(name, evaluated, training, test_set, words):
    training = None if training is None else records(*training)
    found = split_warnings(Path(f"nowhere/artEmisX_{name}.json"), records(*evaluated), training, test_set)
    assert len(found) == (words is not None) and all(words in line for line in found)


def test_doubts_about_the_training_file(tmp_path):
    """A note about it takes the place of the one that there is none; shared images are looked for by name as well."""
    split = tmp_path / "artEmisX_test.json"
    assert split_warnings(split, records(1), None, "test_all", "the texts are gone") == ["the texts are gone"]
    assert len(split_warnings(split, records(1), records(1), "test_all", "other texts")) == 2
    renumbered = {"77": {"image_name": "Baroque/2.png"}}  # another preprocessing's id and format for the same image
    (found,) = split_warnings(split, records(1, 2), renumbered, "test_all")
    assert found.startswith("1 of the 2 images")


def test_a_renamed_validation_split(tmp_path):
    (tmp_path / "artEmisX_val.json").write_text(json.dumps({"1": record(1), "2": record(2)}))
    (found,) = split_warnings(tmp_path / "artEmisX_test.json", records(2, 3), records(9), "test_all")
    assert "1 of the 2 images of artEmisX_test.json are in artEmisX_val.json" in found
