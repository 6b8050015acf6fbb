"""Links and users' own files where a run would write: refused in one line and left as they are."""

import pytest

import artEmisX_train
from utils.command_line import check_paths, parse_args
from utils.errors import InputError


@pytest.mark.parametrize("place", ["ckpts", "results", "ckpts/resume", "results/log.jsonl"])
def test_a_dangling_link_is_refused_before_work(workspace, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "nowhere" / "at-all")
    with pytest.raises(InputError, match=f"{place}: .*remove it"):
        check_paths(parse_args(workspace.argv(tmp_path)))
    assert path.is_symlink()


USERS_OWN = "ckpts/resume ckpts/nle_model_best-acc ckpts/ckpt_stats_best-res.tar/note results/log.jsonl/note"


@pytest.mark.parametrize("name", USERS_OWN.split())
def test_a_users_own_file_is_refused(workspace, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("a note")
    place = path if path.name != "note" else path.parent
    with pytest.raises(InputError, match=f"{place}: is not what a training writes there"):
        artEmisX_train.main(workspace.argv(tmp_path))
    assert path.read_text() == "a note"


def test_links_to_folders_and_files_are_taken(workspace, tmp_path):
    for place in ("ckpts", "results"):
        (tmp_path / "elsewhere" / place).mkdir(parents=True)
        (tmp_path / place).symlink_to(tmp_path / "elsewhere" / place)
    (tmp_path / "elsewhere" / "log").touch()
    (tmp_path / "results" / "log.jsonl").symlink_to(tmp_path / "elsewhere" / "log")
    check_paths(parse_args(workspace.argv(tmp_path)))
