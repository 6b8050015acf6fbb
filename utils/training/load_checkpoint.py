"""A trained model, ready to be asked: what the commands that use a checkpoint start from."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.sevlm import SEVLM
from utils.command_line import SHARED_NAME, checkpoint_config, find_model, is_shared, parse_args, recorded_settings
from utils.data.datasets import ImagePixels
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.images import open_image
from utils.data.text_codec import TextCodec, check_vocabulary, load_tokenizer
from utils.data.vad_lexicon import VADLookup, read_lexicon
from utils.errors import InputError, brief, escaped
from utils.files import read_json
from utils.run_record import compare_fingerprints, compare_flags
from utils.training.build_model import build_model
from utils.training.checkpoints import TOKENIZER_FOLDER, NamedCheckpoint, load_named
from utils.training.fingerprints import encoder_identity


@dataclass
class TrainedModel:
    """A checkpoint in use.

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


def load_model(args: argparse.Namespace) -> tuple[NamedCheckpoint | None, TextCodec, SEVLM]:
    """The checkpoint that the flags name, or None; tokenizer and model: the checkpoint's, a shared folder's, or new ones.

    Raises:
        InputError: a file is missing or damaged, or does not go with the flags.
    """
    torch.manual_seed(args.seed)  # new weights are the seed's, also those of an encoder that is drawn and kept fixed
    if args.load_from_epoch == SHARED_NAME:
        codec = _codec(args, str(args.ckpt_path))
        return None, codec, _read_shared(args, codec)
    checkpoint = load_named(args.ckpt_path, args.load_from_epoch) if args.load_from_epoch else None
    saved = args.ckpt_path / TOKENIZER_FOLDER
    codec = _codec(args, str(saved) if checkpoint is not None and saved.is_dir() else args.gpt2_model)
    if checkpoint is None:
        check_vocabulary(args.gpt2_model, codec.tokenizer)
    if checkpoint is None and not args.eval_only:
        check_saved_tokenizer(args, codec)
    return checkpoint, codec, build_model(args, codec, checkpoint)


def _codec(args: argparse.Namespace, tokenizer: str) -> TextCodec:
    tokenizer = load_tokenizer(tokenizer)
    return TextCodec(tokenizer, args.prompt_text, args.max_seq_len, args.len_prefix, args.plain_special_tokens)


def _read_shared(args: argparse.Namespace, codec: TextCodec) -> SEVLM:
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
        raise InputError(f"{source}: brings its image encoder; leave --clip_model out")
    remedy = "copy the folder again from where it was exported"
    try:
        model = SEVLM.from_pretrained(source, image_encoder=encoder)
    except ValueError as error:
        raise InputError(f"{brief(error)}; {remedy}") from None
    config = model.decoder.config
    if config.vocab_size != len(codec.tokenizer) or config.pad_token_id != codec.pad_id:
        raise InputError(f"{source}: tokenizer and model have different vocabularies; {remedy}")
    return model


def check_saved_tokenizer(args: argparse.Namespace, codec: TextCodec) -> None:
    """Refuse (InputError) a --ckpt_path that holds the tokenizer of another run: this run's checkpoints would be read by it."""
    saved = args.ckpt_path / TOKENIZER_FOLDER
    if not saved.is_dir():
        return  # the first checkpoint brings one
    if load_tokenizer(str(saved)).backend_tokenizer.to_str() != codec.tokenizer.backend_tokenizer.to_str():
        raise InputError(
            f"{saved}: is not the tokenizer of --gpt2_model {args.gpt2_model}, which this run trains with; name another "
            "--ckpt_path, or move this folder away"
        )


def load_checkpoint(
    ckpt_path: Path, name: str | None = None, flags: list[str] | None = None, device: str | None = None
) -> TrainedModel:
    """Load checkpoint `name` of a folder, or a shared model, with the settings it was trained with.

    Args:
        ckpt_path: the folder that holds nle_model_<name>/, or a shared model's folder or Hugging Face id.
        name: default best-res; a shared model takes none.
        flags: further flags of the training script, such as
            --vad_lexicon FILE or --clip_model FOLDER; the lexicon is else the one that the training used, where it still is.
        device: default the accelerator, if there is one.

    Raises:
        InputError: no such checkpoint, a damaged one, or files it needs are not there or are not those it was trained with.
    """
    ckpt_path = find_model(ckpt_path)
    if name is None and not is_shared(ckpt_path):
        name = "best-res"
    named = [] if name is None else [f"--load_from_epoch={name}"]
    args = parse_args(["--eval_only", *named, f"--ckpt_path={ckpt_path}", *(flags or [])])
    record, source = recorded_settings(args), checkpoint_config(args).parent
    _, codec, model = load_model(args)
    fingerprints = {"image_encoder_sha256": encoder_identity(model.image_encoder)}
    vad = None
    if args.use_VAD:
        lexicon = read_lexicon(_lexicon_path(args, record))
        fingerprints["lexicon_sha256"] = lexicon.sha256
        vad = VADLookup(lexicon, args.lemmatizer, codec)
    if record is not None:
        notes = compare_flags(record, args, True, source)
        for note in notes + compare_fingerprints(record, fingerprints, True, source):
            print(escaped(note))
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    chosen = torch.device(device or accelerator or "cpu")
    pixels = ImagePixels.for_encoder(None, model.image_encoder, args.image_normalization)
    return TrainedModel(args, model.eval().to(chosen), codec, vad, pixels, chosen)


def _lexicon_path(args: argparse.Namespace, record: dict | None) -> Path:
    recorded = None if record is None else record["flags"].get("vad_lexicon")
    path = args.vad_lexicon or (Path(recorded) if recorded and isinstance(recorded, str) else None)
    if path is None or not path.is_file():
        where = "" if path is None else f" ({path} is not there)"
        raise InputError(f"{args.ckpt_path}: its model takes a VAD lexicon{where}; name the file with --vad_lexicon")
    return path
