"""Make the demo's data: generated pictures in ArtEmis' layout, processed by the scripts of `preprocess/`."""

import os
import shutil
from pathlib import Path

from preprocess import build_annotations, build_splits, make_demo_data, resize_wikiart
from utils.constants import IMAGE_FOLDERS


def make_demo(folder: Path, pictures: int | None = None) -> None:
    """Make the demo's dataset in `folder`, unless the folder exists. The folder appears only when it is complete.

    Args:
        folder: where the dataset goes.
        pictures: number of pictures; None: make_demo_data's default.
    """
    if folder.is_dir():
        return
    print(f"making the demo's dataset in {folder}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        count = [] if pictures is None else ["--pictures", str(pictures)]
        make_demo_data.main(["--out_dir", str(temporary), *count])
        images = temporary / IMAGE_FOLDERS[0]
        resize_wikiart.main(["--wikiart_dir", str(temporary / "wikiart_originals"), "--out_dir", str(images)])
        build_splits.main(["--artemis_dir", str(temporary), "--out_dir", str(temporary), "--image_root", str(images)])
        splits = [str(temporary / f"artEmisX_{split}.json") for split in ("val", "test")]
        build_annotations.main([*splits, "--out_dir", str(temporary / "annotations")])
        try:
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another run has made the same data meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
