"""The settings of a model: SEVLMConfig, and GPT-2's config from the known fields of a config.json.

Fields that are not listed here are ignored, so that nothing in a config.json can name code to be run or downloaded.
"""

from dataclasses import dataclass, fields
from typing import Any

from transformers import GPT2Config

from utils.constants import EMOTION_POOLINGS, EMOTION_SPAN

ATTENTION = "sdpa"  # transformers' default with every supported version of torch
TRANSFORMER_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "initializer_range")
GPT2_FIELDS = (
    *TRANSFORMER_FIELDS,
    *("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "max_position_embeddings"),
    *("activation_function", "layer_norm_epsilon", "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "add_cross_attention", "tie_word_embeddings", "use_cache"),
)


def gpt2_config(saved: dict[str, Any], **changed: Any) -> GPT2Config:
    """GPT-2's config from the fields of a config.json; `changed` replaces some."""
    known = {name: saved[name] for name in GPT2_FIELDS if name in saved}
    return GPT2Config(**(known | changed), attn_implementation=ATTENTION)


@dataclass
class SEVLMConfig:
    """The settings of a model, under the names that the published config.json and the training's flags use.

    A checkpoint's config.json holds them beside GPT-2's own fields; `model_config` in utils/training/build_model.py fills
    them from the flags and that file. The defaults are for a model built by hand, without contrastive and VAD head.

    Attributes:
        len_prefix: k, the number of prefix embeddings made of the class token (the paper uses none).
        emotion_span: positions of bos, the prompt and the emotion; the explanation begins at h = k + emotion_span.
        encoder_dim: width of the image features.
        max_seq_len: L, tokens per training text.
        use_VAD: whether the model has a VAD encoder, whose output is fused into the explanation.
        vad_layers, vad_heads: sizes of the VAD encoder; 1 or 3 heads, as its width is 3.
        vad_causal: the VAD encoder sees no later tokens (not in the paper).
        use_cl_loss, use_VAD_loss: whether the model has a contrastive head and a VAD head, and their losses.
        use_emotion_loss: whether it has a 9-way emotion head on the image, and its loss (not in the paper).
        emotion_pooling: what that head reads, one of `EMOTION_POOLINGS`.
        label_tokens: first tokens of the nine emotions, for the label loss; None without it (not in the paper).
        label_position: the position that predicts the emotion.
        masked_pooling: leave padding out of the contrastive means, and end the emotion span where the explanation
            segment begins instead of after emotion_span positions (not in the paper).
        alpha, cl_Loss_weight, VAD_Loss_weight, emotion_loss_weight, label_loss_weight: weights of the losses.
    """

    len_prefix: int = 0
    emotion_span: int = EMOTION_SPAN
    encoder_dim: int = 768
    max_seq_len: int = 30
    use_VAD: bool = True
    vad_layers: int = 3
    vad_heads: int = 1
    vad_causal: bool = False
    use_cl_loss: bool = False
    use_VAD_loss: bool = False
    use_emotion_loss: bool = False
    emotion_pooling: str = EMOTION_POOLINGS[0]
    label_tokens: list[int] | None = None
    label_position: int = 0
    masked_pooling: bool = False
    alpha: float = 1.0
    cl_Loss_weight: float = 1.0
    VAD_Loss_weight: float = 1.0
    emotion_loss_weight: float = 1.0
    label_loss_weight: float = 1.0

    @property
    def fusion_start(self) -> int:
        """h, the first position of the explanation: VAD is fused from here on, and the VAD head predicts from here on."""
        return self.len_prefix + self.emotion_span

    @classmethod
    def from_fields(cls, saved: dict[str, Any], **changed: Any) -> "SEVLMConfig":
        """The settings in a config.json; `changed` replaces some, and fields that are not settings are ignored."""
        names = {field.name for field in fields(cls)}
        return cls(**({name: value for name, value in saved.items() if name in names} | changed))
