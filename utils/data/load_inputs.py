"""Load the inputs of a run: records, images or their cached features, and the lexicon."""

import argparse
import hashlib
import json
from pathlib import Path

from cococaption import CaptionScorer
from models.sevlm import SEVLM
from utils.constants import IMAGE_FOLDERS
from utils.data.datasets import ImagePixels
from utils.data.feature_cache import FeatureCache, Picture, make_header, real_path
from utils.data.image_check import check_images
from utils.data.image_folder import ImageFolder
from utils.data.image_inputs import ImageInputs, find_pictures
from utils.data.records import Records, read_records
from utils.data.text_codec import count_special_tokens
from utils.data.vad_lookup import Lexicon, read_lexicon
from utils.errors import InputError
from utils.opts import data_folders, needs_lexicon


def read_inputs(args: argparse.Namespace) -> tuple[list[Records], ImageFolder | None, Lexicon | None]:
    """Read and check the user's files.

    Returns:
        the records [val, train], or [val] with --eval_only; the image folder, or None if none was found; and the
        lexicon, or None if the run needs none.

    Raises:
        InputError: a file is missing or malformed, or an image is missing or unreadable.
    """
    lexicon = read_lexicon(args.vad_lexicon) if needs_lexicon(args) else None
    paths = [args.nle_data_val_path] + ([] if args.eval_only else [args.nle_data_train_path])
    splits = [read_records(path) for path in paths]
    for path, records in zip(paths, splits, strict=True):
        say_special_tokens(path, records, args.plain_special_tokens)
    if args.image_root is None:  # a finished feature cache stands in for the images
        places = [folder / name for folder in data_folders(args) for name in IMAGE_FOLDERS]
        return splits, next((ImageFolder(place) for place in places if place.is_dir()), None), lexicon
    folder = ImageFolder(args.image_root)
    folder.claim(record["image_name"] for records in splits for record in records.values())
    splits = [
        check_images(records, folder, args.skip_bad_images, args.cache_dir, path)
        for records, path in zip(splits, paths, strict=True)
    ]
    return splits, folder, lexicon


def say_special_tokens(path: Path, records: Records, plain: bool) -> None:
    """Print how many special tokens the explanations of a split contain and how they are read; nothing if none."""
    found = count_special_tokens(text for record in records.values() for text in record["explanations"])
    if not found:
        return
    numbers = ", ".join(f"{count} {token}" for token, count in sorted(found.items()))
    fate = (
        "read as ordinary text"
        if plain
        else "read as control tokens, as in the published code; --plain_special_tokens reads them as ordinary text"
    )
    print(f"{path}: {sum(found.values())} special tokens inside explanations ({numbers}): {fate}")


def check_annotated(args: argparse.Namespace, scorer: CaptionScorer, records: Records) -> None:
    """Raise InputError when an image has no references, because the annotation file is for another split."""
    lacking = [image_id for image_id in records if int(image_id) not in scorer.references]
    if lacking:
        raise InputError(
            f"--annFileExp {args.annFileExp}: lacks {len(lacking)} images of {args.nle_data_val_path}, {lacking[0]} for "
            "one; give the annotation file of the same split"
        )


def build_images(
    args: argparse.Namespace, model: SEVLM, folder: ImageFolder | None, splits: list[Records]
) -> ImageInputs:
    """Build the image source: pixels, or cached features.

    With a complete cache (--feature_cache DIR) the image encoder is not needed: `model.image_encoder` becomes None.
    Such a cache works without the image files. Image files that exist must be the ones that the cache was made from.

    Raises:
        InputError: the cache was made from other images, lacks some of them, or is refused by `FeatureCache`.
    """
    encoder = model.image_encoder
    mean, std = encoder.statistics(args.image_normalization)
    names = {int(image_id): record["image_name"] for records in splits for image_id, record in records.items()}
    pixels = ImagePixels(folder, encoder.image_size, mean, std, encoder.preparation.resample)
    if not args.feature_cache:
        return ImageInputs(pixels, None, names)
    header = make_header(args.clip_model, encoder, mean, std)
    wanted = list(dict.fromkeys(names.values()))
    pictures = {} if folder is None else find_pictures(folder, wanted)
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
    return ImageInputs(pixels, cache, names, pictures)


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
