"""The model of a run, built from flags, with weights from files, drawn at random or from a checkpoint.

`load_model` is what the training script uses, `load_checkpoint` what the other commands use.
"""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2Model

from models.config import SEVLMConfig, gpt2_config
from models.decoder import Explainer
from models.sevlm import SEVLM
from utils.command_line import EXPORT_NAME, find_model, is_export, parse_args, recorded_settings
from utils.constants import ADDED_TOKENS, MAX_NEW_TOKENS
from utils.data.datasets import ImagePixels
from utils.data.image_encoder_weights import WEIGHTS_REMEDY, load_image_encoder
from utils.data.images import open_image
from utils.data.pretrained import check_model_type, find_config, load_pretrained
from utils.data.text_codec import GPT2_VOCABULARY, TextCodec, check_vocabulary, count_named, load_tokenizer
from utils.data.vad_lexicon import VADLookup, read_lexicon
from utils.errors import InputError, brief, print_once
from utils.files import read_json
from utils.layout import TOKENIZER_FOLDER
from utils.run_record import recorded_lexicon
from utils.training.checkpoints import NamedCheckpoint, load_named
from utils.training.fingerprints import compare_with_checkpoint, encoder_identity

# When a checkpoint is continued, its config.json decides these settings; when it is only scored, also those of its heads.
FROM_CHECKPOINT = ("emotion_span", "vad_layers", "vad_heads", "vad_causal")
HEADS = ("use_cl_loss", "use_VAD_loss", "use_emotion_loss", "emotion_pooling")

# ---- a checkpoint for use --------------------------------------------------------------------------------------------


@dataclass
class TrainedModel:
    """A checkpoint that is ready for use.

    args: its settings, as the training script's flags. model: in evaluation mode, on `device`. vad: the lexicon look-up, or
    None for a model without VAD fusion. pixels: the image transform.
    """

    args: argparse.Namespace
    model: SEVLM
    codec: TextCodec
    vad: VADLookup | None
    pixels: ImagePixels
    device: torch.device

    def read_images(self, paths: list[Path]) -> Tensor:
        """Images as the model takes them: float32 [B, 3, S, S], normalised, on its device; InputError for a bad one."""
        return torch.stack([self.pixels.transform(open_image(path)) for path in paths]).to(self.device)


def load_checkpoint(
    ckpt_path: Path, name: str | None = None, flags: list[str] | None = None, device: str | None = None
) -> TrainedModel:
    """Load checkpoint `name` of a folder, or an exported model, with the settings it was trained with.

    Args:
        ckpt_path: the folder that holds nle_model_<name>/, or an exported model's folder or Hugging Face id.
        name: best-res by default; an exported model takes none.
        flags: further flags of the training script, such as --vad_lexicon FILE or --clip_model FOLDER; without the
            former, the lexicon of the training is used if it still exists.
        device: by default the accelerator, if there is one.

    Raises:
        InputError: the checkpoint does not exist or is damaged, or a file that it needs is missing or differs from the
            one it was trained with.
    """
    ckpt_path = find_model(ckpt_path)
    if name is None and not is_export(ckpt_path):
        name = "best-res"
    named = [] if name is None else [f"--load_from_epoch={name}"]
    args = parse_args(["--eval_only", *named, f"--ckpt_path={ckpt_path}", *(flags or [])])
    _, codec, model = load_model(args)
    fingerprints = {"image_encoder_sha256": encoder_identity(model.image_encoder)}
    vad = None
    if args.use_VAD:
        lexicon = read_lexicon(_lexicon_path(args))
        fingerprints["lexicon_sha256"] = lexicon.sha256
        vad = VADLookup(lexicon, args.lemmatizer, codec)
    for note in compare_with_checkpoint(args, fingerprints):
        print_once(note)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = torch.device(device or accelerator or "cpu")
    pixels = ImagePixels.for_encoder(None, model.image_encoder, args.image_normalization)
    return TrainedModel(args, model.eval().to(device), codec, vad, pixels, device)


def _lexicon_path(args: argparse.Namespace) -> Path:
    """The lexicon of --vad_lexicon, or the training's, see `recorded_lexicon`."""
    flags = (recorded_settings(args) or {"flags": {}})["flags"]
    path = args.vad_lexicon or recorded_lexicon(flags, args.ckpt_path)
    if path is None or not path.is_file():
        named = args.vad_lexicon or flags.get("vad_lexicon")
        missing = f" ({named} does not exist)" if named else ""
        raise InputError(f"{args.ckpt_path}: the model needs a VAD lexicon{missing}; name the file with --vad_lexicon")
    return path


# ---- the model of a run ----------------------------------------------------------------------------------------------


def load_model(args: argparse.Namespace) -> tuple[NamedCheckpoint | None, TextCodec, SEVLM]:
    """The checkpoint that the flags name, or None; and tokenizer and model: the checkpoint's, an exported model's, or new ones.

    Raises:
        InputError: a file is missing or damaged, or contradicts the flags.
    """
    torch.manual_seed(args.seed)  # for all new weights, including an encoder that is drawn and kept fixed
    if args.load_from_epoch == EXPORT_NAME:
        codec = _codec(args, args.ckpt_path)
        return None, codec, _load_exported(args, codec)
    if args.load_from_epoch:
        checkpoint = load_named(args.ckpt_path, args.load_from_epoch)
        saved = args.ckpt_path / TOKENIZER_FOLDER
        codec = _codec(args, saved if saved.is_dir() else args.gpt2_model)
    else:
        checkpoint, codec = None, _codec(args, args.gpt2_model)
        if args.from_scratch not in (True, "decoder"):
            check_vocabulary(args.gpt2_model, codec.tokenizer)
        _check_saved_tokenizer(args, codec)
    return checkpoint, codec, build_model(args, codec, checkpoint)


def _codec(args: argparse.Namespace, source: str | Path) -> TextCodec:
    tokenizer = load_tokenizer(str(source))
    return TextCodec(tokenizer, args.prompt_text, args.max_seq_len, args.len_prefix, args.plain_special_tokens)


def _load_exported(args: argparse.Namespace, codec: TextCodec) -> SEVLM:
    """The exported model in --ckpt_path (utils/share.py), in evaluation mode.

    Raises:
        InputError: the folder is damaged, its parts do not fit each other, or --clip_model names another encoder than it has.
    """
    source, record = args.ckpt_path, recorded_settings(args)
    if record is None:
        raise InputError(f"{source}/config.json: holds no settings; make the folder with python -m utils.share")
    encoder = None
    if read_json(source / "config.json").get("vision_config") is None:
        encoder = load_image_encoder(args.clip_model, fixed=True)
    elif args.clip_model != record["flags"].get("clip_model"):
        raise InputError(f"{source}: the model contains its image encoder; leave --clip_model out")
    remedy = "copy the folder again from where it was exported"
    try:
        model = SEVLM.from_pretrained(source, image_encoder=encoder)
    except ValueError as error:
        raise InputError(f"{brief(error)}; {remedy}") from None
    config = model.decoder.config
    if config.vocab_size != len(codec.tokenizer) or config.pad_token_id != codec.pad_id:
        raise InputError(f"{source}: tokenizer and model have different vocabularies; {remedy}")
    return model


def _check_saved_tokenizer(args: argparse.Namespace, codec: TextCodec) -> None:
    """Refuse (InputError) a --ckpt_path with another run's tokenizer: the new checkpoints would be read with it."""
    saved = args.ckpt_path / TOKENIZER_FOLDER
    if not saved.is_dir():
        return  # the first checkpoint writes it
    if load_tokenizer(str(saved)).backend_tokenizer.to_str() != codec.tokenizer.backend_tokenizer.to_str():
        raise InputError(
            f"{saved}: is not the tokenizer of --gpt2_model {args.gpt2_model}, which this run trains with; name another "
            "--ckpt_path, or move this folder away"
        )


def build_model(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> SEVLM:
    """Build SEVLM as the flags say, with a checkpoint's weights if one is given.

    Raises:
        InputError: weights are missing, or contradict each other or the flags.
    """
    encoder = load_image_encoder(args.clip_model, args.fixed_encoder, args.from_scratch in (True, "encoder"))
    if args.prefix_dim is None:
        args.prefix_dim = encoder.width  # recorded, and compared when the run is resumed
    if encoder.width != args.prefix_dim:
        raise InputError(
            f"--clip_model {args.clip_model}: its features have width {encoder.width}: pass --prefix_dim "
            f"{encoder.width}, or leave it out"
        )
    config = model_config(args, codec, checkpoint)
    if args.emotion_from == "head" and not config.use_emotion_loss:
        raise InputError("--emotion_from head: this model has no emotion head; take text or likelihood")
    model = SEVLM(config, build_decoder(args, codec, checkpoint, config), encoder)
    reads_class_token = config.len_prefix > 0 or (config.use_emotion_loss and config.emotion_pooling == "cls")
    if not reads_class_token:
        encoder.freeze_pooling()
    if checkpoint is not None:
        for note in checkpoint.restore(model):
            print_once(note)
    return model


def model_config(args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None) -> SEVLMConfig:
    """The model's settings: the flags of the same names, and what follows from tokenizer, image encoder and checkpoint.

    A checkpoint's config.json decides what its weights were made for; the flags decide what is trained, unless it is
    only scored.

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
    saved, defaults = checkpoint.config, SEVLMConfig()  # the authors' checkpoints record few settings
    for name, flag in (("len_prefix", "--len_prefix"), ("encoder_dim", "--prefix_dim")):
        if saved.get(name, settings[name]) != settings[name]:
            raise InputError(
                f"{checkpoint.folder}: was trained with {flag} {saved[name]}, this run has {settings[name]}"
            )
    settings["emotion_span"] = defaults.emotion_span
    if args.eval_only:
        settings |= {name: getattr(defaults, name) for name in ("use_emotion_loss", "emotion_pooling")}
    from_checkpoint = FROM_CHECKPOINT + (HEADS if args.eval_only else ())
    settings |= {name: saved[name] for name in from_checkpoint if name in saved}
    return SEVLMConfig(**settings)


# ---- the decoder -----------------------------------------------------------------------------------------------------

# What GPT-2 lacks, by a part of the weights' names, and how the log calls it; all other weights must be in the files.
NEW_WEIGHTS = {
    "crossattention": "cross-attention",
    "ln_cross_attn": "cross-attention",
    "VAD_linear": "VAD fusion",
    "clip_project": "image prefix",
    "image_projection": "image projection",
    "sim_mlp": "contrastive head",
    "VAD_head": "VAD head",
}
MAX_LISTED = 8  # tokens
OUTPUT_LAYER = "lm_head.weight"  # tied to the token table
REMEDY = WEIGHTS_REMEDY.replace("openai/clip-vit-base-patch16", "distilgpt2")


def build_decoder(
    args: argparse.Namespace, codec: TextCodec, checkpoint: NamedCheckpoint | None, config: SEVLMConfig
) -> Explainer:
    """The explainer: distilgpt2's (or another GPT-2's) weights with everything SEVLM adds, or a checkpoint's sizes.

    Its attribute `origin` says, for the log, where its weights are from; it is empty for a checkpoint's.

    Raises:
        InputError: config.json or weights are missing or wrong, or texts do not fit.
    """
    changed = {
        "add_cross_attention": True,
        "tie_word_embeddings": True,
        "embd_pdrop": args.dropout,
        "attn_pdrop": args.dropout,
        "resid_pdrop": args.dropout,
        "use_cache": False,
    }
    if checkpoint is not None:
        saved, source = checkpoint.config, f"{checkpoint.folder}/config.json"
        changed["pad_token_id"] = codec.pad_id
    else:
        source = f"--gpt2_model {args.gpt2_model}"
        saved = find_config(args.gpt2_model, source, "give a folder with config.json, or a Hugging Face id")
        source += ": config.json"
        check_model_type(saved, ("gpt2",), source)
    with _config_errors(source):
        gpt2 = gpt2_config(saved, **changed)
    if config.fusion_start >= args.max_seq_len:
        raise InputError(
            f"--prompt_text takes {codec.emotion_span} tokens with the emotion, --len_prefix {args.len_prefix}: no room for an "
            f"explanation in --max_seq_len {args.max_seq_len}"
        )
    longest = max(args.max_seq_len, len(codec.prompt().ids) + MAX_NEW_TOKENS)
    if gpt2.n_positions < longest:
        raise InputError(
            f"{source}: has only {gpt2.n_positions} positions, but --max_seq_len, --len_prefix and --prompt_text take "
            f"{longest} (prompt and {MAX_NEW_TOKENS} new tokens in generation); shorten them or use another model"
        )
    with _config_errors(source), torch.device("meta"):
        GPT2Model(gpt2)  # a wrong config.json ends here, so that an error of our own class keeps its traceback
    if checkpoint is None:
        if args.from_scratch not in (True, "decoder"):
            return _load_decoder(args.gpt2_model, gpt2, config, codec)
        gpt2.vocab_size, gpt2.pad_token_id = len(codec.tokenizer), codec.pad_id
    decoder = Explainer(gpt2, config)
    if checkpoint is None:
        decoder.origin = f"decoder {args.gpt2_model}: all weights drawn at random (--from_scratch)"
    return decoder


@contextlib.contextmanager
def _config_errors(source: str) -> Iterator[None]:
    """Turn any error into an InputError: transformers and torch have their own for every wrong field of a config.json."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{source}: {brief(error)}; use another model") from None


def _load_decoder(name: str, gpt2: GPT2Config, config: SEVLMConfig, codec: TextCodec) -> Explainer:
    """Load a GPT-2, with or without cross-attention, and draw the weights and the tokens' rows that it lacks.

    Args:
        name: folder or Hugging Face id.
        gpt2: the decoder's GPT2Config, with the vocabulary size of the files.
        codec: its tokenizer has the tokens of the model's tokenizer files first, then SEVLM's tokens that they lack.

    Raises:
        InputError: the weights are missing, damaged or of another shape, or lack a part of GPT-2.
    """
    rows, source = gpt2.vocab_size, f"--gpt2_model {name}"
    decoder, missing, unused = load_pretrained(Explainer, name, gpt2, source, REMEDY, settings=config)
    lacking = sorted(weight for weight in missing - {OUTPUT_LAYER} if _new_part(weight) is None)
    if lacking:
        raise InputError(f"{source}: lacks GPT-2's weights {', '.join(lacking[:4])}")
    if decoder.lm_head.weight is not decoder.transformer.wte.weight:
        decoder.lm_head.weight = decoder.transformer.wte.weight
        unused.add(OUTPUT_LAYER)
    decoder.draw_weights(missing)
    named = count_named(name)
    if rows == GPT2_VOCABULARY + len(ADDED_TOKENS) and not any("VAD_linear" in weight for weight in missing):
        named = max(named, rows)  # a checkpoint of SEVLM, whose tokenizer lies in another folder
    named = min(named, rows)
    decoder.resize_vocabulary(len(codec.tokenizer), list(range(named, len(codec.tokenizer))))
    decoder.config.pad_token_id = codec.pad_id
    added = codec.tokenizer.convert_ids_to_tokens(list(range(GPT2_VOCABULARY, len(codec.tokenizer))))
    loaded, drawn = added[: named - GPT2_VOCABULARY], added[named - GPT2_VOCABULARY :]
    decoder.origin = f"decoder {name}: " + _origin(decoder, missing, unused, loaded, drawn, rows - named)
    return decoder


def _new_part(weight: str) -> str | None:
    """How the log calls the new part that a weight belongs to; None for a part of GPT-2."""
    return next((part for pattern, part in NEW_WEIGHTS.items() if pattern in weight), None)


def _origin(
    decoder: Explainer,
    missing: set[str],
    unused: set[str],
    loaded_tokens: list[str],
    drawn_tokens: list[str],
    unnamed_rows: int,
) -> str:
    weights = [weight for weight, _ in decoder.named_parameters()]
    drawn = []
    for part in dict.fromkeys(NEW_WEIGHTS.values()):
        part_weights = [weight for weight in weights if _new_part(weight) == part]
        lacking = len(missing.intersection(part_weights))
        if lacking:
            drawn.append(part + f" ({lacking} of {len(part_weights)} weights)" * (lacking < len(part_weights)))
    if drawn_tokens:
        drawn.append(_listed(drawn_tokens, "token"))
    origin = f"{len(weights) - len(missing.intersection(weights))} weights loaded"
    if loaded_tokens:
        origin += f", with {_listed(loaded_tokens, 'added token')}"
    if drawn:
        origin += f"; drawn at random: {', '.join(drawn)}"
    if unused:
        more = f" and {len(unused) - 1} more" * (len(unused) > 1)
        origin += f"; ignored: {min(unused)}{more}, which SEVLM does not use"
    if unnamed_rows:
        origin += (
            f"; ignored: {unnamed_rows} row{'s' * (unnamed_rows > 1)} of the token table without a token (if they are added "
            "tokens, copy the tokenizer's files into the model's folder)"
        )
    return origin


def _listed(tokens: list[str], what: str) -> str:
    more = ["..."] * (len(tokens) > MAX_LISTED)
    return f"{len(tokens)} {what}{'s' * (len(tokens) > 1)} ({' '.join(tokens[:MAX_LISTED] + more)})"
