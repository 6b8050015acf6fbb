"""Links, files and folders where a run wants to write, and what damaged or hostile records say: one line each."""

import errno
import os
from pathlib import Path

import pytest

import artEmisX_train
from utils.errors import InputError, escaped, run_script
from utils.opts import check_paths, parse_args
from utils.settings import recorded_argv

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
