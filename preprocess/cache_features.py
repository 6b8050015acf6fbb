"""Compute the fixed image encoder's features of whole splits once, for `artEmisX_train.py --feature_cache DIR`.

    python preprocess/cache_features.py data/artEmis/artEmisX_*.json --image_root IMAGES --out_dir data/features
    accelerate launch preprocess/cache_features.py ...          (several GPUs share the work)

An interrupted run continues where it stopped. A later run also encodes again images whose features are damaged or whose
file has changed. At the end, some images are encoded again and compared with the cache.
"""

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.command_line import TINY_DEFAULTS
from utils.constants import NORMALIZATIONS
from utils.data.images import find_image, image_size, shorten
from utils.data.records import read_records
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place
from utils.launcher import start_accelerator
from utils.processes import prepare_script

# float16 has a precision of 11 bits; in addition, batches of another size round differently
RELATIVE_TOLERANCE = 2e-3


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, nargs="+", help="JSON splits whose images are encoded")
    parser.add_argument("--image_root", type=Path, required=True, help="folder of <art_style>/<painting>.jpg")
    parser.add_argument("--out_dir", type=Path, required=True, help="the cache's folder")
    parser.add_argument(
        "--clip_model", default="openai/clip-vit-base-patch16", help="as for artEmisX_train.py (default: %(default)s)"
    )
    parser.add_argument("--from_scratch", action="store_true", help="random weights in the sizes of config.json")
    parser.add_argument(
        "--tiny", action="store_true", help="the demo's small encoder from random weights, as artEmisX_train.py --tiny"
    )
    parser.add_argument(
        "--seed", type=number(int, 0, 2**63 - 1), default=42, help="of random weights (default: %(default)s)"
    )
    parser.add_argument(
        "--image_normalization", choices=NORMALIZATIONS, default="imagenet", help="as for artEmisX_train.py"
    )
    parser.add_argument(
        "--batch_size", type=number(int, 1), default=32, help="images in a batch (default: %(default)s)"
    )
    parser.add_argument("--num_workers", type=number(int, 0), default=2, help="loader processes (default: %(default)s)")
    parser.add_argument(
        "--check", type=number(int, 0), default=16, help="images to encode again at the end (default: %(default)s)"
    )
    parser.add_argument("--estimate", action="store_true", help="only estimate size and time, from one batch")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    if args.tiny:
        args.clip_model, args.from_scratch = TINY_DEFAULTS["clip_model"], True
    check_place(args.out_dir / "header.json")
    names = list(dict.fromkeys(record["image_name"] for path in args.splits for record in read_records(path).values()))
    if not args.image_root.is_dir():
        raise InputError(f"--image_root {args.image_root}: no such folder; make it with preprocess/resize_wikiart.py")
    check_headers(args.image_root, names)

    import torch

    from utils.data.datasets import ImagePixels
    from utils.data.feature_cache import FeatureCache, fill, make_header, size_in_bytes, stat_images
    from utils.data.image_encoder_weights import load_image_encoder

    accelerator = start_accelerator()
    torch.manual_seed(args.seed)
    encoder = load_image_encoder(args.clip_model, fixed=True, from_scratch=args.from_scratch).to(accelerator.device)
    pixels = ImagePixels.for_encoder(args.image_root, encoder, args.image_normalization)
    header = make_header(args.clip_model, encoder, args.image_normalization)

    def encoded(image_names: list[str]):
        batch = torch.stack([image["pixels"] for image in pixels.load(image_names)])
        return encoder(batch.to(accelerator.device))

    if args.estimate:
        batch = names[: args.batch_size]
        encoded(batch)
        start = time.perf_counter()
        encoded(batch)
        seconds = (time.perf_counter() - start) / len(batch) * len(names) / accelerator.num_processes
        accelerator.print(
            f"{len(names)} images: {size_in_bytes(header, len(names)) / 1e9:.2f} GB, about {seconds / 60:.1f} minutes "
            f"on {accelerator.num_processes} x {accelerator.device.type}"
        )
        return 0

    files = stat_images(args.image_root, names)
    with accelerator.main_process_first():
        cache = FeatureCache.create(args.out_dir, header, names, args.image_root)
        if accelerator.is_main_process:
            forget_unfit(cache, files, args.image_root)
    todo = cache.missing(names)
    accelerator.wait_for_everyone()
    own = todo[accelerator.process_index :: accelerator.num_processes]
    hidden = not accelerator.is_main_process
    fill(cache, encoder, pixels, files, own, accelerator.device, args.batch_size, args.num_workers, hidden)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        sample = random.Random(args.seed).sample(names, min(args.check, len(names)))
        worst = max((difference(cache.load([name])[0], encoded([name])) for name in sample), default=0.0)
        print(f"{len(names)} images in {args.out_dir}, {len(todo)} of them new; {len(sample)} checked")
        if worst > RELATIVE_TOLERANCE:
            raise InputError(f"{args.out_dir}: differs from fresh features by {worst:.1e} of their norm; rebuild it")
    return 0


def check_headers(image_root: Path, names: list[str]) -> None:
    """Find every image and read its header before the first one is encoded.

    Raises:
        InputError: an image is missing or unreadable; the message names the first one.
    """
    for name in names:
        path = find_image(image_root, name)
        if path is None:
            raise InputError(
                f"{image_root}: no image {shorten(name)}; build the splits with --image_root {image_root}, which finds "
                "other spellings of the names"
            )
        image_size(path)


def forget_unfit(cache, files: dict, image_root: Path) -> None:
    """Mark images as not encoded if their file has changed or their features are damaged.

    Raises:
        InputError: images differ, and their folder is not the one that the cache was made from.
    """
    changed = cache.changed(files, image_root)
    if changed and not cache.made_from(image_root):
        raise InputError(
            f"{cache.folder}: was made from images in {cache.header['image_root']}; those in {image_root} differ, "
            f"e.g. {changed[0]}; give another --out_dir"
        )
    cache.forget(changed)
    damaged = cache.damaged(list(files))
    if damaged:
        print(f"{cache.folder}: the features of {len(damaged)} images are damaged, e.g. {damaged[0]}: recomputing them")
        cache.forget(damaged)


def difference(cached: dict, fresh) -> float:
    """The relative difference |cached - fresh| / |fresh|, the larger one of class token and grid."""
    pairs = ((cached["cls"], fresh.cls[0].cpu()), (cached["grid"], fresh.grid[0].cpu()))
    return max(float((stored.float() - features).norm() / features.norm()) for stored, features in pairs)


if __name__ == "__main__":
    prepare_script()
    sys.exit(run_script(main))
