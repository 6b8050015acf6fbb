"""What a run tells people: its progress, the disk and time it takes, and its last words."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

import artEmisX_train
from cococaption.references import read_results
from tests.conftest import REPOSITORY
from utils.command_line import DEMO, parse_args
from utils.errors import InputError
from utils.files import sha256
from utils.progress import ProgressLine
from utils.training import checkpoints as disk
from utils.training import summary as run_summary
from utils.training.checkpoints import check_disk, state_size


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_plain_line_every_few_minutes(clock, capsys):
    with ProgressLine("epoch 3", 1000, "pairs", done=100, more=lambda: "loss 2.0", clock=clock) as line:
        for clock.now, done in ((100, 200), (179, 300), (180, 400), (200, 450), (361, 500)):
            line.advance(done)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "epoch 3: 400 of 1000 pairs (40 %), 1.7 pairs/s, 0:06:00 left, loss 2.0",
        "epoch 3: 500 of 1000 pairs (50 %), 1.1 pairs/s, 0:07:31 left, loss 2.0",
    ]
    assert said.err == ""


def test_a_bar_in_a_terminal_alone(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("epoch 3", 10, "pairs", more=lambda: "loss 2.0", clock=clock) as line:
        clock.now = 1000
        line.advance(10)
    said = capsys.readouterr()
    assert said.out == "" and "epoch 3" in said.err and "pairs/s" in said.err.replace(" ", "")
    with ProgressLine("epoch 3", 10, "pairs", hidden=True, clock=clock) as line:
        line.advance(10)
    assert capsys.readouterr().err == ""


def test_other_processes_are_quiet(clock, capsys):
    with ProgressLine("epoch 3", 10, "pairs", hidden=True, clock=clock) as line:
        clock.now = 1000
        line.advance(5)
    said = capsys.readouterr()
    assert said.out == said.err == ""


@pytest.fixture(scope="module")
def told(workspace, tmp_path_factory):
    """A run's folder, and what it printed."""
    out = tmp_path_factory.mktemp("a run")  # with a blank in its name
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            artEmisX_train.Accelerator, "print", lambda self, *words, **_: said.append(" ".join(map(str, words)))
        )
        assert artEmisX_train.main(workspace.argv(out, "--use_emotion_loss", "--fixed_encoder", "False")) == 0
    return out, "\n".join(said)


def test_time_is_told_once(told):
    assert len(re.findall(r"^at \d+\.\d pairs/s the training takes \d+:\d\d:\d\d more", told[1], re.MULTILINE)) == 1


def test_last_words_name_files_that_are_there_and_commands_that_parse(told, workspace):
    out, said = told
    words = said[said.index("\nbest-res is of epoch") :].strip().splitlines()
    assert re.search(rf"ACC \d+\.\d, B-1 .* on {workspace.data}/artEmisX_val.json \(4 images\)$", words[0])
    places = dict(line.split(maxsplit=1) for line in words[1:5])
    best = int(re.search(r"of epoch (\d+)", words[0])[1])
    assert places["captions"] == str(out / "results" / f"unf_captions_full_{best}_5_step.json")
    for place in (places["captions"], places["checkpoint"], places["log"]):
        assert (REPOSITORY / place).exists(), place
    explain, gallery, test = (shlex.split(line) for line in words[6:])
    assert explain[:3] == ["python", "-m", "utils.explain"] and explain[4:] == ["--ckpt", str(out / "ckpts")]
    assert (REPOSITORY / explain[3]).is_file()
    assert gallery == ["python", "-m", "utils.gallery", str(out / "results")]
    assert artEmisX_train.main(test[2:]) == 0
    assert places["report"].startswith(str(out / "results" / "test" / "report.json"))
    report = json.loads((out / "results" / "test" / "report.json").read_text())
    assert report["evaluated_file"] == "artEmisX_test.json" and "max_lcs" in report["scores"]
    assert report["training_texts_sha256"] == sha256(workspace.data / "artEmisX_train.json")


def test_the_last_command_brings_every_flag_along(workspace, tmp_path, monkeypatch):
    """What the checkpoint does not record, in the demo too; text with blanks comes back through a shell's quotes."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "my_values_val.json",
        "my_values_test.json",
        "val_annot.json",
        "b_val_annot.json",
        "b_test_annot.json",
    ):
        (tmp_path / name).touch()
    more = (
        "--skip_bad_images --num_workers 3 --eval_batch_size 5 --cpu_threads 2 --metrics rouge bleu --gallery 7".split()
    )
    more += [
        "--cache_dir",
        "a cache",
        "--vad_lexicon",
        "it's mine.txt",
        "--feature_cache",
        "fea tures",
        "--test_set",
        "v1.0",
    ]
    more += ["--image_root", "pict ures", "--text2emotion", "j.pt", "--vocabulary", "v $x.pkl", "--meteor_jvms", "2"]
    places = ["--nle_data_val_path", "my_values_val.json", "--caption_save_path", "re sults", "--ckpt_path", "ck pts"]

    def scored(*flags: str):
        trained = parse_args(list(flags))
        words = shlex.split(run_summary.test_command(trained))
        assert words[:2] == ["python", str(REPOSITORY / "artEmisX_train.py")]
        args = parse_args(words[2:])
        assert args.eval_only and args.load_from_epoch == "best-res"
        for name in run_summary.OF_SCORING:
            assert getattr(args, name) == getattr(trained, name), name
        return args

    args = scored(*places, *more, "--annFileExp", "b_val_annot.json")
    assert [str(args.ckpt_path), str(args.caption_save_path)] == ["ck pts", "re sults/test"]
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["my_values_test.json", "b_test_annot.json"]
    args = scored(*places, "--annFileExp", "val_annot.json")  # has no counterpart of its own
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["my_values_test.json", "val_annot.json"]
    args = scored("--nle_data_val_path", "x_val.json", "--annFileExp", "b_val_annot.json")  # no test split: this one
    assert [str(args.nle_data_val_path), str(args.annFileExp)] == ["x_val.json", "b_val_annot.json"]
    more.remove("--feature_cache"), more.remove("fea tures")
    assert scored("--demo", *more).nle_data_val_path == DEMO / "data" / "artEmisX_test.json"
    assert scored("--demo", "--fixed_encoder", "True", "--feature_cache", "auto").demo is False
    assert scored("--demo", *places).demo is False


@pytest.mark.slow
def test_the_last_words_run_in_a_shell(workspace, tmp_path):
    """As they are printed, from the folder of the training: the report rests on the lexicon and texts of the training."""
    root, images = tmp_path / "a folder", "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    shutil.copytree(workspace.data, root / "my data")
    (root / "my data" / images).rename(root / "my pictures")
    (root / "my data" / "demo-VAD-Lexicon.txt").rename(root / "it's mine.txt")
    with open(root / "it's mine.txt", "a") as lexicon:
        lexicon.write("nothing\t0.5\t0.5\t0.5\n")
    (root / "train").mkdir()
    for name in ("train", "cl_train"):
        (root / "my data" / f"artEmisX_{name}.json").rename(root / "train" / f"artEmisX_{name}.json")
    flags = workspace.argv(Path("out put"), "--num_train_epochs", "1", "--feature_cache", "auto", "--skip_bad_images")
    flags += [
        "--nle_data_val_path",
        "my data/artEmisX_val.json",
        "--nle_data_train_path",
        "train/artEmisX_cl_train.json",
    ]
    flags += ["--annFileExp", "my data/annotations/artEmisX_val_annot_exp.json", "--image_root", "my pictures"]
    flags += ["--vad_lexicon", "it's mine.txt", "--cache_dir", "my cache", "--metrics", "rouge", "cider"]

    def run(command) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        words = {"cwd": root, "env": os.environ | {"PATH": path}, "shell": isinstance(command, str)}
        done = subprocess.run(command, capture_output=True, text=True, **words)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    said = run([sys.executable, str(REPOSITORY / "artEmisX_train.py"), *flags])
    commands = [line.strip() for line in said[said.index("next:") :].splitlines()[1:4]]
    assert "WARNING" not in run(commands[2]) and "1 explained" in run(commands[0])
    assert "pictures" in run(commands[1])
    report = json.loads((root / "out put" / "results" / "test" / "report.json").read_text())
    digest = {
        name: sha256(root / path)
        for name, path in (("lexicon", "it's mine.txt"), ("texts", "train/artEmisX_train.json"))
    }
    assert (report["lexicon_sha256"], report["training_texts_sha256"]) == (digest["lexicon"], digest["texts"])
    assert report["evaluated_file"] == "artEmisX_test.json" and "max_lcs" in report["scores"]
    assert "CIDEr" in report["scores"] and "Bleu_4" not in report["scores"] and not (root / "cache").exists()


def test_captions_name_their_pictures(told, workspace):
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    path = told[0] / "results" / "unf_captions_exp_1_5_step.json"
    for line in json.loads(path.read_text()):
        assert line["image_name"] == records[str(line["image_id"])]["image_name"]
    assert list(map(str, read_results(path))) == list(records)
    heads = json.loads((told[0] / "results" / "emotion_head_1_5_step.json").read_text())
    assert [str(row["image_id"]) for row in heads] == list(records)
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in heads)


def test_disk_is_estimated_from_what_files_take(workspace, told):
    out, said = told
    line = next(line for line in said.splitlines() if line.startswith("disk: "))
    states = [path.stat().st_size for path in (out / "ckpts" / "resume").glob("*/state.pt")]
    named = [
        (out / "ckpts" / "nle_model_best-res" / "model.safetensors").stat().st_size
        + (out / "ckpts" / "ckpt_stats_best-res.tar").stat().st_size
    ]
    told_size = int(re.search(r"of (\d+) MiB", line)[1]) * 2**20
    assert told_size == pytest.approx(states[0], abs=2**20) and told_size == pytest.approx(named[0], abs=2**20)
    kept = int(re.search(r"^disk: up to (\d+) MiB", line)[1])
    assert len(states) == 2 and kept == pytest.approx(5 * states[0] / 2**20, abs=1)


class Tiny(nn.Module):
    """As much of a model as is counted: 1000 trained weights, 3000 of an image encoder."""

    def __init__(self, fixed: bool):
        super().__init__()
        self.decoder = nn.Linear(1000, 1, bias=False)
        self.image_encoder = nn.Linear(3000, 1, bias=False).requires_grad_(not fixed)
        self.image_encoder.fixed = fixed


def test_a_fixed_encoder_takes_no_disk():
    assert state_size(Tiny(fixed=True)) == 12_000
    assert state_size(Tiny(fixed=False)) == 48_000


def test_a_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    """To the byte: what is there already and will be replaced counts as room."""
    model, ckpt_path = Tiny(fixed=True), tmp_path

    def free(size):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, size))

    free(60_000)
    assert "disk: up to 0 MiB" in check_disk(model, ckpt_path, False)
    free(59_999)
    with pytest.raises(
        InputError, match=f"{tmp_path}: the run needs .* are free; free some space, or give another --ckpt_path"
    ):
        check_disk(model, ckpt_path, False)
    (ckpt_path / "resume" / "00000-00000001").mkdir(parents=True)
    (ckpt_path / "resume" / "00000-00000001" / "state.pt").write_bytes(bytes(1))
    check_disk(model, ckpt_path, True)
    with pytest.raises(InputError):
        check_disk(model, ckpt_path, False)


def test_a_disk_that_is_too_small_is_refused_before_any_step(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**6))
    with pytest.raises(InputError, match="the run needs"):
        artEmisX_train.main(workspace.argv(tmp_path))
    assert not (tmp_path / "results" / "log.jsonl").exists()


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
    with pytest.raises(InputError, match="--split names a part of the demo's data"):
        parse_args("--eval_only --load_from_epoch best-res --split val".split())
    with pytest.raises(InputError, match="--split test is for --eval_only"):
        parse_args("--demo --split test".split())
