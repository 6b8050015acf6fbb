"""What several tests of the training share."""

import pytest

from models import losses


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
