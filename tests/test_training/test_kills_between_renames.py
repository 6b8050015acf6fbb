"""Killed between any two renames or removals, a checkpoint and a state are whole: the new one or the old."""

import os

import pytest
import torch
from safetensors.torch import save_file

from utils.files import write_json
from utils.training import named_checkpoints, resume_states
from utils.training.manifests import write_manifest
from utils.training.named_checkpoints import load_named
from utils.training.resume_states import load_state, save_state, start_anew

SETTINGS = {"flags": {}, "facts": {}}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let the process die right after the nth rename or removal, counted over both modules; 0 for never."""

    def arm(nth: int):
        done = []

        def counted(function):
            def call(*arguments):
                function(*arguments)
                done.append(function)
                if len(done) == nth:
                    raise Killed

            return call

        monkeypatch.setattr(os, "replace", counted(os.replace))
        for module in (named_checkpoints, resume_states):
            monkeypatch.setattr(module, "remove", counted(module.remove))

    yield arm


def write_halves(root, value: float, suffix: str = "") -> None:
    folder, stats = root / f"nle_model_x{suffix}", root / f"ckpt_stats_x.tar{suffix}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.tensor([value])}, folder / "model.safetensors")
    write_json(folder / "config.json", {})
    generation = f"of {value}"
    torch.save({"epoch": int(value), "generation": generation}, stats)
    parts = {name: folder / name for name in ("config.json", "model.safetensors")}
    write_manifest(folder, parts | {"ckpt_stats_x.tar": stats}, generation=generation)


@pytest.mark.parametrize("second", [0, 1, 2, 3])
@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_named_checkpoint(tmp_path, kill_after, monkeypatch, first, second):
    """Killed while it is replaced, and again while that is put right."""
    write_halves(tmp_path, 1.0)
    write_halves(tmp_path, 2.0, ".new")
    for nth, act in ((first, named_checkpoints._replace), (second, load_named)):
        kill_after(nth)
        try:
            act(tmp_path, "x")
        except Killed:
            pass
        monkeypatch.undo()
    found = load_named(tmp_path, "x")
    assert found.decoder["weight"].item() == found.stats["epoch"] in (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt_stats_x.tar", "nle_model_x"]


@pytest.mark.parametrize("nth", range(1, 7))
def test_state_written_again(tmp_path, kill_after, monkeypatch, nth):
    """A run that is resumed in an evaluation writes the state it was resumed from once more; it may be the only one."""
    save_state(tmp_path, 0, 5, {"number": 1}, SETTINGS)
    kill_after(nth)
    try:
        save_state(tmp_path, 0, 5, {"number": 2}, SETTINGS)
    except Killed:
        pass
    monkeypatch.undo()
    found, notes = load_state(tmp_path)
    assert found.state["number"] in (1, 2) and not notes
    save_state(tmp_path, 0, 5, {"number": 3}, SETTINGS)
    assert load_state(tmp_path)[0].state["number"] == 3
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["00000-00000005"]


@pytest.mark.parametrize("nth", range(1, 9))
def test_start_anew(tmp_path, kill_after, monkeypatch, nth):
    save_state(tmp_path, 4, 0, {"number": 1}, SETTINGS)
    (tmp_path / "resume-set-aside-1").symlink_to("nowhere")  # in the way, and not followed
    kill_after(nth)
    try:
        start_anew(tmp_path, 1, 0, {"number": 2}, SETTINGS)
    except Killed:
        pass
    monkeypatch.undo()
    found, notes = load_state(tmp_path)
    assert found.state["number"] in (1, 2) and not notes
