"""SEVLM.forward as a whole: the count of each loss, images that do not count, what the heads read."""

from dataclasses import replace

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
from tests.test_models.test_reference import greedy_texts, prompt_of, vad_by_context
from tests.test_models.tiny import IMAGES, PAD, build, collate, random_items
from utils.data.datasets import ItemKey

LABELS = {"label_tokens": [5, 40, 3, 17, 8, 2, 11, 23, 9], "label_position": 3}
COUNTED_BY = {"tokens": ["lm_loss"], "texts": ["contrastive_loss", "label_loss"]}
COUNTED_BY |= {"vad_positions": ["vad_loss"], "images": ["emotion_loss"]}


@pytest.fixture
def model() -> SEVLM:
    return build(use_emotion_loss=True, **LABELS)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    return collate(random_items())


@pytest.mark.parametrize("settings", [{}, {"use_VAD": False, "len_prefix": 2}])
def test_every_trained_weight_has_a_gradient(settings):
    """One without would stop a training on several GPUs."""
    prefix = settings.get("len_prefix", 0)
    model = build(use_emotion_loss=True, emotion_pooling="prototypes", **settings)
    model(**collate(random_items(len_prefix=prefix), prefix))["loss"].backward()
    assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]


@pytest.mark.parametrize("count", COUNTED_BY)
def test_each_count_divides_its_own_losses(model, batch, count):
    output, counts = model(**batch), batch["counts"]
    torch.testing.assert_close(model(**batch | {"counts": None}), output)
    doubled = model(**batch | {"counts": counts._replace(**{count: 2 * getattr(counts, count)})})
    for name, loss in output.items():
        if name != "loss":
            torch.testing.assert_close(doubled[name], loss / (2 if name in COUNTED_BY[count] else 1))


def test_what_the_emotion_and_the_label_loss_read(model, batch):
    """The class token's logits, and those of each text at the one position."""
    output, image, target = model(**batch), model.image_encoder(batch["pixels"]), batch["emotion_distribution"]
    logits = image.cls @ model.emotion_head.weight.T + model.emotion_head.bias
    torch.testing.assert_close(output["emotion_loss"], emotion_loss(logits, target))
    hidden = model.decoder(batch["input_ids"], batch["segment_ids"], image, model.vad_encoder(batch["vad"]))
    logits, of_texts = hidden[:, 3] @ model.decoder.lm_head.weight.T, torch.stack([row for row in target for _ in "AB"])
    expected = label_loss(logits, torch.tensor(LABELS["label_tokens"]), of_texts)
    torch.testing.assert_close(output["label_loss"], expected)


def test_images_that_do_not_count(model):
    """Losses of images 0, 2 and 3 alone, whose negatives are their own other texts; with the batch's counts as without."""
    items = random_items()
    alone = collate([items[image] for image in (0, 2, 3)]) | {"visual_negatives": torch.arange(6) ^ 1}
    for image in (1, 4):
        items[image]["key"] = ItemKey(0, image, real=False)
    batch = collate(items) | {"visual_negatives": torch.arange(2 * IMAGES) ^ 1}
    expected = model(**alone)
    for counts in (batch["counts"], None):
        torch.testing.assert_close(model(**batch | {"counts": counts}), expected)


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
    torch.testing.assert_close(wide(**batch, **raw._asdict()), plain(**batch, **projected._asdict()))
    prompt = prompt_of(2, 5), vad_by_context, ()
    texts = greedy_texts(plain, projected, *prompt)
    assert greedy_texts(wide, raw, *prompt) == texts and len(set(map(tuple, texts))) > 1


def test_masked_pooling_by_hand():
    """Row 0: emotion at 0..4, explanation at 5..7, padding at 8, 9; row 1: 0..6 and 7..9, no padding."""
    hidden = torch.stack([torch.arange(10.0), torch.arange(10.0) ** 2]).unsqueeze(-1)
    ids, segments = torch.tensor([[1] * 8 + [PAD] * 2, [1] * 10]), torch.tensor([[5] * 5 + [6] * 5, [5] * 7 + [6] * 3])
    model = build(masked_pooling=True)
    emotion, explanation = model.pool_spans(hidden, ids, segments)
    assert emotion.flatten().tolist() == pytest.approx([2.0, (0 + 1 + 4 + 9 + 16 + 25 + 36) / 7])
    assert explanation.flatten().tolist() == pytest.approx([6.0, (49 + 64 + 81) / 3])
    padding = model.pool_spans(torch.ones(1, 4, 2), torch.tensor([[1, 1, PAD, PAD]]), torch.tensor([[5, 5, 6, 6]]))
    assert [part.tolist() for part in padding] == [[[1, 1]], [[0, 0]]]  # an explanation of nothing but padding
    emotion, explanation = build(masked_pooling=True, len_prefix=2).pool_spans(hidden[:1], ids[:1], segments[:1])
    assert emotion.item() == 3.0 and explanation.item() == 6.0  # the prefix is no part of the emotion


@pytest.mark.parametrize("pooling", ["cls", "mean", "prototypes"])
def test_emotion_logits(pooling):
    torch.manual_seed(1)
    head, image = EmotionHead(12, pooling), ImageFeatures(torch.randn(3, 12), torch.randn(3, 5, 12))
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    if pooling == "prototypes":
        weights = (torch.einsum("ed,bgd->beg", head.queries, image.grid) / 12**0.5).softmax(-1)
        torch.testing.assert_close(head.patch_scores(image.grid), weights)
        read = torch.einsum("beg,bgd->bed", weights, image.grid)
    else:
        read = (image.cls if pooling == "cls" else image.grid.mean(1))[:, None]
    torch.testing.assert_close(head(image), (read * head.weight).sum(-1) + head.bias)


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
    batch = tree_map(lambda tensor: tensor.to("meta"), collate(random_items()))
    with OneDevice():
        model(**batch)["loss"].backward()
