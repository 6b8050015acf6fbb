"""From flags to the model, with weights from files, drawn, or from a checkpoint."""

import argparse

from transformers import GPT2Config

from models.config_fields import gpt2_config
from models.decoder import Explainer
from models.heads import EmotionHead
from models.sevlm import SEVLM
from models.vad_encoder import VADEncoder
from utils.constants import EMOTION_POOLINGS, EMOTION_SPAN, MAX_NEW_TOKENS
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pretrained import check_model_type, check_sizes, find_config
from utils.data.text_codec import TextCodec
from utils.errors import InputError, brief, escaped
from utils.training.checkpoints import NamedCheckpoint
from utils.training.decoder_weights import load_decoder

SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "vad_layers", "emotion_span")


def build_model(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> SEVLM:
    """Build SEVLM as the flags say, with a checkpoint's weights when one is given.

    Raises:
        InputError: weights are missing, or do not fit each other or the flags.
    """
    encoder = load_image_encoder(args.clip_model, args.fixed_encoder, args.from_scratch in (True, "encoder"))
    if args.prefix_dim is None:
        args.prefix_dim = encoder.width  # recorded, and compared when the run goes on
    if encoder.width != args.prefix_dim:
        raise InputError(
            f"--clip_model {args.clip_model}: its features have width {encoder.width}: give --prefix_dim "
            f"{encoder.width}, or leave it out"
        )
    decoder = build_decoder(args, codec, checkpoint)
    config = decoder.config
    vad_encoder = (
        VADEncoder(config.vad_layers, config.vad_heads, args.dropout, config.vad_causal) if args.use_VAD else None
    )
    emotion_head = None
    if config.use_emotion_loss:
        emotion_head = EmotionHead(args.prefix_dim, getattr(config, "emotion_pooling", "cls"))
    elif args.emotion_from == "head":
        raise InputError("--emotion_from head: this model has no emotion head; take text or likelihood")
    reads_class_token = args.len_prefix > 0 or emotion_head is not None and emotion_head.pooling == "cls"
    if not reads_class_token:
        encoder.freeze_pooling()
    weights = (args.alpha, args.cl_Loss_weight, args.VAD_Loss_weight, args.emotion_loss_weight)
    model = SEVLM(encoder, decoder, vad_encoder, emotion_head, weights, args.masked_pooling, args.label_loss_weight)
    for note in [] if checkpoint is None else checkpoint.restore(model):
        print(escaped(note))
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
        "emotion_span": codec.emotion_span,
        "use_cl_loss": args.use_cl_loss,
        "use_VAD_loss": args.use_VAD_loss,
        "use_emotion_loss": args.use_emotion_loss,
        "emotion_pooling": args.emotion_pooling,
        "label_tokens": codec.label_tokens() if args.use_label_loss else None,
        "label_position": len(codec.prompt()[0]) - 1,
        "vad_layers": args.VAD_En_Layers,
        "vad_heads": args.VAD_En_Heads,
        "vad_causal": args.vad_causal,
        "embd_pdrop": args.dropout,
        "attn_pdrop": args.dropout,
        "resid_pdrop": args.dropout,
        "use_cache": False,
    }
    if checkpoint is not None:
        config = _checkpoint_config(args, checkpoint, fields | {"pad_token_id": codec.pad_id})
        _check_positions(config, args, codec, f"{checkpoint.folder}: config.json")
        return Explainer(config)
    source = f"--gpt2_model {args.gpt2_model}"
    saved = find_config(args.gpt2_model, source, "give a folder with config.json, or a Hugging Face id")
    check_model_type(saved, ("gpt2",), f"{source}: config.json")
    config = checked_config(saved, fields, f"{source}: config.json")
    _check_positions(config, args, codec, source)
    if args.from_scratch in (True, "decoder"):
        config.vocab_size, config.pad_token_id = len(codec.tokenizer), codec.pad_id
        decoder = Explainer(config)
        decoder.origin = f"decoder {args.gpt2_model}: all weights drawn anew (--from_scratch)"
        return decoder
    return load_decoder(args.gpt2_model, config, codec)


def _check_positions(config: GPT2Config, args: argparse.Namespace, codec: TextCodec, source: str) -> None:
    """InputError where texts do not fit: no room for an explanation, or fewer positions than training or generation takes."""
    start = args.len_prefix + codec.emotion_span
    if start >= args.max_seq_len:
        raise InputError(
            f"--prompt_text takes {codec.emotion_span} tokens with the emotion, --len_prefix {args.len_prefix}: no room for an "
            f"explanation in --max_seq_len {args.max_seq_len}"
        )
    longest = max(args.max_seq_len, len(codec.prompt()[0]) + MAX_NEW_TOKENS)
    if config.n_positions < longest:
        raise InputError(
            f"{source}: has only {config.n_positions} positions, but --max_seq_len, --len_prefix and --prompt_text take "
            f"{longest} (prompt and {MAX_NEW_TOKENS} new tokens in generation); shorten them or take another model"
        )


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
    fields["emotion_span"] = EMOTION_SPAN  # the authors' checkpoints do not record it
    kept = ("emotion_span", "vad_layers", "vad_heads", "vad_causal")
    if args.eval_only:
        kept += ("use_cl_loss", "use_VAD_loss", "use_emotion_loss", "emotion_pooling")
        fields["use_emotion_loss"] = False  # the authors' checkpoints do not know this head
        fields["emotion_pooling"] = "cls"
    source = f"{checkpoint.folder}/config.json"
    for name in kept:
        if not isinstance(saved.get(name, fields[name]), type(fields[name])):
            raise InputError(f"{source}: {name} {str(saved[name])[:40]!r} is no {type(fields[name]).__name__}")
    return checked_config(saved, fields | {name: saved[name] for name in kept if name in saved}, source)


def checked_config(saved: dict, fields: dict, source: str) -> GPT2Config:
    """The config of a config.json under `fields`; InputError where no model can be built of it."""
    try:
        config = gpt2_config(saved, **fields)
    except Exception as error:  # transformers has one of its own for every wrong field
        raise InputError(f"{source}: {brief(error)}; take another") from None
    check_sizes(config, SIZES, source)
    pooling = getattr(config, "emotion_pooling", EMOTION_POOLINGS[0])
    if pooling not in EMOTION_POOLINGS:
        raise InputError(f"{source}: emotion_pooling {str(pooling)[:40]!r} is none of {', '.join(EMOTION_POOLINGS)}")
    heads = getattr(config, "vad_heads", None)
    if heads not in (1, 3):
        raise InputError(f"{source}: vad_heads {heads}: 1 or 3 heads divide VAD's three values")
    return config
