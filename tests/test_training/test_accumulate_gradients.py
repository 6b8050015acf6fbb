"""The gradients of one update: several processes and windows make those of one large batch; dropout's random numbers."""

import contextlib
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import GPT2Config

import artEmisX_train
from models.config import SEVLMConfig
from models.decoder import Explainer
from models.sevlm import SEVLM
from utils.data.datasets import EpochBatches, ItemKey, PairCollator
from utils.training.run import Progress, TrainingRun

WIDTH, VOCABULARY, LENGTH, SPAN = 16, 40, 12, 6


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


def drawn(batches: int = 2, **place: int) -> list[float]:
    """The first random number of each batch's forward pass."""
    numbers = []

    def model(counts) -> dict[str, torch.Tensor]:
        numbers.append(torch.rand(()).item())
        return {"loss": torch.rand(5, requires_grad=True).sum()}

    accumulate(model, [{"counts": tuple(torch.ones(4))} for _ in range(batches)], **place)
    return numbers


def test_every_batch_of_every_process_has_its_own_dropout():
    places = itertools.product((7, 8), (0, 1), (0, 2), (0, 3))
    found = [
        number
        for seed, epoch, step, process in places
        for number in drawn(seed=seed, epoch=epoch, step=step, process=process)
    ]
    assert len(set(found)) == len(found) == 32


def test_a_batch_has_its_own_dropout_wherever_it_stands_in_a_window():
    """So that a resumed run, whose first window may be another, draws what the run that was stopped would have drawn."""
    assert drawn(step=1, process=3, batches=1) == drawn(step=0, process=3, batches=2)[1:]
    torch.rand(9)
    assert drawn(step=5) == drawn(step=5)


# ---- windows and processes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> SEVLM:
    """With all five losses."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH, n_layer=1, n_head=2, add_cross_attention=True,
        pad_token_id=0,
    )  # fmt: skip
    settings = SEVLMConfig(
        encoder_dim=WIDTH, use_cl_loss=True, use_VAD_loss=True, use_emotion_loss=True, label_tokens=list(range(10, 19)),
        label_position=3, alpha=0.7, cl_Loss_weight=1.3, VAD_Loss_weight=2.0, emotion_loss_weight=0.4, label_loss_weight=0.9,
    )  # fmt: skip
    model = SEVLM(settings, Explainer(config, settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def item(key: ItemKey) -> dict:
    """Texts that differ in their numbers of labels and of known words."""
    rng = np.random.default_rng(key.index)
    tokens = rng.integers(1, VOCABULARY, (2, LENGTH), dtype=np.int32)
    place = np.arange(LENGTH)
    vad = rng.uniform(-1, 1, (2, LENGTH, 3)).astype(np.float32)
    vad[rng.random((2, LENGTH)) < 0.4] = 0
    return {
        "image_id": key.index,
        "key": key,
        "input_ids": tokens,
        "labels": np.where((place > 0) & (place < rng.integers(5, LENGTH, (2, 1))), tokens, np.int32(-100)),
        "segment_ids": np.broadcast_to(np.where(place < SPAN, 1, 2), (2, LENGTH)).astype(np.int32),
        "vad": vad,
        "emotion_distribution": rng.dirichlet(np.ones(9)).astype(np.float32),
        "cls": torch.from_numpy(rng.normal(size=WIDTH)).float(),
        "grid": torch.from_numpy(rng.normal(size=(4, WIDTH))).float(),
    }


def windows(length: int, size: int, images: int, rank: int = 0, processes: int = 1) -> list[list[dict]]:
    """An epoch of `size` images as windows of `length` batches, without contrastive negatives, which come from a batch's
    own images."""
    collate = PairCollator(seed=1, len_prefix=0, span_start=SPAN, label_position=3)
    batches = [collate([item(key) for key in keys]) for keys in EpochBatches(size, images, 5, rank, processes)]
    batches = [{name: part for name, part in batch.items() if name != "visual_negatives"} for batch in batches]
    return [batches[start : start + length] for start in range(0, len(batches), length)]


def counts_of(window: list[dict]) -> torch.Tensor:
    return sum(torch.stack(batch["counts"]) for batch in window)


def losses_and_gradients(model: SEVLM, window: list[dict], **options) -> tuple[dict, dict]:
    model.zero_grad()
    losses = accumulate(model, window, **options)
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("images", "processes", "length"), [(2, 3, 1), (2, 1, 3), (1, 2, 4)])
def test_windows_and_processes_make_one_large_batch(model, images, processes, length):
    """`length` batches of `images` on each process, whatever is left for an epoch's last window."""
    fillers = 0
    for size in range(1, images * processes * length + 2):
        parts = [windows(length, size, images, rank, processes) for rank in range(processes)]
        whole = windows(1, size, images * processes * length)
        for together, of_processes in zip(whole, zip(*parts, strict=True), strict=True):
            fillers += sum(not batch["image_weight"].any() for window in of_processes for batch in window)
            agreed = torch.stack([counts_of(window) for window in of_processes]).mean(dim=0) if processes > 1 else None
            made = [
                losses_and_gradients(model, window, process=rank, agreed=agreed)
                for rank, window in enumerate(of_processes)
            ]
            for kind, expected in enumerate(losses_and_gradients(model, together)):
                assert len(expected) == (6 if kind == 0 else len(made[0][kind]))
                for name, value in expected.items():
                    mean = torch.stack([of_process[kind][name] for of_process in made]).mean(dim=0)
                    torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-5, msg=f"{name}, {size} images")
    assert (fillers > 0) == (processes > 1)


def test_the_losses_of_one_batch_are_divided_by_what_it_holds(model):
    ((batch,),) = windows(1, 5, 5)
    losses = accumulate(model, [batch])
    alone = model(**{name: part for name, part in batch.items() if name not in ("counts", "image_ids")})
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in alone.items()}, rel=1e-5
    )


def test_steps_and_updates_of_an_epoch():
    """45 images on two processes that take 4 each: 6 steps, in windows of 4 and 2."""
    run = object.__new__(TrainingRun)
    run.batches, run.args = EpochBatches(45, 4, 0, 1, 2), SimpleNamespace(gradient_accumulation_steps=4)
    assert (run.steps_per_epoch, run.updates_per_epoch) == (6, 2)
    assert [run.updates_before(3, step) for step in (0, 1, 4, 5)] == [6, 7, 7, 8]
    assert [artEmisX_train.pairs_before(run, step) for step in (0, 5, 6)] == [0, 40, 45]
