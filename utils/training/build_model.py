"""From flags to tokenizer, model and optimiser."""

import argparse

import torch
from torch import nn
from transformers import GPT2Config

from models.decoder import Explainer
from models.heads import EmotionHead
from models.sevlm import SEVLM
from models.vad_encoder import VADEncoder
from utils.data.image_encoder_weights import WEIGHTS_REMEDY, load_image_encoder
from utils.data.pretrained import check_sizes, find_config, gpt2_config, load_pretrained
from utils.data.text_codec import TextCodec
from utils.errors import InputError, brief
from utils.training.checkpoint import NamedCheckpoint

# What distilgpt2 does not bring, by the beginning or a part of its name; all else must be in its weights.
NEW_WEIGHTS = (
    "crossattention",
    "ln_cross_attn",
    "VAD_linear",
    "clip_project",
    "image_projection",
    "sim_mlp",
    "VAD_head",
)

SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "vad_layers")


def build_model(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> SEVLM:
    """Build SEVLM as the flags say, with a checkpoint's weights when one is given.

    Raises:
        InputError: weights are missing, or do not fit each other or the flags.
    """
    encoder = load_image_encoder(args.clip_model, args.fixed_encoder, args.from_scratch)
    if encoder.width != args.prefix_dim:
        raise InputError(
            f"--clip_model {args.clip_model}: its features have width {encoder.width}: give --prefix_dim {encoder.width}"
        )
    decoder = build_decoder(args, codec, checkpoint)
    config = decoder.config
    vad_encoder = (
        VADEncoder(config.vad_layers, config.vad_heads, args.dropout, config.vad_causal) if args.use_VAD else None
    )
    emotion_head = EmotionHead(args.prefix_dim) if config.use_emotion_loss else None
    weights = (args.alpha, args.cl_Loss_weight, args.VAD_Loss_weight, args.emotion_loss_weight)
    model = SEVLM(encoder, decoder, vad_encoder, emotion_head, weights, args.masked_pooling)
    for note in [] if checkpoint is None else checkpoint.restore(model):
        print(note)
    return model


def build_decoder(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> Explainer:
    """The explainer: distilgpt2's (or another GPT-2's) weights with everything SEVLM adds, or a checkpoint's sizes."""
    fields = {
        "add_cross_attention": True,
        "tie_word_embeddings": True,
        "len_prefix": args.len_prefix,
        "encoder_dim": args.prefix_dim,
        "prefix_size": args.prefix_dim,
        "max_seq_len": args.max_seq_len,
        "use_cl_loss": args.use_cl_loss,
        "use_VAD_loss": args.use_VAD_loss,
        "use_emotion_loss": args.use_emotion_loss,
        "vad_layers": args.VAD_En_Layers,
        "vad_heads": args.VAD_En_Heads,
        "vad_causal": args.vad_causal,
        "embd_pdrop": args.dropout,
        "attn_pdrop": args.dropout,
        "resid_pdrop": args.dropout,
        "use_cache": False,
    }
    if checkpoint is not None:
        return Explainer(_checkpoint_config(args, checkpoint, fields | {"pad_token_id": codec.pad_id}))
    source = f"--gpt2_model {args.gpt2_model}"
    saved = find_config(args.gpt2_model, source, "give a folder with config.json, or an id while online")
    config = _checked_config(saved, fields, f"{source}: config.json")
    if config.n_positions < args.max_seq_len:
        raise InputError(f"--max_seq_len {args.max_seq_len}: {args.gpt2_model} has only {config.n_positions} positions")
    vocabulary = len(codec.tokenizer)
    if args.from_scratch:
        config.vocab_size, config.pad_token_id = vocabulary, codec.pad_id
        return Explainer(config)
    remedy = WEIGHTS_REMEDY.replace("openai/clip-vit-base-patch16", "distilgpt2").replace(", OpenAI's .pt file,", "")
    decoder, missing = load_pretrained(Explainer, args.gpt2_model, config, source, remedy)
    lacking = sorted(name for name in missing if not any(part in name for part in NEW_WEIGHTS))
    if [name for name in lacking if name != "lm_head.weight"]:
        raise InputError(f"{source}: lacks GPT-2's weights {', '.join(lacking[:4])}")
    # the four new rows are drawn from N(0, 0.02), not from the other rows' mean and covariance
    decoder.resize_token_embeddings(vocabulary, mean_resizing=False)
    decoder.config.pad_token_id = codec.pad_id
    return decoder


def _checkpoint_config(args: argparse.Namespace, checkpoint: NamedCheckpoint, fields: dict) -> GPT2Config:
    """A checkpoint's config.json decides the sizes; flags decide what is trained, unless it is only scored."""
    saved = checkpoint.config
    for name, flag in (("len_prefix", "len_prefix"), ("vad_causal", "vad_causal")):
        if saved.get(name, fields[name]) != fields[name] and not (args.eval_only and name == "vad_causal"):
            raise InputError(
                f"{checkpoint.folder}: was trained with --{flag} {saved[name]}, this run has {fields[name]}"
            )
    if saved.get("encoder_dim", args.prefix_dim) != args.prefix_dim:
        raise InputError(
            f"{checkpoint.folder}: was trained on image features of width {saved['encoder_dim']}, not {args.prefix_dim}"
        )
    kept = ("vad_layers", "vad_heads", "vad_causal")
    if args.eval_only:
        kept += ("use_cl_loss", "use_VAD_loss", "use_emotion_loss")
        fields["use_emotion_loss"] = False  # the authors' checkpoints do not know this head
    source = f"{checkpoint.folder}/config.json"
    for name in kept:
        if not isinstance(saved.get(name, fields[name]), type(fields[name])):
            raise InputError(f"{source}: {name} {str(saved[name])[:40]!r} is no {type(fields[name]).__name__}")
    return _checked_config(saved, fields | {name: saved[name] for name in kept if name in saved}, source)


def _checked_config(saved: dict, fields: dict, source: str) -> GPT2Config:
    """The config of a config.json under `fields`; InputError where no model can be built of it."""
    try:
        config = gpt2_config(saved, **fields)
    except Exception as error:  # transformers has one of its own for every wrong field
        raise InputError(f"{source}: {brief(error)}; take another") from None
    check_sizes(config, SIZES, source)
    if config.vad_heads not in (1, 3):
        raise InputError(f"{source}: vad_heads {config.vad_heads}: 1 or 3 heads divide VAD's three values")
    return config


def parameter_groups(args: argparse.Namespace, model: SEVLM) -> tuple[list[dict], list[list[str]]]:
    """AdamW's groups, in the published order: VAD encoder, decoder with heads, trained image encoder; weights, then biases.

    Weight decay is 0 throughout, as in the paper; the split is kept so that optimiser states keep their published form.

    Returns:
        the groups, and the names of the parameters of each.
    """
    heads = [] if model.emotion_head is None else list(model.emotion_head.named_parameters(prefix="emotion_head"))
    parts = [
        (
            [] if model.vad_encoder is None else list(model.vad_encoder.named_parameters(prefix="vad_encoder")),
            args.emo_en_LR,
        ),
        (list(model.decoder.named_parameters(prefix="decoder")) + heads, args.learning_rate),
        (
            [] if model.image_encoder is None else list(model.image_encoder.named_parameters(prefix="image_encoder")),
            args.en_LR,
        ),
    ]
    groups, names = [], []
    for named, rate in parts:
        trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        for biases in (False, True):
            chosen = [(name, parameter) for name, parameter in trained if name.endswith("bias") == biases]
            if chosen:
                groups.append({"params": [parameter for _, parameter in chosen], "lr": rate})
                names.append([name for name, _ in chosen])
    return groups, names


def build_optimizer(groups: list[dict], eps: float) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.999, no weight decay."""
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=eps, weight_decay=0.0, fused=True)


def linear_decay(optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rates fall linearly to 0 over all updates; no warm-up."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: max(0.0, 1 - update / updates))


def count_parameters(module: nn.Module | None) -> int:
    """Trained parameters."""
    return (
        0 if module is None else sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    )
