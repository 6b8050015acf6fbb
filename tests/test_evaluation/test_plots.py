"""utils.plots: the figures of a run, runs overlaid, and folders that are not runs."""

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import artEmisX_train
from utils import plots
from utils.errors import InputError
from utils.evaluation.emotion_metrics import accuracy_and_ece, confusion_matrix
from utils.visualize.figures import COLOURS, LINES, MARKERS, scores_figure, style

NAMES = {"losses", "scores", "confusion", "calibration", "lengths"}


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    """Two runs: one with the emotion head and a named test set, one without."""
    root = tmp_path_factory.mktemp("runs")
    first = ("--use_emotion_loss", "--test_set", "v1.0", "--log_steps", "1")
    assert artEmisX_train.main(workspace.argv(root / "first", *first)) == 0
    assert artEmisX_train.main(workspace.argv(root / "$second_$", "--num_train_epochs", "1")) == 0
    return root


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained / "first" / "results", tmp_path / "run")


def texts(path) -> str:
    return " ".join(element.text or "" for element in ET.parse(path).iter() if element.tag.endswith("text"))


@pytest.mark.slow
def test_all_figures_of_a_run(run, capsys):
    assert plots.main([str(run)]) is None
    written = {path.name for path in (run / "plots").iterdir()}
    assert written == {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}
    assert len(capsys.readouterr().out.splitlines()) == 5
    for name in NAMES:
        with Image.open(run / "plots" / f"{name}.png") as picture:
            assert min(picture.size) > 300 and len(picture.convert("L").getcolors(10**6)) > 10
    assert all(term in texts(run / "plots" / "losses.svg") for term in ("lm loss", "vad loss", "emotion loss"))
    scores = texts(run / "plots" / "scores.svg")
    assert "SEVLM (published)" in scores and "B-4" in scores and "head ECE" in scores


@pytest.mark.slow
def test_runs_are_overlaid(trained, tmp_path, capsys):
    out = tmp_path / "out"
    plots.main([str(trained / "first"), str(trained / "$second_$"), "--out", str(out)])  # results/ is found
    for name in ("losses", "scores", "lengths"):
        assert all(run in texts(out / f"{name}.svg") for run in ("/first", "/$second_$"))
    assert "published" not in texts(out / "scores.svg")  # two test sets
    assert "$second_$" not in texts(out / "calibration.svg")
    assert "$second_$: has no emotion head" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_figures_from_the_same_run(run, tmp_path):
    for folder in ("a", "b"):
        plots.main([str(run), "--out", str(tmp_path / folder)])
    for name in NAMES:
        assert (tmp_path / "a" / f"{name}.svg").read_bytes() == (tmp_path / "b" / f"{name}.svg").read_bytes()


def test_values_are_those_of_the_files(run, workspace):
    read = plots.read_run(run)
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    captions = json.loads((run / "unf_captions_full_1_5_step.json").read_text())
    captions = {line["image_id"]: line["caption"] for line in captions}
    assert (plots.confusion_of(read, records) == confusion_matrix(captions, records)).all()
    heads = json.loads((run / "emotion_head_1_5_step.json").read_text())
    expected = accuracy_and_ece({row["image_id"]: row["probabilities"] for row in heads}, records)
    majority = sum(max(records[str(row["image_id"])]["origin_emotion_distribution"]) > 0.5 for row in heads)
    images, right, confidence = plots.calibration_of(read, records)
    assert images.sum() == majority and right.sum() / images.sum() == pytest.approx(expected["acc"])
    assert np.abs(right - confidence).sum() / images.sum() == pytest.approx(expected["ece"])
    (run / "report.json").write_text(json.dumps({"scores": {}, "confusion_matrix": [[3] * 10] * 9}))
    assert (plots.confusion_of(read, records) == 3).all()
    updates, values = read.curves(read.history.losses)["vad_loss"]
    assert updates == list(range(1, 13)) and values == [point["vad_loss"] for point in read.history.losses]


def test_scores_are_drawn_in_percent_beside_published_lines():
    figure = scores_figure({"mine": {"sub_acc": ([6, 12], [0.25, 0.5]), "max_lcs": ([6], [4.0])}}, "test_all")
    accuracy, novelty = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in accuracy.lines}
    assert drawn["mine"] == [25, 50] and drawn["SEVLM (published)"] == [44.2, 44.2] and len(drawn) == 4
    assert [list(line.get_ydata()) for line in novelty.lines] == [[4.0]]


def test_runs_differ_without_colours():
    looks = [style(number) for number in range(len(LINES) * len(MARKERS))]
    assert len({(look["linestyle"], look["marker"]) for look in looks}) == len(looks)
    assert len({look["color"] for look in looks[: len(COLOURS)]}) == len(COLOURS)


def test_a_run_without_evaluations_has_losses(run, capsys):
    lines = [line for line in (run / "log.jsonl").read_text().splitlines() if not line.startswith('{"scores"')]
    (run / "log.jsonl").write_text("\n".join(lines))
    plots.main([str(run)])
    assert {path.name for path in (run / "plots").iterdir()} == {"losses.png", "losses.svg"}
    assert "no evaluation yet: only its losses are drawn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("unf_captions_exp_1_5_step.json", None, "unf_captions_exp_1_5_step.json: no such file"),
        ("unf_captions_exp_1_5_step.json", '[{"image_id": 7, "caption": "a"}]', "image 7 is not in the scored split"),
        ("emotion_head_1_5_step.json", "[1]", "not a list of images with probabilities"),
        ("report.json", '{"confusion_matrix": [[1]]}', "not a test report"),
        ("report.json", '{"scores": {}, "confusion_matrix": null}', "has no confusion matrix"),
    ],
)
def test_a_damaged_file_leaves_one_figure_out(run, capsys, name, content, line):
    (run / name).unlink(missing_ok=True) if content is None else (run / name).write_text(content)
    plots.main([str(run)])
    notes = [printed for printed in capsys.readouterr().out.splitlines() if printed.startswith("not drawn: ")]
    assert len(notes) == 1 and line in notes[0]
    assert (run / "plots" / "scores.svg").is_file()


def test_folders_that_are_not_runs(run, tmp_path):
    for argv, message in (
        ([tmp_path / "nowhere"], "no such folder; name that of a run"),
        ([tmp_path], "holds neither a log .log.jsonl. nor captions"),
        ([run, "--out", run / "log.jsonl"], "log.jsonl is not a folder; name another folder"),
    ):
        with pytest.raises(InputError, match=message):
            plots.main(list(map(str, argv)))
    (run / "log.jsonl").write_text('{"start": {}}\n')
    with pytest.raises(InputError, match="has no losses and no scores yet"):
        plots.main([str(run)])
    assert not (run / "plots").exists()
