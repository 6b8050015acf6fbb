"""Links and users' own files where a run would write, and errors of the system: one line each."""

import errno
import os
import subprocess
import sys

import pytest

import artEmisX_train
from utils.command_line import check_paths, parse_args
from utils.errors import InputError, escaped, run_script


@pytest.mark.parametrize("place", ["ckpts", "results", "ckpts/resume", "results/log.jsonl"])
def test_a_dangling_link_is_refused_before_work(workspace, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(InputError, match=f"{place}: .*remove it"):
        check_paths(parse_args(workspace.argv(tmp_path)))
    assert path.is_symlink()


@pytest.mark.parametrize("name", ["ckpts/resume", "ckpts/nle_model_best-acc", "results/log.jsonl/note"])
def test_a_users_own_file_is_refused(workspace, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("a note")
    place = path if path.name != "note" else path.parent
    with pytest.raises(InputError, match=f"{place}: is not what a training writes there"):
        artEmisX_train.main(workspace.argv(tmp_path))
    assert path.read_text() == "a note"


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
    error = capsys.readouterr().err
    assert error.startswith("error: some\\x1bwhere: ") and error.count("\n") == 1


def test_other_errors_of_the_system_keep_their_traceback():
    with pytest.raises(OSError, match="no path"):
        run_script(lambda: (_ for _ in ()).throw(OSError("no path in it")))


def test_escaped():
    assert escaped("a\x1b[2J\r\nb é\u202e", keep="\n") == "a\\x1b[2J\\r\nb é\\u202e"


def test_below_a_link_that_leads_nowhere(workspace, tmp_path):
    (tmp_path / "disk").symlink_to("nowhere")
    with pytest.raises(InputError, match="disk is not a folder"):
        check_paths(parse_args(workspace.argv(tmp_path / "disk" / "run")))


def test_a_reader_that_ended_is_one_line():
    program = "from utils.errors import run_script\nrun_script(lambda: [print('x' * 9999) for _ in range(999)] and 0)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read().decode()
    assert error.startswith("error: nobody reads the output") and error.count("\n") == 1


def test_an_error_without_a_path_is_one_line(capsys):
    assert run_script(lambda: (_ for _ in ()).throw(OSError(errno.EIO, os.strerror(errno.EIO)))) == 1
    assert capsys.readouterr().err.startswith("error: a file: Input/output error")
