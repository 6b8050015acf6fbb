"""SEVLM.forward as a whole: which loss gets which weight and count, images that do not count, and features of another width."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from models.decoder import Explainer
from models.image_encoder import ImageEncoder, ImageFeatures
from models.losses import LossCounts, contrastive_loss, emotion_loss, lm_loss, vad_loss
from models.sevlm import SEVLM
from tests.conftest import TINY_VIT
from tests.test_models.test_reference import IMAGES, VADByContext, build, collate, greedy_texts, prompt_of, random_items

PARTS = ("lm_loss", "contrastive_loss", "vad_loss", "emotion_loss")


@pytest.fixture
def model() -> SEVLM:
    torch.manual_seed(3)
    weights = {"alpha": 0.5, "cl_Loss_weight": 2.0, "VAD_Loss_weight": 3.0, "emotion_loss_weight": 5.0}
    made, _ = build(0, use_emotion_loss=True, **weights)
    nn.init.normal_(made.emotion_head.weight)
    return made


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    made = collate(random_items(0, IMAGES, 0), 0)
    made["emotion_distribution"] = torch.rand(IMAGES, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    return made


def test_loss_is_the_weighted_sum_of_all_four(model, batch):
    output = model(**batch)
    values = [output[name].item() for name in PARTS]
    assert min(values) > 0.01
    expected = 0.5 * values[0] + 2 * values[1] + 3 * values[2] + 5 * values[3]
    assert output["loss"].item() == pytest.approx(expected, rel=1e-6)
    output["loss"].backward()
    of_head, model.emotion_head.weight.grad = model.emotion_head.weight.grad, None
    (5 * model(**batch)["emotion_loss"]).backward()
    assert torch.allclose(of_head, model.emotion_head.weight.grad, rtol=1e-5)


def test_emotion_head_reads_the_class_token(model, batch):
    image = model.image_encoder(batch["pixels"])
    logits = image.cls @ model.emotion_head.weight.T + model.emotion_head.bias
    target = batch["emotion_distribution"]
    expected = (target * (target.log() - logits.log_softmax(-1))).sum(-1).mean()
    assert model(**batch)["emotion_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("place", range(4))
def test_each_count_divides_its_own_loss(model, batch, place):
    own = model(**batch | {"counts": None})
    counts = list(batch["counts"])
    counts[place] = 2 * counts[place]
    given = model(**batch | {"counts": LossCounts(*counts)})
    for index, name in enumerate(PARTS):
        expected = own[name].item() / (2 if index == place else 1)
        assert given[name].item() == pytest.approx(expected, rel=1e-5), name


def test_a_count_may_be_a_fraction():
    """The mean over processes: one text, word or image on two of them is a half, and the loss twice the sum."""
    half, one = torch.tensor(0.5), torch.tensor(1.0)
    target = torch.eye(9)[:1]
    for loss in (
        lambda count: lm_loss(torch.ones(1, 2), torch.eye(3, 2), torch.tensor([1]), count),
        lambda count: contrastive_loss(torch.zeros(1), torch.ones(1), None, count=count),
        lambda count: vad_loss(torch.ones(1, 1, 3), 0.5 * torch.ones(1, 1, 3), count=count),
        lambda count: emotion_loss(torch.zeros(1, 9), target, count=count),
    ):
        assert loss(half).item() == pytest.approx(2 * loss(one).item()) and loss(one) > 0


def test_images_that_do_not_count(model, batch):
    """Images 1 and 4 only fill up the batch: neither their texts nor their emotions are in a mean."""
    weight = torch.tensor([1.0, 0, 1, 1, 0])
    given = model(**batch | {"image_weight": weight, "counts": None})
    image = model.image_encoder(batch["pixels"])
    hidden = model.decoder(batch["input_ids"], batch["segment_ids"], image, model.vad_encoder(batch["vad"]))
    scores = model.contrastive_scores(
        image, hidden, batch["input_ids"], batch["segment_ids"], batch["visual_negatives"]
    )
    texts = [0, 1, 4, 5, 6, 7]
    expected = contrastive_loss(*(score[texts] for score in scores))
    assert given["contrastive_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    counted = [0, 2, 3]
    logits, target = model.emotion_head(image)[counted], batch["emotion_distribution"][counted]
    expected = (target * (target.log() - logits.log_softmax(-1))).sum(-1).mean()
    assert given["emotion_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


# ---- image encoder ---------------------------------------------------------------------------------------------------


def encoder(fixed: bool) -> ImageEncoder:
    return ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)), fixed)


def test_a_trained_encoder_follows_train_and_eval():
    trained = encoder(fixed=False)
    holder = nn.ModuleList([trained])
    for mode in (True, False, True):
        holder.train(mode)
        assert all(module.training == mode for module in trained.modules())
    assert all(parameter.requires_grad for parameter in trained.parameters())
    trained(torch.randn(2, 3, 32, 32)).grid.sum().backward()
    assert trained.vision.embeddings.patch_embedding.weight.grad.any()


def test_a_fixed_encoder_stays_as_it_is():
    fixed = encoder(fixed=True)
    nn.ModuleList([fixed]).train()
    assert not any(module.training for module in fixed.modules())
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    assert not fixed(torch.randn(2, 3, 32, 32)).grid.requires_grad


# ---- features of another width ---------------------------------------------------------------------------------------


def test_features_of_another_width_are_projected_once_for_all(batch):
    """Class token and grid, in training, in the contrastive head and in generation: as if they had come projected."""
    plain, _ = build(0, len_prefix=2)
    config = replace(plain.config, encoder_dim=12)
    decoder = Explainer(plain.decoder.config, config)
    decoder.load_state_dict(plain.decoder.state_dict(), strict=False)
    wide = SEVLM(config, decoder).eval()
    wide.vad_encoder = plain.vad_encoder
    projection = decoder.transformer.image_projection
    nn.init.normal_(projection.weight)
    raw = ImageFeatures(torch.randn(IMAGES, 12), torch.randn(IMAGES, 4, 12))
    projected = ImageFeatures(projection(raw.cls).detach(), projection(raw.grid).detach())
    items = random_items(0, IMAGES, 2)
    batch = collate(items, 2) | {"pixels": None}
    expected = plain(**batch, **projected._asdict())
    texts = greedy_texts(plain, projected, prompt_of(2, 5), VADByContext(0), ())
    given = wide(**batch, **raw._asdict())
    for name, value in expected.items():
        assert given[name].item() == pytest.approx(value.item(), rel=1e-5), name
    again = greedy_texts(wide, raw, prompt_of(2, 5), VADByContext(0), ())
    assert again == texts and len(set(map(tuple, texts))) > 1
