"""From records to batches, in DataLoader worker processes whose errors are reported in one line.

Every random choice is a pure function of seed, epoch and image. Workers keep no state, so their number and their
lifetime do not change the data.
"""

import contextlib
import multiprocessing.util
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler, get_worker_info

from models.image_encoder import ImageEncoder
from models.losses import LossCounts
from utils.constants import IGNORED_LABEL
from utils.data.images import find_image, open_image, shorten
from utils.data.records import Records, TrainingRecords
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import VADLookup
from utils.errors import InputError, brief
from utils.processes import leave_signals_to_parent

LM_POSITIONS_MULTIPLE = 16  # so that the output layer's sizes repeat from step to step
MAX_TEMP_DIR = 89  # bytes: multiprocessing adds 18 to a socket's path, which Linux limits to 107


class ItemKey(NamedTuple):
    """The epoch and record index of a training item. `real` is False for a filler item, which counts in no loss."""

    epoch: int
    index: int
    real: bool = True


class ImageSource(Protocol):
    """The source of a model's image input: pixels from image files, or cached features."""

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        """Load the images of one batch, all as pixels or all as features."""
        ...


class ImagePixels:
    """image_name -> {"pixels": float32 [3, S, S]}, for the images under `root`.

    Images are resized to S x S (aspect ratio not kept, with antialiasing, by default bilinear), scaled to 0..1 and
    normalised per channel: (v - mean) / std.
    """

    def __init__(
        self,
        root: Path | None,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        resample: int = Image.Resampling.BILINEAR,
    ):
        self.root, self.size, self.resample = root, size, resample
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    @classmethod
    def for_encoder(cls, root: Path | None, encoder: ImageEncoder, normalization: str) -> "ImagePixels":
        """The transform of an image encoder's input; `normalization`: see `ImageEncoder.statistics`."""
        return cls(root, encoder.image_size, *encoder.statistics(normalization), encoder.preparation.resample)

    def load(self, image_names: list[str]) -> list[dict[str, Tensor]]:
        """Load the pixels of one batch of images; InputError if one is missing or unreadable."""
        loaded = []
        for name in image_names:
            path = find_image(self.root, name)
            if path is None:
                raise InputError(f"{self.root}: no image {shorten(name)}; see preprocess/resize_wikiart.py's manifest")
            try:
                loaded.append({"pixels": self.transform(open_image(path))})
            except InputError as error:
                raise InputError(f"{error} (artEmisX_train.py --skip_bad_images leaves out all such images)") from None
        return loaded

    def transform(self, image: Image.Image) -> Tensor:
        """Transform an RGB image of any size to float32 [3, S, S]."""
        resized = image.resize((self.size, self.size), self.resample)
        pixels = torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1)
        return (pixels.float() / 255 - self.mean) / self.std


class TrainingPairs(Dataset):
    """Training items: one image with a pair of texts that have different emotions, as the contrastive loss needs.

    Text 1 is the last explanation in epoch 0, the one before it in epoch 1, and so on, cyclically. Text 2 is drawn at
    random from the explanations with another emotion; if there is none, from the others; and it is text 1 again if that
    is the only one. All texts are tokenised, and tagged for their VAD values, once, at the start.

    Args:
        records: of `artEmisX_cl_train.json`, or, without the contrastive loss, of `artEmisX_train.json`. Their texts are
            not stored in the data set.
        images: source of the model's image input.
        codec, vad: tokenizer and lexicon look-up; without a look-up all VAD values are 0.
        seed: seed of the random draws.
        first_text: "rotate", or "last": always the last explanation. The published code does the latter by accident,
            because its counter is lost when the loader's workers end.
        cache_dir: see `TextCodec.encode_training` and `VADLookup.for_texts`.
    """

    def __init__(
        self,
        records: TrainingRecords,
        images: ImageSource,
        codec: TextCodec,
        vad: VADLookup | None,
        seed: int,
        first_text: str = "rotate",
        cache_dir: Path | None = None,
    ):
        self.images, self.seed, self.first_text = images, seed, first_text
        self.encoded, self.lookup, self.vad = codec.encode_training(records, cache_dir), vad, None
        if vad is not None and not vad.context_free:
            self.lookup, self.vad = None, vad.for_texts(self.encoded.input_ids, cache_dir)
        self.records = replace(records, explanations=b"")

    def __len__(self) -> int:
        return len(self.records)

    def choose_pair(self, epoch: int, index: int) -> tuple[int, int]:
        """Indices of the two explanations of an image that an epoch uses."""
        emotions, image_id = self.records.image_emotions(index), self.records.image_ids[index]
        first = (-1 - (epoch if self.first_text == "rotate" else 0)) % len(emotions)
        candidates = second_candidates(emotions, first)
        return first, random.Random(f"{self.seed} {epoch} {image_id}").choice(candidates)

    def __getitem__(self, key: ItemKey) -> dict:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[ItemKey]) -> list[dict]:
        """The items of one batch; PyTorch's loader calls this instead of `__getitem__`, once per batch."""
        images = self.images.load([self.records.image_names[key.index] for key in keys])
        return [self.texts(key) | image for key, image in zip(keys, images, strict=True)]

    def texts(self, key: ItemKey) -> dict:
        """An item without its image."""
        rows = self.records.first_row[key.index] + np.array(self.choose_pair(key.epoch, key.index))
        texts = self.encoded[rows]
        if self.vad is not None:
            vad = self.vad[rows]
        elif self.lookup is not None:
            vad = self.lookup.for_texts(texts.input_ids)
        else:
            vad = np.zeros((*texts.input_ids.shape, 3), np.float32)
        return {
            "image_id": int(self.records.image_ids[key.index]),
            "key": key,
            "input_ids": texts.input_ids,
            "labels": texts.labels,
            "segment_ids": texts.segment_ids,
            "vad": vad,
            "emotion_distribution": self.records.distributions[key.index],
        }


def second_candidates(emotions: Sequence, first: int) -> list[int]:
    """Indices of the explanations that can be paired with the first one.

    These are the explanations with another emotion; if there are none, all others; if there are none, the first itself.
    """
    others = [i for i, emotion in enumerate(emotions) if emotion != emotions[first]]
    return others or [i for i in range(len(emotions)) if i != first] or [first]


class EpochBatches(Sampler[list[ItemKey]]):
    """The batches of one process in one epoch, whose order depends on the seed and the epoch.

    A global batch consists of the next `batch_size * processes` images in the epoch's order. It is divided evenly among
    the processes. If the last global batch is too small for this, a process without an image gets a filler item.

    Args:
        size: number of images.
        batch_size: images per process.
        seed: seed of the order.
        rank, processes: this process's number, and the number of processes.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1):
        self.size, self.global_batch, self.seed = size, batch_size * processes, seed
        self.rank, self.processes = rank, processes
        self.epoch = self.start_step = 0

    def set_position(self, epoch: int, start_step: int = 0) -> None:
        """Let the next iteration yield the batches of `epoch`, starting at `start_step`."""
        self.epoch, self.start_step = epoch, start_step

    def __len__(self) -> int:
        return -(-self.size // self.global_batch) - self.start_step

    def __iter__(self) -> Iterator[list[ItemKey]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        for start in range(self.start_step * self.global_batch, self.size, self.global_batch):
            together = order[start : start + self.global_batch]
            part = np.array_split(together, self.processes)[self.rank]
            yield [ItemKey(self.epoch, int(i)) for i in part] or [ItemKey(self.epoch, int(together[0]), real=False)]


def label_positions(labels: Tensor, len_prefix: int = 0, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Find the positions that predict a labelled token, and their targets. Logits are computed only there.

    Args:
        labels: [T, L], -100 where no token is predicted; not shifted.
        len_prefix: number of prefix positions; their logits are ignored.
        multiple: pad both results to a multiple of this length (targets with -100), so that sizes repeat.

    Returns:
        positions [N], flat indices into [T, L] of the positions *before* the labelled tokens; and the targets [N].
    """
    rows, columns = torch.nonzero(labels[:, len_prefix + 1 :] != IGNORED_LABEL, as_tuple=True)
    positions = rows * labels.shape[1] + columns + len_prefix
    targets = labels.flatten()[positions + 1]
    filling = -len(positions) % multiple
    return F.pad(positions, (0, filling)), F.pad(targets, (0, filling), value=IGNORED_LABEL)


def derangement(size: int, generator: torch.Generator) -> Tensor:
    """A random permutation of 0 .. size - 1 without fixed points (size >= 2), drawn as in the published code.

    With m = size // 2, the result is m, then a random permutation of m + 1 .. size - 1, then one of 0 .. m - 1.
    """
    middle = size // 2
    above = middle + 1 + torch.randperm(size - middle - 1, generator=generator)
    below = torch.randperm(middle, generator=generator)
    return torch.cat([torch.tensor([middle]), above, below])


class PairCollator:
    """Collate B items into the keyword arguments of SEVLM.forward, plus image_ids [B].

    The visual negatives of a batch depend only on the seed, the epoch and the batch's first image. `counts` are the
    divisors of the losses, which several processes average.

    Args:
        seed: seed of the visual negatives.
        len_prefix: number of prefix positions.
        span_start: first position of the explanation, h = len_prefix + emotion_span.
        label_position: the position that predicts the emotion, where the label loss replaces the cross-entropy; None
            without that loss.
    """

    def __init__(self, seed: int, len_prefix: int, span_start: int, label_position: int | None = None):
        self.seed, self.len_prefix, self.span_start = seed, len_prefix, span_start
        self.label_position = label_position

    def __call__(self, items: list[dict]) -> dict[str, Tensor]:
        input_ids, labels, segment_ids = (
            torch.from_numpy(np.concatenate([item[name] for item in items])).long()
            for name in ("input_ids", "labels", "segment_ids")
        )
        vad = torch.from_numpy(np.concatenate([item["vad"] for item in items]))
        weight = torch.tensor([float(item["key"].real) for item in items])
        labels[weight.repeat_interleave(2) == 0] = IGNORED_LABEL
        if self.label_position is not None:
            labels[:, self.label_position + 1] = IGNORED_LABEL
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
            "counts": LossCounts(
                tokens=(targets != IGNORED_LABEL).sum().float(),
                texts=2 * weight.sum(),
                vad_positions=vad_known.sum().float(),
                images=weight.sum(),
            ),
        }
        if len(items) > 1:
            batch["visual_negatives"] = self.visual_negatives(items[0]["key"], len(items))
        for name in ("pixels", "cls", "grid"):
            if name in items[0]:
                batch[name] = torch.stack([item[name] for item in items])
        if get_worker_info() is not None:
            # here a lack of shared memory raises an error; when the batch is handed over it would be a deadlock
            counts = batch["counts"]
            for tensor in (*batch.values(), *counts):
                if tensor is not counts and tensor.numel():  # an empty one needs no memory
                    tensor.share_memory_()
        return batch

    def visual_negatives(self, key: ItemKey, images: int) -> Tensor:
        """For each of the 2B texts, the row of its visual negative: the text in the same slot of another image's pair.

        Each of the two slots has its own random permutation of the images without fixed points.
        """
        seed = random.Random(f"{self.seed} {key.epoch} {key.index} negatives").getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        slots = [2 * derangement(images, generator) + slot for slot in (0, 1)]
        return torch.stack(slots, dim=1).flatten()


class EvaluationImages(Dataset):
    """The images of a split: item index -> {"image_id": int64 scalar tensor} plus the model's image input."""

    def __init__(self, records: Records, images: ImageSource):
        self.records, self.images = list(records.items()), images

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        """The items of one batch; PyTorch's loader calls this instead of `__getitem__`, once per batch."""
        records = [self.records[index] for index in indices]
        images = self.images.load([record["image_name"] for _, record in records])
        return [
            {"image_id": torch.tensor(int(image_id))} | image
            for (image_id, _), image in zip(records, images, strict=True)
        ]


def loader_processes(count: int) -> dict[str, Any]:
    """Arguments of a DataLoader with `count` worker processes.

    Raises:
        InputError: the temporary folder's path is too long for the sockets through which workers hand over batches; the
            training would wait for ever.
    """
    folder = multiprocessing.util.get_temp_dir() if count else ""
    if len(os.fsencode(folder)) > MAX_TEMP_DIR:
        raise InputError(
            f"{folder}: too long a path for the sockets of loader processes: set TMPDIR to a shorter one, or pass "
            "--num_workers 0"
        )
    return {"num_workers": count, "worker_init_fn": leave_signals_to_parent}


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turn errors of DataLoader workers into an InputError of one line. Use it around the loop, or as a decorator.

    PyTorch raises a worker's InputError again in the main process, with the worker's whole traceback as message; only
    the last line is used. If a worker is killed, PyTorch raises a RuntimeError from a signal handler, anywhere in the
    loop.

    Raises:
        InputError: a worker raised one, or was killed.
    """
    try:
        yield
    except InputError as error:
        _, raised, message = str(error).partition(f"{InputError.__module__}.{InputError.__qualname__}: ")
        if not raised:
            raise
        raise InputError(message.removesuffix(r"\n")) from None
    except RuntimeError as error:
        if "shared memory" in str(error):  # a worker found no room, or was killed when it touched the memory
            raise InputError(
                "a process that loads images found no room in shared memory (/dev/shm): pass --num_workers 0, or give a "
                "container more of it (docker run --shm-size=1g)"
            ) from None
        if "DataLoader worker (pid" not in str(error):
            raise
        raise InputError(
            f"a process that loads images has died ({brief(error)}), perhaps because memory ran out; try a smaller "
            "--num_workers, and --resume if there are saved states"
        ) from None
