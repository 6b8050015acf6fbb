"""Texts as tokens, generated texts taken apart, and the VAD of tokens."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utils.constants import EMOTIONS
from utils.data.load_inputs import report_special_tokens
from utils.data.records import TrainingRecords
from utils.data.text_codec import SHIPPED_BPE, EncodedTexts, TextCodec, load_tokenizer
from utils.data.vad_lexicon import Lexicon, NLTKLemmatizer, VADLookup, read_lexicon
from utils.errors import InputError
from utils.evaluation.emotion_metrics import split_generated

PAD, PREFIX, EMOTION, EXPLANATION, END = 50257, 50258, 50259, 50260, 50256
BECAUSE = 780  # " because" in GPT-2's vocabulary


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(SHIPPED_BPE))


@pytest.fixture(scope="module")
def codec(tokenizer) -> TextCodec:
    return TextCodec(tokenizer, " the emotion is", 30)


def bpe(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


# ---- layout ----------------------------------------------------------------------------------------------------------


def test_vocabulary(tokenizer, codec):
    assert len(tokenizer) == 50261
    added = tokenizer.convert_tokens_to_ids(["<pad>", "<prefix>", "<emotion>", "<explanation>"])
    assert added == [PAD, PREFIX, EMOTION, EXPLANATION]
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == END and tokenizer.pad_token_id == PAD
    assert codec.because_id == BECAUSE and set(codec.stop_ids) == {END, PAD, PREFIX, EMOTION, EXPLANATION}


def test_known_tokens(tokenizer):
    """Ids of GPT-2's own vocabulary, known from outside."""
    assert bpe(tokenizer, "Hello world") == [15496, 995]
    assert bpe(tokenizer, " the emotion is") == [262, 9942, 318]
    assert [len(bpe(tokenizer, f" {emotion}")) for emotion in EMOTIONS] == [1, 1, 2, 1, 1, 1, 1, 1, 2]


def test_layout_of_a_text(tokenizer, codec):
    texts = codec.encode(["awe"], ["the sky is wide"])
    explanation = bpe(tokenizer, " the sky is wide")
    written = [END, 262, 9942, 318, *bpe(tokenizer, " awe"), BECAUSE, *explanation, END]
    padding = 30 - len(written)
    assert texts.input_ids.tolist() == [written + [PAD] * padding]
    assert texts.labels.tolist() == [[-100, *written[1:]] + [-100] * padding]
    assert texts.segment_ids.tolist() == [[EMOTION] * 5 + [EXPLANATION] * 25]


def test_layout_with_a_prefix(tokenizer):
    codec = TextCodec(tokenizer, " the emotion is", 30, len_prefix=3)
    texts = codec.encode(["contentment"], ["calm"])
    written = [END, 262, 9942, 318, *bpe(tokenizer, " contentment"), BECAUSE, *bpe(tokenizer, " calm"), END]
    assert texts.input_ids[0, :3].tolist() == [PREFIX] * 3
    assert texts.input_ids[0, 3 : 3 + len(written)].tolist() == written
    assert texts.labels[0, :4].tolist() == [-100] * 4 and texts.labels[0, 4] == 262
    assert texts.segment_ids[0].tolist() == [PREFIX] * 3 + [EMOTION] * 6 + [EXPLANATION] * 21
    assert codec.prompt()[:2] == ([PREFIX] * 3 + [END, 262, 9942, 318], [PREFIX] * 3 + [EMOTION] * 4)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_because_follows_the_emotion(codec, emotion):
    place = codec.encode([emotion], ["x"]).input_ids[0].tolist().index(BECAUSE)
    assert place == (6 if emotion in ("contentment", "something else") else 5)


@pytest.mark.parametrize(("words", "ends"), [(22, True), (23, True), (24, False), (25, False), (60, False)])
def test_cut_at_the_longest(tokenizer, codec, words, ends):
    """bos, 3 prompt tokens, emotion and " because" leave 24 of 30 places: for 23 tokens and the end, or for 24."""
    explanation = bpe(tokenizer, " sky" * words)
    assert len(explanation) == words
    texts = codec.encode(["fear"], ["sky " * (words - 1) + "sky"])
    assert texts.input_ids.shape == texts.labels.shape == texts.segment_ids.shape == (1, 30)
    assert (texts.input_ids[0] == END).sum() == 1 + ends
    assert texts.input_ids[0, 6 : 6 + min(words, 24)].tolist() == explanation[:24]
    assert (texts.input_ids[0] == PAD).sum() == max(0, 23 - words)
    assert (texts.labels[0] == -100).sum() == 1 + max(0, 23 - words)


def test_many_texts_are_the_single_ones(codec):
    emotions, explanations = ["awe", "something else", "awe"], ["a red boat", "", "a quiet sea, it's calm"]
    together = codec.encode(emotions, explanations)
    for row, (emotion, explanation) in enumerate(zip(emotions, explanations, strict=True)):
        alone = codec.encode([emotion], [explanation])
        for name in ("input_ids", "labels", "segment_ids"):
            assert getattr(together, name)[row].tolist() == getattr(alone, name)[0].tolist()


def test_encoded_texts_are_cached(codec, tokenizer, tmp_path, monkeypatch):
    """Seven texts, three at a time: as without a cache; the second time without the tokenizer; other inputs miss."""
    monkeypatch.setattr("utils.data.text_codec.TEXTS_AT_ONCE", 3)
    emotions = ["awe", "something else", "awe", "fear", "contentment", "fear", "awe"]
    texts = [" ".join(["sky"] * length) for length in (3, 30, 1, 7, 22, 5, 2)]

    def rows(found) -> list:
        return [found.input_ids.tolist(), found.labels.tolist(), found.segment_ids.tolist()]

    def encode(codec: TextCodec, emotions: list[str], texts: list[str]) -> EncodedTexts:
        record = {
            "emotions": emotions,
            "explanations": texts,
            "image_name": "a",
            "origin_emotion_distribution": [0] * 9,
        }
        return codec.encode_training(TrainingRecords.from_records({"1": record}), tmp_path)

    expected = rows(codec.encode(emotions, texts))
    assert rows(encode(codec, emotions, texts)) == expected
    calls, bpe = [], codec.bpe
    monkeypatch.setattr(codec, "bpe", lambda *args: calls.append(args) or bpe(*args))
    again = encode(codec, emotions, texts)
    assert rows(again) == expected and not calls
    some = np.array([6, 1])
    assert rows(again[some]) == [[part[6], part[1]] for part in expected]
    others = [
        (codec, [*texts[:-1], "sea"], emotions),
        (codec, texts, [*emotions[:-1], "fear"]),
        (TextCodec(tokenizer, " it feels like", 30), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 29), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 30, len_prefix=1), texts, emotions),
        (TextCodec(tokenizer, codec.prompt_text, 30, plain_special_tokens=True), texts, emotions),
    ]
    for number, (other, its_texts, its_emotions) in enumerate(others, start=2):
        found = rows(encode(other, its_emotions, its_texts))
        assert found == rows(other.encode(its_emotions, its_texts)) and len(list(tmp_path.iterdir())) == number


def test_no_texts(codec):
    assert codec.encode([], []).input_ids.shape == (0, 30)


def test_special_tokens_in_an_explanation_as_published_and_as_text(codec):
    text = "a <pad> b<explanation> <|endoftext|> c"
    published = codec.encode(["awe"], [text]).input_ids[0].tolist()
    plain_codec = TextCodec(codec.tokenizer, codec.prompt_text, 60, plain_special_tokens=True)
    plain = plain_codec.encode(["awe"], [text])
    ids = plain.input_ids[0].tolist()
    inside = ids[ids.index(BECAUSE) : ids.index(END, 1)]
    assert codec.explanation_id in published and published.count(END) == 3
    assert not set(inside) & set(codec.stop_ids) and ids.count(END) == 2
    assert codec.tokenizer.decode(inside) == f" because {text}"
    # the flag changes nothing else
    usual = ["the sky is dark", "it's 5 o'clock"]
    longer = TextCodec(codec.tokenizer, codec.prompt_text, 60)
    assert np.array_equal(plain_codec.encode(["awe"] * 2, usual).input_ids, longer.encode(["awe"] * 2, usual).input_ids)
    assert codec.encode(["awe"], [text]).input_ids[0].tolist() == published


def test_special_tokens_in_explanations_are_reported(capsys):
    texts = ["a <pad>", "b", "<prefix><pad>", "<b> pad"]
    report_special_tokens(Path("val.json"), texts, plain=False)
    assert "val.json: 3 special tokens inside explanations (2 <pad>, 1 <prefix>)" in capsys.readouterr().out
    report_special_tokens(Path("val.json"), texts, plain=True)
    assert "read as ordinary text" in capsys.readouterr().out
    report_special_tokens(Path("val.json"), ["the sky"], plain=False)
    assert capsys.readouterr().out == ""


def test_tokenizer_of_another_vocabulary(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match="this tokenizer splits ' because' into . tokens: only GPT-2's fits"):
        TextCodec(load_tokenizer(str(tmp_path)), " the emotion is", 30)


# ---- generated texts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("full", "emotion", "explanation"),
    [
        ("awe because the sky is wide", "awe", "the sky is wide"),
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


@pytest.mark.parametrize(
    "text",
    [
        "awe because the sky, the sea.",
        "awe because it's odd, isn't it?",
        "I'm sure we've seen what they're doing!",
        "a 'b' c",
    ],
)
def test_decode_gives_the_text_back(tokenizer, codec, text):
    assert codec.decode(bpe(tokenizer, f" {text}")) == text


def test_decode_cleans_up(tokenizer, codec):
    assert codec.decode(bpe(tokenizer, " it is n't red , is it ? no ! yes .")) == "it isn't red, is it? no! yes."
    assert codec.decode(bpe(tokenizer, " i 'm , we 've , they 're , it 's")) == "i'm, we've, they're, it's"


def test_decode_leaves_special_tokens_out(tokenizer, codec):
    tokens = [PREFIX, END, *bpe(tokenizer, " awe"), EMOTION, *bpe(tokenizer, " because"), EXPLANATION, PAD, END]
    assert codec.decode(tokens) == "awe because"
    assert codec.decode([]) == ""
    assert codec.decode(bpe(tokenizer, "  awe ")) == "awe "  # stripped on the left alone, as published


def test_training_text_is_read_back_from_its_tokens(codec):
    tokens = codec.encode(["contentment"], ["the light, so soft"]).input_ids[0].tolist()
    full = codec.decode(tokens).removeprefix("the emotion is ")
    assert split_generated(full) == ("contentment", "the light, so soft")


# ---- the lexicon -----------------------------------------------------------------------------------------------------


def lexicon_of(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "lexicon.txt"
    path.write_bytes(text.encode(encoding))
    return read_lexicon(path)


def test_unipolar_file_is_mapped(tmp_path):
    lexicon = lexicon_of(tmp_path, "sky\t0.75\t0.5\t1\nfog\t0\t0.25\t0.125\n")
    assert lexicon.values == {"sky": (0.5, 0.0, 1.0), "fog": (-1.0, -0.5, -0.75)}
    assert lexicon.scale == "0..1"


def test_bipolar_file_is_not_mapped(tmp_path):
    lexicon = lexicon_of(tmp_path, "sky\t0.75\t0.5\t1\nfog\t-0.01\t0.25\t0\n")
    assert lexicon.values == {"sky": (0.75, 0.5, 1.0), "fog": (-0.01, 0.25, 0.0)}
    assert lexicon.scale == "-1..1"


@pytest.mark.parametrize("header", ["Word\tValence\tArousal\tDominance\n", "term\tvalence\tarousal\tdominance\n", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_headers_and_line_ends(tmp_path, header, end):
    text = (header + "sky\t-0.5\t0.5\t1\n").replace("\n", end)
    assert lexicon_of(tmp_path, text).values == {"sky": (-0.5, 0.5, 1.0)}
    assert lexicon_of(tmp_path, text, "utf-8-sig").values == {"sky": (-0.5, 0.5, 1.0)}


def test_terms_of_several_words_later_lines_and_short_lines(tmp_path):
    lexicon = lexicon_of(tmp_path, "a la carte\t0\t-1\t1\nsky\t1\t1\t1\nno entry\nsky\t-1\t0\t0\n\nx\t1\t1\t1\t1\n")
    assert lexicon.values == {"a la carte": (0.0, -1.0, 1.0), "sky": (-1.0, 0.0, 0.0)}


def test_description_of_a_lexicon(tmp_path):
    described = lexicon_of(tmp_path, "sky\t0\t0\t-1\n").describe()
    assert described["file"] == "lexicon.txt" and described["terms"] == 1 and described["scale"] == "-1..1"
    assert len(described["sha256"]) == 64


# ---- VAD of tokens ---------------------------------------------------------------------------------------------------

LEXICON = "sky\t0.5\t-0.25\t0.25\nskies\t-1\t-1\t-1\npad\t1\t1\t1\n<pad>\t0.125\t0.125\t0.125\nBoat\t0.75\t0\t0\nboat\t0.25\t0\t0\n"
LEXICON += "is\t0.0625\t0\t0\nbe\t-0.5\t0.5\t0.5\né\t1\t0\t0\nÃ©\t-1\t0\t0\n"
SKY, SKIES, ZERO = (0.5, -0.25, 0.25), (-1, -1, -1), (0, 0, 0)


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    path.write_text(LEXICON, encoding="utf-8")
    return read_lexicon(path)


def one_token(tokenizer, text: str) -> int:
    (token,) = bpe(tokenizer, text)
    return token


def test_look_up_by_piece(lexicon, tokenizer, codec):
    """Case counts, the space before does not; special tokens keep their spelling; what is not listed is zero."""
    lookup = VADLookup(lexicon, "none", codec)
    assert lookup.context_free
    ids = [
        one_token(tokenizer, " sky"),
        one_token(tokenizer, "sky"),
        one_token(tokenizer, " Sky"),
        one_token(tokenizer, " red"),
        PAD,
        END,
    ]
    values = lookup.for_texts(np.array([ids]))
    assert values.shape == (1, 6, 3) and values.dtype == np.float32
    assert values[0].tolist() == [list(v) for v in (SKY, SKY, ZERO, ZERO, (0.125,) * 3, ZERO)]
    assert lookup.for_generated(np.array([ids])).tolist() == values.tolist()


def test_training_texts_are_looked_up_in_byte_letters_and_generated_ones_as_words(lexicon, codec):
    """GPT-2 spells bytes in letters of its own: é is Ã© in a piece, and é again in the decoded word."""
    accented = [token for token, word in enumerate(codec.words()) if word == "é"]
    assert accented and all(codec.pieces()[token] == "Ã©" for token in accented)
    lookup = VADLookup(lexicon, "none", codec)
    assert lookup.for_texts(np.array([accented]))[0, :, 0].tolist() == [-1] * len(accented)
    assert lookup.for_generated(np.array([accented]))[0, :, 0].tolist() == [1] * len(accented)


def test_simplemma(lexicon, tokenizer, codec):
    lookup = VADLookup(lexicon, "simplemma", codec)
    ids = np.array([[one_token(tokenizer, word) for word in (" boats", " sky", " is")] + [PAD]])
    assert lookup.for_texts(ids)[0].tolist() == [[0.25, 0, 0], list(SKY), [-0.5, 0.5, 0.5], [0.125] * 3]
    plain = VADLookup(lexicon, "none", codec).for_texts(ids)[0].tolist()
    assert plain[0] == list(ZERO) and plain[2] == [0.0625, 0, 0]


def test_simplemmas_table_is_cached(lexicon, tokenizer, codec, tmp_path, monkeypatch):
    """One for each lexicon, vocabulary and version of simplemma."""
    calls = []
    real = VADLookup._values
    monkeypatch.setattr(VADLookup, "_values", lambda self, tokens: calls.append(len(tokens)) or real(self, tokens))
    ids = np.array([[one_token(tokenizer, word) for word in (" boats", " sky", " is")] + [PAD]])

    def look_up(lexicon=lexicon, codec=codec) -> tuple[list, list]:
        lookup = VADLookup(lexicon, "simplemma", codec, tmp_path)
        return lookup.for_texts(ids).tolist(), lookup.for_generated(ids).tolist()

    values = look_up()
    assert len(calls) == 2 and look_up() == values and len(calls) == 2
    assert values[0][0][0] == [0.25, 0, 0]

    other = replace(lexicon, values=lexicon.values | {"boat": (1.0, 1.0, 1.0)}, sha256="other")
    assert look_up(other)[0][0][0] == [1, 1, 1] and look_up() == values
    added = load_tokenizer(str(SHIPPED_BPE))
    added.add_tokens(["<new>"])
    assert look_up(codec=TextCodec(added, " it feels like", 30)) == values
    with monkeypatch.context() as patch:  # the same words, other pieces
        patch.setattr(TextCodec, "pieces", lambda self: ["sky"] * len(self.tokenizer))
        assert look_up() == ([[list(SKY)] * 4], values[1])
    monkeypatch.setattr("utils.data.vad_lexicon.version", lambda name: "0")
    assert look_up() == values and len(list(tmp_path.iterdir())) == 5
    assert VADLookup(lexicon, "none", codec, tmp_path).for_texts(ids)[0, 0].tolist() == list(ZERO)
    assert len(list(tmp_path.iterdir())) == 5


def by_neighbour(tokens: list[str]) -> list[str]:
    """A lemmatizer that sees context: "skies" is "sky" only where another word follows."""
    return ["sky" if token == "skies" and place + 1 < len(tokens) else token for place, token in enumerate(tokens)]


@pytest.fixture
def by_context(lexicon, codec, monkeypatch):
    calls = []

    def tag_and_lemmatize(tokens: list[str]) -> list[str]:
        calls.append(list(tokens))
        return by_neighbour(tokens)

    monkeypatch.setattr("utils.data.vad_lexicon.NLTKLemmatizer", lambda: tag_and_lemmatize)
    monkeypatch.setattr("utils.data.vad_lexicon.nltk_data_sha256", lambda: "of no data")
    lookup = VADLookup(lexicon, "nltk", codec)
    assert not lookup.context_free
    return lookup, calls


def test_whole_sequences_are_tagged(by_context, tokenizer):
    lookup, calls = by_context
    skies, red = one_token(tokenizer, " skies"), one_token(tokenizer, " red")
    values = lookup.for_texts(np.array([[skies, skies, PAD], [red, red, skies]]))
    assert calls == [
        ["skies", "skies", "<pad>"],
        ["red", "red", "skies"],
    ]  # padding included, in the order of the texts
    assert values.tolist() == [[list(SKY), list(SKY), [0.125] * 3], [list(ZERO), list(ZERO), list(SKIES)]]


def test_generated_sequences_are_tagged_again_as_they_grow(by_context, tokenizer):
    lookup, calls = by_context
    skies, red = one_token(tokenizer, " skies"), one_token(tokenizer, " red")
    assert lookup.for_generated(np.array([[END, skies]]))[0].tolist() == [list(ZERO), list(SKIES)]
    assert lookup.for_generated(np.array([[END, skies, red]]))[0].tolist() == [list(ZERO), list(SKY), list(ZERO)]
    assert lookup.for_generated(np.array([[END, skies]]))[0].tolist() == [list(ZERO), list(SKIES)]
    assert calls == [["<|endoftext|>", "skies"], ["<|endoftext|>", "skies", "red"]]  # the third is remembered
    lookup.forget()
    lookup.for_generated(np.array([[END, skies]]))
    assert len(calls) == 3


def test_tagged_spellings(by_context, codec):
    """Training texts are tagged in GPT-2's byte letters, generated ones as decoded words."""
    lookup, calls = by_context
    accented = np.array([[codec.words().index("é")]])
    assert lookup.for_texts(accented)[0, 0, 0] == -1 and lookup.for_generated(accented)[0, 0, 0] == 1
    assert calls == [["Ã©"], ["é"]]


def test_vad_of_texts_is_cached(by_context, tokenizer, tmp_path):
    lookup, calls = by_context
    ids = np.array([[one_token(tokenizer, " sky"), PAD]])
    values = lookup.for_texts(ids, tmp_path)
    assert lookup.for_texts(ids, tmp_path).tolist() == values.tolist() and len(calls) == 1
    lookup._pieces = lookup._pieces[::-1]  # another vocabulary
    lookup.for_texts(ids, tmp_path)
    lookup.for_texts(ids[:, ::-1], tmp_path)  # other texts
    assert len(calls) == 3 == len(list(tmp_path.iterdir()))


def test_another_lexicon_or_prompt_has_its_own_cache_file(by_context, lexicon, tokenizer, codec, tmp_path):
    lookup, calls = by_context
    ids = np.array([[one_token(tokenizer, " sky"), PAD]])
    of_sky = lookup.for_texts(ids, tmp_path)[0, 0].tolist()
    other = Lexicon({"sky": (1.0, 1.0, 1.0)}, lexicon.path, "0" * 64, lexicon.scale)
    assert of_sky == list(SKY) and VADLookup(other, "nltk", codec).for_texts(ids, tmp_path)[0, 0].tolist() == [1, 1, 1]
    VADLookup(lexicon, "nltk", TextCodec(tokenizer, " it feels like", 30)).for_texts(ids, tmp_path)
    assert len(calls) == len(list(tmp_path.iterdir())) == 3


def stub_nltk(monkeypatch, lemmas: dict[tuple[str, str], str], tags: dict[str, str]) -> list:
    """NLTK's names with a tagger of fixed answers and a lemmatizer that is a table; returns what was tagged."""
    tagged = []

    class PerceptronTagger:
        def tag(self, tokens):
            tagged.append(list(tokens))
            assert all(token for token in tokens)  # NLTK's own looks at first letters
            return [(token, tags.get(token, "XX")) for token in tokens]

    class WordNetLemmatizer:
        def lemmatize(self, word, pos):
            return lemmas.get((word, pos), word)

    nltk = types.SimpleNamespace(
        data=types.SimpleNamespace(find=lambda name: name),
        tag=types.SimpleNamespace(perceptron=types.SimpleNamespace(PerceptronTagger=PerceptronTagger)),
        stem=types.SimpleNamespace(WordNetLemmatizer=WordNetLemmatizer),
    )
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    return tagged


def test_nltk_tags_choose_the_lemma(monkeypatch):
    """J is an adjective, V a verb, N a noun, R an adverb; any other tag counts as a noun."""
    lemmas = {(word, pos): f"{word}-{pos}" for word in ("better", "lying", "skies", "well", "of") for pos in "avnr"}
    tags = {"better": "JJR", "lying": "VBG", "skies": "NNS", "well": "RB", "of": "IN"}
    tagged = stub_nltk(monkeypatch, lemmas, tags)
    words = ["better", "lying", "skies", "well", "of", "", "<pad>"]
    assert NLTKLemmatizer()(words) == ["better-a", "lying-v", "skies-n", "well-r", "of-n", " ", "<pad>"]
    assert tagged == [["better", "lying", "skies", "well", "of", " ", "<pad>"]]


def test_nltk_data_that_is_missing_is_named(monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(InputError, match="averaged_perceptron_tagger_eng.*python -m nltk.downloader .*wordnet"):
        NLTKLemmatizer()
