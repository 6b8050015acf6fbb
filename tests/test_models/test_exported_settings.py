"""A model whose every setting differs from its default is the same model once it has been exported and read again."""

from dataclasses import asdict, fields

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageEncoder, ImagePreparation
from models.sevlm import SEVLM
from tests.conftest import TINY_GPT2, TINY_VIT

SETTINGS = {
    "len_prefix": 2,
    "emotion_span": 5,
    "encoder_dim": 16,
    "max_seq_len": 24,
    "vad_layers": 2,
    "vad_heads": 3,
    "vad_causal": True,
    "use_cl_loss": True,
    "use_VAD_loss": True,
    "use_emotion_loss": True,
    "emotion_pooling": "mean",
    "label_tokens": [11, 12, 13, 14, 15, 16, 17, 18, 19],
    "label_position": 6,
    "masked_pooling": True,
    "alpha": 1.5,
    "cl_Loss_weight": 2.0,
    "VAD_Loss_weight": 3.0,
    "emotion_loss_weight": 4.0,
    "label_loss_weight": 5.0,
}


def losses(model: SEVLM) -> dict[str, float]:
    """The training objective on two invented images of two texts each, in evaluation mode."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(20, 60, (4, 24), generator=draw)
    segments = torch.full((4, 24), 30)
    segments[:, 7:] = 31
    vad = torch.rand(4, 24, 3, generator=draw)
    distribution = torch.rand(2, 9, generator=draw)
    with torch.no_grad():
        found = model.eval()(
            input_ids=ids,
            segment_ids=segments,
            vad=vad,
            lm_positions=torch.arange(40, 60),
            lm_targets=torch.randint(60, (20,), generator=draw),
            visual_negatives=torch.tensor([2, 3, 0, 1]),
            emotion_distribution=distribution / distribution.sum(dim=1, keepdim=True),
            pixels=torch.randn(2, 3, 32, 32, generator=draw),
        )
    return {name: value.item() for name, value in found.items()}


def test_every_setting_survives_the_export(tmp_path):
    default = asdict(SEVLMConfig())
    without = {"use_VAD"}  # without its VAD encoder a model could not be causal
    assert SETTINGS.keys() == {field.name for field in fields(SEVLMConfig)} - without
    assert [name for name, value in SETTINGS.items() if value == default[name]] == []
    torch.manual_seed(0)
    config = SEVLMConfig(**SETTINGS)
    gpt2 = GPT2Config(**TINY_GPT2 | {"vocab_size": 64, "add_cross_attention": True, "initializer_range": 0.3})
    preparation = ImagePreparation(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3)
    encoder = ImageEncoder(CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)), False, preparation)
    model = SEVLM(config, Explainer(gpt2, config), encoder)
    before = losses(model)
    terms = {name: value for name, value in before.items() if name != "loss"}
    weights = {"lm_loss": 1.5, "contrastive_loss": 2, "vad_loss": 3, "emotion_loss": 4, "label_loss": 5}
    assert abs(before["loss"] - sum(weights[name] * value for name, value in terms.items())) < 1e-4
    model.save_pretrained(tmp_path / "model")
    read = SEVLM.from_pretrained(tmp_path / "model")
    assert asdict(read.config) == asdict(config)
    assert (read.image_encoder.preparation, read.image_encoder.fixed) == (preparation, False)
    assert losses(read) == before
