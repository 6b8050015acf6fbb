"""utils.plots: the figures of a run and what their axes show, runs overlaid, and folders that are not runs."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from utils import plots
from utils.constants import EMOTIONS
from utils.errors import InputError
from utils.files import write_json
from utils.visualize.figures import COLOURS, style

NAMES = {"losses", "scores", "confusion", "calibration", "lengths"}


def distribution(probabilities: dict[int, float]) -> list[float]:
    return [probabilities.get(label, 0.0) for label in range(9)]


def write_run(root: Path, name: str, head: bool = True, **flags) -> Path:
    """A run of two evaluations of five images: awe (twice), fear, sadness, and one without a majority."""
    records = {}
    for image, votes in enumerate(({1: 1.0}, {1: 0.8, 2: 0.2}, {6: 0.6, 1: 0.4}, {7: 1.0}, {0: 0.5, 1: 0.5}), 1):
        texts = {"emotions": ["awe", "fear"], "explanations": ["a b c", "a b c d e"], "image_name": f"{image}.jpg"}
        records[image] = texts | {"origin_emotion_distribution": distribution(votes)}
    write_json(root / "val.json", records)
    lines: list[dict] = [{"start": {"flags": {"nle_data_val_path": str(root / "val.json"), **flags}}}]
    for epoch in (0, 1):
        for step in (0, 1):
            place = {"epoch": epoch, "step": step, "updates": 10 * (2 * epoch + step + 1)}
            losses = {"loss": 3.0 - epoch, "lm_loss": 2.0 - epoch, "vad_loss": 0.5 if step else float("nan")}
            lines.append({"losses": place | losses})
        lines.append({"scores": place | {"sub_acc": 0.25 + epoch / 4, "Bleu_4": 0.1}})
    results = root / name / "results"
    results.mkdir(parents=True)
    (results / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = ("awe", "fear", "fear", "a mood", "awe")
    by_head = ({1: 0.9}, {0: 0.88}, {6: 0.7}, {8: 0.2}, {2: 0.7})
    for kind, key, values in (
        ("unf_captions_full", "caption", [f"{emotion} because x" for emotion in named]),
        ("unf_captions_exp", "caption", ["a", "a b", "a b", "a b c d", "a b c d e f"]),
        ("emotion_head", "probabilities", [distribution(of_image) for of_image in by_head]),
    ):
        if head or kind != "emotion_head":
            rows = [{"image_id": image, key: value} for image, value in enumerate(values, 1)]
            write_json(results / f"{kind}_1_1_step.json", rows)
    return results


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path, "first", test_set="v1.0")


def texts(path) -> str:
    return " ".join(element.text or "" for element in ET.parse(path).iter() if element.tag.endswith("text"))


@pytest.mark.slow
def test_files_of_two_runs(run, tmp_path, capsys):
    """Each run under its name, which is no formula; published lines only where both have the same test set."""
    write_run(tmp_path, "$second_$", head=False, test_set="test_all")
    names = [str(tmp_path / name) for name in ("first", "$second_$")]
    assert plots.main(names) is None  # results/ is found
    written = {path.name for path in (run / "plots").iterdir()}
    assert written == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}
    note, *files = capsys.readouterr().out.splitlines()
    assert note == f"not drawn: {names[1]}: has no emotion head (--use_emotion_loss)" and len(files) == 5
    shown = {name: texts(run / "plots" / f"{name}.svg") for name in NAMES}
    assert all((names[1] in shown[name]) == (name != "calibration") for name in NAMES)
    assert f"{names[1]} (mean 3.0)" in shown["lengths"]
    assert "B-4" in shown["scores"] and "(published)" not in shown["scores"]
    for name in ("losses", "scores", "lengths"):
        assert COLOURS[1].lower() in (run / "plots" / f"{name}.svg").read_text()  # of the second run
    assert len({(style(number)["linestyle"], style(number)["marker"]) for number in range(20)}) == 20  # without colours


# ---- what is drawn ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("drawn"), "first", test_set="v1.0")
    figures, notes = plots.figures([plots.read_run(run)])
    assert figures.keys() == NAMES and not notes
    return figures


def test_losses_and_scores_over_updates(drawn):
    """Losses without what is not a number; scores in percent beside the published ones."""
    curves = {axes.get_title(): list(map(list, axes.lines[0].get_data())) for axes in drawn["losses"].axes}
    assert curves == {
        "loss": [[10, 20, 30, 40], [3, 3, 2, 2]],
        "lm loss": [[10, 20, 30, 40], [2, 2, 1, 1]],
        "vad loss": [[20, 40], [0.5, 0.5]],
    }
    accuracy, bleu = drawn["scores"].axes
    curves = {line.get_label(): list(line.get_ydata()) for line in accuracy.lines}
    assert curves["SEVLM (published)"] == [65.6, 65.6] and len(curves) == 1 + 4
    assert list(map(list, accuracy.lines[0].get_data())) == [[20, 40], [25, 50]]
    assert (accuracy.get_title(), bleu.get_title()) == ("ACC", "B-4")


def test_confusion_has_the_dominant_emotion_in_rows(drawn):
    (axes,) = drawn["confusion"].axes
    counts = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    # awe as awe and as fear, fear as fear, sadness as a text that is none
    assert counts == {(1, 1): "1", (1, 6): "1", (6, 6): "1", (7, 9): "1"}
    fractions = axes.images[0].get_array()
    assert (fractions[1, 1], fractions[7, 9]) == (0.5, 1) and axes.get_ylabel() == "dominant emotion (its F1)"
    f1 = {"awe": 67, "fear": 67}  # one of two found, and none too many; all found, and one too many
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [f"{name} ({f1.get(name, 0)})" for name in EMOTIONS]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*EMOTIONS, "other text"]
    assert axes.get_title().endswith("\nmacro F1 44.4, weighted F1 50.0")


def test_calibration_is_accuracy_over_confidence(drawn):
    upper, lower = drawn["calibration"].axes
    diagonal, line = upper.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    # 0.2 wrong; 0.7 right; 0.88 wrong and 0.9 right in one bin; the image without a majority does not count
    assert list(line.get_xdata()) == pytest.approx([0.2, 0.7, 0.89]) and list(line.get_ydata()) == [0, 1, 0.5]
    error = (0.2 + 0.3 + abs(1 - 0.88 - 0.9)) / 4
    assert f"(ECE {100 * error:.1f} %)" in line.get_label()
    assert list(lower.patches[0].get_data().values[[2, 10, 13]]) == [1, 1, 2]


def test_lengths_are_those_of_the_explanations(drawn):
    (axes,) = drawn["lengths"].axes
    line = axes.lines[0]
    assert list(line.get_xdata()) == list(range(7)) and list(line.get_ydata()) == [0, 20, 40, 0, 20, 0, 20]
    assert "(mean 3.0)" in line.get_label() and axes.patches[0].get_label() == "references (mean 4.0)"
    assert list(axes.patches[0].get_data().values) == [0, 0, 0, 50, 0, 50, 0]
    assert list(axes.patches[0].get_data().edges[:2]) == [-0.5, 0.5]


# ---- runs that lack something ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("unf_captions_exp_1_1_step.json", '[{"image_id": 7, "caption": "a"}]', "image 7 is not in the scored split"),
        ("emotion_head_1_1_step.json", "[1]", "not a list of images with probabilities"),
        ("../../val.json", None, "val.json: no such file, which is the scored split"),
    ],
)
def test_a_damaged_file_leaves_one_figure_out(run, name, content, line):
    (run / name).unlink(missing_ok=True) if content is None else (run / name).write_text(content)
    figures, notes = plots.figures([plots.read_run(run)])
    assert len(notes) == 1 and notes[0].startswith("not drawn: ") and line in notes[0]
    assert "scores" in figures and figures.keys() < NAMES


def test_runs_without_evaluations_and_folders_that_are_not_runs(run, tmp_path):
    lines = [line for line in (run / "log.jsonl").read_text().splitlines() if not line.startswith('{"scores"')]
    (run / "log.jsonl").write_text("\n".join(lines))
    figures, notes = plots.figures([plots.read_run(run)])
    assert set(figures) == {"losses"} and notes == [f"{run}: no evaluation yet: only its losses are drawn"]
    with pytest.raises(InputError, match="log.jsonl is not a folder; name another folder"):
        plots.main([str(run), "--out", str(run / "log.jsonl")])
    (run / "log.jsonl").write_text('{"start": {}}\n')
    with pytest.raises(InputError, match="has no losses and no scores yet"):
        plots.main([str(run)])
    assert not (run / "plots").exists()
