"""What several tests of the training share."""

import pytest

import artEmisX_train
from models import losses

NOT_DEFAULT = ("--dropout", "0.2", "--seed", "3")  # of the run `finished`


@pytest.fixture(scope="session")
def finished(workspace, tmp_path_factory):
    """The folder of a training of two epochs, for tests that only read it."""
    out = tmp_path_factory.mktemp("finished")
    assert artEmisX_train.main(workspace.argv(out, *NOT_DEFAULT)) == 0
    return out


@pytest.fixture
def break_vad_loss(monkeypatch):
    """A function that makes the VAD loss of one step NaN, counted from 0; it returns a list that grows by one each step."""

    def break_at(step: int) -> list[int]:
        vad_loss, calls = losses.vad_loss, []

        def broken(*tensors, **options):
            calls.append(step)
            return vad_loss(*tensors, **options) * (float("nan") if len(calls) == step + 1 else 1.0)

        monkeypatch.setattr(losses, "vad_loss", broken)
        return calls

    return break_at
