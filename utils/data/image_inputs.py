"""The model's image input: pixels, or features from a cache that training fills."""

from torch import Tensor

from models.image_encoder import ImageEncoder
from utils.data.datasets import ImagePixels
from utils.data.feature_cache import FeatureCache
from utils.data.image_folder import ImageFolder, Picture, picture_at


class ImageInputs:
    """The image source of training and evaluation.

    Args:
        pixels: the source of pixels.
        cache: a cache of features, or None.
        names: image id -> image name.
        pictures: image name -> its file at the start of the run. Features of a file that has changed since are not
            cached.
    """

    def __init__(
        self,
        pixels: ImagePixels,
        cache: FeatureCache | None,
        names: dict[int, str],
        pictures: dict[str, Picture] | None = None,
    ):
        self.pixels, self.cache, self.names, self.pictures = pixels, cache, names, pictures or {}

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        """Load one batch: features {"cls", "grid"} if the cache has them for all images, or else {"pixels"} of all.

        Raises:
            InputError: an image is missing or unreadable, or a read-only cache lacks it or is damaged.
        """
        if self.cache is None:
            return [self.pixels[name] for name in image_names]
        if not self.cache.writable:
            return [self.cache[name] for name in image_names]
        features: list[dict[str, Tensor]] = []
        for name in image_names:
            if (of_image := self.cache.read(name)) is None:
                return [self.pixels[name] for name in image_names]
            features.append(of_image)
        return features

    def encode(self, encoder: ImageEncoder | None, image_ids: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Encode a batch's pixels and store the features in the cache.

        Returns the batch with features instead of pixels, rounded to float16 as they will be read back. Without a
        cache, or if the batch already has features, the batch is returned unchanged.

        Args:
            encoder: the fixed image encoder; None if all features are cached.
            image_ids: [B].
            batch: tensors by name, with "pixels" [B, 3, S, S] or "cls" and "grid".
        """
        if self.cache is None or "pixels" not in batch:
            return batch
        names = [self.names[image_id] for image_id in image_ids.tolist()]
        features = encoder(batch["pixels"])
        kept = self.cache.write(names, {name: self._unchanged(name) for name in names}, features)
        return {name: tensor for name, tensor in batch.items() if name != "pixels"} | kept._asdict()

    def _unchanged(self, name: str) -> Picture | None:
        picture = self.pictures[name]
        try:
            return picture if picture == picture_at(picture.path) else None
        except FileNotFoundError:
            return None


def find_pictures(folder: ImageFolder, names: list[str]) -> dict[str, Picture]:
    """Image name -> file, for the images that exist in `folder`."""
    paths = {name: folder.locate(name) for name in names}
    return {name: picture_at(path) for name, path in paths.items() if path is not None}
