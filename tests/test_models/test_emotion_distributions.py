"""Emotions as distributions: the label loss of the text, and the poolings of the 9-way emotion head."""

import numpy as np
import pytest
import torch
from torch import nn

from models.heads import EmotionHead
from models.image_encoder import ImageFeatures
from models.losses import LossCounts
from tests.test_models.test_reference import IMAGES, build, collate, random_items
from utils.constants import EMOTIONS, PROMPT_TEXT
from utils.data.datasets import ItemKey, PairCollator
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.errors import InputError

WIDTH = 12


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return TextCodec(load_tokenizer("models/gpt2-bpe"), PROMPT_TEXT, 30, len_prefix=2)


def image(seed: int = 0) -> ImageFeatures:
    draw = torch.Generator().manual_seed(seed)
    return ImageFeatures(torch.randn(3, WIDTH, generator=draw), torch.randn(3, 5, WIDTH, generator=draw))


def head(pooling: str) -> EmotionHead:
    torch.manual_seed(1)
    made = EmotionHead(WIDTH, pooling)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def test_pooling_by_class_token_and_mean():
    cls, grid = image()
    for pooling, pooled in (("cls", cls), ("mean", grid.mean(1))):
        made = head(pooling)
        expected = [[float(made.weight[e] @ row + made.bias[e]) for e in range(9)] for row in pooled]
        assert made(image()).tolist() == [pytest.approx(row, abs=1e-5) for row in expected]
        assert set(made.state_dict()) == {"weight", "bias"}


def test_prototypes_by_hand():
    """One image, one emotion, one patch at a time."""
    made = head("prototypes")
    grid, logits, scores = image().grid, made(image()), made.patch_scores(image().grid)
    for row in range(3):
        for emotion in range(9):
            of_patches = np.array([float(made.queries[emotion] @ patch) / WIDTH**0.5 for patch in grid[row]])
            weights = np.exp(of_patches) / np.exp(of_patches).sum()
            assert scores[row, emotion].tolist() == pytest.approx(weights, abs=1e-5)
            pooled = sum(weight * patch for weight, patch in zip(weights.tolist(), grid[row], strict=True))
            expected = float(made.weight[emotion] @ pooled + made.bias[emotion])
            assert logits[row, emotion].item() == pytest.approx(expected, abs=1e-4)
    logits[:, 3].sum().backward()
    assert made.queries.grad[3].abs().max() > 0 and made.queries.grad[[0, 1, 2, 4, 5, 6, 7, 8]].abs().max() == 0


def test_the_nine_emotions_begin_with_nine_tokens(codec, monkeypatch):
    tokens = codec.label_tokens()
    assert len(set(tokens)) == 9
    assert [codec.tokenizer.decode([token]).strip() for token in tokens] == [
        text if emotion.startswith(text) else None
        for emotion, text in zip(EMOTIONS, [codec.tokenizer.decode([token]).strip() for token in tokens], strict=True)
    ]
    encoded = codec.encode(list(EMOTIONS), ["a sea"] * 9)
    assert encoded.input_ids[:, len(codec.prompt().ids)].tolist() == tokens
    monkeypatch.setattr(codec, "bpe", lambda texts: [list(map(ord, text)) for text in texts])  # " " first, nine times
    with pytest.raises(InputError, match="--use_label_loss: after --prompt_text"):
        codec.label_tokens()


def test_label_loss_by_hand():
    """KL to the annotators at the one position, over the full logits; it takes its own weight and the count of texts."""
    torch.manual_seed(3)
    model, _ = build(0)
    batch = collate(random_items(0, IMAGES, 0), 0)
    target = torch.rand(IMAGES, 9, generator=torch.Generator().manual_seed(0)).softmax(-1)
    batch |= {"emotion_distribution": target}
    without = model(**batch)
    assert "label_loss" not in without
    config = model.config
    config.label_tokens, config.label_position, config.label_loss_weight = [5, 40, 3, 17, 8, 2, 11, 23, 9], 3, 4.0
    output = model(**batch)
    features = model.image_features(batch["pixels"], None, None)
    vad = model.vad_encoder(batch["vad"])
    hidden = model.decoder(batch["input_ids"], batch["segment_ids"], features, vad)
    logits = model.decoder.lm_head(hidden[:, 3]).double()
    terms = []
    for text, row in enumerate(logits):
        q = row.softmax(-1)[config.label_tokens]
        terms.append(sum(float(p * (p.log() - q[e].log())) for e, p in enumerate(target[text // 2].double())))
    assert output["label_loss"].item() == pytest.approx(np.mean(terms), rel=1e-5) and max(terms) > 0.01
    assert output["loss"].item() == pytest.approx(without["loss"].item() + 4 * np.mean(terms), rel=1e-5)
    weight = torch.tensor([0.0] + [1.0] * (IMAGES - 1))
    some = model(**batch | {"image_weight": weight, "counts": None})
    assert some["label_loss"].item() == pytest.approx(np.mean(terms[2:]), rel=1e-5)
    counts = LossCounts(*torch.tensor([1.0, 100.0, 1.0, 1.0]))
    assert model(**batch | {"counts": counts})["label_loss"].item() == pytest.approx(sum(terms) / 100, rel=1e-5)
    output["label_loss"].backward()
    table = model.decoder.lm_head.weight.grad
    assert (table.to_dense() if table.is_sparse else table)[config.label_tokens].abs().max() > 0


def test_the_label_loss_takes_the_place_of_one_cross_entropy(codec):
    encoded = codec.encode(["awe", "something else"], ["a sea", "b"])
    item = {
        "image_id": 1,
        "key": ItemKey(0, 1),
        "vad": np.zeros((2, 30, 3), np.float32),
        "emotion_distribution": np.full(9, 1 / 9, np.float32),
        **{name: getattr(encoded, name) for name in ("input_ids", "labels", "segment_ids")},
    }
    position = len(codec.prompt().ids) - 1
    plain, with_loss = (PairCollator(0, 2, 8, place)([item]) for place in (None, position))

    def learned(batch) -> list[int]:
        return [int(token) for token in batch["lm_targets"] if token != -100]

    first = [int(tokens[position + 1]) for tokens in encoded.input_ids]
    assert first == [codec.label_tokens()[EMOTIONS.index(name)] for name in ("awe", "something else")]
    left = learned(plain)
    for token in first:
        left.remove(token)
    assert sorted(learned(with_loss)) == sorted(left)
    assert with_loss["counts"].tokens == plain["counts"].tokens - 2
    assert with_loss["counts"][1:] == plain["counts"][1:]
