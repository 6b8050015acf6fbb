"""Fingerprints of a run's inputs: hashes of files and weights, images per step. They are recorded beside the flags."""

import argparse
import hashlib
import json
from typing import Any

from accelerate import Accelerator

from models.image_encoder import ImageEncoder
from models.sevlm import SEVLM
from utils.command_line import checkpoint_config, recorded_settings
from utils.data.feature_cache import encoder_config, encoder_sha256
from utils.data.records import whole_training_split
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon
from utils.files import sha256
from utils.run_record import IMAGES, PROCESSES, compare_to_checkpoint, flags_of

DECODER_CONFIG = (
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "layer_norm_epsilon",
)


def encoder_identity(encoder: ImageEncoder) -> str:
    """SHA-256 of an image encoder: of its config, its weights if they are fixed, and its preparation of images."""
    weights = encoder_sha256(encoder) if encoder.fixed else None
    identity = [list(encoder_config(encoder).values()), weights, encoder.preparation]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def decoder_identity(model: SEVLM, codec: TextCodec) -> str:
    """SHA-256 of the decoder's config and its tokenizer's vocabulary; its weights are in every state and checkpoint."""
    config = {name: getattr(model.decoder.config, name) for name in DECODER_CONFIG}
    return hashlib.sha256(json.dumps([config, codec.pieces()]).encode()).hexdigest()


def collect_fingerprints(
    args: argparse.Namespace,
    accelerator: Accelerator,
    model: SEVLM,
    codec: TextCodec,
    lexicon: Lexicon | None,
    images: int | None,
) -> dict[str, Any]:
    """The fingerprints of a run, by the names that the flags declare (utils/opts.py).

    Args:
        images: number of training images, or None if a checkpoint is only scored: then without those of the training.
    """
    fingerprints: dict[str, Any] = {
        "scored_records_sha256": sha256(args.nle_data_val_path),
        "references_sha256": sha256(args.annFileExp),
        "image_encoder_sha256": encoder_identity(model.image_encoder),
        "decoder_sha256": decoder_identity(model, codec),
        "lexicon_sha256": None if lexicon is None else lexicon.sha256,
        "lexicon": None if lexicon is None else lexicon.describe(),
        "precision": accelerator.mixed_precision,
        PROCESSES: accelerator.num_processes,
    }
    if images is not None:
        fingerprints["training_records_sha256"] = sha256(args.nle_data_train_path)
        texts = whole_training_split(args.nle_data_train_path)  # a checkpoint's report compares its texts with these
        fingerprints["training_texts"], fingerprints["training_texts_sha256"] = texts.name, sha256(texts)
        fingerprints["images_per_step"] = args.batch_size * accelerator.num_processes
        fingerprints[IMAGES] = images
    return fingerprints


def compare_with_checkpoint(args: argparse.Namespace, fingerprints: dict[str, Any]) -> list[str]:
    """Notes on the settings that differ from the record of the checkpoint in use; none without a record.

    Raises:
        InputError: a setting contradicts what the model was trained with.
    """
    record, source = recorded_settings(args), checkpoint_config(args).parent
    if record is None:
        return []
    now = {"flags": flags_of(args), "fingerprints": fingerprints}
    return compare_to_checkpoint(record, now, args.eval_only, source)
