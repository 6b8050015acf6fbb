"""The training objective by hand; the images, texts and negatives of an epoch."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageFeatures
from models.losses import contrastive_loss, emotion_loss, lm_loss, vad_loss
from models.sevlm import SEVLM
from tests.conftest import REPOSITORY
from utils.constants import PROMPT_TEXT
from utils.data.datasets import (
    EpochBatches,
    ItemKey,
    PairCollator,
    TrainingPairs,
    derangement,
    label_positions,
    second_candidates,
)
from utils.data.records import TrainingRecords
from utils.data.text_codec import TextCodec, load_tokenizer


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float32)


# ---- language model --------------------------------------------------------------------------------------------------


def test_lm_loss_by_hand():
    """Two positions over three words: logits (0, log 2, 0) and (log 3, 0, 0); -log 1/4 and -log 3/5."""
    hidden = torch.eye(2)
    embedding = torch.tensor([[0, math.log(3)], [math.log(2), 0], [0, 0]])
    loss = lm_loss(hidden, embedding, torch.tensor([0, 0]))
    assert loss == pytest.approx((math.log(4) + math.log(5 / 3)) / 2)
    assert lm_loss(hidden, embedding, torch.tensor([-100, 0])) == pytest.approx(math.log(5 / 3))


@pytest.mark.parametrize("rows", [1, 5, 512, 513, 1030])
def test_lm_loss_and_gradients_are_cross_entropys(draw, rows):
    """Across the parts of 512 positions that are computed at a time."""
    hidden, embedding = draw(rows, 12), draw(31, 12)
    targets = torch.arange(rows) * 7 % 31
    targets[1::4] = -100
    fused = [hidden.clone().requires_grad_(), embedding.clone().requires_grad_()]
    plain = [hidden.clone().requires_grad_(), embedding.clone().requires_grad_()]
    loss = lm_loss(*fused, targets)
    expected = F.cross_entropy(plain[0] @ plain[1].T, targets)
    assert torch.allclose(loss, expected, rtol=1e-5, atol=0)
    (3 * loss).backward()
    (3 * expected).backward()
    for tensor, other in zip(fused, plain, strict=True):
        assert torch.allclose(tensor.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 3])
def test_lm_loss_with_nothing_to_predict(draw, rows):
    hidden, embedding = draw(rows, 4).requires_grad_(), draw(5, 4).requires_grad_()
    loss = lm_loss(hidden, embedding, torch.full((rows,), -100))
    loss.backward()
    assert loss == 0 and hidden.grad.abs().sum() == 0 and embedding.grad.abs().sum() == 0


def test_lm_loss_of_large_logits(draw):
    hidden = (1000 * draw(4, 3)).requires_grad_()
    loss = lm_loss(hidden, 10 * draw(7, 3), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(hidden.grad).all()


def test_label_positions():
    """Text of bos, two words to learn, padding: the word at p is predicted at p - 1."""
    labels = torch.tensor([[-100, 5, 6, -100], [-100, 7, -100, 8]])
    positions, targets = label_positions(labels)
    assert positions.tolist() == [0, 1, 4, 6] and targets.tolist() == [5, 6, 7, 8]
    positions, targets = label_positions(labels, multiple=8)
    assert len(positions) == 8 and targets.tolist() == [5, 6, 7, 8] + [-100] * 4
    positions, targets = label_positions(labels, len_prefix=1)
    assert positions.tolist() == [1, 6] and targets.tolist() == [6, 8]


# ---- contrastive -----------------------------------------------------------------------------------------------------


def published(p: float, *negatives: float) -> float:
    """-log(eps + e^p / (eps + e^p + e^n1 + e^n2)), eps = 1e-8, in double precision."""
    total = 1e-8 + math.exp(p) + sum(math.exp(negative) for negative in negatives)
    return -math.log(1e-8 + math.exp(p) / total)


def test_contrastive_loss_by_hand():
    loss = contrastive_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    assert loss == pytest.approx(math.log(3), abs=1e-6)
    loss = contrastive_loss(torch.tensor([math.log(2)]), torch.zeros(1), None)
    assert loss == pytest.approx(math.log(3 / 2), abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1, 5, 20])
def test_contrastive_loss_is_the_published_formula(draw, scale):
    p, n1, n2 = (scale * draw(16) for _ in range(3))
    expected = [published(*scores) for scores in zip(p.tolist(), n1.tolist(), n2.tolist(), strict=True)]
    assert contrastive_loss(p, n1, n2) == pytest.approx(np.mean(expected), rel=1e-5)
    lone = [published(*scores) for scores in zip(p.tolist(), n1.tolist(), strict=True)]
    assert contrastive_loss(p, n1, None) == pytest.approx(np.mean(lone), rel=1e-5)
    weight = (torch.arange(16) % 2).float()
    assert contrastive_loss(p, n1, n2, weight) == pytest.approx(np.mean(expected[1::2]), rel=1e-5)


@pytest.mark.parametrize("score", [-200, -100, -20, 88, 100, 200, 1000])
def test_contrastive_loss_is_finite_where_the_published_one_overflows(score):
    p = torch.tensor([float(score), 0.0, float(score), -float(score)], requires_grad=True)
    n1 = torch.tensor([0.0, float(score), float(score), float(score)], requires_grad=True)
    loss = contrastive_loss(p, n1, n1.detach() - 1)
    loss.backward()
    assert torch.isfinite(loss) and loss >= -1e-6
    assert torch.isfinite(p.grad).all() and torch.isfinite(n1.grad).all()
    worst = contrastive_loss(torch.tensor([-200.0]), torch.tensor([200.0]), None)
    assert worst == pytest.approx(-math.log(1e-8), rel=1e-5)  # the epsilon bounds the loss
    assert contrastive_loss(torch.tensor([200.0]), torch.tensor([-200.0]), None) == pytest.approx(0, abs=1e-6)


def test_contrastive_gradient_is_the_published_formulas(draw):
    scores = [(3 * draw(6)).requires_grad_() for _ in range(3)]
    contrastive_loss(*scores).backward()
    plain = [score.detach().double().requires_grad_() for score in scores]
    p, n1, n2 = (score.exp() for score in plain)
    (-torch.log(1e-8 + p / (1e-8 + p + n1 + n2))).mean().backward()
    for score, exact in zip(scores, plain, strict=True):
        assert torch.allclose(score.grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


# ---- VAD -------------------------------------------------------------------------------------------------------------


def test_vad_loss_by_hand():
    """Position 1 has no lexicon value and does not count; squares of 0: 1, 4, 0; of 2: 0.25, 0, 0; six numbers."""
    target = torch.tensor([[[0.5, 0, 0], [0, 0, 0], [0, 0, 0.5]]])
    predicted = torch.tensor([[[1.5, 2, 0], [9, 9, 9], [0, 0, 1]]], requires_grad=True)
    loss = vad_loss(predicted, target)
    assert loss.item() == pytest.approx(5.25 / 6)
    loss.backward()
    assert predicted.grad[0, 1].tolist() == [0, 0, 0]
    assert predicted.grad[0, 0].tolist() == pytest.approx([2 / 6, 4 / 6, 0])


def test_vad_loss_without_a_known_word(draw):
    predicted = draw(2, 4, 3).requires_grad_()
    loss = vad_loss(predicted, torch.zeros(2, 4, 3))
    loss.backward()
    assert loss == 0 and predicted.grad.abs().max() == 0
    assert (
        vad_loss(predicted, torch.zeros(2, 4, 3), count=torch.tensor(0.0)) == 0
    )  # a count of several processes' tensors


# ---- emotion ---------------------------------------------------------------------------------------------------------


def test_emotion_loss_by_hand():
    """Even logits against one certain emotion: log 9; against themselves: 0."""
    certain = torch.eye(9)[2:3]
    assert emotion_loss(torch.zeros(1, 9), certain) == pytest.approx(math.log(9), rel=1e-6)
    even = torch.full((1, 9), 1 / 9)
    assert emotion_loss(torch.zeros(1, 9), even) == pytest.approx(0, abs=1e-6)
    halves = (torch.eye(9)[0:1] + torch.eye(9)[1:2]) / 2
    assert emotion_loss(torch.zeros(1, 9), halves) == pytest.approx(math.log(9 / 2), rel=1e-6)
    both = emotion_loss(torch.zeros(2, 9), torch.cat([certain, even]))
    assert both == pytest.approx(math.log(9) / 2, rel=1e-6)
    weighted = emotion_loss(torch.zeros(2, 9), torch.cat([certain, even]), torch.tensor([1.0, 0.0]))
    assert weighted == pytest.approx(math.log(9), rel=1e-6)


def test_emotion_loss_has_cross_entropys_gradient(draw):
    logits, distribution = draw(4, 9).requires_grad_(), draw(4, 9).softmax(-1)
    emotion_loss(logits, distribution).backward()
    gradient, logits.grad = logits.grad, None
    F.cross_entropy(logits, distribution).backward()
    assert torch.allclose(gradient, logits.grad, atol=1e-6)


# ---- several processes -----------------------------------------------------------------------------------------------


def losses_of(p: torch.Tensor, rows: slice, images: slice, counts: tuple | None) -> torch.Tensor:
    """All four losses of some rows, each from the same parameters; `counts` as several processes agree on them."""
    lm_count, texts, known, count = counts or (None,) * 4
    hidden, targets = p[rows], torch.tensor([3, -100, 1, 0, -100, -100, 2, 4])[rows]
    vad = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]])[rows]
    weight = torch.tensor([1.0, 1, 1, 1, 1, 1, 0, 0])[rows]
    return (
        lm_loss(hidden, torch.linspace(-1, 1, 45).view(5, 9), targets, lm_count)
        + contrastive_loss(hidden[:, 0], hidden[:, 1], hidden[:, 2], weight, texts)
        + vad_loss(hidden[:, 3:6], vad, count=known)
        + emotion_loss(hidden[::2], torch.eye(9)[images], weight[::2], count)
    )


def test_counts_make_the_mean_of_gradients_that_of_the_whole_batch(draw):
    """Two processes with unequal counts: tokens 3 and 2, texts 4 and 2, known words 3 and 1, images 2 and 1."""
    values = draw(8, 9)
    whole = values.clone().requires_grad_()
    expected = losses_of(whole, slice(0, 8), slice(0, 4), None)
    expected.backward()
    counts = tuple(torch.tensor(total / 2) for total in (5, 6, 4, 3))
    halves = values.clone().requires_grad_()
    first = losses_of(halves, slice(0, 4), slice(0, 2), counts)
    second = losses_of(halves, slice(4, 8), slice(2, 4), counts)
    ((first + second) / 2).backward()
    assert (first + second).item() / 2 == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(halves.grad, whole.grad, rtol=1e-4, atol=1e-6)
    apart = values.clone().requires_grad_()
    (
        (losses_of(apart, slice(0, 4), slice(0, 2), None) + losses_of(apart, slice(4, 8), slice(2, 4), None)) / 2
    ).backward()
    assert not torch.allclose(apart.grad, whole.grad, rtol=1e-2, atol=1e-4)  # without them it is another objective


# ---- pooling ---------------------------------------------------------------------------------------------------------


def tiny_model(masked_pooling: bool = False, len_prefix: int = 0) -> SEVLM:
    """Of four dimensions; 9 is the padding. Images come as features, so there is no encoder."""
    sizes = {"vocab_size": 10, "n_positions": 16, "n_embd": 4, "n_layer": 1, "n_head": 1}
    gpt2 = GPT2Config(**sizes, add_cross_attention=True, bos_token_id=0, eos_token_id=0, pad_token_id=9)
    flags = {"use_cl_loss": True, "use_VAD": False, "len_prefix": len_prefix, "masked_pooling": masked_pooling}
    config = SEVLMConfig(encoder_dim=4, **flags)
    return SEVLM(config, Explainer(gpt2, config))


def pooled(hidden, input_ids, segment_ids, masked: bool, prefix: int = 0):
    return tiny_model(masked, prefix).pool_spans(hidden, torch.tensor(input_ids), torch.tensor(segment_ids))


@pytest.mark.parametrize("prefix", [0, 2])
def test_published_pooling_counts_padding(prefix):
    """Six positions of emotion behind the prefix, whatever the segments say; the rest with its padding."""
    hidden = torch.arange(10.0 + prefix).view(1, -1, 1)
    ids, segments = [[1] * (8 + prefix) + [9, 9]], [[5] * (7 + prefix) + [6] * 3]
    emotion, explanation = pooled(hidden, ids, segments, False, prefix)
    assert emotion.item() == 2.5 + prefix and explanation.item() == 7.5 + prefix


def test_masked_pooling_by_hand():
    """Row 0: emotion at 0..4, explanation at 5..7, padding at 8, 9; row 1: 0..6 and 7..9, no padding."""
    hidden = torch.stack([torch.arange(10.0), torch.arange(10.0) ** 2]).unsqueeze(-1)
    ids = [[1] * 8 + [9, 9], [1] * 10]
    segments = [[5] * 5 + [6] * 5, [5] * 7 + [6] * 3]
    emotion, explanation = pooled(hidden, ids, segments, True)
    assert emotion.flatten().tolist() == pytest.approx([2.0, (0 + 1 + 4 + 9 + 16 + 25 + 36) / 7])
    assert explanation.flatten().tolist() == pytest.approx([6.0, (49 + 64 + 81) / 3])
    emotion, explanation = pooled(hidden[:1], ids[:1], segments[:1], True, prefix=2)
    assert emotion.item() == 3.0 and explanation.item() == 6.0  # the prefix is no part of the emotion


def test_masked_pooling_of_padding_alone():
    emotion, explanation = pooled(torch.ones(1, 4, 2), [[1, 1, 9, 9]], [[5, 5, 6, 6]], True)
    assert emotion.tolist() == [[1, 1]] and explanation.tolist() == [[0, 0]]


def scores_by_hand(head, image, hidden, negatives):
    emotion, explanation = hidden[:, :6].mean(1), hidden[:, 6:].mean(1)
    grid = image.mean(1)
    rows = []
    for text in range(len(hidden)):
        others = [text, text ^ 1] + ([] if negatives is None else [negatives[text]])
        rows.append(
            [head.pred(torch.cat([grid[text // 2], emotion[text], explanation[other]])).item() for other in others]
        )
    return torch.tensor(rows).T


@pytest.mark.parametrize("images", [1, 3])
def test_contrastive_scores(draw, images):
    """Own explanation, the partner's, another image's; an image alone in its batch has no third score."""
    torch.manual_seed(0)
    model = tiny_model()
    for parameter in model.decoder.sim_mlp.parameters():
        parameter.data.uniform_()  # the initial ones are so small that every score is the same
    hidden, grid = draw(2 * images, 9, 4), draw(images, 5, 4)
    negatives = None if images == 1 else torch.tensor([2, 5, 4, 1, 0, 3])
    ids = torch.zeros(2 * images, 9, dtype=torch.long)
    scores = model.contrastive_scores(ImageFeatures(grid[:, 0], grid), hidden, ids, ids, negatives)
    expected = scores_by_hand(model.decoder.sim_mlp, grid, hidden, None if negatives is None else negatives.tolist())
    assert (scores[2] is None) == (images == 1)
    assert expected.std(dim=0).min() > 0.01  # else any order would do
    for score, by_hand in zip(scores, expected, strict=False):
        assert torch.allclose(score, by_hand, rtol=1e-5)


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
            np.random.seed(seed + number)  # global generators have no say
            torch.manual_seed(seed + number)
            assert epoch(40, 8, 1, number, seed) == [batches]
            assert all(key.epoch == number for batch in batches for key in batch)
    assert len(set(orders.values())) == 6
    sampler = EpochBatches(40, 8, seed=1)
    sampler.set_position(2)
    list(sampler)  # an epoch before it leaves no trace
    sampler.set_position(0)
    assert tuple(key.index for batch in sampler for key in batch) == orders[1, 0]


# ---- texts of a pair -------------------------------------------------------------------------------------------------

EMOTIONS = ["awe", "fear", "awe", "anger", "fear"]


@pytest.fixture(scope="module")
def pairs():
    """Data sets of one image, or of several, with the GPT-2's tokenizer."""
    codec = TextCodec(load_tokenizer(str(REPOSITORY / "models/configs/distilgpt2")), PROMPT_TEXT, max_seq_len=30)

    def make(seed: int = 1, first_text: str = "walk", image_ids: tuple[str, ...] = ("77",)) -> TrainingPairs:
        record = {"emotions": EMOTIONS, "explanations": ["a dog"] * len(EMOTIONS), "image_name": "Baroque/p.jpg"}
        record["origin_emotion_distribution"] = [1 / 9] * 9
        records = {image_id: record for image_id in image_ids}
        return TrainingPairs(TrainingRecords.from_records(records), None, codec, None, seed, first_text=first_text)

    return make


def test_first_text_walks_from_the_last_to_the_first(pairs):
    walking, stuck = pairs(), pairs(first_text="last")
    assert [walking.choose_pair(number, 0)[0] for number in range(7)] == [4, 3, 2, 1, 0, 4, 3]
    assert {stuck.choose_pair(number, 0)[0] for number in range(7)} == {4}


def test_second_text_has_another_emotion(pairs):
    dataset = pairs()
    for number in range(50):
        first, second = dataset.choose_pair(number, 0)
        assert EMOTIONS[first] != EMOTIONS[second]
    of_last = {dataset.choose_pair(number, 0)[1] for number in range(0, 500, 5)}  # first is always the last "fear"
    assert of_last == {0, 2, 3}  # and each of the others is drawn


def test_second_text_where_there_is_one_emotion():
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


# ---- negatives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(2, 12))
def test_derangement_has_no_fixed_points(size):
    generator = torch.Generator().manual_seed(size)
    for _ in range(50):
        drawn = derangement(size, generator)
        assert sorted(drawn.tolist()) == list(range(size))
        assert (drawn != torch.arange(size)).all()


def test_negatives_are_other_images_same_slot():
    collator = PairCollator(seed=3, len_prefix=0, span_start=6)
    for images in range(2, 9):
        rows = collator.visual_negatives(ItemKey(2, 5), images)
        assert rows.shape == (2 * images,)
        own = torch.arange(2 * images)
        assert (rows // 2 != own // 2).all() and (rows % 2 == own % 2).all()
        for slot in (0, 1):
            assert sorted(rows[slot::2].tolist()) == list(range(slot, 2 * images, 2))


def test_the_two_slots_have_negatives_of_their_own():
    rows = PairCollator(seed=3, len_prefix=0, span_start=6).visual_negatives(ItemKey(2, 5), 16)
    assert (rows[::2] // 2 != rows[1::2] // 2).any()


def test_negatives_depend_on_seed_epoch_and_first_image_alone():
    collator = PairCollator(3, 0, 6)
    rows = collator.visual_negatives(ItemKey(2, 5), 8)
    torch.manual_seed(9)
    assert torch.equal(collator.visual_negatives(ItemKey(2, 5), 8), rows)
    others = [PairCollator(4, 0, 6), collator, collator]
    keys = [ItemKey(2, 5), ItemKey(3, 5), ItemKey(2, 6)]
    for other, key in zip(others, keys, strict=True):
        assert not torch.equal(other.visual_negatives(key, 8), rows)


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


def test_batch_of_one_image_has_no_negatives():
    batch = PairCollator(1, 0, 6)([item(4)])
    assert "visual_negatives" not in batch
    assert batch["counts"] == (3, 2, 1, 1)
    assert batch["image_ids"].tolist() == [104] and batch["image_weight"].tolist() == [1]


def test_image_that_does_not_count():
    """A filler item: no label, no weight, no count."""
    batch = PairCollator(1, 0, 6)([item(4, False)])
    assert batch["counts"] == (0, 0, 0, 0)
    assert (batch["lm_targets"] == -100).all() and batch["image_weight"].tolist() == [0]


def test_batch_lays_pairs_side_by_side():
    batch = PairCollator(1, 0, 6)([item(4), item(5), item(6)])
    assert batch["input_ids"][:, 0].tolist() == [4, 4, 5, 5, 6, 6]
    assert batch["counts"] == (9, 6, 3, 3)
    assert batch["pixels"].shape == (3, 3, 2, 2) and batch["pixels"][:, 0, 0, 0].tolist() == [4, 5, 6]
    wanted = batch["lm_targets"] != -100
    assert batch["lm_positions"][wanted].tolist() == [row * 8 + place for row in (0, 2, 4) for place in (0, 1, 8)]
    assert batch["lm_targets"][wanted].tolist() == [7, 7, 8] * 3


def test_an_item_is_of_its_own_image_alone():
    """Image, distribution, texts and cached VAD values of every record, of different numbers of annotations."""
    codec = TextCodec(load_tokenizer(str(REPOSITORY / "models/configs/distilgpt2")), PROMPT_TEXT, max_seq_len=30)
    records = {
        str(number): {
            "emotions": EMOTIONS[:size],
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
    first_row = [0, 2, 6]
    for index, (image_id, record) in enumerate(records.items()):
        item = pairs[ItemKey(0, index)]
        chosen = pairs.choose_pair(0, index)
        expected = codec.encode([record["emotions"][i] for i in chosen], [record["explanations"][i] for i in chosen])
        assert item["name"] == record["image_name"] and item["image_id"] == int(image_id)
        assert item["emotion_distribution"].tolist() == record["origin_emotion_distribution"]
        assert item["input_ids"].tolist() == expected.input_ids.tolist()
        assert item["vad"][:, 0, 0].tolist() == [first_row[index] + i for i in chosen]
