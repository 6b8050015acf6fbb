"""Texts as tokens, their cache, and generated tokens as texts (layout and ids: test_golden.py)."""

import numpy as np
import pytest

from utils.data.records import TrainingRecords
from utils.data.text_codec import EncodedTexts, TextCodec, load_tokenizer
from utils.errors import InputError

EXPLANATION, END = 50260, 50256


def lists(texts: EncodedTexts) -> list:
    return [texts.input_ids.tolist(), texts.labels.tolist(), texts.segment_ids.tolist()]


def test_added_tokens_and_those_that_end_a_text(codec):
    added = codec.tokenizer.convert_tokens_to_ids(["<pad>", "<prefix>", "<emotion>", "<explanation>"])
    assert added == [50257, 50258, 50259, EXPLANATION] and set(codec.stop_ids) == {END, *added}


def test_encoded_texts_are_cached(codec, tokenizer, tmp_path, monkeypatch):
    """Seven texts, three at a time: as one by one; the second time without the tokenizer; other inputs miss."""
    monkeypatch.setattr("utils.data.text_codec.TEXTS_AT_ONCE", 3)
    emotions = ["awe", "something else", "awe", "fear", "contentment", "fear", "awe"]
    texts = [" ".join(["sky"] * length) for length in (3, 30, 1, 7, 22, 5, 2)]

    def encode(codec: TextCodec, emotions: list[str], texts: list[str]) -> EncodedTexts:
        record = {"emotions": emotions, "explanations": texts, "image_name": "a"}
        record["origin_emotion_distribution"] = [0] * 9
        return codec.encode_training(TrainingRecords.from_records({"1": record}), tmp_path)

    expected = [codec.encode([emotion], [text]) for emotion, text in zip(emotions, texts, strict=True)]
    expected = [sum(rows, []) for rows in zip(*map(lists, expected), strict=True)]
    assert lists(encode(codec, emotions, texts)) == expected
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


def test_special_tokens_in_an_explanation_as_published_and_as_text(codec):
    text = "a <pad> b<explanation> <|endoftext|> c"
    published = codec.encode(["awe"], [text]).input_ids[0].tolist()
    plain_codec = TextCodec(codec.tokenizer, codec.prompt_text, 60, plain_special_tokens=True)
    plain = plain_codec.encode(["awe"], [text]).input_ids[0].tolist()
    assert EXPLANATION in published and published.count(END) == 3
    inside = plain[plain.index(codec.because_id) : plain.index(END, 1)]
    assert codec.tokenizer.decode(inside) == f" because {text}" and not set(inside) & set(codec.stop_ids)
    assert codec.encode(["awe"], [text]).input_ids[0].tolist() == published  # both codecs share the tokenizer


def test_tokenizer_of_another_vocabulary(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match="this tokenizer splits ' because' into . tokens: only GPT-2's fits"):
        TextCodec(load_tokenizer(str(tmp_path)), " the emotion is", 30)


DECODED = {
    " I'm sure we've seen what they're doing!": "I'm sure we've seen what they're doing!",
    " it is n't red , is it ? no ! yes .": "it isn't red, is it? no! yes.",
    " i 'm , we 've , they 're , it 's a ' b ' c": "i'm, we've, they're, it's a'b'c",
}


@pytest.mark.parametrize(("text", "decoded"), DECODED.items())
def test_spaces_before_punctuation_are_removed_as_published(codec, text, decoded):
    assert codec.decode(codec.bpe([text])[0]) == decoded
