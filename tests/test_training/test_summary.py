"""What a run prints at its end, and the commands in it, which run as they are printed."""

import json
import re
import shlex
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import artEmisX_train
from tests.conftest import REPOSITORY
from utils import explain, gallery
from utils.command_line import DEMO, parse_args
from utils.constants import IMAGE_FOLDERS
from utils.evaluation.tables import HEADINGS
from utils.files import sha256
from utils.training import summary


@pytest.mark.slow
def test_the_summary_names_existing_files_and_commands_that_run(workspace, tmp_path, monkeypatch, capsys):
    root = tmp_path / "a folder"
    shutil.copytree(workspace.data, root / "my data")
    (root / "my data" / IMAGE_FOLDERS[0]).rename(root / "my images")
    lexicon = (root / "my data" / "demo-VAD-Lexicon.txt").rename(root / "it's mine.txt")
    lexicon.write_text(lexicon.read_text() + "nothing\t0.5\t0.5\t0.5\n")
    words = shlex.split(
        "--nle_data_train_path 'my data/artEmisX_cl_train.json' --nle_data_val_path 'my data/artEmisX_val.json' "
        "--annFileExp 'my data/annotations/artEmisX_val_annot_exp.json' --image_root 'my images' --feature_cache auto "
        "--vad_lexicon \"it's mine.txt\" --cache_dir 'my cache' --metrics rouge cider"
    )
    argv = workspace.argv(Path("out put"), *words)
    monkeypatch.chdir(root)
    monkeypatch.setattr(artEmisX_train, "collapse_warning", lambda texts: f"these {len(texts)} are alike")
    assert artEmisX_train.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.count("\nthese 4 are alike\n") == 2  # after each evaluation

    assert len(re.findall(r"^at \d+\.\d pairs/s the training takes \d+:\d\d:\d\d more", printed, re.MULTILINE)) == 1
    lines = printed[printed.index("\nbest-res is of epoch") :].strip().splitlines()
    assert re.search(r"ACC \d+\.\d, .* on my data/artEmisX_val.json \(4 images\)$", lines[0])
    files = dict(line.split(maxsplit=1) for line in lines[1:5])
    epoch = int(re.search(r"of epoch (\d+)", lines[0])[1])
    assert files["captions"] == f"out put/results/unf_captions_full_{epoch}_5_step.json"
    assert all((root / files[name]).exists() for name in ("captions", "checkpoint", "log"))

    def output(main: Callable, command: str, *program: str) -> str:
        words = shlex.split(command)
        assert tuple(words[: len(program)]) == program
        assert not main(words[len(program) :])
        return capsys.readouterr().out

    module = (f"PYTHONPATH={REPOSITORY}", "python", "-m")
    assert "1 explained" in output(explain.main, lines[6], *module, "utils.explain")
    assert ".html: 4 images" in output(gallery.main, f"{lines[7]} --metrics bleu", *module, "utils.gallery")
    scoring = output(artEmisX_train.main, lines[8], "python", str(REPOSITORY / "artEmisX_train.py"))
    assert "WARNING" not in scoring and scoring.count(" are alike\n") == 1
    report = json.loads((root / files["report"].partition(" (")[0]).read_text())
    assert report["lexicon_sha256"] == sha256(lexicon)
    assert report["training_texts_sha256"] == sha256(root / "my data/artEmisX_train.json")
    assert report["evaluated_file"] == "artEmisX_test.json" and "max_lcs" in report["scores"]
    assert "CIDEr" in report["scores"] and "Bleu_4" not in report["scores"] and not (root / "cache").exists()


def test_a_table_of_every_evaluation():
    """A score that one evaluation lacks is a dash; best-res is found by its place, not by its number."""
    points = [
        {"epoch": 0, "step": 5, "sub_acc": 0.254},
        {"epoch": 1, "step": 5, "sub_acc": 0.5, "Bleu_4": 0.0312, "head_brier": 0.75},
    ]
    head, first, second = list(summary._table_of_scores(points))
    assert head.splitlines()[-1].split() == ["epoch", "step", "ACC", "B-4", *HEADINGS["head_brier"].split()]
    assert first.split() == ["0", "5", "25.4", "-", "-"] and second.split() == ["1", "5", "50.0", "3.1", "0.75"]
    assert len(first) == len(second) == len(head.splitlines()[-1])
    assert list(summary._table_of_scores([])) == []
    assert summary.line_of_scores(points[0]) == "epoch 0 step 5 (percent)  ACC 25.4"


def test_best_res_is_the_evaluation_that_chose_it(tmp_path):
    points = [{"epoch": epoch, "step": 5, "sub_acc": epoch / 8} for epoch in (2, 3, 4)]
    args = parse_args(["--caption_save_path", str(tmp_path), "--image_root", str(tmp_path)])

    def next_steps(best_res_at: list[int] | None, points: list[dict]) -> str:
        progress = SimpleNamespace(scores=points, best_res_at=best_res_at)
        evaluator = SimpleNamespace(records={"1": {}, "2": {}})
        return "\n".join(summary._next_steps(SimpleNamespace(args=args, progress=progress, evaluator=evaluator)))

    text = next_steps([3, 6], points)
    assert "best-res is of epoch 3: ACC 37.5" in text and "unf_captions_full_3_5_step.json" in text
    assert "(2 images)" in text and shlex.join(["utils.explain", str(tmp_path), "--ckpt", "ckpts"]) in text
    text = next_steps([1, 6], points)  # of the run that this one continued
    assert "best-res is still that of the run before; this run ended with ACC 50.0" in text
    assert "no evaluation was made" in next_steps(None, [])


def test_the_test_command_has_every_flag_of_scoring(tmp_path, monkeypatch):
    """Those that the checkpoint does not record, in the demo too; blanks and quotes come back through a shell."""
    monkeypatch.chdir(tmp_path)
    for name in ("my_values_val", "my_values_test", "val_annot", "b_val_annot", "b_test_annot"):
        (tmp_path / f"{name}.json").touch()
    more = shlex.split(
        "--skip_bad_images --num_workers 3 --eval_batch_size 5 --cpu_threads 2 --metrics rouge bleu --gallery 7 "
        "--cache_dir 'a cache' --vad_lexicon \"it's mine.txt\" --test_set v1.0 --image_root 'pict ures' "
        "--text2emotion j.pt --vocabulary 'v $x.pkl' --meteor_jvms 2 --plain_special_tokens"
    )
    places = ["--nle_data_val_path", "my_values_val.json", "--caption_save_path", "re sults", "--ckpt_path", "ck pts"]

    def scored(*flags: str) -> Namespace:
        trained = parse_args(list(flags))
        words = shlex.split(summary.test_command(trained))
        assert words[:2] == ["python", str(REPOSITORY / "artEmisX_train.py")]
        args = parse_args(words[2:])
        assert args.eval_only and args.load_from_epoch == "best-res"
        for flag in (flag[2:] for flag in flags if flag in {"--feature_cache", *more} and flag.startswith("--")):
            assert getattr(args, flag) == getattr(trained, flag), flag
        return args

    def files(*flags: str) -> list[str]:
        args = scored(*flags)
        return [str(args.nle_data_val_path), str(args.annFileExp)]

    args = scored(*places, *more, "--feature_cache", "fea tures")
    assert [str(args.ckpt_path), str(args.caption_save_path)] == ["ck pts", "re sults/test"]
    assert files(*places, "--annFileExp", "b_val_annot.json") == ["my_values_test.json", "b_test_annot.json"]
    # one that has no counterpart for the test split, and a split that has none
    assert files(*places, "--annFileExp", "val_annot.json") == ["my_values_test.json", "val_annot.json"]
    without_test = ["--nle_data_val_path", "x_val.json", "--annFileExp", "b_val_annot.json"]
    assert files(*without_test) == ["x_val.json", "b_val_annot.json"]
    assert scored("--demo", *more).nle_data_val_path == DEMO / "data" / "artEmisX_test.json"
    assert scored("--demo", "--fixed_encoder", "True", "--feature_cache", "auto").demo is False
    assert scored("--demo", *places).demo is False
    args = parse_args(["--demo", "--metrics", "bleu"])  # the demo's own settings are not repeated
    assert summary.scoring_flags(args, demo=True) == ["--metrics", "bleu"]


def test_the_demos_test_split_needs_no_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = parse_args("--eval_only --demo --split test".split())
    assert args.nle_data_val_path == DEMO / "data" / "artEmisX_test.json"
    assert args.annFileExp == DEMO / "data" / "annotations" / "artEmisX_test_annot_exp.json"
    assert (args.caption_save_path, args.load_from_epoch) == (DEMO / "results" / "test", "best-res")
    args = parse_args("--eval_only --demo --split test --load_from_epoch best-acc --caption_save_path x".split())
    assert (args.load_from_epoch, str(args.caption_save_path)) == ("best-acc", "x")
    assert parse_args("--eval_only --demo".split()).nle_data_val_path == DEMO / "data" / "artEmisX_val.json"
