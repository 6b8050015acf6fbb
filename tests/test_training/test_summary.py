"""What a run prints: its progress, the time it takes, and its summary, whose commands run as they are printed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cococaption.references import read_results
from tests.conftest import REPOSITORY
from utils.command_line import DEMO, parse_args
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.files import sha256
from utils.progress import ProgressLine, format_rate
from utils.training import summary


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# ---- progress --------------------------------------------------------------------------------------------------------


def test_a_plain_line_every_few_minutes(clock, capsys):
    with ProgressLine("epoch 3", 1000, "pairs", done=100, more=lambda: "loss 2.0", clock=clock) as line:
        for clock.now, done in ((100, 200), (179, 300), (180, 400), (200, 450), (361, 500)):
            line.advance(done)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "epoch 3: 400 of 1000 pairs (40 %), 1.7 pairs/s, 0:06:00 left, loss 2.0",
        "epoch 3: 500 of 1000 pairs (50 %), 1.1 pairs/s, 0:07:31 left, loss 2.0",
    ]
    assert printed.err == ""


def test_a_bar_in_a_terminal(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("epoch 3", 10, "pairs", more=lambda: "loss 2.0", clock=clock) as line:
        clock.now = 1000
        line.advance(10)
    printed = capsys.readouterr()
    assert printed.out == "" and "epoch 3" in printed.err and "pairs/s" in printed.err.replace(" ", "")


@pytest.mark.parametrize(("columns", "shown"), [(80, ["loss 12.345"]), (100, ["loss 12.345", "lm 10.123"])])
def test_the_bar_fits_into_the_terminal(clock, capsys, monkeypatch, columns, shown):
    """Bar, percentage, rate, time left and loss stand in 80 columns; further losses where there is room."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "24")
    values = "loss 12.345  lm 10.123  contrastive 1.234  vad 0.345  12.3 GiB"
    with ProgressLine("epoch 34 (last: 34)", 100_000, "pairs", more=lambda: values, clock=clock) as line:
        line.bar.ncols, line.bar.dynamic_ncols = columns, None
        line.bar.start_t -= 1000
        line.advance(60_000)
        text = str(line.bar)
    assert len(text) <= columns and re.search(r" 60%\|.{2,}\| +\d+\.\d+ pairs/s, \d\d:\d\d left", text)
    assert [value for value in values.split("  ") if value in text] == shown


def test_slow_work_has_a_rate_above_zero():
    assert [format_rate(rate, "runs") for rate in (12.345, 1.0, 0.04, 0.001)] == [
        "12.3 runs/s",
        "1.0 runs/s",
        "2.4 runs/min",
        "3.6 runs/h",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_other_processes_print_nothing(clock, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with ProgressLine("epoch 3", 10, "pairs", hidden=True, clock=clock) as line:
        clock.now = 1000
        line.advance(5)
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


# ---- a run, from its own folder and with blanks and quotes in all names ----------------------------------------------


def run(command: str | list[str], folder: Path) -> str:
    """Run a command, in a shell if it is one string; returns what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = {"cwd": folder, "env": os.environ | {"PATH": path}, "shell": isinstance(command, str)}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def finished(workspace, tmp_path_factory):
    """The folder in which a run was started, and what it printed."""
    root = tmp_path_factory.mktemp("a folder")
    shutil.copytree(workspace.data, root / "my data")
    (root / "my data" / IMAGE_FOLDERS[0]).rename(root / "my images")
    (root / "my data" / "demo-VAD-Lexicon.txt").rename(root / "it's mine.txt")
    with open(root / "it's mine.txt", "a") as lexicon:
        lexicon.write("nothing\t0.5\t0.5\t0.5\n")
    (root / "train").mkdir()
    for name in ("train", "cl_train"):
        (root / "my data" / f"artEmisX_{name}.json").rename(root / "train" / f"artEmisX_{name}.json")
    flags = {
        "nle_data_train_path": "train/artEmisX_cl_train.json",
        "nle_data_val_path": "my data/artEmisX_val.json",
        "annFileExp": "my data/annotations/artEmisX_val_annot_exp.json",
        "image_root": "my images",
        "vad_lexicon": "it's mine.txt",
        "cache_dir": "my cache",
        "feature_cache": "auto",
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    argv = workspace.argv(Path("out put"), "--use_emotion_loss", "--metrics", "rouge", "cider", *words)
    return root, run([sys.executable, str(REPOSITORY / "artEmisX_train.py"), *argv], root)


@pytest.mark.slow
def test_the_time_left_is_printed_once(finished):
    pattern = r"^at \d+\.\d pairs/s the training takes \d+:\d\d:\d\d more"
    assert len(re.findall(pattern, finished[1], re.MULTILINE)) == 1


@pytest.mark.slow
def test_the_summary_names_existing_files_and_commands_that_run(finished):
    root, printed = finished
    lines = printed[printed.index("\nbest-res is of epoch") :].strip().splitlines()
    assert re.search(r"ACC \d+\.\d, .* on my data/artEmisX_val.json \(4 images\)$", lines[0])
    files = dict(line.split(maxsplit=1) for line in lines[1:5])
    epoch = int(re.search(r"of epoch (\d+)", lines[0])[1])
    assert files["captions"] == f"out put/results/unf_captions_full_{epoch}_5_step.json"
    for name in ("captions", "checkpoint", "log"):
        assert (root / files[name]).exists(), name
    explain, gallery, test = (line.strip() for line in lines[6:])
    assert "1 explained" in run(explain, root) and ".html: 4 images" in run(gallery, root)
    assert "WARNING" not in run(test, root)
    report = json.loads((root / files["report"].partition(" (")[0]).read_text())
    assert report["lexicon_sha256"] == sha256(root / "it's mine.txt")
    assert report["training_texts_sha256"] == sha256(root / "train/artEmisX_train.json")
    assert report["evaluated_file"] == "artEmisX_test.json" and "max_lcs" in report["scores"]
    assert "CIDEr" in report["scores"] and "Bleu_4" not in report["scores"] and not (root / "cache").exists()


@pytest.mark.slow
def test_captions_name_their_images(finished):
    root = finished[0]
    records = json.loads((root / "my data" / "artEmisX_val.json").read_text())
    path = root / "out put" / "results" / "unf_captions_exp_1_5_step.json"
    for line in json.loads(path.read_text()):
        assert line["image_name"] == records[str(line["image_id"])]["image_name"]
    assert list(map(str, read_results(path))) == list(records)
    rows = json.loads((path.parent / "emotion_head_1_5_step.json").read_text())
    assert [str(row["image_id"]) for row in rows] == list(records)
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in rows)


# ---- the command of the test report ----------------------------------------------------------------------------------


def test_the_test_command_has_every_flag_of_scoring(tmp_path, monkeypatch):
    """Those that the checkpoint does not record, in the demo too; blanks and quotes come back through a shell."""
    monkeypatch.chdir(tmp_path)
    names = "my_values_val.json my_values_test.json val_annot.json b_val_annot.json b_test_annot.json"
    for name in names.split():
        (tmp_path / name).touch()
    more = shlex.split(
        "--skip_bad_images --num_workers 3 --eval_batch_size 5 --cpu_threads 2 --metrics rouge bleu --gallery 7 "
        "--cache_dir 'a cache' --vad_lexicon \"it's mine.txt\" --test_set v1.0 --image_root 'pict ures' "
        "--text2emotion j.pt --vocabulary 'v $x.pkl' --meteor_jvms 2"
    )
    places = ["--nle_data_val_path", "my_values_val.json", "--caption_save_path", "re sults", "--ckpt_path", "ck pts"]

    def scored(*flags: str):
        trained = parse_args(list(flags))
        words = shlex.split(summary.test_command(trained))
        assert words[:2] == ["python", str(REPOSITORY / "artEmisX_train.py")]
        args = parse_args(words[2:])
        assert args.eval_only and args.load_from_epoch == "best-res"
        for name in summary.SCORING_FLAGS:
            assert getattr(args, name) == getattr(trained, name), name
        return args

    args = scored(*places, *more, "--annFileExp", "b_val_annot.json", "--feature_cache", "fea tures")
    assert [str(args.ckpt_path), str(args.caption_save_path)] == ["ck pts", "re sults/test"]
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["my_values_test.json", "b_test_annot.json"]
    args = scored(*places, "--annFileExp", "val_annot.json")  # has no counterpart for the test split
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["my_values_test.json", "val_annot.json"]
    args = scored("--nle_data_val_path", "x_val.json", "--annFileExp", "b_val_annot.json")  # there is no test split
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["x_val.json", "b_val_annot.json"]
    assert scored("--demo", *more).nle_data_val_path == DEMO / "data" / "artEmisX_test.json"
    assert scored("--demo", "--fixed_encoder", "True", "--feature_cache", "auto").demo is False
    assert scored("--demo", *places).demo is False


def test_the_demos_test_split_needs_no_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = parse_args("--eval_only --demo --split test".split())
    assert (args.nle_data_val_path, args.annFileExp) == (
        DEMO / "data" / "artEmisX_test.json",
        DEMO / "data" / "annotations" / "artEmisX_test_annot_exp.json",
    )
    assert (args.caption_save_path, args.test_set) == (DEMO / "results" / "test", None)
    assert args.load_from_epoch == "best-res"
    args = parse_args("--eval_only --demo --split test --load_from_epoch best-acc --caption_save_path x".split())
    assert (args.load_from_epoch, str(args.caption_save_path)) == ("best-acc", "x")
    assert parse_args("--eval_only --demo".split()).nle_data_val_path == DEMO / "data" / "artEmisX_val.json"
    with pytest.raises(InputError, match="--split names a split of the demo's data"):
        parse_args("--eval_only --load_from_epoch best-res --split val".split())
    with pytest.raises(InputError, match="--split test is for --eval_only"):
        parse_args("--demo --split test".split())
