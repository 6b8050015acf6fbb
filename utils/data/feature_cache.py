"""A cache of the fixed image encoder's features: one float16 array on disk, with a checksum per row.

    header.json     everything the features depend on (see `make_header`), SHA-256 of the index and of the header
    index.json      image names, in the order of the rows
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
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from models.image_encoder import ImageEncoder, ImageFeatures
from utils.data.image_folder import Picture
from utils.errors import InputError
from utils.files import read_json, sha256, write_json

FORMAT = 2
LOCK = ".lock"  # of processes that write
# the fields of CLIP's config that change its features
ENCODER_FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
ROW = np.dtype([("written", "u1"), ("checksum", "<u4"), ("size", "<i8"), ("mtime_ns", "<i8"), ("sha256", "u1", 32)])
REMEDY = "run preprocess/cache_features.py again"
ANEW = "remove the folder and rebuild it with preprocess/cache_features.py"


def encoder_sha256(encoder: ImageEncoder) -> str:
    """SHA-256 of an encoder's weights, including their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encoder_config(encoder: ImageEncoder) -> dict:
    """The fields of an encoder's config that change its features: ENCODER_FIELDS, with further ones for other kinds."""
    config = encoder.vision.config
    further = () if config.model_type == "clip_vision_model" else encoder.kind.fields
    return {field: getattr(config, field, None) for field in dict.fromkeys((*ENCODER_FIELDS, *further))}


def make_header(name: str, encoder: ImageEncoder, mean: tuple[float, ...], std: tuple[float, ...]) -> dict:
    """The header of a cache: everything its features depend on except the image files, which rows.bin records."""
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

    A row's checksum is verified the first time that a run, including its loader processes, reads the row. Several
    processes may write at the same time. Each row is written once, and marked as written after its features.

    Args:
        folder: folder of an existing cache.
        header: expected header (see `make_header`); None accepts any.
        writable: allow writing rows. A damaged row is then reported and marked as not written, so that it can be
            written again. If False, reading a damaged row is an error, and the folder may be read-only.

    Raises:
        InputError: there is no cache, it is damaged, or it is for another encoder, transform or format.
    """

    def __init__(self, folder: str | Path, header: dict | None = None, writable: bool = False):
        self.folder, self.writable = Path(folder), writable
        self.header, names = _read_description(self.folder, header)
        self.row = {name: row for row, name in enumerate(names)}
        self._shape = (self.header["tokens"], self.header["width"])
        self._bytes = 2 * self._shape[0] * self._shape[1]
        # verified checksums, in memory shared with the loader processes, so that a run verifies each row once
        self._shared = torch.full([len(names)], -1, dtype=torch.int64).share_memory_()
        self._open()

    def _open(self) -> None:
        self._checked = self._shared.numpy()
        self._told = False
        self._files = {}
        for file, bytes_per_image in (("features.f16", self._bytes), ("rows.bin", ROW.itemsize)):
            path, size = self.folder / file, bytes_per_image * len(self.row)
            if not path.is_file() or path.stat().st_size != size:
                raise InputError(f"{path}: missing or not {size} bytes long; {ANEW}")
            self._files[file] = open(path, "r+b" if self.writable else "rb", buffering=0)

    @classmethod
    def create(
        cls, folder: str | Path, header: dict, names: list[str], image_root: str | Path, ours: bool = False
    ) -> "FeatureCache":
        """Open the cache in `folder` for writing; create an empty cache if there is none.

        Args:
            folder: folder of the cache.
            header: what the cache must be for (see `make_header`).
            names: image names, one per row.
            image_root: the folder that contains the images.
            ours: no user chose this folder; an unusable cache in it is then reported and replaced instead of refused.

        Raises:
            InputError: the cache is for another encoder or other images, or the disk is too small.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if (folder / "header.json").is_file():
                try:
                    cache = cls(folder, header, writable=True)
                    if missing := [name for name in names if name not in cache.row]:
                        raise InputError(
                            f"{folder}: was made for other images, without {missing[0]}; give another folder"
                        )
                    return cache
                except InputError as error:
                    if not ours:
                        raise
                    print(f"{folder}: cannot be used; recreating it ({error})", flush=True)
            _make(folder, header, names, image_root)
            return cls(folder, header, writable=True)

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_files", "_checked")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __getitem__(self, image_name: str) -> dict[str, Tensor]:
        features = self.read(image_name)
        if features is None:
            raise InputError(f"{self.folder}: holds no features of {image_name}; {REMEDY} on this split")
        return features

    def read(self, image_name: str) -> dict[str, Tensor] | None:
        """The features of an image; None if they are not written, or if they are damaged and the cache is `writable`.

        Damaged features are then marked as not written.

        Raises:
            InputError: the features are damaged and the cache is not `writable`.
        """
        if image_name not in self.row:
            return None
        try:
            tokens = self._read(image_name)
        except InputError:
            if not self.writable:
                raise
            self._forget_damaged(image_name)
            return None
        if tokens is None:
            return None
        features = torch.from_numpy(tokens)
        return {"cls": features[0], "grid": features[1:]}

    def missing(self, names: list[str]) -> list[str]:
        """The names in `names` that have no features in the cache."""
        written = self._rows()["written"]
        return [name for name in names if name not in self.row or not written[self.row[name]]]

    def changed(self, pictures: dict[str, Picture], image_root: str | Path) -> list[str]:
        """The names of cached images whose file differs from the one that the features were computed from.

        A file in the same folder with the same size and modification time counts as unchanged. If only the folder or
        the modification time differs, as after copying a folder, the SHA-256 of the files are compared.
        """
        names = [name for name in pictures if name in self.row]
        rows = self._rows()[[self.row[name] for name in names]]
        sizes, mtimes = (
            np.array([getattr(pictures[name], field) for name in names], np.int64) for field in ("size", "mtime_ns")
        )
        other_size = (rows["written"] != 0) & (rows["size"] != sizes)
        same_size = (rows["written"] != 0) & (rows["size"] == sizes)
        if self.made_from(image_root):
            same_size &= rows["mtime_ns"] != mtimes
        changed = set(compress(names, other_size))
        to_compare = list(compress(names, same_size))
        with ThreadPoolExecutor() as pool:
            hashes = pool.map(lambda name: sha256(pictures[name].path), to_compare)
            for name, found, row in zip(to_compare, hashes, rows[same_size], strict=True):
                if found != row["sha256"].tobytes().hex():
                    changed.add(name)
        return [name for name in pictures if name in changed]

    def made_from(self, image_root: str | Path) -> bool:
        """Whether the cache was made from the images in this folder."""
        return self.header["image_root"] == real_path(image_root)

    def forget(self, names: list[str]) -> None:
        """Mark these images as not written."""
        with FileLock(self.folder / LOCK):
            for name in names:
                self._write("rows.bin", self.row[name] * ROW.itemsize, bytes(ROW.itemsize))

    def write(self, names: list[str], pictures: dict[str, Picture | None], features: ImageFeatures) -> ImageFeatures:
        """Store the features of some images.

        Rows that another process has already written are kept.

        Args:
            names: image names, in the order of `features`.
            pictures: image name -> the file that the features were computed from; None if that file has changed since;
                the features are then not stored.
            features: cls [B, D] and grid [B, G, D].

        Returns:
            the features as they will be read back, rounded to float16.
        """
        tokens = torch.cat([features.cls[:, None], features.grid], dim=1).to(torch.float16)
        values = tokens.cpu().numpy()
        hashes = {name: bytes.fromhex(sha256(pictures[name].path)) for name in names if pictures[name]}
        found_there = False
        with FileLock(self.folder / LOCK):
            for index, name in enumerate(names):
                try:
                    kept = self._read(name)
                except InputError:  # damaged: write it again
                    kept = None
                if kept is not None:
                    values[index], found_there = kept, True
                elif name in hashes:
                    self._store(name, values[index], pictures[name], hashes[name])
        if found_there:
            tokens = torch.from_numpy(values).to(tokens.device)
        return ImageFeatures(tokens[:, 0], tokens[:, 1:])

    def _rows(self) -> np.ndarray:
        content = os.pread(self._files["rows.bin"].fileno(), len(self.row) * ROW.itemsize, 0)
        return np.frombuffer(content, ROW)

    def _read(self, name: str) -> np.ndarray | None:
        """Read a row, float16 [1 + G, D]; None if it is not written, InputError if it is damaged."""
        row = self.row[name]
        content = os.pread(self._files["rows.bin"].fileno(), ROW.itemsize, row * ROW.itemsize)
        if content[:1] == b"\0":
            return None
        tokens = np.empty(self._shape, np.float16)
        length = os.preadv(self._files["features.f16"].fileno(), [tokens], row * self._bytes)
        kept = int.from_bytes(content[1:5], "little")
        if length != self._bytes or self._checked[row] != kept:
            if length != self._bytes or kept != _checksum(name, content, tokens):
                raise InputError(
                    f"{self.folder}/features.f16: row {row}, {name}, is damaged (its checksum differs); {REMEDY}, "
                    "which recomputes damaged rows"
                )
            self._checked[row] = kept
        return tokens

    def _store(self, name: str, tokens: np.ndarray, picture: Picture, picture_sha256: bytes) -> None:
        row = np.zeros((), ROW)
        row["written"], row["size"], row["mtime_ns"] = 1, picture.size, picture.mtime_ns
        row["sha256"] = np.frombuffer(picture_sha256, np.uint8)
        row["checksum"] = _checksum(name, row.tobytes(), tokens)
        self._write("features.f16", self.row[name] * self._bytes, tokens)
        self._write("rows.bin", self.row[name] * ROW.itemsize, row.tobytes())

    def _forget_damaged(self, name: str) -> None:
        with FileLock(self.folder / LOCK):
            try:  # read again: another process may have repaired the row
                self._read(name)
            except InputError:
                self._write("rows.bin", self.row[name] * ROW.itemsize, bytes(ROW.itemsize))
                if not self._told:
                    also = "recomputing them, and any others found damaged"
                    print(f"{self.folder}: the features of {name} are damaged: {also}", flush=True)
                self._told = True

    def _write(self, file: str, offset: int, content: bytes | np.ndarray) -> None:
        left = memoryview(content).cast("B")
        while left:
            try:
                written = os.pwrite(self._files[file].fileno(), left, offset)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.folder / file)) from None
            left, offset = left[written:], offset + written


def _read_description(folder: Path, expected: dict | None) -> tuple[dict, list[str]]:
    """Read and check the header and the image names of a cache."""
    path = folder / "header.json"
    if not path.is_file():
        raise InputError(f"{folder}: no feature cache; make one with preprocess/cache_features.py")
    header = read_json(path)
    version = header.get("format") if isinstance(header, dict) else None
    if version != FORMAT:
        raise InputError(
            f"{folder}: its format is {str(version)[:40]}, this program's is {FORMAT}: made by another version; {ANEW}"
        )
    if header.get("sha256") != header_sha256(header) or not {"image_root", "index_sha256"} <= header.keys():
        raise InputError(f"{path}: damaged or altered (its SHA-256 differs); {ANEW}")
    found = _flat(header)
    for name, value in _flat(expected or {}).items():
        if name != "encoder" and found.get(name) != value:  # the same weights can have several names
            raise InputError(
                f"{folder}: its {name} is {found.get(name)}, this run's is {value}: not the features this run needs; "
                "make another cache with preprocess/cache_features.py"
            )
    path = folder / "index.json"
    if not path.is_file() or sha256(path) != header["index_sha256"]:
        raise InputError(f"{path}: missing, damaged or altered (its SHA-256 differs); {ANEW}")
    names = read_json(path)
    if not isinstance(names, list) or len({name for name in names if isinstance(name, str)}) != len(names):
        raise InputError(f"{path}: a list of different image names was expected; {ANEW}")
    return header, names


def _make(folder: Path, header: dict, names: list[str], image_root: str | Path) -> None:
    """Create an empty cache. Existing files are truncated, not replaced: another process may have them open."""
    (folder / "header.json").unlink(missing_ok=True)
    sizes = {"features.f16": header["tokens"] * header["width"] * 2 * len(names), "rows.bin": ROW.itemsize * len(names)}
    for file in sizes:
        with open(folder / file, "ab") as handle:
            handle.truncate(0)
    needed, free = sum(sizes.values()), shutil.disk_usage(folder).free
    if free < needed * 1.01:
        raise InputError(
            f"{folder}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give a folder on another disk"
        )
    for file, size in sizes.items():
        os.truncate(folder / file, size)
    write_json(folder / "index.json", names)
    header = header | {"image_root": real_path(image_root), "index_sha256": sha256(folder / "index.json")}
    # last, so that a header means a complete cache
    write_json(folder / "header.json", header | {"sha256": header_sha256(header)}, indent=1)


def header_sha256(header: dict) -> str:
    """SHA-256 of a header's fields, without the field "sha256"."""
    fields = {name: value for name, value in header.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def real_path(folder: str | Path) -> str:
    """The folder's path with links resolved; bytes that are not UTF-8 are escaped so that JSON can store the path."""
    return os.path.realpath(folder).encode(errors="backslashreplace").decode()


def _flat(header: dict) -> dict:
    """{"transform": {"size": 224}} -> {"transform.size": 224}"""
    flat = {}
    for name, value in header.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _checksum(name: str, row: bytes, tokens: np.ndarray) -> int:
    """CRC-32 of a row's content and its image name; the name reveals a row that is stored in the wrong place."""
    return zlib.crc32(tokens, zlib.crc32(row[5:], zlib.crc32(name.encode(errors="surrogatepass"))))
