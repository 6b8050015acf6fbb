"""Several processes make the gradients and losses of one, whatever is left for an epoch's last batch."""

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

WIDTH, VOCABULARY, LENGTH, SPAN = 16, 40, 12, 6


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


def step(model: SEVLM, batch: dict, rank: int, counts: torch.Tensor | None) -> tuple[dict, dict]:
    """Losses and gradients of one process's batch; `counts`: as the processes agree on them."""
    model.zero_grad()
    accelerator = SimpleNamespace(
        num_processes=1 if counts is None else 2,
        process_index=rank,
        reduce=lambda _, how: counts if how == "mean" else pytest.fail(how),
        backward=lambda loss: loss.backward(),
    )
    progress, args = SimpleNamespace(epoch=0, step=0), SimpleNamespace(seed=0)
    run = SimpleNamespace(accelerator=accelerator, progress=progress, args=args, prepared=model)
    losses = artEmisX_train.accumulate_gradients(run, [batch])
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize(("batch_size", "processes"), [(1, 2), (2, 2), (1, 3), (2, 3)])
def test_any_remainder(model, batch_size, processes):
    """Without contrastive negatives, which come from a process's own images."""
    collate = PairCollator(seed=1, len_prefix=0, span_start=SPAN, label_position=3)

    def batches(size: int, images: int, rank: int = 0, of: int = 1) -> list[dict]:
        found = [collate([item(key) for key in keys]) for keys in EpochBatches(size, images, 5, rank, of)]
        return [{name: part for name, part in batch.items() if name != "visual_negatives"} for batch in found]

    fillers = 0
    for size in range(1, 2 * batch_size * processes + 1):
        steps = zip(*(batches(size, batch_size, rank, processes) for rank in range(processes)), strict=True)
        for together, parts in zip(batches(size, batch_size * processes), steps, strict=True):
            fillers += sum(float(batch["image_weight"].sum()) == 0 for batch in parts)
            counts = torch.stack([torch.stack(batch["counts"]) for batch in parts]).mean(dim=0)
            made = [step(model, batch, rank, counts) for rank, batch in enumerate(parts)]
            for kind, expected in enumerate(step(model, together, 0, None)):
                assert len(expected) == (6 if kind == 0 else len(made[0][kind]))
                for name, value in expected.items():
                    mean = torch.stack([of_process[kind][name] for of_process in made]).mean(dim=0)
                    torch.testing.assert_close(mean, value, rtol=1e-4, atol=1e-5, msg=f"{name}, {size} images")
    assert fillers > 0
