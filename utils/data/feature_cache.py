"""Features of the fixed image encoder, computed once: one float16 array on disk, each row with a checksum.

    header.json     what the features depend on (see `make_header`), SHA-256 of the index and of the header itself
    index.json      image names, in the order of the rows
    features.f16    float16 [images, 1 + G, D]: the class token, then the patch grid
    rows.bin        ROW [images]: whether the row is written, its checksum, and which picture it was computed from

At ArtEmis' size (80 031 images of 197 x 768) that is 24 GB. Files are read and written by `pread` and `pwrite`, not
mapped: a full disk or a file cut short is then an error, where a map ends the process by SIGBUS.
"""

import hashlib
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.image_encoder import ImageEncoder, ImageFeatures
from utils.errors import InputError
from utils.files import folder_lock, read_json, sha256, write_json

FORMAT = 2
# fields of a vision transformer's config that its features depend on
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
ANEW = "remove the folder and make it anew with preprocess/cache_features.py"


class Picture(NamedTuple):
    """An image file as it was when it was looked at: size in bytes, time of change in ns."""

    path: Path
    size: int
    mtime_ns: int


def encoder_sha256(encoder: ImageEncoder) -> str:
    """SHA-256 of an encoder's weights, names and shapes included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_header(name: str, encoder: ImageEncoder, mean: tuple[float, ...], std: tuple[float, ...]) -> dict:
    """What a cache's features depend on, the pictures apart: they are in rows.bin."""
    config = encoder.vision.config
    return {
        "format": FORMAT,
        "encoder": name,
        "encoder_sha256": encoder_sha256(encoder),
        "encoder_config": {field: getattr(config, field, None) for field in ENCODER_FIELDS},
        "transform": {
            "size": config.image_size,
            "mean": list(mean),
            "std": list(std),
            "resize": "to a square, bilinear with antialiasing, 8 bits",
        },
        "precision": "float32",
        "dtype": "float16",
        "tokens": (config.image_size // config.patch_size) ** 2 + 1,
        "width": config.hidden_size,
    }


def size_in_bytes(header: dict, images: int) -> int:
    """Disk space of a cache of so many images."""
    return images * (header["tokens"] * header["width"] * 2 + ROW.itemsize)


class FeatureCache:
    """image name -> {"cls": float16 [D], "grid": float16 [G, D]}; one contiguous read each.

    A row's checksum is compared when a run, its loader processes included, reads the row for the first time. Several
    processes may write at a time: each row is written once, and counts as written when its features are in the file.

    Args:
        folder: of an existing cache.
        header: what the features must be of; None skips the comparison.
        writable: rows can be written, and a damaged one is told, forgotten and can be written anew; else reading that is
            an error, and nothing in the folder needs to be writable.

    Raises:
        InputError: no cache there, a damaged one, or one of another encoder, transform or format.
    """

    def __init__(self, folder: str | Path, header: dict | None = None, writable: bool = False):
        self.folder, self.writable = Path(folder), writable
        self.header, names = _read_description(self.folder, header)
        self.row = {name: row for row, name in enumerate(names)}
        self._shape = (self.header["tokens"], self.header["width"])
        self._bytes = 2 * self._shape[0] * self._shape[1]
        # the checksums that were found right, in memory shared with loader processes: one comparison a run
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
        """Open the cache in `folder` for filling, made empty if there is none.

        Args:
            image_root: the folder the pictures are in.
            ours: no user named this folder: what is damaged in it is told and made anew instead of refused.

        Raises:
            InputError: it is of another encoder, of other images, or the disk is too small.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder, wait=True):
            if (folder / "header.json").is_file():
                try:
                    cache = cls(folder, header, writable=True)
                    if missing := [name for name in names if name not in cache.row]:
                        raise InputError(f"{folder}: was made for other images, without {missing[0]}; name another")
                    return cache
                except InputError as error:
                    if not ours:
                        raise
                    print(f"{folder}: cannot be used and is made anew ({error})", flush=True)
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
        """The features of an image; None where they are not written yet, or were damaged and have been forgotten.

        Raises:
            InputError: they are damaged and the cache is not `writable`.
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
        """Those of `names` without features."""
        written = self._rows()["written"]
        return [name for name in names if name not in self.row or not written[self.row[name]]]

    def changed(self, pictures: dict[str, Picture], image_root: str | Path) -> list[str]:
        """Those images whose file is another picture than the one the features were computed from.

        A file of the same size and time of change in the same folder is taken for the same. Any other of the same size,
        as in a folder that was moved or copied, is read and its SHA-256 compared.
        """
        same_root = self.made_from(image_root)
        rows = self._rows()
        changed, to_compare = set(), []
        for name, picture in pictures.items():
            row = rows[self.row[name]] if name in self.row else None
            if row is None or not row["written"]:
                continue
            if picture.size != row["size"]:
                changed.add(name)
            elif not same_root or picture.mtime_ns != row["mtime_ns"]:
                to_compare.append(name)
        with ThreadPoolExecutor() as pool:
            hashes = pool.map(lambda name: sha256(pictures[name].path), to_compare)
            for name, found in zip(to_compare, hashes, strict=True):
                if found != rows[self.row[name]]["sha256"].tobytes().hex():
                    changed.add(name)
        return [name for name in pictures if name in changed]

    def made_from(self, image_root: str | Path) -> bool:
        """Whether the cache was made from the pictures in this folder."""
        return self.header["image_root"] == real_path(image_root)

    def forget(self, names: list[str]) -> None:
        """Let these images count as not written."""
        with folder_lock(self.folder, wait=True):
            for name in names:
                self._write("rows.bin", self.row[name] * ROW.itemsize, bytes(ROW.itemsize))

    def write(self, names: list[str], pictures: dict[str, Picture | None], features: ImageFeatures) -> ImageFeatures:
        """Store the features of some images; returns them as they will be read back, rounded to float16.

        What another process has written meanwhile stays, and is returned.

        Args:
            names: of the images, in the order of `features`.
            pictures: image name -> the file the features were computed from; None: it is another one by now, and the
                features are not stored.
        """
        tokens = torch.cat([features.cls[:, None], features.grid], dim=1).to(torch.float16)
        values = tokens.cpu().numpy()
        hashes = {name: bytes.fromhex(sha256(pictures[name].path)) for name in names if pictures[name]}
        found_there = False
        with folder_lock(self.folder, wait=True):
            for index, name in enumerate(names):
                try:
                    kept = self._read(name)
                except InputError:  # damaged: written anew
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
        """float16 [1 + G, D], or None when it is not written; InputError when it is not as it was written."""
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
                    "which computes damaged rows anew"
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
        with folder_lock(self.folder, wait=True):
            try:  # again: another process may have mended it
                self._read(name)
            except InputError:
                self._write("rows.bin", self.row[name] * ROW.itemsize, bytes(ROW.itemsize))
                if not self._told:
                    also = "computed anew, like any others found damaged"
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
    """Header and image names of a cache, checked."""
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
        if name != "encoder" and found.get(name) != value:  # the same weights may go by several names
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
    """An empty cache. What another process may have open stays the same file."""
    (folder / "header.json").unlink(missing_ok=True)
    sizes = {"features.f16": header["tokens"] * header["width"] * 2 * len(names), "rows.bin": ROW.itemsize * len(names)}
    for file in sizes:
        with open(folder / file, "ab") as handle:
            handle.truncate(0)
    needed, free = sum(sizes.values()), shutil.disk_usage(folder).free
    if free < needed * 1.01:
        raise InputError(
            f"{folder}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; name a folder elsewhere"
        )
    for file, size in sizes.items():
        os.truncate(folder / file, size)
    write_json(folder / "index.json", names)
    header = header | {"image_root": real_path(image_root), "index_sha256": sha256(folder / "index.json")}
    # last: where it stands the rest is there
    write_json(folder / "header.json", header | {"sha256": header_sha256(header)}, indent=1)


def header_sha256(header: dict) -> str:
    """SHA-256 of a header's fields other than "sha256"."""
    fields = {name: value for name, value in header.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def real_path(folder: str | Path) -> str:
    """The folder's path without links, in a form that any JSON file can hold."""
    return os.path.realpath(folder).encode(errors="backslashreplace").decode()


def _flat(header: dict) -> dict:
    """{"transform": {"size": 224}} -> {"transform.size": 224}"""
    flat = {}
    for name, value in header.items():
        flat |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _checksum(name: str, row: bytes, tokens: np.ndarray) -> int:
    """CRC-32 over everything a row holds, and its name, so that a row in another's place is noticed."""
    return zlib.crc32(tokens, zlib.crc32(row[5:], zlib.crc32(name.encode(errors="surrogatepass"))))
