"""Configs of transformers' classes from the fields of a config.json, by a list: nothing in it can name code to be run or fetched."""

from typing import Any

from transformers import GPT2Config

ATTENTION = "sdpa"  # transformers' default with every supported version of torch

SHARED_FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "initializer_range")
GPT2_FIELDS = (
    *SHARED_FIELDS,
    *("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "max_position_embeddings"),
    *("activation_function", "layer_norm_epsilon", "resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "add_cross_attention", "tie_word_embeddings", "use_cache"),
    # SEVLM's
    *("len_prefix", "encoder_dim", "prefix_size", "max_seq_len", "use_cl_loss", "use_VAD_loss", "use_emotion_loss"),
    *("vad_layers", "vad_heads", "vad_causal", "emotion_span", "emotion_pooling", "label_tokens", "label_position"),
)


def gpt2_config(saved: dict[str, Any], **flags: Any) -> GPT2Config:
    """Build a GPT2Config from a config.json; `flags` override its fields, and fields not in GPT2_FIELDS are ignored."""
    known = {name: saved[name] for name in GPT2_FIELDS if name in saved}
    return GPT2Config(**(known | flags), attn_implementation=ATTENTION)
