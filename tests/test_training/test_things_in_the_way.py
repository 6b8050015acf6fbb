"""Links, files and folders where a run wants to write, and what damaged or hostile records say: one line each."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import artEmisX_train
from utils.check_inputs import check_paths
from utils.command_line import parse_args
from utils.errors import InputError, escaped, run_script
from utils.run_record import recorded_argv
from utils.training.named_checkpoints import load_named
from utils.training.resume_states import load_state, save_state, start_anew, state_folders

SPOILED = {
    "dangling": lambda path: path.symlink_to(path.parent / "nowhere" / "at-all"),
    "looping": lambda path: path.symlink_to(path.name),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("place", ["ckpts", "results", "ckpts/resume", "results/log.jsonl"])
def test_refused_before_work(workspace, tmp_path, place, kind):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    SPOILED[kind](path)
    args = parse_args(workspace.argv(tmp_path))
    with pytest.raises(InputError, match=f"{place}: .*remove it"):
        check_paths(args)
    assert os.path.lexists(path)


def test_a_file_in_place_of_the_states(workspace, tmp_path):
    (tmp_path / "ckpts").mkdir()
    (tmp_path / "ckpts" / "resume").write_text("a note of mine")
    with pytest.raises(InputError, match="ckpts/resume: is no folder"):
        artEmisX_train.main([*workspace.argv(tmp_path), "--resume"])
    assert (tmp_path / "ckpts" / "resume").read_text() == "a note of mine"


def test_links_to_folders_and_files_are_taken(workspace, tmp_path):
    for place in ("ckpts", "results", "ckpts/resume"):
        (tmp_path / "elsewhere" / place).mkdir(parents=True, exist_ok=True)
    for place in ("ckpts", "results"):
        (tmp_path / place).symlink_to(tmp_path / "elsewhere" / place)
    (tmp_path / "elsewhere" / "log").touch()
    (tmp_path / "results" / "log.jsonl").symlink_to(tmp_path / "elsewhere" / "log")
    check_paths(parse_args(workspace.argv(tmp_path)))


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY])
def test_every_error_of_a_path_is_one_line(capsys, number):
    def fail():
        raise OSError(number, os.strerror(number), "some\x1bwhere")

    assert run_script(fail) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: some\\x1bwhere: ") and said.count("\n") == 1


def test_other_errors_of_the_system_keep_their_traceback():
    with pytest.raises(OSError, match="no path"):
        run_script(lambda: (_ for _ in ()).throw(OSError("no path in it")))


def test_escaped():
    assert escaped("a\x1b[2J\r\nb é\u202e", keep="\n") == "a\\x1b[2J\\r\nb é\\u202e"


@pytest.mark.parametrize("score", [True, False])
def test_a_record_brings_no_flags_of_its_own(score):
    """A list in the record is spelled as several words: none of them may be another flag."""
    record = {"flags": {"metrics": ["bleu", "--cache_dir=/somewhere"], "num_beams": 2}, "facts": {}}
    if score:  # where the metrics are this run's own
        record["flags"]["lemmatizer"] = ["none", "--cache_dir=/somewhere"]
    with pytest.raises(InputError, match="its settings are damaged"):
        recorded_argv(record, score, Path("config.json"))


@pytest.mark.slow
def test_what_is_the_users_is_set_aside(workspace, tmp_path, capsys, monkeypatch):
    """A file or folder under a name of a checkpoint is renamed, not deleted; a tokenizer deleted meanwhile comes back."""
    ckpts = tmp_path / "ckpts"
    ckpts.mkdir()
    (ckpts / "nle_model_best-acc").write_text("a note of mine")
    (ckpts / "nle_gpt2_tokenizer_0").write_text("a note of mine")
    (ckpts / "ckpt_stats_best-acc.tar").mkdir()
    (ckpts / "ckpt_stats_best-acc.tar" / "note").write_text("a note of mine")
    (ckpts / "nle_model_best-res").symlink_to("nowhere")
    save_best = artEmisX_train.save_best

    def then_delete_tokenizer(run, name):
        save_best(run, name)
        shutil.rmtree(ckpts / "nle_gpt2_tokenizer_0")

    monkeypatch.setattr(artEmisX_train, "save_best", then_delete_tokenizer)
    assert artEmisX_train.main(workspace.argv(tmp_path, "--num_train_epochs", "1")) == 0
    assert load_named(ckpts, "best-acc").decoder and load_named(ckpts, "best-res").decoder
    for note in (
        "nle_model_best-acc-set-aside-1",
        "nle_gpt2_tokenizer_0-set-aside-1",
        "ckpt_stats_best-acc.tar-set-aside-1/note",
    ):
        assert (ckpts / note).read_text() == "a note of mine"
    assert capsys.readouterr().out.count("is no part of a checkpoint") == 3


def test_below_a_link_that_leads_nowhere(workspace, tmp_path):
    (tmp_path / "disk").symlink_to("nowhere")
    with pytest.raises(InputError, match="disk is a link that leads nowhere"):
        check_paths(parse_args(workspace.argv(tmp_path / "disk" / "run")))


def test_a_state_left_by_a_kill_is_set_aside_with_its_run(tmp_path):
    """Else it would come back among the states of the next run."""
    record = {"flags": {}, "facts": {}}
    save_state(tmp_path, 4, 0, {"number": 1}, record)
    (tmp_path / "resume" / "00004-00000000").rename(tmp_path / "resume" / ".00004-00000000.old")
    start_anew(tmp_path, 1, 0, {"number": 2}, record)
    assert load_state(tmp_path)[0].state["number"] == 2
    assert [folder.name for folder in state_folders(tmp_path)] == ["00001-00000000"]
    assert (tmp_path / "resume-set-aside-1" / "00004-00000000").is_dir()


def test_a_reader_that_ended_is_one_line():
    program = "from utils.errors import run_script\nrun_script(lambda: [print('x' * 9999) for _ in range(999)] and 0)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read().decode()
    assert said.startswith("error: nobody reads the output") and said.count("\n") == 1


def test_an_error_without_a_path_is_one_line(capsys):
    assert run_script(lambda: (_ for _ in ()).throw(OSError(errno.EIO, os.strerror(errno.EIO)))) == 1
    assert capsys.readouterr().err.startswith("error: a file: Input/output error")
