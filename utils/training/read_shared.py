"""A shared model (utils/share.py) as the training script and the commands take it."""

import argparse

from models.image_encoder import VISION_KINDS, default_preparation
from models.sevlm import SEVLM
from utils.command_line import recorded_settings
from utils.data.image_encoder_weights import checked_vision_config, load_image_encoder
from utils.data.image_preparation import checked_preparation
from utils.data.text_codec import TextCodec
from utils.errors import InputError, brief
from utils.files import read_json
from utils.training.build_model import checked_config

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
    _check_parts(fields, f"{source}/config.json")
    encoder = None
    if fields["vision_config"] is None:
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


def _check_parts(fields: dict, source: str) -> None:
    """Refuse sizes that are none, or that would fill the memory, before anything is built (InputError)."""
    decoder, vision = fields.get("decoder_config"), fields.get("vision_config", "")
    if not isinstance(decoder, dict) or not isinstance(vision, dict | None):
        raise InputError(f"{source}: lacks the sizes of decoder or image encoder; {REMEDY}")
    checked_config(decoder, {}, source)
    if vision is not None:
        config = checked_vision_config(vision, source, REMEDY)
        usual = default_preparation(config)
        preparation = vision.get("preparation", usual._asdict())
        if not isinstance(preparation, dict) or preparation.keys() != usual._asdict().keys():
            raise InputError(f"{source}: does not say how pictures are prepared; {REMEDY}")
        preparation = checked_preparation(usual._replace(**preparation), config, source)
        if preparation.size != usual.size and not VISION_KINDS[config.model_type].own_size:
            raise InputError(f"{source}: its image encoder takes {usual.size} pixels, not {preparation.size}; {REMEDY}")
