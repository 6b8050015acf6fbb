"""Texts as tokens, their cache, and generated tokens as texts."""

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data.records import TrainingRecords
from utils.data.text_codec import EncodedTexts, TextCodec, load_tokenizer
from utils.errors import InputError
from utils.evaluation.emotion_metrics import split_generated

PAD, PREFIX, EMOTION, EXPLANATION, END = 50257, 50258, 50259, 50260, 50256
BECAUSE = 780  # " because" in GPT-2's vocabulary


def bpe(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def lists(texts: EncodedTexts) -> list:
    return [texts.input_ids.tolist(), texts.labels.tolist(), texts.segment_ids.tolist()]


# ---- layout ----------------------------------------------------------------------------------------------------------


def test_vocabulary(tokenizer, codec):
    """Ids of GPT-2's own vocabulary, known from outside, and the added tokens behind them."""
    assert len(tokenizer) == 50261
    added = tokenizer.convert_tokens_to_ids(["<pad>", "<prefix>", "<emotion>", "<explanation>"])
    assert added == [PAD, PREFIX, EMOTION, EXPLANATION]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == END and tokenizer.pad_token_id == PAD
    assert codec.because_id == BECAUSE and set(codec.stop_ids) == {END, PAD, PREFIX, EMOTION, EXPLANATION}
    assert bpe(tokenizer, "Hello world") == [15496, 995]
    assert bpe(tokenizer, " the emotion is") == [262, 9942, 318]
    assert [len(bpe(tokenizer, f" {emotion}")) for emotion in EMOTIONS] == [1, 1, 2, 1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize(("emotion", "span"), [("awe", 5), ("contentment", 6), ("something else", 6)])
def test_layout_of_a_text(tokenizer, emotion, span, prefix):
    codec = TextCodec(tokenizer, " the emotion is", 30, len_prefix=prefix)
    named, explanation = bpe(tokenizer, f" {emotion}"), bpe(tokenizer, " the sky is wide")
    written = [END, 262, 9942, 318, *named, BECAUSE, *explanation, END]
    padding = 30 - prefix - len(written)
    assert lists(codec.encode([emotion], ["the sky is wide"])) == [
        [[PREFIX] * prefix + written + [PAD] * padding],
        [[-100] * (prefix + 1) + written[1:] + [-100] * padding],
        [[PREFIX] * prefix + [EMOTION] * span + [EXPLANATION] * (30 - prefix - span)],
    ]
    prompt = codec.prompt(emotion)
    assert prompt.ids == [PREFIX] * prefix + written[: span + 1] and codec.emotion_span == 6
    assert prompt.segments == [PREFIX] * prefix + [EMOTION] * span + [EXPLANATION]
    assert codec.prompt()[:2] == (prompt.ids[: prefix + 4], prompt.segments[: prefix + 4])
    assert prompt[2:] == (BECAUSE, EMOTION, EXPLANATION, (END, PAD, PREFIX, EMOTION, EXPLANATION))


@pytest.mark.parametrize(("words", "ends"), [(22, True), (23, True), (24, False), (25, False), (60, False)])
def test_cut_at_the_longest(tokenizer, codec, words, ends):
    """bos, 3 prompt tokens, emotion and " because" leave 24 of 30 places: for 23 tokens and the end, or for 24."""
    explanation = bpe(tokenizer, " sky" * words)
    ids, labels, segments = (rows[0] for rows in lists(codec.encode(["fear"], ["sky " * (words - 1) + "sky"])))
    assert len(explanation) == words and len(ids) == len(labels) == len(segments) == 30
    assert ids.count(END) == 1 + ends and ids[6 : 6 + min(words, 24)] == explanation[:24]
    assert ids.count(PAD) == max(0, 23 - words) and labels.count(-100) == 1 + max(0, 23 - words)


def test_a_prompt_longer_than_the_texts(tokenizer):
    short = TextCodec(tokenizer, " the emotion is", 3, len_prefix=1)
    assert lists(short.encode(["awe"], ["sky"])) == [
        [[PREFIX, END, 262]],
        [[-100, -100, 262]],
        [[PREFIX] + [EMOTION] * 2],
    ]


def test_encoded_texts_are_cached(codec, tokenizer, tmp_path, monkeypatch):
    """Seven texts, three at a time: as one by one; the second time without the tokenizer; other inputs miss."""
    monkeypatch.setattr("utils.data.text_codec.TEXTS_AT_ONCE", 3)
    emotions = ["awe", "something else", "awe", "fear", "contentment", "fear", "awe"]
    texts = [" ".join(["sky"] * length) for length in (3, 30, 1, 7, 22, 5, 2)]

    def encode(codec: TextCodec, emotions: list[str], texts: list[str]) -> EncodedTexts:
        record = {"emotions": emotions, "explanations": texts, "image_name": "a"}
        record["origin_emotion_distribution"] = [0] * 9
        return codec.encode_training(TrainingRecords.from_records({"1": record}), tmp_path)

    alone = [lists(codec.encode([emotion], [text])) for emotion, text in zip(emotions, texts, strict=True)]
    expected = [[row for (row,) in rows] for rows in zip(*alone, strict=True)]
    assert lists(encode(codec, emotions, texts)) == lists(codec.encode(emotions, texts)) == expected
    with monkeypatch.context() as patch:
        patch.setattr(codec, "bpe", None)
        again = encode(codec, emotions, texts)
    assert lists(again) == expected
    assert lists(again[np.array([6, 1])]) == [[part[6], part[1]] for part in expected]
    others = [
        (codec, [*texts[:-1], "sea"], emotions),
        (codec, texts, [*emotions[:-1], "fear"]),
        (TextCodec(tokenizer, " it feels like", 30), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 29), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 30, len_prefix=1), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 30, plain_special_tokens=True), texts, emotions),
    ]
    for number, (other, its_texts, its_emotions) in enumerate(others, start=2):
        found = lists(encode(other, its_emotions, its_texts))
        assert found == lists(other.encode(its_emotions, its_texts)) and len(list(tmp_path.iterdir())) == number
    assert codec.encode([], []).input_ids.shape == (0, 30)


def test_special_tokens_in_an_explanation_as_published_and_as_text(codec):
    text = "a <pad> b<explanation> <|endoftext|> c"
    published = codec.encode(["awe"], [text]).input_ids[0].tolist()
    plain_codec = TextCodec(codec.tokenizer, codec.prompt_text, 60, plain_special_tokens=True)
    plain = plain_codec.encode(["awe"], [text]).input_ids[0].tolist()
    inside = plain[plain.index(BECAUSE) : plain.index(END, 1)]
    assert EXPLANATION in published and published.count(END) == 3
    assert not set(inside) & set(codec.stop_ids) and plain.count(END) == 2
    assert codec.tokenizer.decode(inside) == f" because {text}"
    # the flag changes nothing else
    usual = ["the sky is dark", "it's 5 o'clock"]
    longer = TextCodec(codec.tokenizer, codec.prompt_text, 60)
    assert lists(plain_codec.encode(["awe"] * 2, usual)) == lists(longer.encode(["awe"] * 2, usual))
    assert codec.encode(["awe"], [text]).input_ids[0].tolist() == published


def test_tokenizer_of_another_vocabulary(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match="this tokenizer splits ' because' into . tokens: only GPT-2's fits"):
        TextCodec(load_tokenizer(str(tmp_path)), " the emotion is", 30)


# ---- generated texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "emotion", "explanation"),
    [
        ("something else because it is odd", "something else", "it is odd"),
        ("awe because it glows because of the sun", "awe", "of the sun"),
        ("awebecause the sky", "awe", "the sky"),
        ("because the sky", "", "the sky"),
        ("awe because", "awe", ""),
        ("  awe  because  the sky  ", "awe", "the sky"),
        ("awe the sky is wide", "awe the sky is wide", "sky is wide"),
        ("awe", "awe", ""),
        ("", "", ""),
    ],
)
def test_split_generated(full, emotion, explanation):
    assert split_generated(full) == (emotion, explanation)


DECODED = {
    " awe because the sky, the sea.": "awe because the sky, the sea.",
    " I'm sure we've seen what they're doing!": "I'm sure we've seen what they're doing!",
    " a 'b' c": "a 'b' c",
    " it is n't red , is it ? no ! yes .": "it isn't red, is it? no! yes.",
    " i 'm , we 've , they 're , it 's": "i'm, we've, they're, it's",
    "  awe ": "awe ",  # stripped on the left alone, as published
}


@pytest.mark.parametrize(("text", "decoded"), DECODED.items())
def test_decode(tokenizer, codec, text, decoded):
    assert codec.decode(bpe(tokenizer, text)) == decoded


def test_decode_leaves_special_tokens_out(tokenizer, codec):
    tokens = [PREFIX, END, *bpe(tokenizer, " awe"), EMOTION, *bpe(tokenizer, " because"), EXPLANATION, PAD, END]
    assert codec.decode(tokens) == "awe because" and codec.decode([]) == ""
    tokens = codec.encode(["contentment"], ["the light, so soft"]).input_ids[0].tolist()
    assert codec.decode(tokens) == "the emotion is contentment because the light, so soft"
