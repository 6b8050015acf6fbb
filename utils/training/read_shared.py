"""A shared model (utils/share.py) as the training script and the commands take it."""

import argparse

from models.sevlm import SEVLM
from utils.command_line import recorded_settings
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.text_codec import TextCodec
from utils.errors import InputError, brief
from utils.files import read_json

REMEDY = "take the folder anew from where it was shared"


def read_shared(args: argparse.Namespace, codec: TextCodec) -> SEVLM:
    """The model in --ckpt_path, in evaluation mode.

    Raises:
        InputError: the folder is damaged, its parts do not fit each other, or --clip_model names another encoder than it has.
    """
    source, record = args.ckpt_path, recorded_settings(args)
    if record is None:
        raise InputError(f"{source}/config.json: holds no settings; make the folder with python -m utils.share")
    fields = read_json(source / "config.json")
    encoder = None
    if fields.get("vision_config", "") is None:
        encoder = load_image_encoder(args.clip_model, fixed=True)
    elif args.clip_model != record["flags"].get("clip_model"):
        raise InputError(f"{source}: brings its image encoder; leave --clip_model out")
    try:
        model = SEVLM.from_pretrained(source, image_encoder=encoder)
    except ValueError as error:
        raise InputError(f"{brief(error)}; {REMEDY}") from None
    config = model.decoder.config
    if config.vocab_size != len(codec.tokenizer) or config.pad_token_id != codec.pad_id:
        raise InputError(f"{source}: tokenizer and model have different vocabularies; {REMEDY}")
    return model
