"""Dropout's random numbers differ by seed, epoch, batch of an update's window and process, and depend on nothing else."""

import contextlib
from types import SimpleNamespace

import torch

import artEmisX_train
from utils.training.run import Progress


def drawn(seed: int = 7, epoch: int = 0, step: int = 0, process: int = 0, batches: int = 2) -> list[float]:
    """The first random number of each batch's forward pass, as `accumulate_gradients` lets a model draw it."""
    numbers = []

    def model(counts) -> dict[str, torch.Tensor]:
        numbers.append(torch.rand(()).item())
        return {"loss": torch.zeros(())}

    accelerator = SimpleNamespace(
        num_processes=1,
        process_index=process,
        no_sync=lambda model: contextlib.nullcontext(),
        backward=lambda loss: torch.rand(5),  # whatever else draws numbers meanwhile
    )
    run = SimpleNamespace(
        args=SimpleNamespace(seed=seed),
        accelerator=accelerator,
        prepared=model,
        progress=Progress(epoch=epoch, step=step),
    )
    artEmisX_train.accumulate_gradients(run, [{"counts": tuple(torch.ones(4))} for _ in range(batches)])
    return numbers


def test_every_batch_of_every_process_has_its_own():
    found = [
        number
        for seed in (7, 8)
        for epoch in (0, 1)
        for step in (0, 2)
        for process in (0, 3)
        for number in drawn(seed, epoch, step, process)
    ]
    assert len(set(found)) == len(found) == 32


def test_a_batch_has_its_own_wherever_it_stands_in_a_window():
    """So that a resumed run, whose first window may be another, draws what the run that was stopped would have drawn."""
    assert drawn(step=1, process=3, batches=1) == drawn(step=0, process=3, batches=2)[1:]
    torch.rand(9)
    assert drawn(step=5) == drawn(step=5)
