"""Features of the fixed image encoder, computed once: a memory-mapped float16 array with an index and a checked header.

    header.json     encoder's name, SHA-256 of its weights, image transform, dtype, shape; checked on every use
    index.json      image names, in the order of the rows
    features.f16    float16 [images, 1 + G, D]: the class token, then the patch grid
    done.u8         uint8 [images]: 1 where the row is written

At ArtEmis' size (80 031 images of 197 x 768) that is 24 GB.
"""

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models.image_encoder import ImageEncoder, ImageFeatures
from utils.errors import InputError
from utils.files import read_json, write_json

if TYPE_CHECKING:
    from utils.data.datasets import EvaluationImages, ImagePixels, TrainingPairs

FORMAT = 1


def encoder_sha256(encoder: ImageEncoder) -> str:
    """SHA-256 of an encoder's weights, names and shapes included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def make_header(name: str, encoder: ImageEncoder, mean: tuple[float, ...], std: tuple[float, ...]) -> dict:
    """What a cache's features depend on."""
    config = encoder.vision.config
    return {
        "format": FORMAT,
        "encoder": name,
        "encoder_sha256": encoder_sha256(encoder),
        "transform": {"size": config.image_size, "mean": list(mean), "std": list(std)},
        "dtype": "float16",
        "tokens": (config.image_size // config.patch_size) ** 2 + 1,
        "width": config.hidden_size,
    }


def size_in_bytes(header: dict, images: int) -> int:
    """Disk space of a cache of so many images."""
    return images * (header["tokens"] * header["width"] * 2 + 1)


class FeatureCache:
    """image_name -> {"cls": float16 [D], "grid": float16 [G, D]}; one contiguous read each.

    Several processes may write different images at a time. A row counts once its features are on disk.

    Args:
        folder: of an existing cache.
        header: what the features must be of; None skips the check (for reading the header itself).

    Raises:
        InputError: no cache there, a damaged one, or one of another encoder, transform or format.
    """

    def __init__(self, folder: str | Path, header: dict | None = None):
        self.folder = Path(folder)
        if not (self.folder / "header.json").is_file():
            raise InputError(f"{self.folder}: no feature cache; make one with preprocess/cache_features.py")
        self.header = read_json(self.folder / "header.json")
        for name, value in (header or {"format": FORMAT}).items():
            found = self.header.get(name) if isinstance(self.header, dict) else None
            if name != "encoder" and found != value:  # the same weights may go by several names
                raise InputError(
                    f"{self.folder}: its {name} is {found}, this run's is {value}: not the features this encoder gives; "
                    "make another cache with preprocess/cache_features.py"
                )
        names = read_json(self.folder / "index.json")
        if not isinstance(names, list):
            raise InputError(f"{self.folder}/index.json: a list of image names was expected; make the cache anew")
        self.row = {name: row for row, name in enumerate(names)}
        shape = (len(names), self.header["tokens"], self.header["width"])
        for file, size in (("features.f16", 2 * int(np.prod(shape))), ("done.u8", len(names))):
            path = self.folder / file
            if not path.is_file() or path.stat().st_size != size:
                raise InputError(f"{path}: missing or not {size} bytes long; make the cache anew")
        self._features = np.memmap(self.folder / "features.f16", np.float16, "r+", shape=shape)
        self._done = np.memmap(self.folder / "done.u8", np.uint8, "r+", shape=len(names))

    @classmethod
    def create(cls, folder: str | Path, header: dict, names: list[str]) -> "FeatureCache":
        """Open the cache in `folder`, made empty if there is none.

        Raises:
            InputError: it is of another encoder, of other images, or the disk is too small.
        """
        folder = Path(folder)
        if (folder / "header.json").is_file():
            cache = cls(folder, header)
            if missing := [name for name in names if name not in cache.row]:
                raise InputError(f"{folder}: was made for other images, without {missing[0]}; name another folder")
            return cache
        size = size_in_bytes(header, len(names))
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size * 1.01:
            raise InputError(
                f"{folder}: needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; name a folder elsewhere"
            )
        write_json(folder / "index.json", names)
        for file, length in (("features.f16", size - len(names)), ("done.u8", len(names))):
            with open(folder / file, "wb") as handle:
                handle.truncate(length)
        write_json(folder / "header.json", header, indent=1)  # last: where it stands the rest is there
        return cls(folder, header)

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "header": self.header}  # loader processes map the files themselves

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"], state["header"])

    def __getitem__(self, image_name: str) -> dict[str, Tensor]:
        row = self.row.get(image_name)
        if row is None or not self._done[row]:
            raise InputError(
                f"{self.folder}: holds no features of {image_name}; run preprocess/cache_features.py on this split"
            )
        features = torch.from_numpy(np.array(self._features[row]))
        return {"cls": features[0], "grid": features[1:]}

    def missing(self, names: list[str]) -> list[str]:
        """Those of `names` without features."""
        return [name for name in names if name not in self.row or not self._done[self.row[name]]]

    def write(self, names: list[str], features: ImageFeatures) -> ImageFeatures:
        """Store the features of some images; returns them as they will be read back, rounded to float16."""
        tokens = torch.cat([features.cls[:, None], features.grid], dim=1).to(torch.float16)
        rows = [self.row[name] for name in names]
        self._features[rows] = tokens.cpu().numpy()
        self._features.flush()
        self._done[rows] = 1
        self._done.flush()
        return ImageFeatures(tokens[:, 0], tokens[:, 1:])


class ImageInputs:
    """What the model gets of an image: pixels, or features out of a cache that may still have to be filled.

    Args:
        pixels: the source of pixels. cache: of features, or None. names: image id -> image name.
    """

    def __init__(self, pixels: "ImagePixels", cache: FeatureCache | None, names: dict[int, str]):
        self.pixels, self.cache, self.names = pixels, cache, names

    def use(self, dataset: "TrainingPairs | EvaluationImages") -> bool:
        """Choose where `dataset` reads from until the next call; returns whether its features must be filled in."""
        complete = self.cache is not None and not self.cache.missing([r["image_name"] for _, r in dataset.records])
        dataset.images = self.cache if complete else self.pixels
        return self.cache is not None and not complete

    def fill(self, encoder: ImageEncoder, image_ids: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """Encode a batch and keep its features; returns them as they will be read back."""
        names = [self.names[image_id] for image_id in image_ids.tolist()]
        return self.cache.write(names, encoder(pixels))._asdict()
