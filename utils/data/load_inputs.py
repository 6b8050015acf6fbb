"""Load the inputs of a run: records, images or their cached features, and the lexicon."""

import argparse
import hashlib
import json
from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cococaption import CaptionScorer
from models.sevlm import SEVLM
from utils.check_inputs import data_folders, needs_lexicon
from utils.constants import IMAGE_FOLDERS
from utils.data.datasets import ImagePixels
from utils.data.feature_cache import FeatureCache, make_header, real_path
from utils.data.image_check import check_images
from utils.data.image_folder import ImageFolder, Picture, shorten
from utils.data.image_inputs import ImageInputs, find_pictures
from utils.data.records import Records, read_records
from utils.data.text_codec import count_special_tokens
from utils.data.training_records import TrainingRecords, read_training_records
from utils.data.vad_lookup import Lexicon, read_lexicon
from utils.errors import InputError


class Inputs(NamedTuple):
    """What a run reads from the user's files.

    records: of the split that is scored. train: the training split; None with --eval_only. names: image id -> image name,
    of both. folder: of the images; None if there is none. pictures: image name -> file, of those in the folder. lexicon:
    None if the run needs none.
    """

    records: Records
    train: TrainingRecords | None
    names: dict[int, str]
    folder: ImageFolder | None
    pictures: dict[str, Picture]
    lexicon: Lexicon | None


def read_inputs(args: argparse.Namespace, scorer: CaptionScorer | None = None) -> Inputs:
    """Read and check the user's files; the pictures last, as opening them for the first time takes long.

    Args:
        scorer: on the process that scores.

    Raises:
        InputError: a file is missing or malformed, files do not go together, or an image is missing or unreadable.
    """
    lexicon = read_lexicon(args.vad_lexicon) if needs_lexicon(args) else None
    records, train = read_records(args.nle_data_val_path), None
    if scorer is not None:
        check_annotated(args, scorer, records)
    texts = [text for record in records.values() for text in record["explanations"]]
    say_special_tokens(args.nle_data_val_path, texts, args.plain_special_tokens)
    if not args.eval_only:
        train = read_training_records(args.nle_data_train_path, args.cache_dir)
        if args.use_cl_loss:
            check_pairs(args.nle_data_train_path, train)
        texts = [train.explanations.decode("latin-1")]  # special tokens are ASCII; none reaches beyond a text's end
        say_special_tokens(args.nle_data_train_path, texts, args.plain_special_tokens)
    names = _names(args, records, train)
    if args.image_root is None:  # a finished feature cache stands in for the images
        places = [folder / name for folder in data_folders(args) for name in IMAGE_FOLDERS]
        folder = next((ImageFolder(place) for place in places if place.is_dir()), None)
        pictures = {} if folder is None else find_pictures(folder, list(dict.fromkeys(names.values())))
        return Inputs(records, train, names, folder, pictures, lexicon)
    folder = ImageFolder(args.image_root)
    folder.claim(names.values())
    how = (folder, args.skip_bad_images, args.cache_dir)
    of_records = [record["image_name"] for record in records.values()]
    found = check_images(list(records), of_records, *how, args.nle_data_val_path)
    pictures = dict(zip(of_records, found, strict=True))
    records = dict(compress(records.items(), found))
    if train is not None:
        found = check_images(train.image_ids, train.image_names, *how, args.nle_data_train_path)
        pictures |= dict(zip(train.image_names, found, strict=True))
        train = train if all(found) else train.only([picture is not None for picture in found])
    pictures = {name: picture for name, picture in pictures.items() if picture is not None}
    names = {image_id: name for image_id, name in names.items() if name in pictures}
    return Inputs(records, train, names, folder, pictures, lexicon)


def _names(args: argparse.Namespace, records: Records, train: TrainingRecords | None) -> dict[int, str]:
    """Image id -> image name, of both splits."""
    names = {int(image_id): record["image_name"] for image_id, record in records.items()}
    if train is None:
        return names
    for image_id, name in zip(train.image_ids.tolist(), train.image_names, strict=True):
        if names.setdefault(image_id, name) != name:
            raise InputError(
                f"{args.nle_data_train_path}: record {image_id}: is {shorten(name)}, but {shorten(names[image_id])} in "
                f"{args.nle_data_val_path}; give every image an id of its own"
            )
    return names


def say_special_tokens(path: Path, texts: Iterable[str], plain: bool) -> None:
    """Print how many special tokens the explanations of a split contain and how they are read; nothing if none."""
    found = count_special_tokens(texts)
    if not found:
        return
    numbers = ", ".join(f"{count} {token}" for token, count in sorted(found.items()))
    fate = (
        "read as ordinary text"
        if plain
        else "read as control tokens, as in the published code; --plain_special_tokens reads them as ordinary text"
    )
    print(f"{path}: {sum(found.values())} special tokens inside explanations ({numbers}): {fate}")


def check_pairs(path: Path, train: TrainingRecords) -> None:
    """Raise InputError when all explanations of an image have the same emotion: the contrastive loss needs two."""
    starts = train.first_row[:-1]
    single = np.maximum.reduceat(train.emotions, starts) == np.minimum.reduceat(train.emotions, starts)
    if single.any():
        raise InputError(
            f"{path}: record {train.image_ids[single.argmax()]}: all its explanations have one emotion, but the "
            "contrastive loss needs two: train on artEmisX_cl_train.json, or give --no-use_cl_loss"
        )


def check_annotated(args: argparse.Namespace, scorer: CaptionScorer, records: Records) -> None:
    """Raise InputError when an image has no references, because the annotation file is for another split."""
    lacking = [image_id for image_id in records if int(image_id) not in scorer.references]
    if lacking:
        raise InputError(
            f"--annFileExp {args.annFileExp}: lacks {len(lacking)} images of {args.nle_data_val_path}, {lacking[0]} for "
            "one; give the annotation file of the same split"
        )


def build_images(args: argparse.Namespace, model: SEVLM, inputs: Inputs) -> ImageInputs:
    """Build the image source: pixels, or cached features.

    With a complete cache (--feature_cache DIR) the image encoder is not needed: `model.image_encoder` becomes None.
    Such a cache works without the image files. Image files that exist must be the ones that the cache was made from.

    Raises:
        InputError: the cache was made from other images, lacks some of them, or is refused by `FeatureCache`.
    """
    encoder, folder, names = model.image_encoder, inputs.folder, inputs.names
    mean, std = encoder.statistics(args.image_normalization)
    pixels = ImagePixels(folder, encoder.image_size, mean, std, encoder.preparation.resample)
    if not args.feature_cache:
        return ImageInputs(pixels, None, names)
    header = make_header(args.clip_model, encoder, mean, std)
    wanted, pictures = list(dict.fromkeys(names.values())), inputs.pictures
    if args.feature_cache == "auto":
        return ImageInputs(pixels, _cache_of_ours(args, header, pictures, folder, wanted), names, pictures)
    cache = FeatureCache(args.feature_cache, header)
    if missing := cache.missing(wanted):
        raise InputError(
            f"--feature_cache {args.feature_cache}: has no features of {len(missing)} images, e.g. {missing[0]}; "
            "run preprocess/cache_features.py on the same splits"
        )
    if pictures and (changed := cache.changed(pictures, folder.root)):
        raise InputError(
            f"--feature_cache {args.feature_cache}: was made from other pictures than those in {folder.root}: "
            f"{len(changed)} differ, e.g. {changed[0]}; give the folder that it was made from as --image_root, or run "
            "preprocess/cache_features.py on this one"
        )
    model.image_encoder = None
    return ImageInputs(pixels, cache, names)


def _cache_of_ours(
    args: argparse.Namespace, header: dict, pictures: dict[str, Picture], folder: ImageFolder, wanted: list[str]
) -> FeatureCache:
    """The cache of --feature_cache auto, for this encoder, transform, image folder and list of images.

    Images whose file has changed are marked as not written, so that they are encoded again.
    """
    key = hashlib.sha256(json.dumps([header, real_path(folder.root), wanted]).encode()).hexdigest()[:16]
    cache = FeatureCache.create(args.cache_dir / f"features-{key}", header, wanted, folder.root, ours=True)
    if changed := cache.changed(pictures, folder.root):
        print(
            f"{cache.folder}: {len(changed)} pictures have changed, e.g. {changed[0]}: encoding them again", flush=True
        )
        cache.forget(changed)
    return cache
