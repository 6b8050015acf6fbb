"""Beam search, samples, given emotions and likelihoods against plain computations on tiny random models.

Greedy texts: tests/test_models/test_reference.py.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.image_encoder import ImageFeatures
from tests.test_evaluation.tiny import VAD_OF, build, features, segments_of, vad_table
from utils.constants import EMOTIONS
from utils.data.text_codec import Prompt
from utils.evaluation import generation
from utils.evaluation.generation import (
    BestOfN,
    Generated,
    beam_decode,
    caption_batch,
    draw_tokens,
    emotion_log_likelihoods,
    emotions_in_text,
    generate,
    greedy_decode,
    sample_decode,
)


@torch.no_grad()
def following(model, image, prompt: Prompt, text: list[int], vad_of) -> torch.Tensor:
    """Log-probabilities of the token behind one text of one image, with nothing kept from step to step: [V]."""
    ids, segments = torch.tensor([[*prompt.ids, *text]]), torch.tensor([segments_of(prompt, text)])
    vad = None if vad_of is None else model.vad_encoder(torch.from_numpy(vad_of(ids.numpy())))
    hidden = model.decoder(ids, segments, image, vad)
    return model.decoder.lm_head(hidden[0, -1:])[0].log_softmax(-1)


def log_probabilities(model, image, prompt: Prompt, text: list[int], vad_of) -> list[float]:
    """Of each token of the text."""
    return [float(following(model, image, prompt, text[:place], vad_of)[token]) for place, token in enumerate(text)]


def of_image(image: ImageFeatures, index: int) -> ImageFeatures:
    return ImageFeatures(*(part[index : index + 1] for part in image))


# ---- a vocabulary of nine --------------------------------------------------------------------------------------------

SMALL, STOPS, STEPS = 9, (5, 6, 7, 8), 5
PROMPT = Prompt([0, 1, 2, 1, 2, 1], [5] * 6, because_id=4, emotion_segment=5, explanation_segment=6, stop_ids=STOPS)


def plain_beam_search(model, image, vad_of, num_beams: int) -> tuple[int, ...]:
    """The text with the highest mean log-probability of its tokens, its stop included, among those that beams reach."""
    sums, ended = {(): 0.0}, {}
    for step in range(1, STEPS + 1):
        totals = {
            (*text, token): total + float(value)
            for text, total in sums.items()
            for token, value in enumerate(following(model, image, PROMPT, list(text), vad_of))
        }
        ranked = sorted(totals, key=totals.get, reverse=True)
        for text in ranked[:num_beams]:
            if text[-1] in STOPS:
                ended[text[:-1]] = max(totals[text] / step, ended.get(text[:-1], -np.inf))
        sums = {text: totals[text] for text in [text for text in ranked if text[-1] not in STOPS][:num_beams]}
    ended |= {text: total / STEPS for text, total in sums.items()}
    return max(ended, key=ended.get)


@pytest.mark.parametrize(("use_vad", "causal"), [(False, False), (True, False), (True, True)])
def test_beam_search(use_vad, causal):
    vad_of, found = vad_table(SMALL) if use_vad else None, []
    for seed, num_beams in itertools.product(range(3), (1, 3)):
        model, image = build(SMALL, seed, use_vad, causal), features(seed)
        beams = beam_decode(model, image, PROMPT, vad_of, num_beams, STEPS).tokens()
        for index, text in enumerate(beams):
            assert tuple(text) == plain_beam_search(model, of_image(image, index), vad_of, num_beams)
        found.append((beams, greedy_decode(model, image, PROMPT, vad_of, STEPS).tokens()))
    assert any(beams != greedy for beams, greedy in found), "these weights would not show a search that is greedy"
    assert len({len(text) for beams, _ in found for text in beams}) > 1, "nor one that never ends"


# new tokens so far -> probabilities of two words and the stop token, 2; others are as probable as EVEN says
EVEN = (0.36, 0.34, 0.3)
BEAMS = {
    "the mean counts, not the sum": ({(): (0.5, 0.1, 0.4), (0,): (0.1, 0.2, 0.7)}, 2, [0]),
    "a stop token that is not among the beams ends nothing": ({(): (0.51, 0.0, 0.49)}, 1, [0, 0, 0]),
    "a short text waits for what may become better": ({(): (0.3, 0.3, 0.4), (1,): (0.01, 0.01, 0.98)}, 2, [1]),
    "a stop token as probable as the last beam ends a text": ({(): (0.4, 0.2, 0.4)}, 1, []),
    "a text without an end counts as one of all its steps": ({(): (0.7, 0.0, 0.3), (0,): (0.9, 0, 0.1)}, 2, [0, 0, 0]),
}


@pytest.mark.parametrize(("table", "num_beams", "best"), BEAMS.values(), ids=BEAMS)
def test_beams_by_hand(monkeypatch, table, num_beams, best):
    class Scripted:
        def __init__(self, model, image, prompt, vad_of, texts_per_image):
            self.ids = torch.zeros(texts_per_image, 1, dtype=torch.long)

        def next_hidden(self):
            return torch.tensor([table.get(tuple(row[1:]), EVEN) for row in self.ids.tolist()]).log()

        def append(self, next_ids):
            self.ids = torch.cat([self.ids, next_ids[:, None]], dim=1)

        def reorder(self, rows):
            self.ids = self.ids[rows]

    monkeypatch.setattr(generation, "DecodingState", Scripted)
    model = SimpleNamespace(decoder=SimpleNamespace(lm_head=lambda hidden: hidden))
    prompt = Prompt([0], [0], because_id=9, emotion_segment=0, explanation_segment=0, stop_ids=(2,))
    assert beam_decode(model, features(images=1), prompt, None, num_beams, 3).tokens() == [best]


# ---- GPT-2's vocabulary ----------------------------------------------------------------------------------------------


def test_likelihood_of_the_nine(model, codec, monkeypatch):
    """Each name token by token, " because" behind it; with this prompt VAD reaches the names as well."""
    monkeypatch.setattr(codec, "prompt_text", " what i feel when i look at this is")
    image = features(images=2)
    assert [len(codec.given(emotion)) for emotion in EMOTIONS] == [2, 2, 3, 2, 2, 2, 2, 2, 3]
    ours = emotion_log_likelihoods(model, image, codec, VAD_OF)
    for row, column in itertools.product(range(2), (0, 2, 8)):  # names of two, three and three tokens
        (name,) = codec.bpe([f" {EMOTIONS[column]} because"])
        expected = sum(log_probabilities(model, of_image(image, row), codec.prompt(), name, VAD_OF))
        assert float(ours[row, column]) == pytest.approx(expected, abs=1e-3, rel=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 0.1


def test_given_emotion(model, codec):
    """The continuation is what a plain loop writes behind "the emotion is something else because"."""
    image, emotion, prompt = features(images=2), "something else", codec.prompt("something else")
    generated, beams = (generate(model, image, codec, VAD_OF, num_beams, emotion) for num_beams in (1, 3))
    assert generated.token_ids.shape[1] == beams.token_ids.shape[1] == 25 - 3 and beams.tokens() != generated.tokens()
    for text in generated.texts(codec, given=codec.given(emotion)):
        assert text.startswith("something else because")
    assert prompt.segments == [codec.emotion_id] * (len(prompt.ids) - 1) + [codec.explanation_id]
    for index, text in enumerate(generated.tokens()):
        for place, token in enumerate(text):
            assert token == following(model, of_image(image, index), prompt, text[:place], VAD_OF).argmax()


def test_only_a_text_without_an_end_loses_its_last_token(codec):
    rows = codec.bpe([" awe because it glows", " fear because" + " dark" * 23])
    generated = Generated(torch.tensor([rows[0] + [-1] * 20, rows[1]]), torch.tensor([5, 25]))
    assert generated.texts(codec) == ["awe because it glows", "fear because" + " dark" * 23]
    assert generated.texts(codec, drop_last_token=True) == ["awe because it glows", "fear because" + " dark" * 22]


def test_the_emotion_in_a_text_is_that_of_the_whole_text(codec):
    model, image = build(len(codec.tokenizer), seed=2), features(images=20)
    texts = [full for full, _ in caption_batch(model, image, codec, VAD_OF)]
    named = emotions_in_text(model, image, codec, VAD_OF)
    assert len(set(texts)) > 3
    assert [name in EMOTIONS for name in named] == [text.split("because")[0].strip() in EMOTIONS for text in texts]
    assert all(text.startswith(name) for name, text in zip(named, texts, strict=True))


# ---- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nucleus", [512, 2])
def test_draw_follows_the_distribution(monkeypatch, nucleus):
    """Also where the most probable tokens, which are sorted first, do not reach top_p."""
    monkeypatch.setattr(generation, "NUCLEUS", nucleus)
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    for top_p, kept in ((1.0, [0, 1, 2, 3, 4]), (0.7, [1, 3]), (0.71, [1, 3, 4]), (1e-6, [1])):
        drawn = draw_tokens(probabilities.expand(10_000, 5), top_p, uniform)
        shares = torch.bincount(drawn, minlength=5) / 10_000
        expected = torch.zeros(5)
        expected[kept] = probabilities[kept] / probabilities[kept].sum()
        torch.testing.assert_close(shares, expected, atol=2e-4, rtol=0)
    extremes = draw_tokens(probabilities.expand(2, 5), 1.0, torch.tensor([0.0, 1 - 2**-24]))
    assert extremes.tolist() == [1, 2]


def test_samples():
    model, image, vad_of = build(SMALL, 5), features(), vad_table(SMALL)

    def sample(images=image, seeds=(5, 6, 7), **more) -> list[list[int]]:
        return sample_decode(model, images, PROMPT, vad_of, list(seeds), 40, max_new_tokens=8, **more).tokens()

    free = sample()
    assert len(free) == 120 and free == sample() and free != sample(seeds=(8, 9, 10))
    assert sample(of_image(image, 1), (6,)) == free[40:80]  # whatever else is asked
    assert len(set(map(tuple, free))) > 6 and min(map(len, free)) < 3
    long = sample(min_new_tokens=3)
    assert min(map(len, long)) == 3 and not set(STOPS) & {token for text in long for token in text}
    greedy = greedy_decode(model, image, PROMPT, vad_of, 8).tokens()
    assert sample(top_p=1e-6) == sample(temperature=1e-4) == [text for text in greedy for _ in range(40)]


def test_log_probability_of_a_sample(monkeypatch):
    """The mean over its tokens, the stop token included, whatever temperature and nucleus it was drawn with."""
    model, image, vad_of, steps = build(SMALL, 5), features(images=2), vad_table(SMALL), []
    monkeypatch.setattr(generation, "draw_tokens", lambda *given: steps.append(draw_tokens(*given)) or steps[-1])
    drawn = sample_decode(model, image, PROMPT, vad_of, [3, 4], 6, temperature=1.4, top_p=0.9, max_new_tokens=4)
    assert 0 < (drawn.lengths < 4).sum() < 12
    for row, length in enumerate(drawn.lengths.tolist()):
        tokens = [int(step[row]) for step in steps][: length + 1]
        expected = np.mean(log_probabilities(model, of_image(image, row // 6), PROMPT, tokens, vad_of))
        assert float(drawn.log_probabilities[row]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scored", [True, False])
def test_the_best_sample_is_the_caption(model, codec, scored):
    """By scores, or the likeliest. Images of one emotion are drawn together; seeds, scores and captions stay theirs."""
    asked, best = [], []

    def scores(rows, texts):
        asked.append((rows, [len(group) for group in texts]))
        return torch.tensor([[float(place == row) for place in range(3)] for row in rows])

    image, emotions, seeds = features(), ["awe", "fear", "awe"], [11, 12, 13]
    best_of = BestOfN(seeds, 3, 1.3, 0.1, scores if scored else None)
    captions = caption_batch(model, image, codec, VAD_OF, emotions=emotions, best_of=best_of)
    for row, emotion in enumerate(emotions):
        prompt, given = codec.prompt(emotion), codec.given(emotion)
        options = {"temperature": 1.3, "top_p": 0.1, "max_new_tokens": 25 - len(given)}
        drawn = sample_decode(model, of_image(image, row), prompt, VAD_OF, [seeds[row]], 3, **options)
        best.append(row if scored else int(drawn.log_probabilities.argmax()))
        assert captions[row][0] == drawn.texts(codec, given=given)[best[row]]
    assert any(best) and asked == ([([0, 2], [3, 3]), ([1], [3])] if scored else [])
