"""The images, texts and negatives of an epoch, as functions of seed and epoch; items and batches; errors of workers."""

import multiprocessing.util
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from utils.constants import EMOTIONS
from utils.data.datasets import (
    EpochBatches,
    EvaluationImages,
    ImagePixels,
    ItemKey,
    PairCollator,
    TrainingPairs,
    loader_processes,
    second_candidates,
    worker_errors,
)
from utils.data.records import TrainingRecords
from utils.errors import InputError

# ---- order of an epoch -----------------------------------------------------------------------------------------------


def epoch(size: int, batch_size: int, processes: int, number: int = 0, seed: int = 42, start_step: int = 0):
    """Batches of every process: [process][step] -> indices of the records, without filler items."""
    found = []
    for rank in range(processes):
        sampler = EpochBatches(size, batch_size, seed, rank, processes)
        sampler.set_position(number, start_step)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(batch for batch in batches), "a process without anything to do would hang"
        assert {key.epoch for batch in batches for key in batch} <= {number}
        found.append([[key.index for key in batch if key.real] for batch in batches])
    return found


@pytest.mark.parametrize("size", [1, 5, 12, 25])
@pytest.mark.parametrize(("processes", "batch_size"), [(1, 6), (2, 3), (3, 2), (6, 1)])
def test_processes_together_make_the_batches_of_one(size, processes, batch_size):
    """Every image is in one of them, and the last one is dealt out evenly."""
    (alone,) = epoch(size, 6, 1)
    assert sorted(sum(alone, [])) == list(range(size))
    for batch, *parts in zip(alone, *epoch(size, batch_size, processes), strict=True):
        assert sum(parts, []) == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_start_in_the_middle_of_an_epoch():
    whole = epoch(25, 2, 3, number=1)
    assert epoch(25, 2, 3, number=1, start_step=3) == [of_process[3:] for of_process in whole]
    assert epoch(24, 4, 1, start_step=6) == [[]]


def test_order_depends_on_seed_and_epoch_alone():
    orders = []
    for seed, number in ((1, 0), (1, 1), (2, 0)):
        np.random.seed(seed + number)  # global generators have no say
        torch.manual_seed(seed + number)
        orders.append(epoch(40, 8, 1, number, seed))
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert epoch(40, 8, 1, 0, 1) == orders[0]


# ---- texts of a pair -------------------------------------------------------------------------------------------------

OF_IMAGE = ["awe", "fear", "awe", "anger", "fear"]


@pytest.fixture(scope="module")
def pairs(codec):
    """Data sets of images with these numbers of texts."""

    def make(seed: int = 1, first_text: str = "rotate", images=None, vad=None, **sizes: int) -> TrainingPairs:
        records = {
            name.removeprefix("image"): {
                "emotions": OF_IMAGE[:size],
                "explanations": [name] * size,
                "image_name": f"Baroque/{name}.jpg",
                "origin_emotion_distribution": [float(place == size) for place in range(9)],
            }
            for name, size in (sizes or {"image77": 5}).items()
        }
        return TrainingPairs(TrainingRecords.from_records(records), images, codec, vad, seed, first_text)

    return make


def test_first_text_rotates_from_the_last_to_the_first(pairs):
    assert [pairs().choose_pair(number, 0)[0] for number in range(7)] == [4, 3, 2, 1, 0, 4, 3]


def test_second_text_is_drawn_from_those_of_another_emotion(pairs):
    dataset = pairs(first_text="last")  # which is "fear"
    assert {dataset.choose_pair(number, 0) for number in range(50)} == {(4, 0), (4, 2), (4, 3)}
    assert second_candidates(["awe", "awe", "awe"], 1) == [0, 2]
    assert second_candidates(["awe"], 0) == [0]


def test_a_pair_depends_on_seed_epoch_and_image_alone(pairs):
    def chosen(dataset: TrainingPairs, index: int = 0, numbers=range(30)) -> list[tuple[int, int]]:
        return [dataset.choose_pair(number, index) for number in numbers]

    dataset = pairs()
    expected = chosen(dataset)
    assert chosen(dataset, numbers=reversed(range(30)))[::-1] == expected
    assert chosen(pairs(seed=2)) != expected
    assert chosen(pairs(image78=5)) != expected
    assert chosen(pairs(image5=5, image77=5), 1) == expected  # its place in the file has no say


def test_an_item_is_of_its_own_image_alone(pairs, codec):
    """Image, distribution, texts and cached VAD values of every record, of different numbers of annotations."""

    class Names:
        def load(self, names):
            return [{"name": name} for name in names]

    class RowNumbers:
        context_free = False

        def for_texts(self, token_ids, *_):
            return np.broadcast_to(np.arange(len(token_ids))[:, None, None], (*token_ids.shape, 3))

    dataset = pairs(images=Names(), vad=RowNumbers(), image1=2, image2=4, image3=3)
    for index, (first_row, image_id, size) in enumerate([(0, 1, 2), (2, 2, 4), (6, 3, 3)]):
        item, chosen = dataset[ItemKey(0, index)], dataset.choose_pair(0, index)
        expected = codec.encode([OF_IMAGE[i] for i in chosen], [f"image{image_id}"] * 2)
        assert item["name"] == f"Baroque/image{image_id}.jpg" and item["image_id"] == image_id
        assert item["emotion_distribution"].argmax() == size
        assert item["input_ids"].tolist() == expected.input_ids.tolist()
        assert item["vad"][:, 0, 0].tolist() == [first_row + i for i in chosen]


# ---- negatives -------------------------------------------------------------------------------------------------------


def test_negatives_are_other_images_same_slot():
    collator = PairCollator(seed=3, len_prefix=0, span_start=6)
    for images in range(2, 9):
        rows, own = collator.visual_negatives(ItemKey(2, 5), images), torch.arange(2 * images)
        assert (rows // 2 != own // 2).all() and (rows % 2 == own % 2).all()
        for slot in (0, 1):
            assert sorted(rows[slot::2].tolist()) == list(range(slot, 2 * images, 2))
    rows = collator.visual_negatives(ItemKey(2, 5), 16)
    assert (rows[::2] // 2 != rows[1::2] // 2).any()  # each slot has negatives of its own


def test_negatives_depend_on_seed_epoch_and_first_image_alone():
    def rows(seed: int = 3, number: int = 2, first: int = 5) -> list[int]:
        return PairCollator(seed, 0, 6).visual_negatives(ItemKey(number, first), 8).tolist()

    expected = rows()
    torch.manual_seed(9)
    assert rows() == expected
    assert expected not in (rows(seed=4), rows(number=3), rows(first=6))


# ---- batches ---------------------------------------------------------------------------------------------------------


def item(index: int, is_real: bool = True) -> dict:
    """A pair of texts of eight tokens, two of them to be learnt in the first, one known word at 6."""
    labels = np.full((2, 8), -100, np.int32)
    labels[0, 1:3] = 7
    labels[1, 1] = 8
    vad = np.zeros((2, 8, 3), np.float32)
    vad[0, 6], vad[0, 2] = (1, 0, 0), (1, 1, 1)  # that at 2 lies in the emotion's span
    return {
        "image_id": 100 + index,
        "key": ItemKey(0, index, is_real),
        "input_ids": np.full((2, 8), index, np.int32),
        "labels": labels,
        "segment_ids": np.zeros((2, 8), np.int32),
        "vad": vad,
        "emotion_distribution": np.full(9, 1 / 9, np.float32),
        "pixels": torch.full((3, 2, 2), float(index)),
    }


def test_batch_lays_pairs_side_by_side():
    batch = PairCollator(1, 0, 6)([item(4), item(5), item(6)])
    assert batch["input_ids"][:, 0].tolist() == [4, 4, 5, 5, 6, 6]
    assert batch["image_ids"].tolist() == [104, 105, 106]
    assert batch["counts"] == (9, 6, 3, 3)
    assert batch["pixels"].shape == (3, 3, 2, 2) and batch["pixels"][:, 0, 0, 0].tolist() == [4, 5, 6]
    wanted = batch["lm_targets"] != -100
    assert batch["lm_positions"][wanted].tolist() == [row * 8 + place for row in (0, 2, 4) for place in (0, 1, 8)]
    assert batch["lm_targets"][wanted].tolist() == [7, 7, 8] * 3


def test_a_batch_of_one_filler_item_counts_in_no_loss():
    batch = PairCollator(1, 0, 6)([item(4, False)])
    assert batch["counts"] == (0, 0, 0, 0) and batch["image_weight"].tolist() == [0]
    assert (batch["lm_targets"] == -100).all()
    assert "visual_negatives" not in batch  # one image has none


# ---- the label loss --------------------------------------------------------------------------------------------------


def test_the_nine_emotions_begin_with_nine_tokens(codec, monkeypatch):
    tokens = codec.label_tokens()
    encoded = codec.encode(list(EMOTIONS), ["a sea"] * 9)
    assert encoded.input_ids[:, len(codec.prompt().ids)].tolist() == tokens
    monkeypatch.setattr(codec, "bpe", lambda texts: [list(map(ord, text)) for text in texts])  # " " first, nine times
    with pytest.raises(InputError, match="--use_label_loss: after --prompt_text"):
        codec.label_tokens()


def test_the_label_loss_takes_the_place_of_one_cross_entropy():
    """Here that of the second word to be learnt, which one of the two texts has."""
    batch = PairCollator(1, 0, 6, label_position=1)([item(4)])
    assert batch["lm_targets"][batch["lm_targets"] != -100].tolist() == [7, 8] and batch["counts"].tokens == 2


# ---- errors of workers ------------------------------------------------------------------------------------------------


class Images(ImagePixels):
    def load(self, image_names):
        if image_names == ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if image_names == ["fault"]:
            raise RuntimeError("a bug")
        return super().load(image_names)


def test_an_error_of_a_worker_is_one_line(tmp_path):
    @worker_errors()
    def load(*names):
        records = {str(number): {"image_name": name} for number, name in enumerate(names)}
        images = EvaluationImages(records, Images(tmp_path, 4, (0.5,) * 3, (0.5,) * 3))
        return [batch["pixels"].shape for batch in DataLoader(images, batch_size=1, **loader_processes(2))]

    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    assert load("a.jpg", "a.jpg", "a.jpg") == [(1, 3, 4, 4)] * 3
    with pytest.raises(InputError) as refusal:
        load("a.jpg", "b.jpg")
    assert str(refusal.value) == f"{tmp_path}: no image b.jpg; see preprocess/resize_wikiart.py's manifest"
    with pytest.raises(InputError, match=r"a process that loads images has died \(DataLoader worker .*--num_workers"):
        load("a.jpg", "kill")
    with pytest.raises(RuntimeError, match="Traceback"):  # a bug keeps its traceback
        load("a.jpg", "fault")


def test_a_temporary_folder_too_long_for_sockets_is_refused(monkeypatch):
    """The workers would report the error on stderr while the training waits for a batch for ever."""
    folder = "/" + 88 * "x"
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: folder)
    assert loader_processes(3)["num_workers"] == 3
    folder += "x"
    with pytest.raises(InputError, match="x: too long a path for the sockets.*TMPDIR.*--num_workers 0"):
        loader_processes(2)
    assert loader_processes(0)["num_workers"] == 0


SMALL = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
KILLED = (
    "DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)


@pytest.mark.parametrize("error", [SMALL, KILLED])
def test_a_small_shared_memory_is_one_line(error):
    message = "found no room in shared memory.*--num_workers 0.*--shm-size"
    with pytest.raises(InputError, match=message), worker_errors():
        raise RuntimeError(error)
