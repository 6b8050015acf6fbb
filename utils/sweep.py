"""The ablation table: the training for each combination of flags and each seed, then mean and standard deviation.

python -m utils.sweep --out runs/ablation --seeds 3 --ablate use_VAD,use_VAD_loss,use_cl_loss -- FLAGS of artEmisX_train.py
"""

import argparse
import itertools
import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from utils.command_line import check_paths, parse_args
from utils.errors import MOST_PROCESSES, InputError, OneLineParser, number, run_script
from utils.evaluation.ablation_table import Row, write_table
from utils.evaluation.report import classifier_name
from utils.evaluation.tables import (
    CAPTION_SCORES,
    differing,
    in_words,
    left_out_line,
    not_comparable,
    read_report,
)
from utils.files import check_place, check_writable, read_json, run_lock, sha256
from utils.flags import IGNORE, Boolean
from utils.opts import declared
from utils.opts import get_parser as training_parser
from utils.processes import cores
from utils.progress import ProgressLine, duration
from utils.run_record import flags_of
from utils.training.run_log import LOG_FILE, RunHistory, read_log
from utils.training.summary import demo_can_score, scoring_flags, script, test_counterpart
from utils.training.sweep_processes import Job, Jobs

FIRST_SEED = 42  # the training's default
MOST_RUNS = 1000
# Flags that the sweep gives itself, or that make no training from the beginning.
OURS = ("seed", "ckpt_path", "caption_save_path", "resume", "eval_only", "load_from_epoch", "split", "append_to")
# Flags of --test: files of the test split, and what the report says of it.
TEST_FLAGS = (
    "nle_data_val_path",
    "annFileExp",
    "image_root",
    "feature_cache",
    "test_set",
    "text2emotion",
    "vocabulary",
)

Values = dict[str, bool | str]


@dataclass
class Run:
    """One training of the sweep.

    values: of the flags that are ablated. args: the training's flags as it parses them. commands: the training, and
    with --test the scoring of its best-res.
    """

    combination: str
    values: Values
    seed: int
    folder: Path
    args: argparse.Namespace
    commands: list[list[str]]

    @property
    def name(self) -> str:
        return f"{self.combination} seed {self.seed}"

    @property
    def report(self) -> Path:
        """Of --test."""
        return self.folder / "test" / "report.json"

    def history(self) -> RunHistory | None:
        """What its log tells, None before there is one."""
        path = self.folder / "results" / LOG_FILE
        if not path.is_file() or not path.stat().st_size:
            return None
        return read_log(path)


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.sweep",
        usage="python -m utils.sweep [flags] --ablate FLAG,FLAG,... -- FLAGS of artEmisX_train.py",
        description="Train each combination of flags with each seed; end with the table of their scores.",
        epilog="The same command continues a sweep that was stopped, and repeats no finished run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--ablate",
        required=True,
        metavar="FLAG,FLAG=A|B,...",
        help="boolean flags, on and off; or any flag with the values to be compared, the full model's first (quote the |)",
    )
    add("--seeds", default="3", help="how many, counted from 42; or the seeds, e.g. 1,5,9 (with a comma: 7, is seed 7)")
    add(
        "--combinations",
        choices=("each", "all"),
        default="each",
        help="each: the full model, and the model with one flag changed at a time; all: every combination",
    )
    add("--out", type=Path, default=Path("runs/sweep"), help="folder of the sweep")
    add("--jobs", type=number(int, 1, MOST_PROCESSES), default=1, help="runs at a time; on CPUs they share the cores")
    add("--launcher", default=shlex.quote(sys.executable), help='e.g. "accelerate launch --quiet"')
    add("--print", action="store_true", help="print the commands, one run a line (for a Slurm array), and make nothing")
    add(
        "--test",
        nargs="?",
        const="",
        metavar="FLAGS",
        help="also score best-res on the test split, and make the table of these scores; FLAGS in one word name its files, "
        "e.g. '--nle_data_val_path artEmisX_test.json --annFileExp ...' (default: _test in place of _val in the names)",
    )
    return parser


def main(argv: list[str] | None = None) -> int | None:
    argv = sys.argv[1:] if argv is None else argv
    ours, flags = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    args = get_parser().parse_args(ours)
    seeds, runs = plan(args, flags)
    if args.print:
        print("\n".join(" && ".join(map(shlex.join, run.commands)) for run in runs))
        return 0
    check_place(args.out / "ablation.md")
    check_writable(args.out / "ablation.md")
    check_same_flags(runs)
    with run_lock(args.out):
        first = runs[0].args
        if first.demo and not all(map(is_trained, runs)):
            from preprocess.make_demo_data import make_demo  # brings pandas along

            make_demo(first.nle_data_train_path.parent)  # once, before several runs would make it
        done, status = run_all(args, runs)
        rows, notes = results(runs, seeds, done, args.test is not None)
        if any(row.runs for row in rows):
            table = write_table(args.out, rows, notes)
            print(f"\n{table}\nwrote {', '.join(str(args.out / f'ablation.{kind}') for kind in ('md', 'csv', 'tex'))}")
    return status


# ---- what is to be run -----------------------------------------------------------------------------------------------


def plan(args: argparse.Namespace, flags: list[str]) -> tuple[list[int], list[Run]]:
    """Every run of the sweep, its flags checked as the training checks them.

    Raises:
        InputError: flags that are none, that the sweep gives itself, or that the training refuses.
    """
    given = given_flags(flags)
    for name in OURS:
        if name in given:
            whose = "--seeds names them" if name == "seed" else "each run has its own, or begins anew"
            raise InputError(f"--{name} after --: not in a sweep ({whose}); leave it out")
    launcher = read_launcher(args.launcher)
    test = None if args.test is None else read_test_flags(args.test)
    seeds, variants = read_seeds(args.seeds), read_ablate(args.ablate, given)
    combos = combinations(variants, args.combinations)
    if len(combos) * len(seeds) > MOST_RUNS:
        raise InputError(f"{len(combos)} combinations of {len(seeds)} seeds are more than {MOST_RUNS} runs; take fewer")
    shared = [] if "cache_dir" in given else ["--cache_dir", str(args.out / "cache")]
    if args.jobs > 1 and "cpu_threads" not in given:
        shared += ["--cpu_threads", str(max(cores() // args.jobs, 1))]
    runs: list[Run] = []
    for combination, values in combos.items():
        of_values = [word for name, value in values.items() for word in as_flag(name, value)]
        for seed in seeds:
            folder = args.out / combination / f"seed-{seed}"
            where = ["--ckpt_path", str(folder / "ckpts"), "--caption_save_path", str(folder / "results")]
            words = [*flags, *of_values, "--seed", str(seed), *where, *shared, "--resume"]
            try:
                parsed = parse_args(words)
                check_paths(parsed, early=True)
                commands = [[*launcher, script(), *words]]
                if test is not None:
                    commands.append([*launcher, script(), *test_words(parsed, test, folder)])
            except InputError as error:
                raise InputError(f"{combination}: {error}") from None
            runs.append(Run(combination, values, seed, folder, parsed, commands))
    return seeds, runs


def given_flags(flags: list[str]) -> dict:
    """The flags that a command line names, with their values."""
    parser = training_parser()
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return vars(parser.parse_args(flags))


def read_launcher(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--launcher {text}: {error}; close the quotes") from None
    if not words or shutil.which(words[0]) is None:
        raise InputError(f"--launcher {text}: no such program; e.g. 'accelerate launch --quiet'")
    return words


def read_seeds(text: str) -> list[int]:
    """`3` means 42, 43, 44; `1,5,9` these."""
    words = [word for word in text.split(",") if word] if "," in text else [text]
    if not words or not all(re.fullmatch(r"[0-9]{1,10}", word) for word in words):
        raise InputError(f"--seeds {text}: a number of seeds, or seeds with commas between them, e.g. 1,5,9")
    seeds = [int(word) for word in words]
    if "," not in text:
        if not 1 <= seeds[0] <= MOST_RUNS:
            raise InputError(f"--seeds {text}: not between 1 and {MOST_RUNS}; seed {text} alone is --seeds {text},")
        seeds = list(range(FIRST_SEED, FIRST_SEED + seeds[0]))
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text}: a seed is there twice; name each once")
    return seeds


def read_ablate(text: str, given: dict) -> dict[str, list[bool | str]]:
    """flag -> its values, the full model's first: [True, False] for a boolean flag, else those of `flag=a|b`."""
    actions = declared()
    variants: dict[str, list[bool | str]] = {}
    for part in text.split(","):
        name, equals, values = part.strip().removeprefix("--").partition("=")
        action = actions.get(name)
        if action is None or name in OURS or name == "demo":
            raise InputError(
                f"--ablate {name}: no flag of artEmisX_train.py that can be ablated; its --help lists them"
            )
        if name in variants:
            raise InputError(f"--ablate {name}: is there twice; name it once")
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
        chosen.sort(key=lambda values: sum(values[name] != full[name] for name in full))  # as `each` begins
    else:
        chosen = [full] + [full | {name: value} for name, values in variants.items() for value in values[1:]]
    named = {combination_name(values, full): values for values in chosen}
    if len(named) < len(chosen) or max(map(len, named)) > 200:
        raise InputError("--ablate: its values make no folder names that differ and fit; take other or fewer values")
    return named


def combination_name(values: Values, full: Values) -> str:
    changed = {name: value for name, value in values.items() if value != full[name]}
    words = [f"no-{name}" if value is False else f"{name}-{value}" for name, value in changed.items()]
    return re.sub(r"[^\w.+-]", "-", "+".join(words)) or "full"


def as_flag(name: str, value: bool | str) -> list[str]:
    return [f"--{name}={value}"] if isinstance(value, str) else [f"--{name}" if value else f"--no-{name}"]


# ---- --test ----------------------------------------------------------------------------------------------------------


def read_test_flags(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--test {text}: {error}; close the quotes") from None
    for name in given_flags(words):
        if name not in TEST_FLAGS:
            raise InputError(f"--test: takes no --{name}; only {', '.join(f'--{flag}' for flag in TEST_FLAGS)}")
    return words


def test_words(training: argparse.Namespace, test: list[str], folder: Path) -> list[str]:
    """The flags that score best-res of a run on the test split; its files are looked for.

    Raises:
        InputError: the test split is not there.
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
                raise InputError(
                    f"--test: {path}: its name says no _val; name the test split in --test '--{name} FILE'"
                )
            words += [f"--{name}", str(test_counterpart(path))]
    words += [*scoring_flags(training), *test]
    if test or not training.demo:  # else the data may still have to be made
        check_paths(parse_args(words))
    return words


def is_tested(run: Run) -> bool:
    """Whether the report of --test is there, made of the same split and its name, references, lexicon and judge."""
    if not run.report.is_file():
        return False
    report, args = read_report(run.report), parse_args(run.commands[-1][run.commands[-1].index(script()) + 1 :])
    wanted = {
        "evaluated_sha256": sha256(args.nle_data_val_path),
        "test_set": args.test_set,
        "references_sha256": sha256(args.annFileExp),
        "judge": None if args.text2emotion is None else classifier_name(args.text2emotion, args.vocabulary),
    }
    if report.get("lexicon_sha256") is not None and args.vad_lexicon is not None:
        wanted["lexicon_sha256"] = sha256(args.vad_lexicon)
    return all(report.get(fact) == value for fact, value in wanted.items())


# ---- runs and results ------------------------------------------------------------------------------------------------


def is_trained(run: Run) -> bool:
    history = run.history()
    return history is not None and history.end is not None


def check_same_flags(runs: list[Run]) -> None:
    """InputError where a run in the folder was made with other flags than it would be now."""
    for run in runs:
        history = run.history()
        if history is None:
            continue
        now = flags_of(run.args)
        for name, flag in declared().items():
            if flag.rules.resume == IGNORE or name == "cpu_threads" or name not in history.flags:
                continue
            before, after = history.flags[name], now[name]
            if name in ("vad_lexicon", "prefix_dim") and after is None:  # found by the run
                continue
            if isinstance(getattr(run.args, name), Path) and isinstance(before, str):
                before, after = os.path.abspath(before), os.path.abspath(after)
            if before != after:
                raise InputError(
                    f"{run.folder}: is of a sweep with other flags (--{name} was {before} and is {after} now); name another "
                    "--out, or give the same flags"
                )


def run_all(args: argparse.Namespace, runs: list[Run]) -> tuple[list[Run], int]:
    """Run what is not finished; returns the finished runs and the exit status."""
    tests = args.test is not None
    jobs, done = {}, []
    for run in runs:
        trained = is_trained(run)
        if trained and (not tests or is_tested(run)):
            done.append(run)
            continue
        commands = run.commands[1:] if trained else list(run.commands)
        jobs[run.name] = Job(run.name, commands, run.folder / "output.log")
    by_name = {run.name: run for run in runs}
    failed: list[Job] = []
    print(f"{len(runs)} runs in {args.out}, {len(done)} of them finished", flush=True)

    def on_end(job: Job) -> None:
        run = by_name[job.name]
        if job.failure is None and not (is_trained(run) and (not tests or is_tested(run))):
            job.failure = "ended without an error and without being done"
        if job.failure is None:
            done.append(run)
            said = "  ".join(
                f"{title} {100 * value:.1f}"
                for name, title in CAPTION_SCORES.items()
                if (value := scores_of(run, tests).get(name)) is not None
            )
        else:
            failed.append(job)
            said = f"FAILED: {job.failure}; see {job.log}"
        ended = len(done) + len(failed)
        tqdm.write(f"[{ended}/{len(runs)}] {job.name} ({duration(time.monotonic() - job.began)}): {said}", sys.stdout)
        sys.stdout.flush()

    workers = Jobs(args.jobs)

    def running() -> str:
        return ", ".join(job.name for job in workers.running)

    with ProgressLine("sweep", len(runs), "runs", done=len(done), more=running) as line:
        workers.run(list(jobs.values()), on_end, lambda _: line.advance(len(done) + len(failed)))
    if workers.stop is not None:
        print(f"stopped: {len(done)} of {len(runs)} runs are finished; the same command goes on where they stopped")
        return done, 128 + workers.stop
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again:")
        print("\n".join(f"  {job.name}: {job.failure} ({job.log})" for job in failed))
    return done, 1 if failed else 0


def scores_of(run: Run, test: bool) -> dict[str, float]:
    """Of a finished run: the evaluation that chose best-res, or the test report.

    Raises:
        InputError: its log tells of no such evaluation.
    """
    if test:
        return read_report(run.report)["scores"]
    history = run.history()
    for point in history.scores:
        if (point["epoch"], point["step"]) == (history.end.get("epoch"), history.end.get("step")):
            return point
    raise InputError(f"{run.folder}: its log lacks the scores of best-res; remove the folder, so that it is run anew")


def results(runs: list[Run], seeds: list[int], done: list[Run], test: bool) -> tuple[list[Row], list[str]]:
    """The rows of the table, and the sentences under it."""
    rows = {run.combination: Row(run.combination, run.values, {}) for run in runs}
    for run in runs:
        if run in done:
            rows[run.combination].runs[run.seed] = scores_of(run, test)
    args = runs[0].args
    if test and done:
        report = read_json(done[0].report)
        name = report.get("test_set") or "a test split without a name"
        notes = [
            f"Scores of {report.get('evaluated_file')} ({name}); checkpoint: best-res of {args.nle_data_val_path}."
        ]
    else:
        notes = [
            f"Scores of best-res on {args.nle_data_val_path}, the split that chose it among the epochs: somewhat higher than on "
            "images that chose nothing (--test scores those)."
        ]
    words = "Mean and standard deviation of the sample (n - 1)" if len(seeds) > 1 else "One seed: no standard deviation"
    which = ", ".join(map(str, seeds))
    notes.append(f"In percent, words for max-LCS. {words}; {'seeds' if len(seeds) > 1 else 'seed'} {which}.")
    if len(done) < len(runs):
        notes.append(f"WARNING: {len(runs) - len(done)} of {len(runs)} runs are missing.")
    if test:
        out = not_comparable([read_report(run.report) for run in done])
        out = {score: fact for score, fact in out.items() if any(score in row.scores() for row in rows.values())}
        for row in rows.values():
            row.runs = {seed: {k: v for k, v in of.items() if k not in out} for seed, of in row.runs.items()}
        notes += [left_out_line(out)] if out else []
    if found := differences(done):
        notes.append(f"WARNING: the runs do not agree in {in_words(found)}: do not compare them.")
    return list(rows.values()), notes


def differences(done: list[Run]) -> list[str]:
    """Facts in which runs differ though no flag that is ablated makes them differ."""
    found: list[str] = []
    for flag, action in declared().items():
        fact = action.fingerprint
        if fact is None:
            continue
        groups: dict[tuple, list[dict]] = {}
        for run in done:  # the other two flags change encoders and decoders as well
            key = tuple(run.values.get(name) for name in (flag, "from_scratch", "fixed_encoder"))
            groups.setdefault(key, []).append(run.history().fingerprints)
        if any(differing(group, [fact]) for group in groups.values()):
            found.append(fact)
    return found


if __name__ == "__main__":
    sys.exit(run_script(main))
