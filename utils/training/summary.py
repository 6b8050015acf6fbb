"""What a run says at its end: how good the model is, where everything lies, and what to type next."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from utils.command_line import DEMO_DEFAULTS, checkpoint_config
from utils.data.images import image_files
from utils.evaluation.tables import CAPTION_SCORES
from utils.opts import get_parser
from utils.training.run_log import LOG_FILE

if TYPE_CHECKING:  # it brings torch along
    from utils.training.run import TrainingRun

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = "artEmisX_train.py"
SAMPLES = 3  # images whose explanations are shown
# Flags of the training that the scoring needs as well and the checkpoint does not bring along.
OF_SCORING = (
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
    """One evaluation's scores in one line."""
    numbers = "  ".join(f"{name} {value:.4f}" for name, value in scores.items() if name not in ("epoch", "step"))
    return f"epoch {scores['epoch']} step {scores['step']}  {numbers}"


def summary_of_training(run: "TrainingRun") -> str:
    """A table of the scores of every evaluation, three explanations of the last one, and what to do next."""
    return "\n".join([*_table_of_scores(run.progress.scores), *_samples(run), *_next_steps(run)])


def _table_of_scores(points: list[dict[str, float]]) -> Iterator[str]:
    names = [name for name in points[-1] if name not in ("epoch", "step")] if points else []
    if names:
        yield "\n" + " ".join(["epoch", "  step"] + [f"{name:>9}" for name in names])
    for scores in points:
        row = [f"{scores['epoch']:>5}", f"{scores['step']:>6}"]
        yield " ".join(row + [f"{scores[name]:>9.4f}" if name in scores else f"{'-':>9}" for name in names])


def _samples(run: "TrainingRun") -> Iterator[str]:
    if run.last_evaluation is None:  # resumed after its last evaluation
        return
    for image_id in list(run.last_evaluation.full)[:SAMPLES]:
        record = run.evaluator.records[str(image_id)]
        yield f"\n{record['image_name']}\n  generated: the emotion is {run.last_evaluation.full[image_id]}"
        yield f"  reference: {record['emotions'][0]} because {record['explanations'][0]}"


def _next_steps(run: "TrainingRun") -> list[str]:
    args, progress = run.args, run.progress
    if not progress.scores:
        return [f"\nno evaluation was made; the log is {args.caption_save_path / LOG_FILE}"]
    best = next((point for point in progress.scores if _place(point) == progress.best_res_at), None)
    if best is None:
        best = progress.scores[-1]
        of_best = f"best-res is still that of the run before; this run ended with {_scores(best)}"
    else:
        of_best = f"best-res is of epoch {best['epoch']}: {_scores(best)}"
    name = f"{best['epoch']}_{best['step']}_step.json"
    places = {
        "captions": args.caption_save_path / f"unf_captions_full_{name}",
        "checkpoint": args.ckpt_path / "nle_model_best-res",
        "report": f"{test_folder(args) / 'report.json'} (to be written by the third command below)",
        "log": args.caption_save_path / LOG_FILE,
    }
    good = f"{of_best} on {args.nle_data_val_path} ({len(run.evaluator.records)} images)"
    commands = [
        module("utils.explain", example_image(args), "--ckpt", args.ckpt_path),
        module("utils.gallery", args.caption_save_path),
        test_command(args),
    ]
    return ["", good, *_rows(places), "next:", *(f"  {line}" for line in commands)]


def summary_of_scoring(args: argparse.Namespace, scores: dict[str, float], images: int) -> str:
    """The last lines of --eval_only."""
    places = {
        "captions": args.caption_save_path / f"unf_captions_full_{args.load_from_epoch}_0_step.json",
        "checkpoint": checkpoint_config(args).parent,
        "report": args.caption_save_path / "report.json",
    }
    good = f"{args.load_from_epoch}: {_scores(scores)} on {args.nle_data_val_path} ({images} images)"
    return "\n".join(["", good, *_rows(places)])


def _place(point: dict) -> list[int]:
    return [point["epoch"], point["step"] + 1]


def _scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{title} {100 * scores[name]:.1f}" for name, title in CAPTION_SCORES.items() if name in scores)


def _rows(places: dict[str, object]) -> list[str]:
    return [f"  {name:<11} {place}" for name, place in places.items()]


def command(*words: object) -> str:
    """A command line as a shell takes it."""
    return shlex.join(map(str, words))


def module(*words: object) -> str:
    """The command line of a module of this repository, which Python finds from its folder alone."""
    path = "" if Path.cwd() == REPOSITORY else f"PYTHONPATH={shlex.quote(str(REPOSITORY))} "
    return path + command("python", "-m", *words)


def script() -> str:
    """The training script as seen from here: short where this is the repository."""
    return SCRIPT if Path.cwd() == REPOSITORY else str(REPOSITORY / SCRIPT)


def test_folder(args: argparse.Namespace) -> Path:
    """Where the test report goes."""
    return args.caption_save_path / "test"


def test_command(args: argparse.Namespace) -> str:
    """The command that writes the test report of best-res: complete, so that it can be typed as it stands in this folder.

    It scores the test split that lies beside the validation split; without one the validation split itself.
    """
    words = ["python", script(), "--eval_only", "--load_from_epoch", "best-res"]
    places = ("nle_data_val_path", "annFileExp", "ckpt_path", "caption_save_path")
    if takes_demo(args) and all(getattr(args, name) == DEMO_DEFAULTS[name] for name in places):
        return command(*words, "--demo", "--split", "test", *scoring_flags(args, demo=True))
    files = {name: getattr(args, name) for name in places[:2]}
    tests = {name: of_test(path) for name, path in files.items()}
    flags = tests if all(path.is_file() for path in tests.values()) else files
    flags |= {"ckpt_path": args.ckpt_path, "caption_save_path": test_folder(args)}
    named = [word for name, value in flags.items() for word in (f"--{name}", value)]
    return command(*words, *named, *scoring_flags(args))


def takes_demo(args: argparse.Namespace) -> bool:
    """Whether --demo can score what --demo trained: its own default, a trained encoder, contradicts a feature cache."""
    return args.demo and not args.feature_cache


def scoring_flags(args: argparse.Namespace, demo: bool = False) -> list[str]:
    """`OF_SCORING` of a training, where they are not the defaults (with `demo`, those of --demo)."""
    parser = get_parser()
    if demo:
        parser.set_defaults(**DEMO_DEFAULTS)
    words: list[str] = []
    for name in OF_SCORING:
        value = getattr(args, name)
        if value != parser.get_default(name):
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def of_test(path: Path) -> Path:
    """The test split's counterpart of a file of the validation split; the file itself where its name says no val."""
    return path.with_name(re.sub(r"_val(?![a-zA-Z0-9])", "_test", path.name))


def example_image(args: argparse.Namespace) -> Path:
    """An image to be explained: the first in the image folder, or the folder where there is none."""
    if args.image_root is None:  # a feature cache is trained on
        return Path("PICTURE.jpg")
    return next(image_files(args.image_root), args.image_root)
