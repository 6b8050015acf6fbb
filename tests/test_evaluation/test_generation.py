"""Beam search, samples, given emotions and likelihoods against plain computations on tiny random models."""

import itertools
from dataclasses import replace

import pytest
import torch

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from tests.test_evaluation.tiny import IMAGES, VAD_OF, build, features, vad_table
from utils.constants import EMOTIONS
from utils.data.text_codec import Prompt, TextCodec, load_tokenizer
from utils.evaluation.generation import (
    beam_decode,
    caption_batch,
    draw_tokens,
    emotion_log_likelihoods,
    emotions_in_text,
    generate,
    greedy_decode,
    head_distribution,
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


# ---- beam search: all texts of a vocabulary of nine, so that the best is known -----------------------------------------

SMALL, BECAUSE, STOPS, SEGMENTS, STEPS = 9, 4, (5, 6, 7, 8), (5, 6), 3
PROMPT, PROMPT_SEGMENTS = [0, 1, 2, 1, 2, 1], [5] * 6


def plain_scores(model, image, vad_of) -> dict[tuple[int, ...], float]:
    """Every text of up to three tokens -> mean log-probability of its tokens, its stop included."""
    following, scores = {}, {}

    def after(text: tuple[int, ...]) -> torch.Tensor:
        if text not in following:
            segments = segments_of(list(text), PROMPT_SEGMENTS, BECAUSE, *SEGMENTS)
            following[text] = plain_log_probabilities(model, image, PROMPT + list(text), segments, vad_of)
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


@pytest.mark.parametrize("use_vad, causal", [(False, False), (True, False), (True, True)])
def test_beam_search_finds_the_best_text(use_vad, causal):
    lengths, improved = set(), 0
    for seed in range(4):
        model, image = build(SMALL, seed, use_vad, causal), features(seed)
        vad_of = vad_table(SMALL) if use_vad else None
        arguments = (model, image, Prompt(PROMPT, PROMPT_SEGMENTS, BECAUSE, *SEGMENTS, STOPS), vad_of)
        wide, greedy = beam_decode(*arguments, 64, STEPS).tokens(), greedy_decode(*arguments, STEPS).tokens()
        for index in range(IMAGES):
            scores = plain_scores(model, of_image(image, index), vad_of)
            assert tuple(wide[index]) == max(scores, key=scores.get)
        lengths |= set(map(len, wide))
        improved += wide != greedy
    assert len(lengths) > 1 and improved, "these weights would not show a search that is greedy, or never ends"


def test_one_beam_without_stops_is_greedy():
    model, image, vad_of = build(SMALL, 2), features(), vad_table(SMALL)
    arguments = (model, image, Prompt(PROMPT, PROMPT_SEGMENTS, BECAUSE, *SEGMENTS), vad_of)
    assert beam_decode(*arguments, 1, 20).tokens() == greedy_decode(*arguments, 20).tokens()


def test_beams_of_an_image_do_not_depend_on_the_others():
    model, image, vad_of = build(SMALL, 3, len_prefix=2), features(images=6), vad_table(SMALL)
    prompt = (Prompt([5, 5, *PROMPT], [5] * 8, BECAUSE, *SEGMENTS, STOPS), vad_of, 3, 12)
    together = beam_decode(model, image, *prompt).tokens()
    assert together == [beam_decode(model, of_image(image, index), *prompt).tokens()[0] for index in range(6)]
    assert len(set(map(tuple, together))) > 1


# ---- GPT-2's vocabulary ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec(workspace) -> TextCodec:
    return TextCodec(load_tokenizer(str(workspace.root / "gpt2")), " the emotion is", 30)


@pytest.fixture(scope="module")
def model() -> SEVLM:
    return build(50261, 4)


def likely(model: SEVLM, monkeypatch, tokens: list[int], bonus: float = 12.0) -> None:
    """Raise the logits of some tokens, so that random weights say them."""
    head = model.decoder.lm_head
    plain = type(head).forward

    def forward(self, hidden):
        logits = plain(self, hidden)
        logits[..., tokens] += bonus
        return logits

    monkeypatch.setattr(type(head), "forward", forward)


@pytest.mark.parametrize("prompt", [" the emotion is", " what i feel when i look at this is"])
def test_likelihood_of_the_nine(model, codec, monkeypatch, prompt):
    """Each name token by token, " because" behind it; with the longer prompt VAD reaches the names as well."""
    monkeypatch.setattr(codec, "prompt_text", prompt)
    image = features()
    ours = emotion_log_likelihoods(model, image, codec, VAD_OF)
    ids, segments, *_ = codec.prompt()
    for row, column in itertools.product(range(IMAGES), range(9)):
        name = codec.bpe([f" {EMOTIONS[column]} because"])[0]
        given = segments_of(name, segments, codec.because_id, codec.emotion_id, codec.explanation_id)
        expected = sum(
            float(
                plain_log_probabilities(
                    model, of_image(image, row), ids + name[:place], given[: len(ids) + place], VAD_OF
                )[token]
            )
            for place, token in enumerate(name)
        )
        assert float(ours[row, column]) == pytest.approx(expected, abs=1e-3, rel=1e-5)
    assert len(set(ours.argmax(dim=1).tolist())) > 1 or ours.std(dim=0).min() > 0.1


def test_a_beginning_is_not_a_name(model, codec, monkeypatch):
    """A model that says "awe" first but goes on with another word than " because" has not named awe."""
    awe, because = codec.bpe([" awe", " because"])
    assert [len(codec.given(emotion)) for emotion in EMOTIONS] == [2, 2, 3, 2, 2, 2, 2, 2, 3]
    likely(model, monkeypatch, awe, 30.0)
    before = emotion_log_likelihoods(model, features(), codec, VAD_OF)[:, 1]
    likely(model, monkeypatch, because, 30.0)  # on top
    after = emotion_log_likelihoods(model, features(), codec, VAD_OF)[:, 1]
    assert (after > before + 5).all()


def test_head_distribution(model):
    assert head_distribution(model, features()) is None
    torch.manual_seed(0)
    with_head = SEVLM(replace(model.config, use_emotion_loss=True), model.decoder).eval()
    ours = head_distribution(with_head, features())
    expected = (features().cls @ with_head.emotion_head.weight.T + with_head.emotion_head.bias).exp()
    torch.testing.assert_close(ours, expected / expected.sum(1, keepdim=True))


@pytest.mark.parametrize("emotion", ["awe", "something else"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_given_emotion(model, codec, emotion, num_beams):
    """The greedy continuation is what a plain loop writes behind "the emotion is awe because"."""
    image = features()
    generated = generate(model, image, codec, VAD_OF, num_beams, emotion)
    given = codec.given(emotion)
    assert codec.decode(given) == f"{emotion} because" and generated.token_ids.shape[1] == 25 - len(given)
    assert all(text.startswith(f"{emotion} because") for text in generated.texts(codec, given=given))
    if num_beams > 1:
        return
    ids, segments, *_ = codec.prompt(emotion)
    assert segments == [codec.emotion_id] * (len(ids) - 1) + [codec.explanation_id]
    for index, text in enumerate(generated.tokens()):
        for place, token in enumerate(text):
            now = [*ids, *text[:place]], [*segments, *[codec.explanation_id] * place]
            assert token == plain_log_probabilities(model, of_image(image, index), *now, VAD_OF).argmax()


# ---- samples ------------------------------------------------------------------------------------------------------------


def test_draw_follows_the_distribution():
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
    sample = lambda images=image, seeds=(5, 6, 7), **more: sample_decode(  # noqa: E731
        model, images, codec.prompt(), VAD_OF, list(seeds), 4, **more
    ).tokens()
    free = sample()
    assert len(free) == 12 and free == sample() and free != sample(seeds=(8, 9, 10))
    assert sample(of_image(image, 1), (6,)) == free[4:8]  # whatever else is asked
    assert len(set(map(tuple, free))) > 6
    assert min(map(len, free)) < 5
    long = sample(min_new_tokens=20)
    assert min(map(len, long)) >= 20 and not {codec.eos_id, codec.pad_id} & {token for text in long for token in text}
    greedy = generate(model, image, codec, VAD_OF).tokens()
    assert sample(top_p=1e-6) == sample(temperature=0.01) == [text for text in greedy for _ in range(4)]
    awe = sample_decode(model, image, codec.prompt("awe"), VAD_OF, [5, 6, 7], 2, max_new_tokens=23)
    assert awe.token_ids.shape == (6, 23) and awe.tokens() != [text[2:] for text in free[:6]]


def test_samples_follow_the_model():
    """First tokens of many samples are as frequent as the plain probabilities, sharpened by the temperature."""
    vocabulary, prompt = 9, Prompt(PROMPT, PROMPT_SEGMENTS, BECAUSE, *SEGMENTS, STOPS)
    model, image = build(vocabulary, 5), features(images=1)
    drawn = sample_decode(model, image, prompt, vad_table(vocabulary), [0], 4000, 2.0, 1.0, max_new_tokens=1)
    first = torch.where(drawn.token_ids[:, 0] < 0, STOPS[0], drawn.token_ids[:, 0])  # a stop is not told from another
    shares = torch.bincount(first, minlength=vocabulary) / 4000
    expected = (plain_log_probabilities(model, image, PROMPT, PROMPT_SEGMENTS, vad_table(vocabulary)) / 2).softmax(0)
    expected[STOPS[0]], expected[list(STOPS[1:])] = expected[list(STOPS)].sum(), 0
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0)


def test_captions_for_chosen_emotions_are_those_of_each_image_alone(codec):
    """Texts for one emotion are written together, whatever their images' places."""
    model = build(len(codec.tokenizer))
    image, emotions = features(), ["fear", "something else", "fear"]
    together = caption_batch(model, image, codec, VAD_OF, emotions=emotions)
    for place, emotion in enumerate(emotions):
        alone = ImageFeatures(image.cls[[place]], image.grid[[place]])
        (text,) = generate(model, alone, codec, VAD_OF, emotion=emotion).texts(codec, given=codec.given(emotion))
        assert together[place] == (text, text.split("because", 1)[1].strip()) and text.startswith(f"{emotion} because")
    assert together[0] != together[2]


def test_the_emotion_in_a_text_is_that_of_the_whole_text(codec):
    model = build(len(codec.tokenizer), seed=2)
    texts = [full for full, _ in caption_batch(model, features(images=20), codec, VAD_OF)]
    named = emotions_in_text(model, features(images=20), codec, VAD_OF)
    assert len(set(texts)) > 3
    assert [name in EMOTIONS for name in named] == [text.split("because")[0].strip() in EMOTIONS for text in texts]
    assert all(text.startswith(name) for name, text in zip(named, texts, strict=True))
