"""The images, texts and negatives of an epoch, as functions of seed and epoch; items and batches."""

import numpy as np
import pytest
import torch

from utils.constants import EMOTIONS
from utils.data.datasets import (
    EpochBatches,
    ItemKey,
    PairCollator,
    TrainingPairs,
    label_positions,
    second_candidates,
)
from utils.data.records import TrainingRecords
from utils.errors import InputError

# ---- order of an epoch -----------------------------------------------------------------------------------------------


def epoch(size: int, batch_size: int, processes: int, number: int = 0, seed: int = 42, start_step: int = 0):
    """Batches of every process: [process][step] -> list of keys."""
    found = []
    for rank in range(processes):
        sampler = EpochBatches(size, batch_size, seed, rank, processes)
        sampler.set_position(number, start_step)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        found.append(batches)
    return found


def real(batch: list[ItemKey]) -> list[int]:
    return [key.index for key in batch if key.real]


@pytest.mark.parametrize("size", [1, 2, 5, 11, 12, 13, 24])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_image_once_an_epoch(size, processes):
    batches = epoch(size, 4, processes)
    assert len({len(of_process) for of_process in batches}) == 1, "processes take unequal numbers of steps"
    assert sorted(index for of_process in batches for batch in of_process for index in real(batch)) == list(range(size))
    assert all(batch for of_process in batches for batch in of_process), "a process without anything to do would hang"
    assert all(len(batch) <= 4 for of_process in batches for batch in of_process)
    for step in range(len(batches[0])):  # the last batch is dealt out evenly
        sizes = [len(real(of_process[step])) for of_process in batches]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("size", [5, 12, 25])
@pytest.mark.parametrize(("processes", "batch_size"), [(2, 3), (3, 2), (6, 1)])
def test_processes_together_make_the_batches_of_one(size, processes, batch_size):
    (alone,) = epoch(size, 6, 1, number=3)
    together = epoch(size, batch_size, processes, number=3)
    for step, batch in enumerate(alone):
        assert [index for of_process in together for index in real(of_process[step])] == real(batch)


def test_start_in_the_middle_of_an_epoch():
    whole = epoch(25, 2, 3, number=1)
    rest = epoch(25, 2, 3, number=1, start_step=3)
    assert rest == [of_process[3:] for of_process in whole]
    assert epoch(24, 4, 1, start_step=6) == [[]]


def test_order_depends_on_seed_and_epoch_alone():
    orders = {}
    for seed in (1, 2):
        for number in (0, 1, 2):
            (batches,) = epoch(40, 8, 1, number, seed)
            orders[seed, number] = tuple(index for batch in batches for index in real(batch))
            assert all(key.epoch == number for batch in batches for key in batch)
            np.random.seed(seed + number)  # global generators have no say
            torch.manual_seed(seed + number)
    assert len(set(orders.values())) == 6
    sampler = EpochBatches(40, 8, seed=1)
    for number in (2, 0):  # an epoch before it leaves no trace
        sampler.set_position(number)
        assert tuple(key.index for batch in sampler for key in batch) == orders[1, number]


# ---- texts of a pair -------------------------------------------------------------------------------------------------

OF_IMAGE = ["awe", "fear", "awe", "anger", "fear"]


@pytest.fixture(scope="module")
def pairs(codec):
    """Data sets of one image, or of several."""

    def make(seed: int = 1, first_text: str = "rotate", image_ids: tuple[str, ...] = ("77",)) -> TrainingPairs:
        record = {"emotions": OF_IMAGE, "explanations": ["a dog"] * len(OF_IMAGE), "image_name": "Baroque/p.jpg"}
        record["origin_emotion_distribution"] = [1 / 9] * 9
        records = {image_id: record for image_id in image_ids}
        return TrainingPairs(TrainingRecords.from_records(records), None, codec, None, seed, first_text=first_text)

    return make


def test_first_text_rotates_from_the_last_to_the_first(pairs):
    rotating, stuck = pairs(), pairs(first_text="last")
    assert [rotating.choose_pair(number, 0)[0] for number in range(7)] == [4, 3, 2, 1, 0, 4, 3]
    assert {stuck.choose_pair(number, 0)[0] for number in range(7)} == {4}


def test_second_text_has_another_emotion_where_there_is_one(pairs):
    dataset = pairs()
    for number in range(50):
        first, second = dataset.choose_pair(number, 0)
        assert OF_IMAGE[first] != OF_IMAGE[second]
    of_last = {dataset.choose_pair(number, 0)[1] for number in range(0, 500, 5)}  # first is always the last "fear"
    assert of_last == {0, 2, 3}  # and each of the others is drawn
    assert second_candidates(["awe", "awe", "awe"], 1) == [0, 2]
    assert second_candidates(["awe"], 0) == [0]


def test_a_pair_depends_on_seed_epoch_and_image_alone(pairs):
    def chosen(dataset: TrainingPairs, index: int = 0, numbers=range(30)) -> list[tuple[int, int]]:
        return [dataset.choose_pair(number, index) for number in numbers]

    dataset = pairs()
    expected = chosen(dataset)
    assert chosen(dataset, numbers=reversed(range(30)))[::-1] == expected
    assert chosen(pairs(seed=2)) != expected
    assert chosen(pairs(image_ids=("78",))) != expected
    assert chosen(pairs(image_ids=("5", "77")), 1) == expected  # its place in the file has no say


def test_an_item_is_of_its_own_image_alone(codec):
    """Image, distribution, texts and cached VAD values of every record, of different numbers of annotations."""
    records = {
        str(number): {
            "emotions": OF_IMAGE[:size],
            "explanations": [f"image {number}"] * size,
            "image_name": f"Baroque/{number}.jpg",
            "origin_emotion_distribution": [float(place == number) for place in range(9)],
        }
        for number, size in ((1, 2), (2, 4), (3, 3))
    }

    class Names:
        def load(self, names):
            return [{"name": name} for name in names]

    class RowNumbers:
        context_free = False

        def for_texts(self, token_ids, *_):
            return np.broadcast_to(np.arange(len(token_ids))[:, None, None], (*token_ids.shape, 3))

    pairs = TrainingPairs(TrainingRecords.from_records(records), Names(), codec, RowNumbers(), seed=0)
    assert pairs.records.explanations == b""
    for index, (first_row, (image_id, record)) in enumerate(zip([0, 2, 6], records.items(), strict=True)):
        item, chosen = pairs[ItemKey(0, index)], pairs.choose_pair(0, index)
        expected = codec.encode([record["emotions"][i] for i in chosen], [record["explanations"][i] for i in chosen])
        assert item["name"] == record["image_name"] and item["image_id"] == int(image_id)
        assert item["emotion_distribution"].tolist() == record["origin_emotion_distribution"]
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
    collator = PairCollator(3, 0, 6)
    rows = collator.visual_negatives(ItemKey(2, 5), 8)
    torch.manual_seed(9)
    assert torch.equal(collator.visual_negatives(ItemKey(2, 5), 8), rows)
    for other, key in ((PairCollator(4, 0, 6), ItemKey(2, 5)), (collator, ItemKey(3, 5)), (collator, ItemKey(2, 6))):
        assert not torch.equal(other.visual_negatives(key, 8), rows)


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_label_positions():
    """Text of bos, two words to learn, padding: the word at p is predicted at p - 1."""
    labels = torch.tensor([[-100, 5, 6, -100], [-100, 7, -100, 8]])
    positions, targets = label_positions(labels)
    assert positions.tolist() == [0, 1, 4, 6] and targets.tolist() == [5, 6, 7, 8]
    positions, targets = label_positions(labels, multiple=8)
    assert len(positions) == 8 and targets.tolist() == [5, 6, 7, 8] + [-100] * 4
    positions, targets = label_positions(labels, len_prefix=1)
    assert positions.tolist() == [1, 6] and targets.tolist() == [6, 8]


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
    assert batch["counts"] == (9, 6, 3, 3)
    assert batch["pixels"].shape == (3, 3, 2, 2) and batch["pixels"][:, 0, 0, 0].tolist() == [4, 5, 6]
    wanted = batch["lm_targets"] != -100
    assert batch["lm_positions"][wanted].tolist() == [row * 8 + place for row in (0, 2, 4) for place in (0, 1, 8)]
    assert batch["lm_targets"][wanted].tolist() == [7, 7, 8] * 3


def test_batch_of_one_image_has_no_negatives():
    batch = PairCollator(1, 0, 6)([item(4)])
    assert "visual_negatives" not in batch and batch["counts"] == (3, 2, 1, 1)
    assert batch["image_ids"].tolist() == [104] and batch["image_weight"].tolist() == [1]


def test_a_filler_item_does_not_count():
    batch = PairCollator(1, 0, 6)([item(4, False)])
    assert batch["counts"] == (0, 0, 0, 0)
    assert (batch["lm_targets"] == -100).all() and batch["image_weight"].tolist() == [0]


# ---- the label loss --------------------------------------------------------------------------------------------------


def test_the_nine_emotions_begin_with_nine_tokens(codec, monkeypatch):
    tokens = codec.label_tokens()
    assert len(set(tokens)) == 9
    for emotion, token in zip(EMOTIONS, tokens, strict=True):
        assert emotion.startswith(codec.tokenizer.decode([token]).strip())
    encoded = codec.encode(list(EMOTIONS), ["a sea"] * 9)
    assert encoded.input_ids[:, len(codec.prompt().ids)].tolist() == tokens
    monkeypatch.setattr(codec, "bpe", lambda texts: [list(map(ord, text)) for text in texts])  # " " first, nine times
    with pytest.raises(InputError, match="--use_label_loss: after --prompt_text"):
        codec.label_tokens()


def test_the_label_loss_takes_the_place_of_one_cross_entropy(codec):
    encoded = codec.encode(["awe", "something else"], ["a sea", "b"])
    texts = {name: getattr(encoded, name) for name in ("input_ids", "labels", "segment_ids")}
    pair = item(0) | texts | {"vad": np.zeros((2, 30, 3), np.float32)}
    position = len(codec.prompt().ids) - 1
    plain, with_loss = (PairCollator(0, 0, 6, place)([pair]) for place in (None, position))
    learnt = [[int(token) for token in batch["lm_targets"] if token != -100] for batch in (plain, with_loss)]
    for name in ("awe", "something else"):
        learnt[0].remove(codec.label_tokens()[EMOTIONS.index(name)])
    assert sorted(learnt[1]) == sorted(learnt[0])
    assert with_loss["counts"] == plain["counts"]._replace(tokens=plain["counts"].tokens - 2)
