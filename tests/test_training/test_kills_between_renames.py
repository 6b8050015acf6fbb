"""Killed between any two renames or removals, a checkpoint and a state are complete: the new one or the old."""

import contextlib
import os
from types import SimpleNamespace

import pytest
import torch

from tests.test_models.tiny import build
from utils import files
from utils.command_line import checkpoint_config
from utils.training.checkpoints import finish_saves, load_named, save_named
from utils.training.resume import load_state, prepare_folder, save_state, state_folders

SETTINGS = {"flags": {}, "fingerprints": {}}


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


@pytest.fixture
def killed_after(monkeypatch):
    """Call a function that dies right after the nth rename or removal. Nothing is cleaned up then."""

    def call_until(nth: int, function, *arguments):
        done = []

        def counted(change):
            def call(*paths):
                if len(done) < nth:  # else it is dead
                    change(*paths)
                    done.append(paths)
                    if len(done) == nth:
                        raise Killed

            return call

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(files, "remove", counted(files.remove))
            function(*arguments)

    return call_until


MODEL = build()
TOKENIZER = SimpleNamespace(save_pretrained=lambda folder: (folder / "tokenizer_config.json").write_text("{}"))


def save(root, number: int) -> None:
    torch.nn.init.constant_(MODEL.decoder.transformer.ln_f.bias, number)
    save_named(root, "x", MODEL, TOKENIZER, {}, {"epoch": number})


def whole(root) -> int:
    """The number of the checkpoint, the same in both its halves."""
    found = load_named(root, "x")
    assert found.decoder["transformer.ln_f.bias"].unique().tolist() == [found.stats["epoch"]]
    return found.stats["epoch"]


@pytest.mark.parametrize("nth", range(1, 9))
def test_named_checkpoint(tmp_path, killed_after, nth):
    """Killed while it is replaced: readable at once, completed before the next run, and replaced again."""
    save(tmp_path, 1)
    killed_after(nth, save, tmp_path, 2)
    number = whole(tmp_path)
    assert number in (1, 2)
    assert checkpoint_config(SimpleNamespace(ckpt_path=tmp_path, load_from_epoch="x")).is_file()
    finish_saves(tmp_path)
    assert whole(tmp_path) == number
    published = ["ckpt_stats_x.tar", "nle_gpt2_tokenizer_0", "nle_model_x"]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == published
    save(tmp_path, 3)
    assert whole(tmp_path) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == published  # nor anything hidden
    assert [path.parent for path in tmp_path.rglob("ckpt_stats_x.tar")] == [tmp_path]


@pytest.mark.parametrize("nth", range(1, 8))
def test_state_written_again(tmp_path, killed_after, nth):
    """A run that is resumed in an evaluation writes the state it was resumed from once more; it may be the only one."""
    save_state(tmp_path, 0, 5, {"number": 1}, SETTINGS)
    killed_after(nth, save_state, tmp_path, 0, 5, {"number": 2}, SETTINGS)
    prepare_folder(tmp_path, resume=True, continued=False)
    found, notes = load_state(tmp_path)
    assert found.state["number"] in (1, 2) and not notes
    save_state(tmp_path, 0, 5, {"number": 3}, SETTINGS)
    assert load_state(tmp_path)[0].state["number"] == 3
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["00000-00000005"]


@pytest.mark.parametrize(("older", "newer"), [((9, 100_000), (10, 0)), ((3, 99_999), (3, 100_000))])
def test_the_two_furthest_states_are_kept(tmp_path, older, newer):
    for number, place in enumerate([(0, 1), older, newer]):
        save_state(tmp_path, *place, {"number": number}, SETTINGS)
    found, notes = load_state(tmp_path)
    assert found.state == {"number": 2} and notes == []
    assert [folder.name for folder in state_folders(tmp_path)] == [f"{e:05d}-{s:08d}" for e, s in (newer, older)]
