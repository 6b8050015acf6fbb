"""What each signal does in each part of a run. test_processes.py and tests/tools/stop_matrix.py have whole runs."""

import argparse
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import artEmisX_train
from tests.conftest import REPOSITORY
from tests.tools.stop_matrix import marked, processes_of
from utils.training import run as training_run
from utils.training.resume import how_to_continue
from utils.training.signals import StopSignals


@pytest.fixture
def send():
    """Send a signal to this process and let Python handle it, also a signal that was ignored where pytest was started."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield lambda name: signal.raise_signal(getattr(signal, f"SIG{name}"))
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_stop_waits_for_a_step_in_training_only(send, name, capfd):
    number = getattr(signal, f"SIG{name}")
    with StopSignals() as signals:
        with pytest.raises(SystemExit) as stopped:  # still loading
            send(name)
        assert stopped.value.code == 128 + number and f"stopped by SIG{name}" in capfd.readouterr().err
        signals.set_immediate(False)
        send(name)
        assert signals.stop == number and not signals.save
        with pytest.raises(SystemExit):  # asked for before the evaluation began
            signals.set_immediate(True)
    assert signal.getsignal(number) != signals._receive


def test_a_stop_while_the_demos_data_are_made_is_one_line(send, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("preprocess.make_demo_data.make_demo", lambda folder: made.append(folder) or send("INT"))
    for flags in ([], ["--nle_data_train_path", "mine/train.json"]):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            artEmisX_train.main(["--demo", *flags])
        assert stopped.value.code == 130
    assert made == [Path("runs/demo/data"), Path("mine")]
    assert capfd.readouterr().err == "stopped by SIGINT; no state was written: give the same command again\n"


def test_warnings_of_clusters_only_ask_for_a_state_and_nohup_stays_in_force(send):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as signals:
        for immediate in (True, False):
            signals.set_immediate(immediate)
            send("HUP")
            for name in ("USR1", "USR2"):
                assert not signals.save
                send(name)
                assert signals.save and signals.stop is None
                signals.save = False


def test_other_processes_have_nothing_to_tidy(send):
    """They may wait inside a collective call, where no handler of Python's runs: the default action ends them."""
    with StopSignals(main_process=False) as signals:
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signals.set_immediate(False)
        send("TERM")
        assert signals.stop == signal.SIGTERM


def test_forked_helpers_end_at_once(send):
    """multiprocessing's pools end their processes with SIGTERM and wait for them."""
    with StopSignals() as signals:
        signals.set_immediate(False)
        child = os.fork()
        if not child:
            send("TERM")
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM


def test_in_training_a_closed_pipe_asks_for_a_state_and_a_stop(monkeypatch, capfd):
    monkeypatch.setattr(training_run, "silence_stdout", lambda: None)  # pytest's own stdout stays open

    def closed(*_, **__):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with StopSignals() as signals:
        signals.set_immediate(False)
        run = SimpleNamespace(accelerator=SimpleNamespace(print=closed), signals=signals)
        training_run.TrainingRun.print(run, "text")
        assert signals.stop == signal.SIGPIPE
    assert capfd.readouterr().err.startswith("SIGPIPE (nobody reads the output): saving a state")


def test_two_processes_agree_every_eighth_update():
    """And at once before an evaluation. A process that was not asked itself stops as by SIGTERM."""

    def agreed(updates: int, now: bool, stop: int | None, sums: tuple[float, float]) -> tuple[bool, int | None]:
        both = SimpleNamespace(num_processes=2, device="cpu", reduce=lambda asked, how: torch.tensor(sums))
        signals, progress = SimpleNamespace(save=False, stop=stop), SimpleNamespace(updates=updates)
        run = SimpleNamespace(signals=signals, accelerator=both, progress=progress)
        return training_run.TrainingRun.agreed_signals(run, now)

    assert agreed(7, False, signal.SIGINT, (0, 1)) == (False, None)
    assert agreed(7, True, signal.SIGINT, (0, 1)) == (False, signal.SIGINT)
    assert agreed(24, False, None, (0, 1)) == (False, signal.SIGTERM)
    assert agreed(8, False, None, (1, 0)) == (True, None)


def test_a_second_stop_by_ctrl_c_is_at_once_and_the_last_line_says_how_to_continue(send, tmp_path, capfd):
    ckpts = tmp_path / "ckpts"
    args = argparse.Namespace(ckpt_path=ckpts, eval_only=False, resume=False, load_from_epoch=None)
    again, resumable = "no state was written: give the same command again", "continue with --resume"
    at_start = how_to_continue(args)
    with StopSignals(True, at_start) as signals:
        signals.set_immediate(False)
        send("TERM")
        send("TERM")  # unlike a second Ctrl-C
        assert "SIGTERM: saving a state, then the run stops; Ctrl-C stops it" in capfd.readouterr().err
        with pytest.raises(SystemExit):
            send("INT")
        assert capfd.readouterr().err.endswith(f"stopped by SIGINT; {again}\n")
    (ckpts / "resume" / "00001-00000020").mkdir(parents=True)
    assert at_start() == f"{resumable} (state of epoch 1, step 20)"
    assert how_to_continue(args)() == again  # an earlier run's state
    args.resume = True
    assert how_to_continue(args)() == f"{resumable} (state of epoch 1, step 20)"
    args.resume, args.load_from_epoch = False, "best-acc"
    (ckpts / "resume" / "00001-00000020").rename(ckpts / "resume" / "00002-00000030")
    assert at_start() == f"{resumable} instead of --load_from_epoch (state of epoch 2, step 30)"


def test_what_nobody_launched_outlives_its_shell(tmp_path):
    """A launcher's end would end it: test_processes.py."""
    of_launchers = ("TORCHELASTIC", "ACCELERATE")
    environment = {name: value for name, value in marked(tmp_path).items() if not name.startswith(of_launchers)}
    script = "import time, utils.processes as p; p.prepare_script(); print('ready', flush=True); time.sleep(60)"
    command = ["bash", "-c", '"$0" -c "$1" & wait', sys.executable, script]
    with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE) as shell:
        assert shell.stdout.readline() == b"ready\n"
        shell.kill()
    time.sleep(0.3)
    (process,) = processes_of(tmp_path)
    process.kill()
