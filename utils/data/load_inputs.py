"""The inputs of a run: records, images or their cached features, and the lexicon."""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from cococaption import CaptionScorer
from models.sevlm import SEVLM
from utils.command_line import data_folders, needs_lexicon
from utils.constants import IMAGE_FOLDERS
from utils.data.datasets import ImagePixels, ImageSource
from utils.data.feature_cache import FeatureCache, fill, make_header, real_path, stat_images
from utils.data.images import find_image, open_image, shorten
from utils.data.records import Records, TrainingRecords, read_records, read_training_records
from utils.data.text_codec import SPECIAL_TOKENS
from utils.data.vad_lexicon import Lexicon, read_lexicon
from utils.errors import InputError, print_once


class Inputs(NamedTuple):
    """The contents of the user's files.

    records: the split that is scored. train: the training split; None with --eval_only. image_names: those of both, each
    once. image_root: folder of the images; None if there is none. lexicon: None if the run needs none.
    """

    records: Records
    train: TrainingRecords | None
    image_names: list[str]
    image_root: Path | None
    lexicon: Lexicon | None


def read_inputs(args: argparse.Namespace, scorer: CaptionScorer | None = None) -> Inputs:
    """Read and check the user's files.

    Args:
        scorer: given on the process that scores.

    Raises:
        InputError: a file is missing or malformed, files do not go together, or an image is missing.
    """
    lexicon = read_lexicon(args.vad_lexicon) if needs_lexicon(args) else None
    records, train = read_records(args.nle_data_val_path), None
    if scorer is not None:
        check_annotated(args, scorer, records)
    texts = [text for record in records.values() for text in record["explanations"]]
    report_special_tokens(args.nle_data_val_path, texts, args.plain_special_tokens)
    if not args.eval_only:
        train = read_training_records(args.nle_data_train_path, args.cache_dir)
        if args.use_cl_loss:
            check_pairs(args.nle_data_train_path, train)
        texts = [train.explanations.decode("latin-1")]  # special tokens are ASCII; none reaches beyond a text's end
        report_special_tokens(args.nle_data_train_path, texts, args.plain_special_tokens)
        check_ids(args, records, train)
    root = args.image_root
    if root is None:  # a finished feature cache replaces the images
        places = (folder / name for folder in data_folders(args) for name in IMAGE_FOLDERS)
        root = next(filter(Path.is_dir, places), None)
    else:
        names = [record["image_name"] for record in records.values()]
        found = images_found(names, list(records), args, args.nle_data_val_path)
        records = dict(compress(records.items(), found))
        if train is not None:
            found = images_found(train.image_names, train.image_ids, args, args.nle_data_train_path)
            train = train if all(found) else train.select(found)
    names = [record["image_name"] for record in records.values()] + ([] if train is None else train.image_names)
    return Inputs(records, train, list(dict.fromkeys(names)), root, lexicon)


def check_ids(args: argparse.Namespace, records: Records, train: TrainingRecords) -> None:
    """Raise InputError when an image id belongs to different images in the two splits."""
    names = {int(image_id): record["image_name"] for image_id, record in records.items()}
    for image_id, name in zip(train.image_ids.tolist(), train.image_names, strict=True):
        if names.get(image_id, name) != name:
            raise InputError(
                f"{args.nle_data_train_path}: record {image_id}: is {shorten(name)}, but {shorten(names[image_id])} in "
                f"{args.nle_data_val_path}; give every image its own id"
            )


def images_found(names: list[str], image_ids: Sequence, args: argparse.Namespace, source: Path) -> list[bool]:
    """Whether each image of a split is under --image_root; with --skip_bad_images, whether it can be read as well.

    Raises:
        InputError: an image is missing and --skip_bad_images is off, or none is left.
    """
    root, what = args.image_root, "missing"
    if args.skip_bad_images:
        what = "missing or unreadable"
        with ThreadPoolExecutor() as pool:
            found = list(tqdm(pool.map(partial(is_readable, root), names), "reading images", len(names), leave=False))
    else:
        found = [find_image(root, name) is not None for name in names]
    bad = [place for place, is_found in enumerate(found) if not is_found]
    if bad and not args.skip_bad_images:
        raise InputError(
            f"{source}: record {image_ids[bad[0]]}: no image {shorten(names[bad[0]])} under {root} ({len(bad)} missing in "
            f"all); build the splits with --image_root {root}, which finds other spellings of the names, or pass "
            "--skip_bad_images"
        )
    if len(bad) == len(found):
        raise InputError(f"{source}: none of its {len(found)} images can be read; is {root} the right folder?")
    if bad:
        print_once(f"{source}: left out {len(bad)} records whose image is {what}, e.g. {shorten(names[bad[0]])}")
    return found


def is_readable(root: Path, image_name: str) -> bool:
    """Whether an image is there and can be decoded; a JPEG is decoded at an eighth of its size."""
    path = find_image(root, image_name)
    try:
        return path is not None and bool(open_image(path, draft_size=64))
    except InputError:
        return False


def report_special_tokens(path: Path, texts: Iterable[str], plain: bool) -> None:
    """Print how many special tokens the explanations of a split contain and how they are read; nothing if none."""
    counts = Counter(token for text in texts for token in SPECIAL_TOKENS.findall(text))
    if not counts:
        return
    numbers = ", ".join(f"{count} {token}" for token, count in sorted(counts.items()))
    reading = (
        "read as ordinary text"
        if plain
        else "read as control tokens, as in the published code; --plain_special_tokens reads them as ordinary text"
    )
    print_once(f"{path}: {counts.total()} special tokens inside explanations ({numbers}): {reading}")


def check_pairs(path: Path, train: TrainingRecords) -> None:
    """Raise InputError when all explanations of an image have the same emotion: the contrastive loss needs two."""
    starts = train.first_row[:-1]
    single = np.maximum.reduceat(train.emotions, starts) == np.minimum.reduceat(train.emotions, starts)
    if single.any():
        raise InputError(
            f"{path}: record {train.image_ids[single.argmax()]}: all its explanations have one emotion, but the "
            "contrastive loss needs two: train on artEmisX_cl_train.json, or pass --no-use_cl_loss"
        )


def check_annotated(args: argparse.Namespace, scorer: CaptionScorer, records: Records) -> None:
    """Raise InputError when an image has no references, because the annotation file is for another split."""
    lacking = [image_id for image_id in records if int(image_id) not in scorer.references]
    if lacking:
        raise InputError(
            f"--annFileExp {args.annFileExp}: lacks {len(lacking)} images of {args.nle_data_val_path}, {lacking[0]} for "
            "one; give the annotation file of the same split"
        )


def build_images(args: argparse.Namespace, model: SEVLM, inputs: Inputs, device: torch.device) -> ImageSource:
    """Build the image source: pixels, or cached features.

    With a cache the image encoder is not needed any more: `model.image_encoder` becomes None. A finished cache works
    without the image files; those that exist must be the ones that it was made from. `--feature_cache auto` has a cache
    for each encoder, transform, image folder and list of images, and first encodes what is missing or has changed.

    Raises:
        InputError: the cache was made from other images, lacks some of them, or is refused by `FeatureCache`.
    """
    encoder, root, names = model.image_encoder, inputs.image_root, inputs.image_names
    pixels = ImagePixels.for_encoder(root, encoder, args.image_normalization)
    if not args.feature_cache:
        return pixels
    header = make_header(args.clip_model, encoder, args.image_normalization)
    files = {} if root is None else stat_images(root, names)
    if args.feature_cache == "auto":
        key = hashlib.sha256(json.dumps([header, real_path(root), names]).encode()).hexdigest()[:16]
        cache = FeatureCache.create(args.cache_dir / f"features-{key}", header, names, root)
        cache.forget(cache.changed(files, root))
        if left := cache.missing(names):
            fill(cache, encoder.to(device), pixels, files, left, device, num_workers=args.num_workers)
    else:
        cache = FeatureCache(args.feature_cache, header)
        if missing := cache.missing(names):
            raise InputError(
                f"--feature_cache {args.feature_cache}: has no features of {len(missing)} images, e.g. {missing[0]}; "
                "make a cache of all the splits in a new folder with preprocess/cache_features.py"
            )
        if files and (changed := cache.changed(files, root)):
            raise InputError(
                f"--feature_cache {args.feature_cache}: was made from other images than those in {root}: {len(changed)} "
                f"differ, e.g. {changed[0]}; give the folder that it was made from as --image_root, or run "
                "preprocess/cache_features.py on this one"
            )
    model.image_encoder = None
    return cache
