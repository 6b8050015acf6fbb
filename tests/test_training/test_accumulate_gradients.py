"""The gradients of one update: several processes and windows make those of one large batch; dropout's random numbers."""

import contextlib
import itertools
from types import SimpleNamespace

import pytest
import torch

import artEmisX_train
from models.sevlm import SEVLM
from tests.test_models.tiny import build, random_items
from utils.constants import EMOTION_SPAN
from utils.data.datasets import EpochBatches, PairCollator
from utils.training.run import Progress


def accumulate(model, window, seed=7, epoch=0, step=0, process=0, agreed=None) -> dict[str, torch.Tensor]:
    """The losses of one window on one process; `agreed`: the counts on which several processes agreed."""
    accelerator = SimpleNamespace(
        num_processes=1 if agreed is None else 2,
        process_index=process,
        reduce=lambda counts, how: agreed if how == "mean" else pytest.fail(how),
        no_sync=lambda model: contextlib.nullcontext(),
        backward=lambda loss: loss.backward(),
    )
    run = SimpleNamespace(accelerator=accelerator, prepared=model, args=SimpleNamespace(seed=seed))
    run.progress = Progress(epoch=epoch, step=step)
    return artEmisX_train.accumulate_gradients(run, window)


# ---- dropout ---------------------------------------------------------------------------------------------------------


def drawn(*place: int, batches: int = 2) -> list[float]:
    """The first random number of each batch's forward pass, by seed, epoch, step and process."""
    numbers = []

    def model(counts) -> dict[str, torch.Tensor]:
        numbers.append(torch.rand(()).item())
        return {"loss": torch.rand(5, requires_grad=True).sum()}

    accumulate(model, [{"counts": tuple(torch.ones(4))} for _ in range(batches)], *place)
    return numbers


def test_every_batch_of_every_process_has_its_own_dropout():
    places = itertools.product((7, 8), (0, 1), (0, 2), (0, 3))
    assert len({number for place in places for number in drawn(*place)}) == 32


def test_a_batch_has_its_own_dropout_wherever_it_stands_in_a_window():
    """So that a resumed run, whose first window may be another, draws what the run that was stopped would have drawn."""
    assert drawn(7, 0, 1, 3, batches=1) == drawn(7, 0, 0, 3, batches=2)[1:]


# ---- windows and processes -------------------------------------------------------------------------------------------


def windows(length: int, size: int, images: int, rank: int = 0, processes: int = 1) -> list[list[dict]]:
    """An epoch of `size` images as windows of `length` batches, without contrastive negatives, which come from a batch's
    own images."""
    items, collate = random_items(images=size), PairCollator(1, 0, EMOTION_SPAN, label_position=3)
    keys = EpochBatches(size, images, 5, rank, processes)
    batches = [collate([items[key.index] | {"key": key} for key in of_batch]) for of_batch in keys]
    batches = [{name: part for name, part in batch.items() if name != "visual_negatives"} for batch in batches]
    return [batches[start : start + length] for start in range(0, len(batches), length)]


def counts_of(window: list[dict]) -> torch.Tensor:
    return sum(torch.stack(batch["counts"]) for batch in window)


def values_and_gradients(model: SEVLM, losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Five losses and their sum; and the gradients, which are cleared."""
    assert len(losses) == 6
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {name: loss.detach() for name, loss in losses.items()} | gradients


@pytest.mark.parametrize(("images", "processes", "length"), [(2, 3, 1), (2, 1, 3), (1, 2, 4)])
def test_windows_and_processes_make_one_large_batch(images, processes, length):
    """`length` batches of `images` on each process, whatever is left for an epoch's last window; and one batch for the
    model alone, which divides by what the batch holds."""
    model = build(use_emotion_loss=True, label_tokens=list(range(10, 19)), label_position=3)
    fillers = 0
    for size in range(1, images * processes * length + 2):
        parts = [windows(length, size, images, rank, processes) for rank in range(processes)]
        whole = windows(1, size, images * processes * length)
        for (together,), of_processes in zip(whole, zip(*parts, strict=True), strict=True):
            fillers += sum(not batch["image_weight"].any() for window in of_processes for batch in window)
            agreed = torch.stack([counts_of(window) for window in of_processes]).mean(dim=0) if processes > 1 else None
            made = [
                values_and_gradients(model, accumulate(model, window, process=rank, agreed=agreed))
                for rank, window in enumerate(of_processes)
            ]
            alone = model(**{name: part for name, part in together.items() if name not in ("counts", "image_ids")})
            alone["loss"].backward()
            expected = values_and_gradients(model, alone)
            assert expected.keys() == made[0].keys()
            for name, value in expected.items():
                mean = torch.stack([of_process[name] for of_process in made]).mean(dim=0)
                torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-5, msg=f"{name}, {size} images")
    assert (fillers > 0) == (processes > 1)
