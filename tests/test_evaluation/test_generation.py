"""Beam search, samples, given emotions and likelihoods against plain computations on tiny random models.

Greedy texts: tests/test_models/test_reference.py.
"""

import itertools
from types import SimpleNamespace

import pytest
import torch

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from tests.test_evaluation.tiny import IMAGES, VAD_OF, build, features, vad_table
from utils.constants import EMOTIONS
from utils.data.text_codec import Prompt
from utils.evaluation import generation
from utils.evaluation.generation import (
    Generated,
    beam_decode,
    caption_batch,
    draw_tokens,
    emotion_log_likelihoods,
    emotions_in_text,
    generate,
    greedy_decode,
    most_probable,
    sample_decode,
)


def segments_of(ids: list[int], prompt: list[int], because: int, emotion: int, explanation: int) -> list[int]:
    new, found = [], False
    for token in ids:
        found |= token == because
        new.append(explanation if found else emotion)
    return prompt + new


@torch.no_grad()
def plain_log_probabilities(model, image, ids, segments, vad_of) -> torch.Tensor:
    """Of the next token of one text of one image, with nothing kept from step to step: [V]."""
    ids, segments = torch.tensor([ids]), torch.tensor([segments])
    vad = None if vad_of is None else model.vad_encoder(torch.from_numpy(vad_of(ids.numpy())))
    hidden = model.decoder(ids, segments, image, vad)
    return model.decoder.lm_head(hidden[0, -1:])[0].log_softmax(-1)


def of_image(image: ImageFeatures, index: int) -> ImageFeatures:
    return ImageFeatures(*(part[index : index + 1] for part in image))


# ---- a vocabulary of nine --------------------------------------------------------------------------------------------

SMALL, BECAUSE, STOPS, SEGMENTS, STEPS = 9, 4, (5, 6, 7, 8), (5, 6), 3
PROMPT_IDS, PROMPT_SEGMENTS = [0, 1, 2, 1, 2, 1], [5] * 6
PROMPT = Prompt(PROMPT_IDS, PROMPT_SEGMENTS, BECAUSE, *SEGMENTS, STOPS)


def next_log_probabilities(model, image, text, vad_of) -> torch.Tensor:
    segments = segments_of(list(text), PROMPT_SEGMENTS, BECAUSE, *SEGMENTS)
    return plain_log_probabilities(model, image, PROMPT_IDS + list(text), segments, vad_of)


def plain_scores(model, image, vad_of) -> dict[tuple[int, ...], float]:
    """Every text of up to three tokens -> mean log-probability of its tokens, its stop included."""
    following, scores = {}, {}

    def after(text: tuple[int, ...]) -> torch.Tensor:
        if text not in following:
            following[text] = next_log_probabilities(model, image, text, vad_of)
        return following[text]

    words = [token for token in range(SMALL) if token not in STOPS]
    for length in range(STEPS + 1):
        for text in itertools.product(words, repeat=length):
            total = sum(float(after(text[:place])[token]) for place, token in enumerate(text))
            if length == STEPS:
                scores[text] = total / STEPS
            else:
                scores[text] = (total + max(float(after(text)[stop]) for stop in STOPS)) / (length + 1)
    return scores


@pytest.mark.parametrize(("use_vad", "causal"), [(False, False), (True, False), (True, True)])
def test_beam_search_finds_the_best_text(use_vad, causal):
    lengths, improved = set(), 0
    for seed in range(3):
        model, image = build(SMALL, seed, use_vad, causal), features(seed)
        vad_of = vad_table(SMALL) if use_vad else None
        wide = beam_decode(model, image, PROMPT, vad_of, 64, STEPS).tokens()
        for index in range(IMAGES):
            scores = plain_scores(model, of_image(image, index), vad_of)
            assert tuple(wide[index]) == max(scores, key=scores.get)
        lengths |= set(map(len, wide))
        improved += wide != greedy_decode(model, image, PROMPT, vad_of, STEPS).tokens()
    assert len(lengths) > 1 and improved, "these weights would not show a search that is greedy, or never ends"


def test_beams_of_an_image_do_not_depend_on_the_others():
    model, image, vad_of = build(SMALL, 3, len_prefix=2), features(images=6), vad_table(SMALL)
    prompt = (Prompt([5, 5, *PROMPT_IDS], [5] * 8, BECAUSE, *SEGMENTS, STOPS), vad_of, 3, 12)
    together = beam_decode(model, image, *prompt).tokens()
    assert together == [beam_decode(model, of_image(image, index), *prompt).tokens()[0] for index in range(6)]
    assert len(set(map(tuple, together))) > 1


# new tokens so far -> probabilities of two words and the stop token, 2; others are as probable as EVEN says
EVEN = (0.36, 0.34, 0.3)
BEAMS = {
    "the mean counts, not the sum": ({(): (0.5, 0.1, 0.4), (0,): (0.1, 0.2, 0.7)}, 2, [0]),
    "a stop token that is not among the beams ends nothing": ({(): (0.6, 0.0, 0.4)}, 1, [0, 0, 0]),
    "a short text waits for what may become better": ({(): (0.3, 0.3, 0.4), (1,): (0.01, 0.01, 0.98)}, 2, [1]),
    "of equals the first": ({(): (0.4, 0.2, 0.4), (0,): (0.4, 0.2, 0.4)}, 2, []),
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
    assert beam_decode(model, features(images=1), Prompt([0], [0], 9, 0, 0, (2,)), None, num_beams, 3).tokens() == [
        best
    ]


# ---- GPT-2's vocabulary ----------------------------------------------------------------------------------------------


def likely(model: SEVLM, monkeypatch, tokens: list[int], bonus: float = 12.0) -> None:
    """Raise the logits of some tokens, so that random weights say them."""
    head = model.decoder.lm_head
    plain = type(head).forward

    def forward(self, hidden):
        logits = plain(self, hidden)
        logits[..., tokens] += bonus
        return logits

    monkeypatch.setattr(type(head), "forward", forward)


def test_likelihood_of_the_nine(model, codec, monkeypatch):
    """Each name token by token, " because" behind it; with this prompt VAD reaches the names as well."""
    monkeypatch.setattr(codec, "prompt_text", " what i feel when i look at this is")
    image = features(images=2)
    assert [len(codec.given(emotion)) for emotion in EMOTIONS] == [2, 2, 3, 2, 2, 2, 2, 2, 3]
    ours = emotion_log_likelihoods(model, image, codec, VAD_OF)
    ids, segments, *_ = codec.prompt()
    for row, column in itertools.product(range(2), (0, 2, 8)):  # names of two, three and three tokens
        name, expected = codec.bpe([f" {EMOTIONS[column]} because"])[0], 0.0
        given = segments_of(name, segments, codec.because_id, codec.emotion_id, codec.explanation_id)
        for place, token in enumerate(name):
            now = ids + name[:place], given[: len(ids) + place]
            expected += float(plain_log_probabilities(model, of_image(image, row), *now, VAD_OF)[token])
        assert float(ours[row, column]) == pytest.approx(expected, abs=1e-3, rel=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 0.1


def test_given_emotion(model, codec):
    """The continuation is what a plain loop writes behind "the emotion is something else because"."""
    image, given = features(images=2), codec.given("something else")
    generated = generate(model, image, codec, VAD_OF, emotion="something else")
    assert codec.decode(given) == "something else because" and generated.token_ids.shape[1] == 25 - 3
    assert all(text.startswith("something else because") for text in generated.texts(codec, given=given))
    beams = generate(model, image, codec, VAD_OF, 3, "something else")
    assert beams.token_ids.shape[1] == 25 - 3 and beams.tokens() != generated.tokens()
    ids, segments, *_ = codec.prompt("something else")
    assert segments == [codec.emotion_id] * (len(ids) - 1) + [codec.explanation_id]
    for index, text in enumerate(generated.tokens()):
        for place, token in enumerate(text):
            now = [*ids, *text[:place]], [*segments, *[codec.explanation_id] * place]
            assert token == plain_log_probabilities(model, of_image(image, index), *now, VAD_OF).argmax()


@pytest.mark.parametrize("drop_last_token", [False, True])
def test_whole_text_and_explanation(codec, monkeypatch, drop_last_token):
    """First what was written, then what follows the last "because"; only a text without an end loses its last token."""
    written = [" awe because it glows because of the sky", " fear because" + " dark" * 23, " awe", " a kind of awe"]
    rows = [codec.bpe([text])[0] for text in written]
    ids = torch.tensor([row + [-1] * (25 - len(row)) for row in rows])
    generated = Generated(ids, torch.tensor([len(row) for row in rows]))
    assert generated.lengths.tolist() == [9, 25, 1, 4]
    monkeypatch.setattr(generation, "greedy_decode", lambda *_, **__: generated)
    dark = " ".join(["dark"] * (22 if drop_last_token else 23))
    expected = [("awe because it glows because of the sky", "of the sky"), (f"fear because {dark}", dark)]
    expected += [("awe", ""), ("a kind of awe", "of awe")]
    image = ImageFeatures(torch.zeros(4, 1), torch.zeros(4, 1, 1))
    assert caption_batch(None, image, codec, None, drop_last_token) == expected


def test_captions_for_chosen_emotions_are_those_of_each_image_alone(codec, model):
    """Texts for one emotion, the first of equally probable ones, are written together, whatever their images' places."""
    image, fear = features(), [0.1] * 6 + [0.3, 0.1, 0.0]
    emotions = most_probable([fear, [0.0] * 8 + [1.0], [*fear[:7], 0.3, 0.0]])
    assert emotions == ["fear", "something else", "fear"]
    together = caption_batch(model, image, codec, VAD_OF, emotions=emotions)
    for place, emotion in enumerate(emotions):
        generated = generate(model, of_image(image, place), codec, VAD_OF, emotion=emotion)
        (text,) = generated.texts(codec, given=codec.given(emotion))
        assert together[place] == (text, text.split("because", 1)[1].strip()) and text.startswith(f"{emotion} because")
    assert together[0] != together[2]


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


def test_samples(model, codec, monkeypatch):
    image = features()
    likely(model, monkeypatch, [codec.eos_id, *codec.given("awe"), 262, 379, 290])

    def sample(images=image, seeds=(5, 6, 7), **more) -> list[list[int]]:
        more = {"max_new_tokens": 8} | more
        return sample_decode(model, images, codec.prompt(), VAD_OF, list(seeds), 4, **more).tokens()

    free = sample()
    assert len(free) == 12 and free == sample() and free != sample(seeds=(8, 9, 10))
    assert sample(of_image(image, 1), (6,)) == free[4:8]  # whatever else is asked
    assert len(set(map(tuple, free))) > 6 and min(map(len, free)) < 5
    long = sample(min_new_tokens=7)
    assert min(map(len, long)) >= 7 and not {codec.eos_id, codec.pad_id} & {token for text in long for token in text}
    likely(model, monkeypatch, [codec.eos_id], 30.0)
    assert set(map(len, sample(min_new_tokens=3))) == {3}  # the bound itself
    monkeypatch.undo()
    greedy = greedy_decode(model, image, codec.prompt(), VAD_OF, 8).tokens()
    assert sample(top_p=1e-6) == sample(temperature=1e-4) == [text for text in greedy for _ in range(4)]


def test_samples_follow_the_model():
    """First tokens of many samples are as frequent as the plain probabilities, sharpened by the temperature."""
    model, image = build(SMALL, 5), features(images=1)
    drawn = sample_decode(model, image, PROMPT, vad_table(SMALL), [0], 4000, 2.0, 1.0, max_new_tokens=1)
    first = torch.where(drawn.token_ids[:, 0] < 0, STOPS[0], drawn.token_ids[:, 0])  # a stop is not told from another
    shares = torch.bincount(first, minlength=SMALL) / 4000
    expected = (next_log_probabilities(model, image, (), vad_table(SMALL)) / 2).softmax(0)
    expected[STOPS[0]], expected[list(STOPS[1:])] = expected[list(STOPS)].sum(), 0
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)
