"""RUN has one meaning: the commands find a run by its folder, its results and its checkpoints, also where it was moved."""

import json
import shlex
import shutil

import pytest

import artEmisX_train
from utils import compare, explain, gallery, plots, report, share
from utils.command_line import parse_args
from utils.data.images import image_files
from utils.errors import InputError
from utils.runs import report_file, results_folder


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    """A short training, its folder moved since."""
    folder = tmp_path_factory.mktemp("runs")
    assert artEmisX_train.main(workspace.argv(folder / "first", "--num_train_epochs", "1")) == 0
    shutil.move(folder / "first", folder / "moved")
    return folder / "moved"


def test_results_of_every_folder_of_a_run(run, tmp_path):
    for folder in (run, run / "results", run / "ckpts"):
        assert results_folder(folder) == run / "results"
    (tmp_path / "nle_model_0").mkdir()
    (tmp_path / "nle_model_0" / "config.json").write_text("{}")  # as the authors' checkpoints, without a record
    with pytest.raises(InputError, match="holds neither a log .* nor captions"):
        results_folder(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        results_folder(tmp_path / "none")


@pytest.mark.slow
def test_commands_take_every_folder_of_a_run(run, workspace, tmp_path, capsys):
    image = next(image_files(workspace.data))
    assert not explain.main([str(image), "--ckpt", str(run), "--device", "cpu"])
    assert not share.main([str(run), str(tmp_path / "model")])
    log, val = run / "results" / "log.jsonl", workspace.data / "artEmisX_val.json"
    text = log.read_text()
    shutil.copy(val, run)
    log.write_text(text.replace(str(val), str(run.with_name("first") / val.name)))  # a split that was moved along
    assert not plots.main([str(run / "ckpts"), "--out", str(tmp_path / "plots")])
    assert (tmp_path / "plots" / "confusion.svg").is_file()
    log.write_text(text)
    for folder in (run, run / "ckpts"):
        assert not gallery.main([str(folder), "--metrics", "bleu", "--out", str(tmp_path / f"{folder.name}.html")])
    assert (tmp_path / "moved.html").read_text() == (tmp_path / "ckpts.html").read_text()
    with pytest.raises(InputError, match="is an exported model, which has no results"):
        plots.main([str(tmp_path / "model")])


def test_a_run_without_a_report_names_the_command_that_writes_one(run, tmp_path):
    for command in (lambda: compare.main([str(run), str(run)]), lambda: report.main([str(run)])):
        with pytest.raises(InputError, match="has no test report .*write one: python ") as error:
            command()
        words = shlex.split(str(error.value).partition("write one: ")[2])
        args = parse_args(words[2:])
        assert (args.eval_only, args.load_from_epoch, args.metrics) == (True, "best-res", ["bleu"])


def test_the_report_of_a_run(run, tmp_path, capsys):
    """That beside its log, else that of results/test or, in a sweep, of test; a file stands for itself."""
    beside_the_log, of_test = run / "results" / "report.json", run / "results" / "test" / "report.json"
    of_test.parent.mkdir()
    of_test.write_text(json.dumps({"scores": {"sub_acc": 0.5}, "seed": 42}))
    assert report_file(run) == report_file(run / "ckpts") == report_file(of_test) == of_test
    report.main([str(run)])
    assert "50.0" in capsys.readouterr().out
    shutil.copy(of_test, beside_the_log)
    assert report_file(run) == report_file(run / "results") == beside_the_log
    beside_the_log.unlink()
    shutil.move(of_test.parent, run / "test")
    assert report_file(run) == run / "test" / "report.json"
    with pytest.raises(InputError, match="no such file or folder"):
        report_file(tmp_path / "none")
