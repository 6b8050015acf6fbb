"""Links and users' own files where a run would write: refused in one line and left as they are."""

import pytest

from utils.command_line import check_paths, parse_args
from utils.errors import InputError

DANGLING = ("ckpts", "results", "ckpts/resume", "results/log.jsonl")
USERS_OWN = ("ckpts/resume", "ckpts/nle_model_best-acc", "ckpts/ckpt_stats_best-res.tar/note", "results/log.jsonl/note")


@pytest.mark.parametrize(
    ("name", "dangling"), [(name, n < len(DANGLING)) for n, name in enumerate(DANGLING + USERS_OWN)]
)
def test_what_is_no_output_is_refused_before_work(workspace, tmp_path, name, dangling):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "nowhere" / "at-all") if dangling else path.write_text("a note")
    message = "remove it" if dangling else "is not what a training writes there"
    with pytest.raises(InputError, match=f"{name.removesuffix('/note')}: .*{message}"):
        check_paths(parse_args(workspace.argv(tmp_path)))
    assert path.is_symlink() if dangling else path.read_text() == "a note"


def test_links_to_folders_and_files_are_taken(workspace, tmp_path):
    for place in ("ckpts", "results"):
        (tmp_path / "elsewhere" / place).mkdir(parents=True)
        (tmp_path / place).symlink_to(tmp_path / "elsewhere" / place)
    (tmp_path / "elsewhere" / "log").touch()
    (tmp_path / "results" / "log.jsonl").symlink_to(tmp_path / "elsewhere" / "log")
    check_paths(parse_args(workspace.argv(tmp_path)))
