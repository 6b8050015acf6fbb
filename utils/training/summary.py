"""What a run prints at its end: how good the model is, where its files are, and the next commands."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils.command_line import DEMO_DEFAULTS, checkpoint_config
from utils.data.images import image_files
from utils.evaluation.tables import HEADINGS, caption_scores, format_score
from utils.layout import LOG_FILE, model_folder
from utils.opts import get_parser

if TYPE_CHECKING:  # it imports torch
    from utils.training.run import TrainingRun

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = "artEmisX_train.py"
SAMPLES = 3  # images whose explanations are shown
# Flags of the training that scoring needs as well, and that the checkpoint does not record or may not decide.
SCORING_FLAGS = (
    "image_root",
    "vad_lexicon",
    "feature_cache",
    "cache_dir",
    "skip_bad_images",
    "plain_special_tokens",
    "metrics",
    "meteor_jvms",
    "eval_batch_size",
    "num_workers",
    "cpu_threads",
    "gallery",
    "test_set",
    "text2emotion",
    "vocabulary",
)


def line_of_scores(scores: dict[str, float]) -> str:
    """One evaluation's scores in one line, in percent."""
    numbers = "  ".join(
        f"{HEADINGS.get(name, name)} {format_score(name, value)}"
        for name, value in scores.items()
        if name not in ("epoch", "step")
    )
    return f"epoch {scores['epoch']} step {scores['step']} (percent)  {numbers}"


def summary_of_training(run: "TrainingRun") -> str:
    """A table of the scores of every evaluation, three explanations of the last one, and what to do next."""
    return "\n".join([*_table_of_scores(run.progress.scores), *_samples(run), *_next_steps(run)])


def _table_of_scores(points: list[dict[str, float]]) -> Iterator[str]:
    names = [name for name in points[-1] if name not in ("epoch", "step")] if points else []
    widths = {name: max(8, len(HEADINGS.get(name, name)) + 1) for name in names}
    if names:
        yield "\nscores in percent\nepoch   step" + "".join(
            f"{HEADINGS.get(name, name):>{width}}" for name, width in widths.items()
        )
    for scores in points:
        cells = (
            f"{format_score(name, scores[name]) if name in scores else '-':>{width}}" for name, width in widths.items()
        )
        yield f"{scores['epoch']:>5} {scores['step']:>6}" + "".join(cells)


def _samples(run: "TrainingRun") -> Iterator[str]:
    if run.last_evaluation is None:  # resumed after its last evaluation
        return
    for image_id in list(run.last_evaluation.full)[:SAMPLES]:
        record = run.evaluator.records[str(image_id)]
        yield f"\n{record['image_name']}\n  generated: the emotion is {run.last_evaluation.full[image_id]}"
        yield f"  reference: {record['emotions'][0]} because {record['explanations'][0]}"


def _next_steps(run: "TrainingRun") -> list[str]:
    args, points = run.args, run.progress.scores
    log = args.caption_save_path / LOG_FILE
    if not points:
        return [f"\nno evaluation was made; the log is {log}"]
    best = next((point for point in points if [point["epoch"], point["step"] + 1] == run.progress.best_res_at), None)
    if best is None:
        best = points[-1]
        which = "best-res is still that of the run before; this run ended with"
    else:
        which = f"best-res is of epoch {best['epoch']}:"
    files = {
        "captions": args.caption_save_path / f"unf_captions_full_{best['epoch']}_{best['step']}_step.json",
        "checkpoint": model_folder(args.ckpt_path, "best-res"),
        "report": f"{args.caption_save_path / 'test' / 'report.json'} (to be written by the third command below)",
        "log": log,
    }
    # the first image of the folder, or the folder if it is empty; there may be none beside a feature cache
    image = "IMAGE.jpg" if args.image_root is None else next(image_files(args.image_root), args.image_root)
    commands = [
        _module("utils.explain", image, "--ckpt", args.ckpt_path),
        _module("utils.gallery", args.caption_save_path),
        test_command(args),
    ]
    heading = f"{which} {_scores(best)} on {args.nle_data_val_path} ({len(run.evaluator.records)} images)"
    return ["", heading, *_rows(files), "next:", *(f"  {line}" for line in commands)]


def summary_of_scoring(args: argparse.Namespace, scores: dict[str, float], images: int) -> str:
    """The last lines of --eval_only."""
    files = {
        "captions": args.caption_save_path / f"unf_captions_full_{args.load_from_epoch}_0_step.json",
        "checkpoint": checkpoint_config(args).parent,
        "report": args.caption_save_path / "report.json",
    }
    heading = f"{args.load_from_epoch}: {_scores(scores)} on {args.nle_data_val_path} ({images} images)"
    return "\n".join(["", heading, *_rows(files)])


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{heading} {percent}" for heading, percent in caption_scores(scores).items())


def _rows(files: dict[str, object]) -> list[str]:
    return [f"  {name:<11} {path}" for name, path in files.items()]


# ---- the next commands, as a shell takes them ------------------------------------------------------------------------


def _module(*words: object) -> str:
    """The command line of a module of this repository, which Python finds only from its folder."""
    path = "" if Path.cwd() == REPOSITORY else f"PYTHONPATH={shlex.quote(str(REPOSITORY))} "
    return path + shlex.join(map(str, ("python", "-m", *words)))


def script() -> str:
    """The path of the training script: relative in the repository, else absolute."""
    return SCRIPT if Path.cwd() == REPOSITORY else str(REPOSITORY / SCRIPT)


def test_command(args: argparse.Namespace) -> str:
    """The command that writes the test report of best-res, to be run in the current folder.

    It scores the test split that lies beside the validation split; without one the validation split itself.
    """
    words = ["python", script(), "--eval_only", "--load_from_epoch", "best-res"]
    names = ("nle_data_val_path", "annFileExp", "ckpt_path", "caption_save_path")
    if demo_can_score(args) and all(getattr(args, name) == DEMO_DEFAULTS[name] for name in names):
        return shlex.join([*words, "--demo", "--split", "test", *scoring_flags(args, demo=True)])
    files = {name: getattr(args, name) for name in names[:2]}
    test_files = {name: test_counterpart(path) for name, path in files.items()}
    if all(path.is_file() for path in test_files.values()):
        files = test_files
    files |= {"ckpt_path": args.ckpt_path, "caption_save_path": args.caption_save_path / "test"}
    for name, path in files.items():
        words += [f"--{name}", str(path)]
    return shlex.join([*words, *scoring_flags(args)])


def demo_can_score(args: argparse.Namespace) -> bool:
    """Whether --demo can score this run: its default, a trained encoder, contradicts a feature cache."""
    return args.demo and not args.feature_cache


def scoring_flags(args: argparse.Namespace, demo: bool = False) -> list[str]:
    """`SCORING_FLAGS` of a training that differ from the defaults (with `demo`, those of --demo), as words."""
    parser = get_parser()
    if demo:
        parser.set_defaults(**DEMO_DEFAULTS)
    words: list[str] = []
    for name in SCORING_FLAGS:
        value = getattr(args, name)
        if value != parser.get_default(name):
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def test_counterpart(path: Path) -> Path:
    """The test split's counterpart of a file of the validation split; the file itself if its name does not say val."""
    return path.with_name(re.sub(r"_val(?![a-zA-Z0-9])", "_test", path.name))
