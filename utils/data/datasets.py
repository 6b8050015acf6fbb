"""From JSON records to batches. Every choice is a pure function of seed, epoch and image: nothing counts in workers."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from utils.constants import IGNORED_LABEL
from utils.data.image_folder import ImageFolder, shorten
from utils.data.image_opening import open_image
from utils.data.records import Records
from utils.data.text_codec import TextCodec
from utils.data.vad_lookup import VADLookup
from utils.errors import InputError

LM_POSITIONS_MULTIPLE = 16  # sizes of the vocabulary projection repeat from step to step


class ItemKey(NamedTuple):
    """What a training item is made from. `real` is False for one that only gives a process something to do."""

    epoch: int
    index: int
    real: bool = True


class ImageSource(Protocol):
    """Where a model's image input comes from: pixels of files, or cached features."""

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        """The images of one batch, all as pixels or all as features."""
        ...


class ImagePixels:
    """image_name -> {"pixels": float32 [3, S, S]}: resized to S x S (aspect ratio not kept, bilinear with antialiasing),
    scaled to 0..1, then (v - mean) / std per channel."""

    def __init__(self, folder: ImageFolder, size: int, mean: tuple[float, ...], std: tuple[float, ...]):
        self.folder, self.size = folder, size
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def __getitem__(self, image_name: str) -> dict[str, Tensor]:
        path = self.folder.find(image_name)
        if path is None:
            raise InputError(
                f"{self.folder.root}: no image {shorten(image_name)}; see preprocess/resize_wikiart.py's manifest"
            )
        return {"pixels": self.transform(open_image(path))}

    def transform(self, image: Image.Image) -> Tensor:
        """An RGB picture of any size -> [3, S, S]."""
        resized = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1)
        return (pixels.float() / 255 - self.mean) / self.std


class TrainingPairs(Dataset):
    """Pairs of texts of one image with different emotions, as the contrastive loss wants them.

    Text 1 walks through the image's explanations from the last to the first as epochs pass; text 2 is drawn among
    those with another emotion. All texts are tokenised, and their VAD looked up, once at the start.

    Args:
        records: of `artEmisX_cl_train.json`.
        images: where the model's image input comes from.
        codec, vad: tokenizer and lexicon look-up.
        seed: of the draws.
        need_pairs: refuse images with a single emotion (contrastive loss on). Else their second text is another
            explanation of the same emotion, or the same one again where there is just one.
        first_text: "walk", or "last" as the published code does by accident (its counter dies with the loader's workers).
        cache_dir, processes: for the VAD of the texts, see VADLookup.of_texts.

    Raises:
        InputError: an image with a single emotion where pairs are needed.
    """

    def __init__(
        self,
        records: Records,
        images: ImageSource,
        codec: TextCodec,
        vad: VADLookup | None,
        seed: int,
        need_pairs: bool = True,
        first_text: str = "walk",
        cache_dir: Path | None = None,
        processes: int = 1,
        source: str = "the training file",
    ):
        self.records, self.images, self.seed, self.first_text = list(records.items()), images, seed, first_text
        for image_id, record in self.records:
            if need_pairs and len(set(record["emotions"])) < 2:
                raise InputError(
                    f"{source}: record {image_id}: all its explanations have one emotion, but the contrastive loss needs "
                    "two: train on artEmisX_cl_train.json, or give --no-use_cl_loss"
                )
        counts = [len(record["emotions"]) for _, record in self.records]
        self.first_row = np.concatenate([[0], np.cumsum(counts)])
        texts = codec.encode(
            [emotion for _, record in self.records for emotion in record["emotions"]],
            [explanation for _, record in self.records for explanation in record["explanations"]],
        )
        self.input_ids, self.labels, self.segment_ids = texts.input_ids, texts.labels, texts.segment_ids
        self.vad = None if vad is None else vad.of_texts(self.input_ids, cache_dir, processes)

    def __len__(self) -> int:
        return len(self.records)

    def choose_pair(self, epoch: int, index: int) -> tuple[int, int]:
        """Which two explanations of an image an epoch shows."""
        image_id, record = self.records[index]
        first = (-1 - (epoch if self.first_text == "walk" else 0)) % len(record["emotions"])
        candidates = second_candidates(record, first)
        return first, random.Random(f"{self.seed} {epoch} {image_id}").choice(candidates)

    def __getitem__(self, key: ItemKey) -> dict:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[ItemKey]) -> list[dict]:
        """The items of one batch: the loader asks for all of them at once."""
        images = self.images.load([self.records[key.index][1]["image_name"] for key in keys])
        return [self.texts(key) | image for key, image in zip(keys, images, strict=True)]

    def texts(self, key: ItemKey) -> dict:
        """An item without its image."""
        image_id, record = self.records[key.index]
        rows = self.first_row[key.index] + np.array(self.choose_pair(key.epoch, key.index))
        return {
            "image_id": int(image_id),
            "key": key,
            "input_ids": self.input_ids[rows],
            "labels": self.labels[rows],
            "segment_ids": self.segment_ids[rows],
            "vad": np.zeros((*self.input_ids[rows].shape, 3), np.float32) if self.vad is None else self.vad[rows],
            "emotion_distribution": np.array(record["origin_emotion_distribution"], dtype=np.float32),
        }


def second_candidates(record: dict, first: int) -> list[int]:
    """Explanations that may stand beside the first one: those with another emotion; failing that, any other; failing
    that, the first itself."""
    others = [i for i, emotion in enumerate(record["emotions"]) if emotion != record["emotions"][first]]
    return others or [i for i in range(len(record["emotions"])) if i != first] or [first]


class EpochBatches(Sampler[list[ItemKey]]):
    """This process's batches of one epoch.

    A global batch is the next `batch_size * processes` images of the epoch's order, whatever the number of processes;
    the last, smaller one is dealt out evenly, and a process left without an image gets one that does not count.

    Args:
        size: number of images. batch_size: images per process. seed: of the order.
        rank, processes: which part is ours.
        shuffle: a new order every epoch (training), or the file's.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, shuffle: bool = True):
        self.size, self.global_batch, self.seed = size, batch_size * processes, seed
        self.rank, self.processes, self.shuffle = rank, processes, shuffle
        self.epoch = self.start_step = 0

    def set_position(self, epoch: int, start_step: int = 0) -> None:
        """The next iteration gives the batches of `epoch` from `start_step` on."""
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        return -(-self.size // self.global_batch) - self.start_step

    def __iter__(self) -> Iterator[list[ItemKey]]:
        order = (
            np.random.default_rng([self.seed, self.epoch]).permutation(self.size) if self.shuffle else range(self.size)
        )
        for start in range(self.start_step * self.global_batch, self.size, self.global_batch):
            together = order[start : start + self.global_batch]
            ours = np.array_split(np.asarray(together), self.processes)[self.rank]
            yield [ItemKey(self.epoch, int(i)) for i in ours] or [ItemKey(self.epoch, int(together[0]), real=False)]


def label_positions(labels: Tensor, len_prefix: int = 0, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Where the language model is asked for a token, and for which one: the vocabulary projection is made only there.

    Args:
        labels: [T, L], -100 where no token is predicted; not shifted.
        len_prefix: positions whose logits are ignored.
        multiple: fill up to a multiple of this with targets of -100, so that sizes repeat from step to step.

    Returns:
        positions [N], flat indices into [T, L] of the positions *before* the labelled tokens; targets [N].
    """
    rows, columns = torch.nonzero(labels[:, len_prefix + 1 :] != IGNORED_LABEL, as_tuple=True)
    positions = rows * labels.shape[1] + columns + len_prefix
    targets = labels.flatten()[positions + 1]
    filling = -len(positions) % multiple
    return F.pad(positions, (0, filling)), F.pad(targets, (0, filling), value=IGNORED_LABEL)


def derangement(size: int, generator: torch.Generator) -> Tensor:
    """A random permutation of 0 .. size - 1 without fixed points (size >= 2), drawn as the published code draws it.

    With m = size // 2: first m, then m + 1 + a permutation of the size - m - 1 above it, then a permutation of the m
    below it.
    """
    middle = size // 2
    above = middle + 1 + torch.randperm(size - middle - 1, generator=generator)
    below = torch.randperm(middle, generator=generator)
    return torch.cat([torch.tensor([middle]), above, below])


class PairCollator:
    """Items -> the keyword arguments of SEVLM.forward, plus image_ids [B].

    The contrastive negatives of a batch are drawn from seed, epoch and its first image. `counts` [4] is what several
    processes must agree on (see `losses`): labelled tokens, texts, positions with a VAD, images.
    """

    def __init__(self, seed: int, len_prefix: int, span_start: int):
        self.seed, self.len_prefix, self.span_start = seed, len_prefix, span_start

    def __call__(self, items: list[dict]) -> dict[str, Tensor]:
        input_ids, labels, segment_ids = (
            torch.from_numpy(np.concatenate([item[name] for item in items])).long()
            for name in ("input_ids", "labels", "segment_ids")
        )
        vad = torch.from_numpy(np.concatenate([item["vad"] for item in items]))
        weight = torch.tensor([float(item["key"].real) for item in items])
        labels[weight.repeat_interleave(2) == 0] = IGNORED_LABEL
        vad_known = vad[:, self.span_start :].ne(0).any(-1) & (weight.repeat_interleave(2) > 0)[:, None]
        positions, targets = label_positions(labels, self.len_prefix, LM_POSITIONS_MULTIPLE)
        batch = {
            "image_ids": torch.tensor([item["image_id"] for item in items]),
            "input_ids": input_ids,
            "segment_ids": segment_ids,
            "vad": vad,
            "lm_positions": positions,
            "lm_targets": targets,
            "emotion_distribution": torch.from_numpy(np.stack([item["emotion_distribution"] for item in items])),
            "image_weight": weight,
            "counts": torch.stack(
                [(targets != IGNORED_LABEL).sum(), 2 * weight.sum(), vad_known.sum(), weight.sum()]
            ).float(),
        }
        if len(items) > 1:
            batch["visual_negatives"] = self.visual_negatives(items[0]["key"], len(items))
        for name in ("pixels", "cls", "grid"):
            if name in items[0]:
                batch[name] = torch.stack([item[name] for item in items])
        return batch

    def visual_negatives(self, key: ItemKey, images: int) -> Tensor:
        """Rows [2B] of other images' explanations: same slot of the pair, another image, one derangement per slot."""
        seed = random.Random(f"{self.seed} {key.epoch} {key.index} negatives").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        slots = [2 * derangement(images, generator) + slot for slot in (0, 1)]
        return torch.stack(slots, dim=1).flatten()


class EvaluationImages(Dataset):
    """The images of a split: item index -> {"image_id": int, and the model's image input}."""

    def __init__(self, records: Records, images: ImageSource):
        self.records, self.images = list(records.items()), images

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        """The items of one batch: the loader asks for all of them at once."""
        records = [self.records[index] for index in indices]
        images = self.images.load([record["image_name"] for _, record in records])
        return [
            {"image_id": torch.tensor(int(image_id))} | image
            for (image_id, _), image in zip(records, images, strict=True)
        ]
