"""A cache of the fixed image encoder's features: one float16 array on disk, with a checksum per row.

    header.json     everything the features depend on (see `make_header`), the image names in the order of the rows, and a
                    SHA-256 of these fields
    features.f16    float16 [images, 1 + G, D]: the class token, then the patch grid
    rows.bin        ROW [images]: whether the row is written, its checksum, and the image file it was computed from

At ArtEmis' size (80 031 images of 197 x 768) the cache takes 24 GB. Files are accessed with `pread` and `pwrite` and
not memory-mapped: with a memory map, a full disk or a truncated file would end the process by SIGBUS instead of an
error.
"""

import hashlib
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.image_encoder import ImageEncoder
from utils.data.datasets import ImagePixels, loader_processes, worker_errors
from utils.data.images import find_image
from utils.errors import InputError
from utils.files import read_json, sha256, write_json

FORMAT = 3
ROW = np.dtype([("written", "u1"), ("checksum", "<u4"), ("size", "<i8"), ("mtime_ns", "<i8"), ("sha256", "u1", 32)])
REMEDY = "run preprocess/cache_features.py again"
FROM_SCRATCH = "remove the folder and make it again with preprocess/cache_features.py"
# the fields of CLIP's config that change its features
ENCODER_FIELDS = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)


class ImageFile(NamedTuple):
    """State of an image file: path, size in bytes, modification time in ns."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> "ImageFile":
        """The current state of a file."""
        status = os.stat(path)
        return cls(path, status.st_size, status.st_mtime_ns)


def stat_images(root: Path, names: list[str]) -> dict[str, ImageFile]:
    """Image name -> state of its file, for the images that exist under `root`."""
    found = {name: find_image(root, name) for name in names}
    return {name: ImageFile.at(path) for name, path in found.items() if path is not None}


def encoder_sha256(encoder: ImageEncoder) -> str:
    """SHA-256 of an encoder's weights, including their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoder_config(encoder: ImageEncoder) -> dict:
    """The fields of an encoder's config that change its features: ENCODER_FIELDS, and all known fields for kinds other than CLIP."""
    config = encoder.vision.config
    further = () if config.model_type == "clip_vision_model" else encoder.kind.fields
    return {field: getattr(config, field, None) for field in dict.fromkeys((*ENCODER_FIELDS, *further))}


def make_header(name: str, encoder: ImageEncoder, normalization: str) -> dict:
    """The header of a cache: everything its features depend on except the image files, which rows.bin records."""
    mean, std = encoder.statistics(normalization)
    filtering = Image.Resampling(encoder.preparation.resample).name.lower()
    return {
        "format": FORMAT,
        "encoder": name,
        "encoder_sha256": encoder_sha256(encoder),
        "encoder_config": encoder_config(encoder),
        "transform": {
            "size": encoder.image_size,
            "mean": list(mean),
            "std": list(std),
            "resize": f"to a square, {filtering} with antialiasing, 8 bits",
        },
        "precision": "float32",
        "dtype": "float16",
        "tokens": encoder.patches + 1,
        "width": encoder.width,
    }


def size_in_bytes(header: dict, images: int) -> int:
    """Disk space in bytes of a cache of `images` images."""
    return images * (header["tokens"] * header["width"] * 2 + ROW.itemsize)


class FeatureCache:
    """image name -> {"cls": float16 [D], "grid": float16 [G, D]}; one contiguous read per image.

    A process verifies a row's checksum the first time that it reads the row. A row is marked as written after its
    features, so that several processes can write different rows.

    Args:
        folder: folder of an existing cache.
        header: expected header (see `make_header`); None accepts any.
        writable: whether rows will be written; if not, the folder may be read-only.

    Raises:
        InputError: there is no cache, it is damaged, or it is for another encoder or transform.
    """

    def __init__(self, folder: str | Path, header: dict | None = None, writable: bool = False):
        self.folder, self.writable = Path(folder), writable
        self.header = _read_header(self.folder, header)
        self.row = {name: row for row, name in enumerate(self.header["images"])}
        self._shape = (self.header["tokens"], self.header["width"])
        self._bytes = 2 * self._shape[0] * self._shape[1]
        self._open()

    def _open(self) -> None:
        self._verified = np.zeros(len(self.row), bool)
        self._files = {}
        for file, bytes_per_image in (("features.f16", self._bytes), ("rows.bin", ROW.itemsize)):
            path, size = self.folder / file, bytes_per_image * len(self.row)
            if not path.is_file() or path.stat().st_size != size:
                raise InputError(f"{path}: missing or not {size} bytes long; {FROM_SCRATCH}")
            self._files[file] = open(path, "r+b" if self.writable else "rb", buffering=0)

    @classmethod
    def create(cls, folder: str | Path, header: dict, names: list[str], image_root: Path) -> "FeatureCache":
        """Open the cache in `folder` for writing; create an empty cache if there is none.

        Raises:
            InputError: the cache is for another encoder or other images, or the disk is too small.
        """
        folder = Path(folder)
        if not (folder / "header.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            whole = header | {"image_root": real_path(image_root), "images": names}
            needed, free = size_in_bytes(header, len(names)), shutil.disk_usage(folder).free
            if free < needed * 1.01:
                raise InputError(
                    f"{folder}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give a folder on another disk"
                )
            rows = len(names) * ROW.itemsize
            for file, size in (("features.f16", needed - rows), ("rows.bin", rows)):
                with open(folder / file, "wb") as handle:
                    handle.truncate(size)
            # the header comes last, so that a folder with a header is a complete cache
            write_json(folder / "header.json", whole | {"sha256": header_sha256(whole)}, indent=1)
        cache = cls(folder, header, writable=True)
        if lacking := [name for name in names if name not in cache.row]:
            raise InputError(f"{folder}: was made for other images, without {lacking[0]}; give another folder")
        return cache

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_verified")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        """The features of the images of one batch.

        Raises:
            InputError: the cache lacks an image, or its features are damaged.
        """
        loaded = []
        for name in image_names:
            tokens = self.read(name) if name in self.row else None
            if tokens is None:
                raise InputError(f"{self.folder}: holds no features of {name}; {REMEDY} on this split")
            loaded.append({"cls": tokens[0], "grid": tokens[1:]})
        return loaded

    def read(self, name: str) -> Tensor | None:
        """A row, float16 [1 + G, D]; None if it is not written, InputError if it is damaged."""
        row = self.row[name]
        record = os.pread(self._files["rows.bin"].fileno(), ROW.itemsize, row * ROW.itemsize)
        if record[:1] == b"\0":
            return None
        tokens = np.empty(self._shape, np.float16)
        length = os.preadv(self._files["features.f16"].fileno(), [tokens], row * self._bytes)
        if not self._verified[row]:
            if length != self._bytes or int.from_bytes(record[1:5], "little") != _checksum(name, record, tokens):
                raise InputError(
                    f"{self.folder}/features.f16: row {row}, {name}, is damaged (its checksum differs); {REMEDY}, "
                    "which recomputes damaged rows"
                )
            self._verified[row] = True
        return torch.from_numpy(tokens)

    def missing(self, names: list[str]) -> list[str]:
        """The names in `names` that have no features in the cache."""
        written = self._rows()["written"]
        return [name for name in names if name not in self.row or not written[self.row[name]]]

    def changed(self, files: dict[str, ImageFile], image_root: Path) -> list[str]:
        """The names of cached images whose file differs from the one that the features were computed from.

        A file in the same folder with the same size and modification time counts as unchanged. If only the folder or
        the modification time differs, as after copying a folder, the SHA-256 of the files are compared.
        """
        rows, same_folder = self._rows().tolist(), self.made_from(image_root)
        changed, hashes = set(), {}
        for name, file in files.items():
            written, _, size, mtime_ns, digest = rows[self.row[name]] if name in self.row else (0,) * 5
            if written and size != file.size:
                changed.add(name)
            elif written and not (same_folder and mtime_ns == file.mtime_ns):
                hashes[name] = bytes(digest).hex()
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda name: sha256(files[name].path), hashes)
            changed |= {name for name, digest in zip(hashes, found, strict=True) if digest != hashes[name]}
        return [name for name in files if name in changed]

    def made_from(self, image_root: Path) -> bool:
        """Whether the cache was made from the images in this folder."""
        return self.header["image_root"] == real_path(image_root)

    def damaged(self, names: list[str]) -> list[str]:
        """The names in `names` whose features are damaged; all of these are read."""
        found = []
        for name in names:
            try:
                self.read(name)
            except InputError:
                found.append(name)
        return found

    def forget(self, names: list[str]) -> None:
        """Mark these images as not written."""
        for name in names:
            self._write("rows.bin", self.row[name] * ROW.itemsize, bytes(ROW.itemsize))

    def write(self, name: str, tokens: np.ndarray, file: ImageFile) -> None:
        """Store the features of an image, float16 [1 + G, D], computed from `file`."""
        row = np.zeros((), ROW)
        row["written"], row["size"], row["mtime_ns"] = 1, file.size, file.mtime_ns
        row["sha256"] = np.frombuffer(bytes.fromhex(sha256(file.path)), np.uint8)
        row["checksum"] = _checksum(name, row.tobytes(), tokens)
        self._write("features.f16", self.row[name] * self._bytes, tokens)
        self._write("rows.bin", self.row[name] * ROW.itemsize, row.tobytes())

    def _rows(self) -> np.ndarray:
        content = os.pread(self._files["rows.bin"].fileno(), len(self.row) * ROW.itemsize, 0)
        return np.frombuffer(content, ROW)

    def _write(self, file: str, offset: int, content: bytes | np.ndarray) -> None:
        left = memoryview(content).cast("B")
        while left:  # a disk that is nearly full takes a part
            try:
                written = os.pwrite(self._files[file].fileno(), left, offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.folder / file)) from None
            left, offset = left[written:], offset + written


@worker_errors()
def fill(
    cache: FeatureCache,
    encoder: ImageEncoder,
    pixels: ImagePixels,
    files: dict[str, ImageFile],
    names: list[str],
    device: torch.device,
    batch_size: int = 32,
    num_workers: int = 0,
    hidden: bool = False,
) -> None:
    """Encode images and store their features; an interrupted run continues with the images that are left.

    Args:
        encoder: a fixed one, which computes in float32.
        files: image name -> its file before the images are read.
        names: the images to encode.
        hidden: show no progress.

    Raises:
        InputError: an image is missing or unreadable, or has changed while it was encoded.
    """
    loader = DataLoader(names, batch_size, collate_fn=partial(_load_pixels, pixels), **loader_processes(num_workers))
    for batch_names, batch in tqdm(loader, "encoding images", unit="batch", disable=hidden):
        features = encoder(batch.to(device))
        tokens = torch.cat([features.cls[:, None], features.grid], dim=1).to(torch.float16).cpu().numpy()
        for name, image_tokens in zip(batch_names, tokens, strict=True):
            if ImageFile.at(files[name].path) == files[name]:
                cache.write(name, image_tokens, files[name])
    if left := cache.missing(names):
        raise InputError(f"{pixels.root}: {len(left)} images changed during the run, e.g. {left[0]}; start again")


def _load_pixels(pixels: ImagePixels, names: list[str]) -> tuple[list[str], Tensor]:
    return names, torch.stack([image["pixels"] for image in pixels.load(names)])


def _read_header(folder: Path, expected: dict | None) -> dict:
    path = folder / "header.json"
    if not path.is_file():
        raise InputError(f"{folder}: is not a feature cache; make one with preprocess/cache_features.py")
    header = read_json(path)
    if not isinstance(header, dict) or header.pop("sha256", None) != header_sha256(header):
        raise InputError(f"{path}: damaged or modified (its SHA-256 differs); {FROM_SCRATCH}")
    found = _flatten(header)
    for name, value in _flatten(expected or {}).items():
        if name != "encoder" and found.get(name) != value:  # the same weights can have several names
            raise InputError(
                f"{folder}: its {name} is {found.get(name)}, this run's is {value}: not the features this run needs; "
                "make another cache with preprocess/cache_features.py"
            )
    return header


def header_sha256(header: dict) -> str:
    """SHA-256 of a header's fields."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def real_path(folder: str | Path) -> str:
    """The folder's path with links resolved; bytes that are not UTF-8 are escaped so that JSON can store the path."""
    return os.path.realpath(folder).encode(errors="backslashreplace").decode()


def _flatten(header: dict) -> dict:
    """{"transform": {"size": 224}} -> {"transform.size": 224}"""
    flat = {}
    for name, value in header.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _checksum(name: str, row: bytes, tokens: np.ndarray) -> int:
    """CRC-32 of a row's content and its image name; the name reveals a row that is stored in the wrong place."""
    return zlib.crc32(tokens, zlib.crc32(row[5:], zlib.crc32(name.encode())))
