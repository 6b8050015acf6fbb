"""What the tests of this folder share: ArtEmis' files in small, and ways to write tables and images."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from preprocess import prepare_artemis
from tests.conftest import REPOSITORY

ARTEMIS = REPOSITORY / "tests/data/artemis"  # a small release, and what ArtEmis' own code makes of it
RELEASE = ARTEMIS / "artemis_dataset_release_v0.csv"
MINI, NETS = "preprocess_data_mini/artemis_preprocessed.csv", "preprocess_data_nets/artemis_preprocessed.csv"
HISTOGRAMS = "preprocess_data_mini/image-emotion-histogram.csv"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def write_table(
    path: Path, rows: Iterable[Sequence], header: Sequence[str], encoding: str = "utf-8", first: str = "", **dialect
) -> Path:
    """`first` comes before the header."""
    with open(path, "w", newline="", encoding=encoding) as file:
        file.write(first)
        csv.writer(file, **dialect).writerows([header, *rows])
    return path


def save_image(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 60)).save(path)
    return path


def prepare(release: pd.DataFrame | Path, folder: Path, **flags: str | Path) -> Path:
    """Run prepare_artemis.py in one process; returns the folder with its results."""
    if isinstance(release, pd.DataFrame):
        release.to_csv(folder / "release.csv", index=False)
        release = folder / "release.csv"
    flags = {"release_csv": release, "out_dir": folder, "jobs": "1"} | flags
    prepare_artemis.main([str(word) for name, value in flags.items() for word in (f"--{name}", value)])
    return folder
