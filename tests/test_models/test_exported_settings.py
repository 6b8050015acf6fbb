"""A model whose every setting differs from its default is the same model once it has been exported and read again."""

from dataclasses import asdict

from models.config import SEVLMConfig
from models.image_encoder import ImagePreparation
from models.sevlm import SEVLM
from tests.test_models.tiny import build, collate, random_items

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
    "emotion_pooling": "prototypes",
    "label_tokens": [11, 12, 13, 14, 15, 16, 17, 18, 19],
    "label_position": 6,
    "masked_pooling": True,
    "alpha": 1.5,
    "cl_Loss_weight": 2.0,
    "VAD_Loss_weight": 3.0,
    "emotion_loss_weight": 4.0,
    "label_loss_weight": 5.0,
}
GPT2 = {
    "n_inner": 24,
    "activation_function": "relu",
    "layer_norm_epsilon": 0.1,
    "scale_attn_by_inverse_layer_idx": True,
}
GPT2 |= {"resid_pdrop": 0.2, "embd_pdrop": 0.3, "attn_pdrop": 0.4, "initializer_range": 0.05}
VISION = {"hidden_act": "relu", "layer_norm_eps": 0.1, "attention_dropout": 0.2}
TERMS = {"lm_loss": 1.5, "contrastive_loss": 2, "vad_loss": 3, "emotion_loss": 4, "label_loss": 5}


def test_every_setting_survives_the_export(tmp_path):
    default = asdict(SEVLMConfig())
    assert SETTINGS.keys() == default.keys() - {"use_VAD"}  # without its VAD encoder a model could not be causal
    assert not [name for name, value in SETTINGS.items() if value == default[name]]
    model = build(0, False, GPT2, VISION, **SETTINGS)
    model.image_encoder.preparation = ImagePreparation(32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 3)
    batch = collate(random_items(len_prefix=2), 2) | {"counts": None}
    before = model(**batch)
    assert abs(before["loss"] - sum(weight * before[name] for name, weight in TERMS.items())) < 1e-4
    model.save_pretrained(tmp_path / "model")
    read = SEVLM.from_pretrained(tmp_path / "model")
    assert asdict(read.config) == asdict(model.config)
    for part, fields in ((read.decoder, GPT2), (read.image_encoder.vision, VISION)):
        assert {name: getattr(part.config, name) for name in fields} == fields
    assert (read.image_encoder.preparation, read.image_encoder.fixed) == (model.image_encoder.preparation, False)
    assert read(**batch) == before and not read.training
