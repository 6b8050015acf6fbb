"""From flags to the model, with weights from files, drawn, or from a checkpoint."""

import argparse
from dataclasses import fields

from transformers import GPT2Config

from models.config import SEVLMConfig, gpt2_config
from models.decoder import Explainer
from models.sevlm import SEVLM
from utils.constants import ADDED_TOKENS, MAX_NEW_TOKENS
from utils.data.image_encoder_weights import WEIGHTS_REMEDY, load_image_encoder
from utils.data.pretrained import check_model_type, find_config, load_pretrained
from utils.data.text_codec import GPT2_VOCABULARY, TextCodec, count_named
from utils.errors import InputError, brief, escaped
from utils.training.checkpoints import NamedCheckpoint

# ---- From flags to the model, with weights from files, drawn, or from a checkpoint -----------------------------------


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
        InputError: flags and checkpoint contradict each other.
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
    return SEVLMConfig(**settings)


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


# ---- A new explainer with the weights of a pretrained GPT-2, and a line that says which weights these are ------------


# What GPT-2 does not bring, by a part of the weights' names, and what the line calls it; all else must be in the files.
NEW_WEIGHTS = {
    "crossattention": "cross-attention",
    "ln_cross_attn": "cross-attention",
    "VAD_linear": "VAD fusion",
    "clip_project": "image prefix",
    "image_projection": "image projection",
    "sim_mlp": "contrastive head",
    "VAD_head": "VAD head",
}
MOST_LISTED = 8  # tokens
OUTPUT_LAYER = "lm_head.weight"  # tied to the token table
REMEDY = WEIGHTS_REMEDY.replace("openai/clip-vit-base-patch16", "distilgpt2")


def load_decoder(name: str, gpt2: GPT2Config, config: SEVLMConfig, codec: TextCodec) -> Explainer:
    """Load a GPT-2, with or without cross-attention, and draw what it lacks; `origin` says what that is.

    Args:
        name: folder or Hugging Face id.
        gpt2: sizes of the decoder, with the vocabulary size of the files. config: the model's.
        codec: its tokenizer has the tokens of the model's tokenizer files first, then those of ours that they lack.

    Raises:
        InputError: the weights are missing, torn or of another shape, or lack a part of GPT-2.
    """
    rows, source = gpt2.vocab_size, f"--gpt2_model {name}"
    decoder, missing, unused = load_pretrained(Explainer, name, gpt2, source, REMEDY, settings=config)
    lacking = sorted(part for part in missing - {OUTPUT_LAYER} if _new_part(part) is None)
    if lacking:
        raise InputError(f"--gpt2_model {name}: lacks GPT-2's weights {', '.join(lacking[:4])}")
    if decoder.lm_head.weight is not decoder.transformer.wte.weight:
        decoder.lm_head.weight = decoder.transformer.wte.weight
        unused.add(OUTPUT_LAYER)
    decoder.draw_weights(missing)
    named = count_named(name)
    if rows == GPT2_VOCABULARY + len(ADDED_TOKENS) and not any("VAD_linear" in part for part in missing):
        named = max(named, rows)  # a checkpoint of this model: its tokenizer lies in another folder
    named = min(named, rows)
    drawn = list(range(named, len(codec.tokenizer)))
    decoder.resize_vocabulary(len(codec.tokenizer), drawn)
    decoder.config.pad_token_id = codec.pad_id
    tokens = codec.tokenizer.convert_ids_to_tokens(list(range(GPT2_VOCABULARY, len(codec.tokenizer))))
    fresh, kept = tokens[named - GPT2_VOCABULARY :], tokens[: named - GPT2_VOCABULARY]
    decoder.origin = f"decoder {name}: " + _origin(decoder, missing, unused, fresh, kept, rows - named)
    return decoder


def _new_part(weight: str) -> str | None:
    """What the line calls the part that a weight belongs to; None for a part of GPT-2."""
    return next((part for pattern, part in NEW_WEIGHTS.items() if pattern in weight), None)


def _origin(
    decoder: Explainer, missing: set[str], unused: set[str], fresh: list[str], kept: list[str], unnamed: int
) -> str:
    weights = [weight for weight, _ in decoder.named_parameters()]
    drawn = []
    for part in dict.fromkeys(NEW_WEIGHTS.values()):
        of_part = [weight for weight in weights if _new_part(weight) == part]
        lacking = missing.intersection(of_part)
        if lacking:
            drawn.append(part if len(lacking) == len(of_part) else f"{part} ({len(lacking)} of {len(of_part)} weights)")
    if fresh:
        drawn.append(_listed(fresh, "token"))
    says = [f"{len(weights) - len(missing.intersection(weights))} weights loaded"]
    if kept:
        says[0] += f", with {_listed(kept, 'added token')}"
    if drawn:
        says.append(f"drawn at random: {', '.join(drawn)}")
    if unused:
        more = f" and {len(unused) - 1} more" * (len(unused) > 1)
        says.append(f"left out: {min(unused)}{more}, which SEVLM has no place for")
    if unnamed:
        says.append(
            f"left out: {unnamed} row{'s' * (unnamed > 1)} of the token table without a token (if they are added tokens, "
            "copy the tokenizer's files into the model's folder)"
        )
    return "; ".join(says)


def _listed(tokens: list[str], what: str) -> str:
    more = ["..."] * (len(tokens) > MOST_LISTED)
    return f"{len(tokens)} {what}{'s' * (len(tokens) > 1)} ({' '.join(tokens[:MOST_LISTED] + more)})"
