"""SEVLM.forward as a whole: weight and count of each loss, images that do not count, what the heads read."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from models.decoder import Explainer
from models.heads import EmotionHead
from models.image_encoder import ImageFeatures
from models.losses import emotion_loss, label_loss
from models.sevlm import SEVLM
from tests.test_models.test_reference import VADByContext, greedy_texts, prompt_of
from tests.test_models.tiny import IMAGES, PAD, build, collate, random_items
from utils.constants import EMOTION_SPAN

WEIGHTS = {"lm_loss": 0.5, "contrastive_loss": 2.0, "vad_loss": 3.0, "emotion_loss": 5.0, "label_loss": 7.0}
FLAGS = ("alpha", "cl_Loss_weight", "VAD_Loss_weight", "emotion_loss_weight", "label_loss_weight")
LABELS = {"label_tokens": [5, 40, 3, 17, 8, 2, 11, 23, 9], "label_position": 3}
COUNTED_BY = {"tokens": ["lm_loss"], "texts": ["contrastive_loss", "label_loss"]}
COUNTED_BY |= {"vad_positions": ["vad_loss"], "images": ["emotion_loss"]}


@pytest.fixture
def model() -> SEVLM:
    return build(use_emotion_loss=True, **LABELS, **dict(zip(FLAGS, WEIGHTS.values(), strict=True)))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return collate(random_items())


def test_loss_is_the_weighted_sum_of_all_five(model, batch):
    output = model(**batch)
    assert output.keys() == {"loss", *WEIGHTS} and min(output.values()) > 0.01
    expected = sum(weight * output[name].item() for name, weight in WEIGHTS.items())
    assert output["loss"].item() == pytest.approx(expected, rel=1e-6)
    output["loss"].backward()
    of_head, model.emotion_head.weight.grad = model.emotion_head.weight.grad, None
    (5 * model(**batch)["emotion_loss"]).backward()
    assert torch.allclose(of_head, model.emotion_head.weight.grad, rtol=1e-5)


def test_losses_that_are_off(batch):
    """No part for them in the model, and no term in the sum."""
    model = build(use_cl_loss=False, use_VAD_loss=False, alpha=3.0)
    output = model(**batch)
    assert output.keys() == {"loss", "lm_loss"} and output["loss"] == 3 * output["lm_loss"]
    assert not any(name.startswith(("decoder.sim_mlp", "decoder.VAD_head")) for name, _ in model.named_parameters())


@pytest.mark.parametrize("settings", [{}, {"use_VAD": False, "len_prefix": 2}])
def test_every_trained_weight_has_a_gradient(settings):
    """One without would stop a training on several GPUs."""
    prefix = settings.get("len_prefix", 0)
    model = build(use_emotion_loss=True, emotion_pooling="prototypes", **settings)
    model(**collate(random_items(len_prefix=prefix), prefix))["loss"].backward()
    assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]


@pytest.mark.parametrize("count", COUNTED_BY)
def test_each_count_divides_its_own_losses(model, batch, count):
    output = model(**batch)
    doubled = model(**batch | {"counts": batch["counts"]._replace(**{count: 2 * getattr(batch["counts"], count)})})
    assert model(**batch | {"counts": None})["loss"].item() == pytest.approx(output["loss"].item(), rel=1e-5)
    for name in WEIGHTS:
        expected = output[name].item() / (2 if name in COUNTED_BY[count] else 1)
        assert doubled[name].item() == pytest.approx(expected, rel=1e-5), name


def test_what_the_emotion_and_the_label_loss_read(model, batch):
    """The class token's logits, and those of each text at the one position."""
    output, image, target = model(**batch), model.image_encoder(batch["pixels"]), batch["emotion_distribution"]
    logits = image.cls @ model.emotion_head.weight.T + model.emotion_head.bias
    assert output["emotion_loss"].item() == pytest.approx(emotion_loss(logits, target).item(), rel=1e-5)
    hidden = model.decoder(batch["input_ids"], batch["segment_ids"], image, model.vad_encoder(batch["vad"]))
    logits, of_texts = hidden[:, 3] @ model.decoder.lm_head.weight.T, torch.stack([row for row in target for _ in "AB"])
    expected = label_loss(logits, torch.tensor(LABELS["label_tokens"]), of_texts)
    assert output["label_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_images_that_do_not_count(model):
    """Losses of images 0, 2 and 3 alone: the texts of images 1 and 4, which fill up the batch, are negatives of theirs and
    no more."""
    items = random_items()
    batch = collate(items)
    weight = torch.tensor([1.0, 0, 1, 1, 0])
    rows, images = [0, 1, 4, 5, 6, 7], [0, 2, 3]
    learnt = torch.isin(batch["lm_positions"] // batch["input_ids"].shape[1], torch.tensor(rows))
    batch["lm_targets"] = torch.where(learnt, batch["lm_targets"], -100)
    given = model(**batch | {"image_weight": weight, "counts": None})
    alone = model(**collate([items[image] for image in images]) | {"counts": None})
    for name in ("lm_loss", "vad_loss", "emotion_loss", "label_loss"):
        assert given[name].item() == pytest.approx(alone[name].item(), rel=1e-5), name
    # an image's negative is its own other text, so that it does not matter which images there are
    own = torch.arange(2 * IMAGES) ^ 1
    given = model(**batch | {"image_weight": weight, "counts": None, "visual_negatives": own})
    own = torch.arange(6) ^ 1
    alone = model(**collate([items[image] for image in images]) | {"counts": None, "visual_negatives": own})
    assert given["contrastive_loss"].item() == pytest.approx(alone["contrastive_loss"].item(), rel=1e-5)


def test_cached_features_give_the_same_losses(model, batch):
    expected, features = model(**batch), model.image_encoder(batch["pixels"])
    cached = model(**batch | {"pixels": None}, **features._asdict())
    assert {name: value.item() for name, value in cached.items()} == {n: v.item() for n, v in expected.items()}


def test_features_of_another_width_are_projected_once_for_all():
    """Class token and grid, in training, in the contrastive head and in generation: as if they had come projected."""
    plain = build(len_prefix=2)
    config = replace(plain.config, encoder_dim=12)
    decoder = Explainer(plain.decoder.config, config)
    decoder.load_state_dict(plain.decoder.state_dict(), strict=False)
    wide = SEVLM(config, decoder).eval()
    wide.vad_encoder = plain.vad_encoder
    projection = decoder.transformer.image_projection
    nn.init.normal_(projection.weight)
    raw = ImageFeatures(torch.randn(IMAGES, 12), torch.randn(IMAGES, 4, 12))
    projected = ImageFeatures(projection(raw.cls).detach(), projection(raw.grid).detach())
    batch = collate(random_items(len_prefix=2), 2) | {"pixels": None}
    expected, given = plain(**batch, **projected._asdict()), wide(**batch, **raw._asdict())
    for name, value in expected.items():
        assert given[name].item() == pytest.approx(value.item(), rel=1e-5), name
    texts = greedy_texts(plain, projected, prompt_of(2, 5), VADByContext(0), ())
    assert greedy_texts(wide, raw, prompt_of(2, 5), VADByContext(0), ()) == texts and len(set(map(tuple, texts))) > 1


def test_the_last_position_alone():
    """Of the last block only that is computed in generation."""
    transformer, x = build().decoder.transformer, torch.randn(2, 5, 16)
    image = transformer.image_keys_values(torch.randn(1, 4, 16))
    whole, last = (transformer(x, image, last_only=only)[0] for only in (False, True))
    torch.testing.assert_close(last, whole[:, -1:])


# ---- the contrastive head --------------------------------------------------------------------------------------------


def pooled(hidden, input_ids, segment_ids, masked: bool, prefix: int = 0, span: int = EMOTION_SPAN):
    model = build(len_prefix=prefix, emotion_span=span, masked_pooling=masked)
    return model.pool_spans(hidden, torch.tensor(input_ids), torch.tensor(segment_ids))


def test_published_pooling_counts_padding():
    """Four positions of emotion behind the prefix of two, whatever the segments say; the rest with its padding."""
    hidden, ids, segments = torch.arange(12.0).view(1, -1, 1), [[1] * 10 + [PAD] * 2], [[5] * 9 + [6] * 3]
    emotion, explanation = pooled(hidden, ids, segments, False, prefix=2, span=4)
    assert emotion.item() == (2 + 3 + 4 + 5) / 4 and explanation.item() == (6 + 11) / 2


def test_masked_pooling_by_hand():
    """Row 0: emotion at 0..4, explanation at 5..7, padding at 8, 9; row 1: 0..6 and 7..9, no padding."""
    hidden = torch.stack([torch.arange(10.0), torch.arange(10.0) ** 2]).unsqueeze(-1)
    ids = [[1] * 8 + [PAD] * 2, [1] * 10]
    segments = [[5] * 5 + [6] * 5, [5] * 7 + [6] * 3]
    emotion, explanation = pooled(hidden, ids, segments, True)
    assert emotion.flatten().tolist() == pytest.approx([2.0, (0 + 1 + 4 + 9 + 16 + 25 + 36) / 7])
    assert explanation.flatten().tolist() == pytest.approx([6.0, (49 + 64 + 81) / 3])
    emotion, explanation = pooled(hidden[:1], ids[:1], segments[:1], True, prefix=2)
    assert emotion.item() == 3.0 and explanation.item() == 6.0  # the prefix is no part of the emotion
    emotion, explanation = pooled(torch.ones(1, 4, 2), [[1, 1, PAD, PAD]], [[5, 5, 6, 6]], True)
    assert emotion.tolist() == [[1, 1]] and explanation.tolist() == [[0, 0]]  # nothing but padding


# ---- the emotion head ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["cls", "mean", "prototypes"])
def test_emotion_logits_by_hand(pooling):
    """One image, one emotion and, of the prototypes, one patch at a time."""
    torch.manual_seed(1)
    head, image = EmotionHead(12, pooling), ImageFeatures(torch.randn(3, 12), torch.randn(3, 5, 12))
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    logits = head(image)
    for row, emotion in itertools.product(range(3), range(9)):
        read = image.cls[row] if pooling == "cls" else image.grid[row].mean(0)
        if pooling == "prototypes":
            of_patches = np.array([(head.queries[emotion] @ patch).item() / 12**0.5 for patch in image.grid[row]])
            weights = np.exp(of_patches) / np.exp(of_patches).sum()
            assert head.patch_scores(image.grid)[row, emotion].tolist() == pytest.approx(weights, abs=1e-5)
            read = sum(weight * patch for weight, patch in zip(weights.tolist(), image.grid[row], strict=True))
        expected = (head.weight[emotion] @ read + head.bias[emotion]).item()
        assert logits[row, emotion].item() == pytest.approx(expected, abs=1e-4)


# ---- devices ---------------------------------------------------------------------------------------------------------


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices. Single numbers may stay on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() or tensor.device.type != "cpu"}
        moved = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        assert len(devices) < 2 or moved, f"{function} on {devices}"
        return function(*args, **(kwargs or {}))


def test_a_training_step_leaves_no_tensor_behind():
    """No GPU is needed: the meta device computes shapes only. PyTorch takes CPU tensors silently in a few operations
    (embedding, indexing, linear) of other devices' tensors."""
    model = build(use_emotion_loss=True, emotion_pooling="prototypes", **LABELS).train().to("meta")
    left = collate(random_items())
    batch = tree_map(lambda tensor: tensor.to("meta"), left)
    with OneDevice():
        model(**batch)["loss"].backward()
    for name in ("input_ids", "lm_positions", "visual_negatives"):  # and a tensor that is left is noticed
        with pytest.raises((AssertionError, RuntimeError)), OneDevice():
            model(**batch | {name: left[name]})
