"""The ablation table: a training for each setting of the ablated flags and each seed, then mean and standard deviation.

python -m utils.sweep --out runs/ablation --seeds 3 --ablate use_VAD,use_VAD_loss,use_cl_loss -- FLAGS of artEmisX_train.py

Logs and reports tell how far each run is: the same command continues a stopped sweep, and tries failed runs again.
"""

import argparse
import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.command_line import check_paths, parse_args
from utils.errors import InputError, OneLineParser, brief, number, run_script
from utils.evaluation.ablation_table import Result, Values, write_table
from utils.evaluation.report import classifier_name
from utils.evaluation.tables import caption_scores, read_report
from utils.files import run_lock, sha256
from utils.flags import IGNORE, Boolean
from utils.layout import LOG_FILE, REPORT, RESULTS
from utils.opts import declared
from utils.opts import get_parser as training_parser
from utils.processes import STOP, cores, die_with_parent
from utils.progress import ProgressLine, duration
from utils.run_record import flags_of
from utils.training.run_log import RunHistory, read_log
from utils.training.summary import demo_can_score, scoring_flags, script, test_counterpart

FIRST_SEED = 42  # the training's default
# Flags that the sweep sets itself, or with which no training starts from the beginning.
RESERVED = ("seed", "ckpt_path", "caption_save_path", "resume", "eval_only", "load_from_epoch", "split", "append_to")
# Flags that --test takes: the files of the test split, and what the report says about it.
TEST_FLAGS = "nle_data_val_path annFileExp image_root feature_cache test_set text2emotion vocabulary".split()


@dataclass(eq=False)
class Run:
    """One training of the sweep, and with --test the scoring of its best-res.

    values: of the ablated flags. args: the training's flags, parsed. program: the training script with its launcher;
    train: its flags; test: those that score best-res, None without --test.
    """

    combination: str
    values: Values
    seed: int
    folder: Path
    args: argparse.Namespace
    program: list[str]
    train: list[str]
    test: list[str] | None

    def __post_init__(self):
        self.name = f"{self.combination} seed {self.seed}"
        self.report = self.folder / "test" / REPORT
        self.output = self.folder / "output.log"  # what its processes print
        self.began: float | None = None

    def history(self) -> RunHistory | None:
        """What its log records; None before there is one."""
        path = self.folder / RESULTS / LOG_FILE
        return read_log(path) if path.is_file() and path.stat().st_size else None

    def remaining(self) -> list[str] | None:
        """The flags of its next command: the training until its log has an end, then the scoring; None: finished."""
        history = self.history()
        if history is None or history.end is None:
            return self.train
        return None if self.test is None or self.is_tested() else self.test

    def is_tested(self) -> bool:
        """Whether there is a test report of the same split, references, lexicon and emotion classifier."""
        if not self.report.is_file():
            return False
        report, args = read_report(self.report), parse_args(self.test)
        wanted = {
            "evaluated_sha256": sha256(args.nle_data_val_path),
            "test_set": args.test_set,
            "references_sha256": sha256(args.annFileExp),
            "emotion_classifier": args.text2emotion and classifier_name(args.text2emotion, args.vocabulary),
        }
        if report.get("lexicon_sha256") is not None and args.vad_lexicon is not None:
            wanted["lexicon_sha256"] = sha256(args.vad_lexicon)
        return all(report.get(name) == value for name, value in wanted.items())

    def result(self) -> Result:
        """Of a finished run: the scores of its test report, without --test of the evaluation that chose best-res."""
        history, report = self.history(), None if self.test is None else read_report(self.report)
        best = (history.end.get("epoch"), history.end.get("step"))
        points = [report["scores"]] if report else [p for p in history.scores if (p["epoch"], p["step"]) == best]
        if not points:
            raise InputError(f"{self.folder}: its log lacks the scores of best-res; remove the folder")
        return Result(self.combination, self.values, self.seed, points[0], history.fingerprints, report)

    def start(self) -> None:
        """Start its next command, in a session of its own: a terminal's Ctrl-C reaches it only through `send`."""
        self.began = time.monotonic() if self.began is None else self.began
        self.flags = self.remaining()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self.output_start = output.tell()
            self.process = subprocess.Popen(
                [*self.program, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # in case the sweep itself is killed
            )

    def send(self, number: int) -> bool:
        """Send a signal to its processes; False if none is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
            return True
        return False

    def failure(self) -> str | None:
        """Why its last command, which has ended, failed: the last error line that it printed; None if it did not."""
        status = self.process.returncode
        if status == 0:
            return "exited with status 0 but has not finished" if self.remaining() == self.flags else None
        with self.output.open("rb") as output:
            output.seek(self.output_start)
            lines = [line.strip() for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        last = brief((errors or lines or ["no output"])[-1].removeprefix("error: "))
        return f"ended by {signal.Signals(-status).name} ({last})" if status < 0 else last


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.sweep",
        usage="python -m utils.sweep [flags] --ablate FLAG,FLAG,... -- FLAGS of artEmisX_train.py",
        description="Train each setting of the ablated flags with each seed, and write the table of their scores.",
        epilog="The same command continues a sweep that was stopped, and repeats no finished run.",
    )
    add = parser.add_argument
    add(
        "--ablate",
        required=True,
        metavar="FLAG,FLAG=A|B,...",
        help="boolean flags, on and off; or any flag with the values to compare, the full model's first (quote the |)",
    )
    seeds = "how many, counted from 42; or the seeds, e.g. 1,5,9 (with a comma: 7, is seed 7)"
    add("--seeds", type=read_seeds, default="3", help=seeds)
    which = "each: the full model, and with one flag changed at a time; all: every combination"
    add("--combinations", choices=("each", "all"), default="each", help=which)
    add("--out", type=Path, default=Path("runs/sweep"), help="folder of the sweep")
    add("--jobs", type=number(int, 1), default=1, help="runs at a time; on CPUs they share the cores")
    launcher = shlex.quote(sys.executable)
    add("--launcher", type=shlex.split, default=launcher, help='e.g. "accelerate launch --quiet"')
    add("--print", action="store_true", help="only print the commands, one run per line (for a Slurm array)")
    add(
        "--test",
        type=shlex.split,
        nargs="?",
        const="",
        metavar="FLAGS",
        help="also score best-res on the test split, and make the table of these scores; FLAGS in one word name its files, "
        "e.g. '--nle_data_val_path artEmisX_test.json --annFileExp ...' (default: _test in place of _val in the names)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    split = argv.index("--") if "--" in argv else len(argv)
    args = get_parser().parse_args(argv[:split])
    runs = plan(args, argv[split + 1 :])
    if args.print:
        for run in runs:
            print(" && ".join(shlex.join([*run.program, *flags]) for flags in (run.train, run.test) if flags))
        return 0
    check_same_flags(runs)
    with run_lock(args.out):
        if runs[0].args.demo and any(run.remaining() is run.train for run in runs):
            from preprocess.make_demo_data import make_demo  # imports pandas

            make_demo(runs[0].args.nle_data_train_path.parent)  # here, so that parallel runs do not all make it
        done, status = run_all(args.out, runs, args.jobs)
        if done:
            values = {run.combination: run.values for run in runs}
            results = [run.result() for run in runs if run in done]
            table = write_table(args.out, values, args.seeds, results, runs[0].args.nle_data_val_path)
            print(f"\n{table}\nwrote {', '.join(str(args.out / f'ablation.{kind}') for kind in ('md', 'csv', 'tex'))}")
    return status


def plan(args: argparse.Namespace, flags: list[str]) -> list[Run]:
    """Every run of the sweep.

    Raises:
        InputError: flags that the sweep sets itself, that do not exist, or that the training refuses.
    """
    given = given_flags(flags)
    for name in RESERVED:
        if name in given:
            raise InputError(f"--{name} after --: every run has its own; leave it out (--seeds names the seeds)")
    for name in given_flags(args.test or []):
        if name not in TEST_FLAGS:
            raise InputError(f"--test: takes no --{name}; only {', '.join(f'--{flag}' for flag in TEST_FLAGS)}")
    common = [] if "cache_dir" in given else ["--cache_dir", str(args.out / "cache")]
    if args.jobs > 1 and "cpu_threads" not in given:
        common += ["--cpu_threads", str(max(cores() // args.jobs, 1))]
    runs: list[Run] = []
    for combination, values in combinations(read_ablate(args.ablate, given), args.combinations).items():
        ablated = [f"--{name}={value}" for name, value in values.items()]
        for seed in args.seeds:
            folder = args.out / combination / f"seed-{seed}"
            folders = ["--ckpt_path", str(folder / "ckpts"), "--caption_save_path", str(folder / "results")]
            train = [*flags, *ablated, "--seed", str(seed), *folders, *common, "--resume"]
            try:
                parsed = parse_args(train)
                check_paths(parsed, early=True)
                test = None if args.test is None else test_flags(parsed, args.test, folder)
            except InputError as error:
                raise InputError(f"{combination}: {error}") from None
            runs.append(Run(combination, values, seed, folder, parsed, [*args.launcher, script()], train, test))
    return runs


def given_flags(flags: list[str]) -> dict:
    """The flags that a command line names, with their values."""
    parser = training_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(flags))


def read_seeds(text: str) -> list[int]:
    """`3` means 42, 43, 44; `1,5,9` these."""
    if not re.fullmatch(r"[1-9]\d{0,2}|(\d+,)+\d*", text):
        raise InputError(f"--seeds {text}: a number of seeds, or seeds with commas between them, e.g. 1,5,9 or 7,")
    if text.isdecimal():
        return list(range(FIRST_SEED, FIRST_SEED + int(text)))
    return list(dict.fromkeys(int(word) for word in text.split(",") if word))


def read_ablate(text: str, given: dict) -> dict[str, list[bool | str]]:
    """flag -> its values, the full model's first: [True, False] for a boolean flag, else those of `flag=a|b`."""
    variants: dict[str, list[bool | str]] = {}
    for part in text.split(","):
        name, equals, values = part.strip().removeprefix("--").partition("=")
        action = declared().get(name)
        if action is None or name in RESERVED or name == "demo":
            raise InputError(f"--ablate {name}: no flag of artEmisX_train.py that can be ablated; see its --help")
        if name in given:
            raise InputError(f"--ablate {name}: is given after -- as well; leave it out there")
        if not equals and not isinstance(action, Boolean):
            raise InputError(f"--ablate {name}: is not on or off; name the values, e.g. '{name}=A|B'")
        variants[name] = values.split("|") if equals else [True, False]
        if len(set(variants[name])) < max(len(variants[name]), 2) or "" in variants[name]:
            raise InputError(f"--ablate {part}: two or more different values are needed, e.g. '{name}=A|B'")
    return variants


def combinations(variants: dict[str, list[bool | str]], which: str) -> dict[str, Values]:
    """Name -> the value of each flag; `full` has the first value of each, others are named by what differs from it."""
    full = {name: values[0] for name, values in variants.items()}
    if which == "all":
        chosen = [dict(zip(variants, values, strict=True)) for values in itertools.product(*variants.values())]
        chosen.sort(key=lambda values: sum(values[name] != full[name] for name in full))  # `each` comes first
    else:
        chosen = [full] + [full | {name: value} for name, values in variants.items() for value in values[1:]]
    named = {combination_name(values, full): values for values in chosen}
    if len(named) < len(chosen):
        raise InputError("--ablate: two of its values give the same folder name; choose values that differ in letters")
    return named


def combination_name(values: Values, full: Values) -> str:
    changed = {name: value for name, value in values.items() if value != full[name]}
    words = [f"no-{name}" if value is False else f"{name}-{value}" for name, value in changed.items()]
    return re.sub(r"[^\w.+-]", "-", "+".join(words)) or "full"


def test_flags(training: argparse.Namespace, test: list[str], folder: Path) -> list[str]:
    """The flags that score best-res of a run on the test split.

    Raises:
        InputError: the files of the test split are missing.
    """
    words = ["--eval_only", "--load_from_epoch", "best-res"]
    words += ["--ckpt_path", str(folder / "ckpts"), "--caption_save_path", str(folder / "test")]
    if demo_can_score(training) and not test:
        return ["--demo", "--split", "test", *words, *scoring_flags(training, demo=True)]
    named = given_flags(test)
    for name in ("nle_data_val_path", "annFileExp"):
        path = getattr(training, name)
        if name not in named:
            if test_counterpart(path) == path:
                raise InputError(f"--test: {path}: no _val in its name; name the test split in --test '--{name} FILE'")
            words += [f"--{name}", str(test_counterpart(path))]
    words += [*scoring_flags(training), *test]
    if test or not training.demo:  # else the data may still have to be made
        check_paths(parse_args(words))
    return words


def check_same_flags(runs: list[Run]) -> None:
    """InputError where a run in the folder was trained with other flags than it would be now."""
    for run in runs:
        history = run.history()
        if history is None:
            continue
        now = flags_of(run.args)
        for name, flag in declared().items():
            before, after = history.flags.get(name), now[name]
            if isinstance(getattr(run.args, name), Path):
                before, after = os.path.abspath(str(before)), os.path.abspath(after)
            found = after is None and name in ("vad_lexicon", "prefix_dim")  # by the training itself
            if before != after and flag.rules.resume != IGNORE and not found and name != "cpu_threads":
                problem = f"{run.folder}: is of a sweep with other flags (--{name} was {before} and is {after} now)"
                raise InputError(f"{problem}; name another --out, or give the same flags")


def run_all(out: Path, runs: list[Run], jobs: int) -> tuple[list[Run], int]:
    """Run what is not finished, at most `jobs` at a time; returns the finished runs and the exit status."""
    waiting = [run for run in runs if run.remaining() is not None]
    done = [run for run in runs if run not in waiting]
    running: list[Run] = []
    failed: dict[Run, str] = {}
    print(f"{len(runs)} runs in {out}, {len(done)} of them finished", flush=True)
    line = ProgressLine("sweep", len(runs), "runs", len(done), more=lambda: ", ".join(run.name for run in running))
    with stop_signals(running) as signals, line:
        while running or (waiting and not signals):
            while waiting and len(running) < jobs and not signals:
                run = waiting.pop(0)
                run.start()
                running.append(run)
                if signals:  # meanwhile
                    run.send(signal.SIGTERM)
            time.sleep(0.2)
            ended = [run for run in running if run.process.poll() is not None]
            if signals:  # a launcher may end before its training has written the state
                ended = [run for run in ended if not run.send(0)]
            for run in ended:
                running.remove(run)
                if signals:
                    continue
                if failure := run.failure():
                    failed[run] = failure
                    text = f"FAILED: {failure}; see {run.output}"
                elif run.remaining() is not None:
                    waiting.insert(0, run)
                    continue
                else:
                    done.append(run)
                    scores = caption_scores(run.result().scores)
                    text = "  ".join(f"{heading} {percent}" for heading, percent in scores.items())
                place, seconds = f"[{len(done) + len(failed)}/{len(runs)}]", time.monotonic() - run.began
                tqdm.write(f"{place} {run.name} ({duration(seconds)}): {text}", sys.stdout)
                sys.stdout.flush()
            line.advance(len(done) + len(failed))
    if signals:
        print(f"stopped: {len(done)} of {len(runs)} runs are finished; the same command continues where they stopped")
        return done, 128 + signals[0]
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again:")
        print("\n".join(f"  {run.name}: {failure} ({run.output})" for run, failure in failed.items()))
    return done, 1 if failed else 0


@contextlib.contextmanager
def stop_signals(running: list[Run]) -> Iterator[list[int]]:
    """Pass on signals that ask for a stop; yields the list of those received.

    At the first, or if the sweep fails, the trainings get SIGTERM and write their states; a second one kills them.
    """
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        for run in running:
            run.send(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)

    handlers = {number: signal.signal(number, pass_on) for number in STOP}
    try:
        yield received
    finally:
        for run in running:
            run.send(signal.SIGTERM)
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(run_script(main))
