"""utils.sweep: which runs it plans, how it continues, and its table. In most tests a stand-in takes the training's place."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import REPOSITORY, without
from tests.tools.stop_matrix import marked, processes_of, wait_for
from utils import sweep
from utils.command_line import parse_args
from utils.errors import InputError
from utils.evaluation.ablation_table import Result, write_table
from utils.evaluation.report import classifier_name
from utils.files import run_lock, sha256
from utils.run_record import flags_of
from utils.training.run_log import RunLog, read_log

SCRIPT = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from tests.test_training.test_sweep import stand_in
stand_in(sys.argv[2:])
"""
TWO = ("--ablate", "use_VAD,use_cl_loss")
ONE_SEED = ("--ablate", "use_VAD", "--seeds", "1")


def stand_in(argv: list[str]) -> None:
    """Writes what a training writes. The file `orders` says "fail SEED", or "wait" until it is stopped."""
    args, orders = parse_args(argv), Path("orders").read_text() if Path("orders").is_file() else ""
    with open("calls", "a") as calls:
        calls.write(f"{args.use_VAD} {args.use_cl_loss} {args.seed} {args.resume} {args.eval_only}\n")
    if args.eval_only:
        args.caption_save_path.mkdir(parents=True, exist_ok=True)
        files = {"evaluated": args.nle_data_val_path, "references": args.annFileExp, "lexicon": args.vad_lexicon}
        report = {f"{name}_sha256": sha256(path) for name, path in files.items()}
        report |= {"test_set": args.test_set, "evaluated_file": args.nle_data_val_path.name}
        report |= {"emotion_classifier": args.text2emotion and classifier_name(args.text2emotion, args.vocabulary)}
        report |= {"scores": {"sub_acc": 0.125, "max_lcs": 2.5}}
        (args.caption_save_path / "report.json").write_text(json.dumps(report))
        return
    log = RunLog(args.caption_save_path)
    log.write("start", {"flags": flags_of(args) | {"prefix_dim": 96}, "fingerprints": {}})  # the encoder's width
    if orders == f"fail {args.seed}":
        print("error: of a loader\nerror: no luck with this seed\nand more about it")
        sys.exit(1)
    if orders == "wait":
        time.sleep(60)
    place = {"epoch": 0, "step": 7, "updates": 8}
    log.write("scores", place | {"sub_acc": args.seed / 100 + args.use_VAD / 10, "Bleu_4": 0.5})
    log.write("scores", place | {"epoch": 1, "sub_acc": 0.99, "Bleu_4": 0.1})
    log.write("end", {"epoch": 0, "step": 7})


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the stand-in, and with the demo's data as far as they matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.py").write_text(SCRIPT)
    data = tmp_path / "runs" / "demo" / "data"
    (data / "annotations").mkdir(parents=True)
    (data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio").mkdir()
    for name in ("artEmisX_test.json", "annotations/artEmisX_test_annot_exp.json", "demo-VAD-Lexicon.txt"):
        (data / name).write_text("{}")


def run_here(command: list[str], stdout, **_) -> SimpleNamespace:
    """In place of subprocess.Popen, without imports and waiting: the command has ended once it is started."""
    import artEmisX_train  # not for the script, which is to start at once

    main, flags = (stand_in, command[3:]) if command[1] == "stand_in.py" else (artEmisX_train.main, command[2:])
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            status = main(flags) or 0
        except SystemExit as end:
            status = end.code
    stdout.write(text.getvalue().encode())
    return SimpleNamespace(pid=2**30, returncode=status, poll=lambda: status)  # pid: of no process


@pytest.fixture
def quick(monkeypatch):
    """Runs in this process, and no pauses."""
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(Popen=run_here, DEVNULL=None, STDOUT=None))
    monkeypatch.setattr(sweep, "time", SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic))


def argv(*of_sweep: str, flags: tuple[str, ...] = ()) -> list[str]:
    launcher = f"{shlex.quote(sys.executable)} stand_in.py"
    return ["--out", "out", "--launcher", launcher, *of_sweep, "--", "--demo", *flags]


def calls() -> list[str]:
    path = Path("calls")
    return path.read_text().splitlines() if path.is_file() else []


def table() -> dict[str, dict[str, str]]:
    with open("out/ablation.csv", encoding="utf-8", newline="") as file:
        return {row["combination"]: row for row in csv.DictReader(file)}


def test_combinations_and_seeds():
    variants = sweep.read_ablate("use_VAD,lemmatizer=nltk|simplemma|none", {})
    each = sweep.combinations(variants, "each")
    assert list(each) == ["full", "no-use_VAD", "lemmatizer-simplemma", "lemmatizer-none"]
    assert each["lemmatizer-none"] == {"use_VAD": True, "lemmatizer": "none"}
    every = sweep.combinations(variants, "all")
    assert len(every) == 6 and list(every)[0] == "full" and "no-use_VAD+lemmatizer-none" in every
    assert [sweep.read_seeds(text) for text in ("3", "1,5,9,5", "7,")] == [[42, 43, 44], [1, 5, 9], [7]]


def test_printed_commands(here, capsys):
    """Nothing is run. The scoring on the test split takes the training's flags along."""
    flags = ("--vad_lexicon", "it's.txt", "--metrics", "rouge", "cider")
    Path("it's.txt").touch()
    for test in (["--test"], ["--test", "--test_set v1.0"]):
        assert sweep.main(argv(*TWO, "--seeds", "2", "--print", "--jobs", "2", *test, flags=flags)) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6 and not Path("out").exists() and not calls()
        commands = [shlex.split(command) for command in lines[2].split(" && ")]
        assert [command[:2] for command in commands] == [[sys.executable, "stand_in.py"]] * 2
        train, scoring = (parse_args(command[3:]) for command in commands)
        assert (train.use_VAD, train.use_cl_loss, train.resume, train.seed) == (False, True, True, 42)
        assert (train.ckpt_path, train.cpu_threads) == (
            Path("out/no-use_VAD/seed-42/ckpts"),
            max(os.cpu_count() // 2, 1),
        )
        assert scoring.ckpt_path == train.ckpt_path and scoring.eval_only
        assert train.metrics == scoring.metrics == ["rouge", "cider"] and scoring.vad_lexicon == Path("it's.txt")
        assert scoring.cache_dir == train.cache_dir == Path("out/cache") and scoring.demo == (len(test) == 1)
        assert scoring.nle_data_val_path == Path("runs/demo/data/artEmisX_test.json")


@pytest.mark.parametrize(
    ("of_sweep", "flags", "message"),
    [
        (("--ablate", "use_VADs"), (), "no flag of artEmisX_train.py"),
        (("--ablate", "seed=1|2"), (), "no flag of artEmisX_train.py that can be ablated"),
        (("--ablate", "alpha"), (), "is not on or off; name the values"),
        (("--ablate", "alpha=1"), (), "two or more different values"),
        (("--ablate", "alpha=1|x"), (), "alpha-x: argument --alpha: invalid"),
        (("--ablate", "alpha=1|2"), ("--alpha", "3"), "is given after -- as well"),
        (("--ablate", "gpt2_model=a/b|a-b|a.b|a b"), (), "give the same folder name"),
        ((*TWO, "--seeds", "0"), (), "--seeds 0"),
        (TWO, ("--seed", "1"), "--seed after --: every run has its own; leave it out (--seeds names the seeds)"),
        ((*TWO, "--test", "--num_beams 4"), (), "--test: takes no --num_beams"),
        ((*TWO, "--jobs", "0"), (), "--jobs"),
    ],
)
def test_bad_input_before_any_work(here, of_sweep, flags, message):
    with pytest.raises(InputError) as error:
        sweep.main(argv(*of_sweep, flags=flags))
    assert message in str(error.value)
    assert not Path("out").exists() and not calls()


def test_missing_files_and_a_sweep_at_work(here):
    with pytest.raises(InputError, match="no such file; make it with preprocess/build_splits.py"):
        sweep.main([*TWO, "--out", "out"])
    with run_lock(Path("out")), pytest.raises(InputError, match="another run is at work here"):
        sweep.main(argv(*TWO))
    assert not calls()


def test_a_sweep_repeats_no_run_and_refuses_other_flags(here, quick, capsys):
    assert sweep.main(argv(*TWO, "--seeds", "2")) == 0
    assert len(calls()) == 6 and len(set(calls())) == 6
    # of best-res, which is not the last evaluation; 42 and 43 hundredths, and a tenth with use_VAD
    means = {name: float(row["sub_acc_mean"]) for name, row in table().items()}
    assert means == pytest.approx({"full": 0.525, "no-use_VAD": 0.425, "no-use_cl_loss": 0.525})
    output = capsys.readouterr().out
    assert "52.50 ± 0.71" in output and "the split that chose it" in output and "seeds 42, 43" in output
    assert sweep.main(argv(*TWO, "--seeds", "3")) == 0  # only what is new is run
    assert len(calls()) == 9 and table()["full"]["seeds"] == "42 43 44"
    assert sweep.main(argv(*TWO, "--seeds", "3", flags=("--num_workers", "1"))) == 0  # computes the same
    with pytest.raises(InputError, match=r"--alpha was 1.0 and is 0.5 now\); name another"):
        sweep.main(argv(*TWO, "--seeds", "1", flags=("--alpha", "0.5")))
    assert len(calls()) == 9


def test_failed_run_is_reported_and_tried_again(here, quick, capsys):
    Path("orders").write_text("fail 43")
    assert sweep.main(argv(*TWO, "--seeds", "3", "--jobs", "3")) == 1
    output = capsys.readouterr().out
    assert "full seed 43: no luck with this seed (out/full/seed-43/output.log)" in output
    assert "WARNING: 3 of 9 runs are missing" in output and table()["full"]["seeds"] == "42 44"
    Path("orders").unlink()
    assert sweep.main(argv(*TWO, "--seeds", "3")) == 0
    assert len(calls()) == 12 and table()["full"]["runs"] == "3"


def test_launcher_that_does_nothing_is_a_failure(here, capsys):
    words = argv(*ONE_SEED)
    words[words.index("--launcher") + 1] = "true"
    assert sweep.main(words) == 1
    assert "exited with status 0 but has not finished" in capsys.readouterr().out
    assert not Path("out/ablation.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_sweep_ends_its_runs_and_goes_on(here, quick, tmp_path, number):
    Path("orders").write_text("wait")
    command = [sys.executable, "-m", "utils.sweep", *argv(*TWO, "--seeds", "1", "--jobs", "2")]
    environment = marked(tmp_path) | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert wait_for(lambda: len(list(Path("out").glob("*/*/results/log.jsonl"))) == 2, 30)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130 and "0 of 3 runs are finished; the same command continues" in output
    assert len(calls()) == 2 and wait_for(lambda: not processes_of(tmp_path), 30)
    Path("orders").unlink()
    assert sweep.main(argv(*TWO, "--seeds", "1")) == 0
    assert len(calls()) == 5 and all(line.endswith("True False") for line in calls())  # with --resume


def test_test_split(here, quick, capsys):
    """Scored behind the training, and again once split, references, lexicon, classifier or vocabulary is another."""
    assert sweep.main(argv(*ONE_SEED)) == 0
    for name in ("a.pt", "b.pt", "vocabulary.pkl", "words.pkl"):
        Path(name).write_text(name)
    data = Path("runs/demo/data")
    steps = [
        (None, ""),  # the trainings are there: only scored
        (data / "artEmisX_test.json", ""),
        (data / "annotations/artEmisX_test_annot_exp.json", ""),
        (data / "demo-VAD-Lexicon.txt", ""),
        (None, "--text2emotion a.pt --vocabulary vocabulary.pkl"),
        (None, "--text2emotion a.pt --vocabulary words.pkl"),
        (None, "--text2emotion b.pt --vocabulary words.pkl --test_set v1.0"),
        (None, "--text2emotion b.pt --vocabulary words.pkl"),
    ]
    for number, (changed, test) in enumerate(steps, start=1):
        if changed:
            changed.write_text("{ }")
        for _ in range(2):  # what has been scored is not scored again
            assert sweep.main(argv(*ONE_SEED, "--test", *filter(None, [test]))) == 0
            assert [call.split()[-1] for call in calls()] == ["False"] * 2 + ["True"] * 2 * number, (changed, test)
    output = capsys.readouterr().out
    assert "Scores of artEmisX_test.json (a test split without a name); checkpoint: best-res of" in output
    assert "One seed: no standard deviation" in output and table()["full"]["sub_acc_mean"] == "0.125"
    flags = sweep.test_flags(parse_args(["--demo", "--num_workers", "3"]), ["--num_workers", "1"], Path("out"))
    assert parse_args(flags).num_workers == 1  # those of --test win


# ---- the table -------------------------------------------------------------------------------------------------------


def test_runs_that_cannot_be_compared_are_named(tmp_path):
    """By their fingerprints, unless an ablated flag makes them differ; a score that rests on other files is left out."""

    def table_of(*runs: tuple[str, str, str, str]) -> str:
        """Runs: the lexicon that is ablated, the one that was read, decoder and training texts."""
        scores, values = {"sub_acc": 0.125, "max_lcs": 2.5}, {name: {"vad_lexicon": name} for name, *_ in runs}
        results = []
        for seed, (name, lexicon, decoder, texts) in enumerate(runs):
            report = {"training_texts_sha256": texts, "evaluated_file": "test.json"}
            fingerprints = {"lexicon_sha256": lexicon, "decoder_sha256": decoder}
            results.append(Result(name, values[name], seed, scores, fingerprints, report))
        return write_table(tmp_path, values, list(range(len(runs))), results, Path("val.json"))

    same = ("v1", "a", "d", "x"), ("v1", "a", "d", "x"), ("v2", "b", "d", "x")
    text = table_of(*same)
    assert "do not agree" not in text and "left out" not in text and "max-LCS" in text.splitlines()[0]
    assert "do not agree in lexicon: " in table_of(*same, ("v2", "c", "d", "x"))
    text = table_of(*same, ("v1", "a", "e", "y"))
    assert "WARNING: the runs do not agree in decoder: do not compare them." in text
    assert "left out: max-LCS, as the runs differ in training texts" in text
    assert "max-LCS" not in text.splitlines()[0] and "12.50" in text


def test_the_table_in_markdown_csv_and_latex(tmp_path):
    """Rows in the order of the combinations, columns in that of reports, whatever the order of the results. A score that
    one run lacks has no mean over all."""
    modes = {"full": "=1+1", "no-use_VAD": "a|b & 50%", "alone": "x", "none": "y"}
    combinations = {name: {"use_VAD": name == "full", "mode": mode} for name, mode in modes.items()}
    runs = [
        ("full", 3, {"Bleu_4": 0.1, "sub_acc": 0.5, "max_lcs": 2.0}),
        ("full", 4, {"Bleu_4": 0.2, "sub_acc": 0.75, "max_lcs": 4.0}),
        ("no-use_VAD", 3, {"Bleu_4": 0.1, "sub_acc": 0.25, "max_lcs": 3.0}),
        ("no-use_VAD", 4, {"sub_acc": 0.25, "max_lcs": 3.5}),
        ("alone", 4, {"Bleu_4": 0.3, "sub_acc": 1.0, "max_lcs": 1.0}),
    ]
    results = [Result(name, combinations[name], seed, scores, {}) for name, seed, scores in reversed(runs)]
    markdown = write_table(tmp_path, combinations, [3, 4], results, Path("a_b, 100% <all>.json"))
    rows = [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in markdown.splitlines()[:6]]
    assert rows[0] == ["", "use_VAD", "mode", "runs", "ACC", "B-4", "max-LCS"]
    assert rows[2:] == [
        ["full", "✓", "=1+1", "2", "62.50 ± 17.68", "15.00 ± 7.07", "3.00 ± 1.41"],
        ["no-use_VAD", "-", r"a\|b & 50%", "2", "25.00 ± 0.00", "-", "3.25 ± 0.35"],
        ["alone", "-", "x", "1", "100.00", "30.00", "1.00"],
        ["none", "-", "y", "0", "-", "-", "-"],
    ]
    assert "WARNING: 3 of 8 runs are missing" in markdown
    head, full, partial, alone, none = csv.reader((tmp_path / "ablation.csv").read_text("utf-8").splitlines())
    scores = [f"{name}_{kind}" for name in ("sub_acc", "Bleu_4", "max_lcs") for kind in ("mean", "std")]
    assert head == ["combination", "use_VAD", "mode", "runs", "seeds", *scores]
    assert full[:4] == ["full", "True", "'=1+1", "2"]
    assert [float(cell) for cell in full[5:]] == pytest.approx([0.625, 0.125 * 2**0.5, 0.15, 0.05 * 2**0.5, 3, 2**0.5])
    assert partial[7:9] == ["", ""] and alone[5:7] == ["1.0", ""] and none[5:] == [""] * 6
    latex = (tmp_path / "ablation.tex").read_text(encoding="utf-8")
    assert r"no-use\_VAD" in latex and r"a\textbar{}b \& 50\%" in latex
    assert r"$\checkmark$" in latex and "✓" not in latex and r"a\_b, 100\% \textless{}all\textgreater{}.json" in latex


@pytest.mark.slow
def test_real_runs(workspace, quick, tmp_path, monkeypatch, capsys):
    flags = without(workspace.argv(Path("unused")), "ckpt_path", "caption_save_path")
    flags += ["--num_train_epochs", "1", "--batch_size", "45"]
    monkeypatch.chdir(tmp_path)
    of_sweep = ["--out", "out", "--ablate", "use_VAD", "--seeds", "1", "--jobs", "2", "--test"]
    assert sweep.main([*of_sweep, "--", *flags]) == 0, capsys.readouterr().out
    history = read_log(Path("out/no-use_VAD/seed-42/results/log.jsonl"))
    assert history.end == {"epoch": 0, "step": history.scores[0]["step"]} and history.flags["use_VAD"] is False
    report = json.loads(Path("out/no-use_VAD/seed-42/test/report.json").read_text())
    assert float(table()["no-use_VAD"]["Bleu_1_mean"]) == report["scores"]["Bleu_1"]
    assert sweep.main([*of_sweep[:-1], "--", *flags]) == 0
    assert float(table()["full"]["Bleu_1_mean"]) != 0 and "2 of them finished" in capsys.readouterr().out
