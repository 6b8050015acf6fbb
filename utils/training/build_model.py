"""From flags to the model, with weights from files, drawn, or from a checkpoint."""

import argparse
from dataclasses import fields

from transformers import GPT2Config

from models.config import SEVLMConfig, gpt2_config
from models.decoder import Explainer
from models.sevlm import SEVLM
from utils.constants import MAX_NEW_TOKENS
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pretrained import check_model_type, find_config
from utils.data.text_codec import TextCodec
from utils.errors import InputError, brief, escaped
from utils.training.checkpoints import NamedCheckpoint
from utils.training.decoder_weights import load_decoder

# Of a checkpoint that goes on, its config.json decides these; of one that is only scored, also those of its heads.
FROM_CHECKPOINT = ("emotion_span", "vad_layers", "vad_heads", "vad_causal")
HEADS = ("use_cl_loss", "use_VAD_loss", "use_emotion_loss", "emotion_pooling")


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
    config = model_config(args, codec, checkpoint)
    if args.emotion_from == "head" and not config.use_emotion_loss:
        raise InputError("--emotion_from head: this model has no emotion head; take text or likelihood")
    model = SEVLM(config, build_decoder(args, codec, checkpoint, config), encoder)
    reads_class_token = config.len_prefix > 0 or (config.use_emotion_loss and config.emotion_pooling == "cls")
    if not reads_class_token:
        encoder.freeze_pooling()
    for note in [] if checkpoint is None else checkpoint.restore(model):
        print(escaped(note))
    return model


def model_config(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> SEVLMConfig:
    """The model's settings: the flags of the same names, and what follows from tokenizer, image encoder and checkpoint.

    A checkpoint's config.json decides what its weights were made for; flags decide what is trained, unless it is only
    scored.

    Raises:
        InputError: flags and checkpoint contradict each other, or the checkpoint's config.json is wrong.
    """
    settings = {field.name: getattr(args, field.name) for field in fields(SEVLMConfig) if hasattr(args, field.name)}
    settings |= {
        "encoder_dim": args.prefix_dim,
        "emotion_span": codec.emotion_span,
        "vad_layers": args.VAD_En_Layers,
        "vad_heads": args.VAD_En_Heads,
        "label_tokens": codec.label_tokens() if args.use_label_loss else None,
        "label_position": len(codec.prompt().ids) - 1,
    }
    if checkpoint is None:
        return SEVLMConfig(**settings)
    saved = checkpoint.config
    for name in ("len_prefix", *(() if args.eval_only else ("vad_causal",))):
        if saved.get(name, settings[name]) != settings[name]:
            raise InputError(
                f"{checkpoint.folder}: was trained with --{name} {saved[name]}, this run has {settings[name]}"
            )
    if saved.get("encoder_dim", args.prefix_dim) != args.prefix_dim:
        raise InputError(
            f"{checkpoint.folder}: was trained on image features of width {saved['encoder_dim']}, not {args.prefix_dim}"
        )
    usual = SEVLMConfig()  # for what the authors' checkpoints do not record
    settings["emotion_span"] = usual.emotion_span
    if args.eval_only:
        settings |= {name: getattr(usual, name) for name in ("use_emotion_loss", "emotion_pooling")}
    kept = FROM_CHECKPOINT + (HEADS if args.eval_only else ())
    settings |= {name: saved[name] for name in kept if name in saved}
    try:
        return SEVLMConfig.from_fields({}, **settings)
    except ValueError as error:
        raise InputError(f"{checkpoint.folder}/config.json: {error}; take another checkpoint") from None


def build_decoder(
    args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None, config: SEVLMConfig
) -> Explainer:
    """The explainer: distilgpt2's (or another GPT-2's) weights with everything SEVLM adds, or a checkpoint's sizes."""
    changed = {
        "add_cross_attention": True,
        "tie_word_embeddings": True,
        "embd_pdrop": args.dropout,
        "attn_pdrop": args.dropout,
        "resid_pdrop": args.dropout,
        "use_cache": False,
    }
    if checkpoint is not None:
        source = f"{checkpoint.folder}/config.json"
        gpt2 = checked_config(checkpoint.config, changed | {"pad_token_id": codec.pad_id}, source)
        _check_positions(gpt2, args, codec, source)
        return _new_explainer(gpt2, config, source)
    source = f"--gpt2_model {args.gpt2_model}"
    saved = find_config(args.gpt2_model, source, "give a folder with config.json, or a Hugging Face id")
    check_model_type(saved, ("gpt2",), f"{source}: config.json")
    gpt2 = checked_config(saved, changed, f"{source}: config.json")
    _check_positions(gpt2, args, codec, source)
    if args.from_scratch in (True, "decoder"):
        gpt2.vocab_size, gpt2.pad_token_id = len(codec.tokenizer), codec.pad_id
        decoder = _new_explainer(gpt2, config, f"{source}: config.json")
        decoder.origin = f"decoder {args.gpt2_model}: all weights drawn at random (--from_scratch)"
        return decoder
    return load_decoder(args.gpt2_model, gpt2, config, codec)


def _check_positions(gpt2: GPT2Config, args: argparse.Namespace, codec: TextCodec, source: str) -> None:
    """InputError where texts do not fit: no room for an explanation, or fewer positions than training or generation takes."""
    start = args.len_prefix + codec.emotion_span
    if start >= args.max_seq_len:
        raise InputError(
            f"--prompt_text takes {codec.emotion_span} tokens with the emotion, --len_prefix {args.len_prefix}: no room for an "
            f"explanation in --max_seq_len {args.max_seq_len}"
        )
    longest = max(args.max_seq_len, len(codec.prompt().ids) + MAX_NEW_TOKENS)
    if gpt2.n_positions < longest:
        raise InputError(
            f"{source}: has only {gpt2.n_positions} positions, but --max_seq_len, --len_prefix and --prompt_text take "
            f"{longest} (prompt and {MAX_NEW_TOKENS} new tokens in generation); shorten them or take another model"
        )


def _new_explainer(gpt2: GPT2Config, config: SEVLMConfig, source: str) -> Explainer:
    """An explainer with random weights; InputError where none can be built of the config."""
    try:
        return Explainer(gpt2, config)
    except Exception as error:  # transformers and torch have errors of their own for sizes that do not fit each other
        raise InputError(f"{source}: {brief(error)}; take another") from None


def checked_config(saved: dict, changed: dict, source: str) -> GPT2Config:
    """GPT-2's config from a config.json and `changed`; InputError where no model can be built of it."""
    try:
        return gpt2_config(saved, **changed)
    except Exception as error:  # transformers has one of its own for every wrong field
        raise InputError(f"{source}: {brief(error)}; take another") from None
