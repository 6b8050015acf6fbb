"""Step 1: shrink the WikiArt images so that the longer side is at most 600 pixels.

    python preprocess/resize_wikiart.py --wikiart_dir wikiart \\
        --out_dir data/artEmis/wikiart_rescaled_max_size_to_600px_same_aspect_ratio

The aspect ratio is kept and no image is enlarged. The results are RGB JPEG files, upright by default. An interrupted
run continues where it stopped and leaves no incomplete files. Unreadable files do not stop the run; a manifest reports
them. With --release_csv, only annotated artworks are resized, and files are named as in the annotations. Otherwise all
images under --wikiart_dir are resized.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.csv_tables import read_table
from preprocess.image_manifest import (
    ARCHIVE_SIZE,
    ONE_PER_ARTWORK,
    ManifestRow,
    manifest_rows,
    measure,
    unreadable,
    write_manifest,
)
from preprocess.image_names import ImageFolder, broken_link
from utils.data.images import EXTENSIONS, image_files, image_size, is_system_file, open_image
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import atomic_path, check_place
from utils.processes import cores, process_pool

# A JPEG with more pixels is decoded at a fraction of its size, which saves most of the memory.
MANY_PIXELS = 25_000_000


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--wikiart_dir",
        type=Path,
        required=True,
        help="folder of <art_style>/<painting>.jpg, or the unpacked archive",
    )
    parser.add_argument(
        "--out_dir", type=Path, required=True, help="where the shrunk images go, in the same subfolders"
    )
    parser.add_argument(
        "--release_csv", type=Path, nargs="*", default=[], help="resize only the artworks annotated in these files"
    )
    parser.add_argument(
        "--max_size", type=number(int, 1), default=600, help="longer side in pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--exif_orientation",
        choices=("apply", "ignore"),
        default="apply",
        help="turn images upright as their EXIF data say (default), or leave their pixels as they are stored, as the "
        "published code does; into another --out_dir",
    )
    parser.add_argument(
        "--quality",
        type=number(int, 90, 100),
        default=95,
        help="JPEG quality, 90 to 100; images of the right size in --out_dir are kept as they are (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=number(int, 1), default=cores(), help="processes (default: all cores)")
    parser.add_argument("--require_images", action="store_true", help="an annotated artwork without image is an error")
    parser.add_argument("--manifest", type=Path, help="csv of all images (default: manifest.csv in --out_dir)")
    return parser


def annotated_names(release_csvs: list[Path]) -> list[str]:
    """The image names of the release files' artworks, "<art_style>/<painting>.jpg", sorted."""
    names: set[str] = set()
    for path in release_csvs:
        artworks = read_table(path, ["art_style", "painting"], "give ArtEmis' release csv").drop_duplicates()
        names |= set(artworks["art_style"] + "/" + artworks["painting"] + ".jpg")
    return sorted(names)


def folder_of_styles(root: Path) -> Path:
    """The folder whose folders contain images. Unpacking the archive can nest it (`WikiArt/wikiart/wikiart/`)."""
    level = [root] if root.is_dir() else []
    for _ in range(4):
        below = {folder: sorted(path for path in folder.iterdir() if path.is_dir()) for folder in level}
        for folder, styles in below.items():
            if any(map(_contains_image, (folder, *styles))):
                return folder
        level = [path for styles in below.values() for path in styles if not is_system_file(path.name)]
    return root


def _contains_image(folder: Path) -> bool:
    return any(path.suffix.lower() in EXTENSIONS and not is_system_file(path.name) for path in folder.iterdir())


def images_under(root: Path, except_under: Path) -> Iterator[ManifestRow]:
    """A manifest row for every image file under `root`, sorted.

    If two files differ only in their extension, the second is reported as ambiguous. Broken links are reported as
    missing. Files under `except_under` are left out.
    """
    taken: dict[Path, str] = {}
    except_under = except_under.resolve()
    for path in image_files(root):
        if path.parent.resolve().is_relative_to(except_under):
            continue
        name = path.relative_to(root).with_suffix(".jpg")
        if not os.path.exists(path):
            yield ManifestRow(str(path.relative_to(root)), problem=f"missing ({broken_link(path)})")
        elif name in taken:
            yield ManifestRow(str(path.relative_to(root)), problem=f"ambiguous (same name as {taken[name]})")
        else:
            taken[name] = path.name
            yield ManifestRow(name.as_posix(), str(path))


def target_size(width: int, height: int, max_size: int) -> tuple[int, int]:
    """Width and height in pixels so that the longer side is at most `max_size`; each side has at least one pixel."""
    scale = min(1, max_size / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize(row: ManifestRow, out_dir: Path, max_size: int, quality: int, apply_orientation: bool = True) -> ManifestRow:
    """Resize one image unless this has been done; return its manifest row, which names a problem of the source."""
    row = measure(row, apply_orientation=apply_orientation)
    if not row.width:
        return row
    target, size = out_dir / row.image_name, target_size(row.width, row.height, max_size)
    if target.is_file():
        try:
            if image_size(target) == size:
                return row
        except InputError:
            pass  # damaged: resize again
    try:
        draft_size = 2 * max_size if row.width * row.height > MANY_PIXELS else None
        image = open_image(row.found_path, draft_size, apply_orientation)
    except InputError as error:
        return unreadable(row, error)
    with atomic_path(target) as temporary:
        image.resize(size, Image.Resampling.LANCZOS).save(temporary, "JPEG", quality=quality)
    return row


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    folder = ImageFolder(folder_of_styles(args.wikiart_dir))
    if args.out_dir.resolve() == folder.root.resolve():
        raise InputError("--out_dir is --wikiart_dir, so the originals would be overwritten; give another folder")
    if args.require_images and not args.release_csv:
        raise InputError("--require_images needs --release_csv, which lists the annotated artworks")
    if args.release_csv:
        rows, complete = manifest_rows(folder, annotated_names(args.release_csv)), ONE_PER_ARTWORK
    else:
        rows = list(images_under(folder.root, except_under=args.out_dir))
        complete = f"the complete archive has {ARCHIVE_SIZE} images"
    if not any(row.found_path for row in rows):
        raise InputError(f"{folder.root}: contains none of the images; give the folder of <art_style>/<painting>.jpg")

    path = args.manifest or args.out_dir / "manifest.csv"
    check_place(path)
    work = partial(
        resize,
        out_dir=args.out_dir,
        max_size=args.max_size,
        quality=args.quality,
        apply_orientation=args.exif_orientation == "apply",
    )
    with process_pool(args.jobs) as pool:
        results = pool.map(work, rows, chunksize=16)
        counts = write_manifest(path, tqdm(results, total=len(rows), desc="resize", unit="image", mininterval=1))
    print(counts.line(path, complete))
    if args.require_images and counts.problems["missing"]:
        raise InputError(f"{folder.root}: {counts.problems['missing']} artworks have no image, see {path}")


if __name__ == "__main__":
    sys.exit(run_script(main))
