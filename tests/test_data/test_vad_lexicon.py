"""The VAD lexicon, and the VAD of tokens by each lemmatizer, with its caches."""

from dataclasses import replace

import numpy as np
import pytest

from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon, VADLookup, read_lexicon

PAD, END = 50257, 50256


def write(folder, text: str, encoding: str = "utf-8") -> Lexicon:
    (folder / "lexicon.txt").write_bytes(text.encode(encoding))
    return read_lexicon(folder / "lexicon.txt")


# ---- the lexicon -----------------------------------------------------------------------------------------------------


def test_only_a_unipolar_file_is_mapped(tmp_path):
    unipolar = write(tmp_path, "sky\t0.75\t0.5\t1\nfog\t0\t0.25\t0.125\n")
    assert unipolar.values == {"sky": (0.5, 0.0, 1.0), "fog": (-1.0, -0.5, -0.75)} and unipolar.scale == "0..1"
    bipolar = write(tmp_path, "sky\t0.75\t0.5\t1\nfog\t-0.01\t0.25\t0\n")
    assert bipolar.values == {"sky": (0.75, 0.5, 1.0), "fog": (-0.01, 0.25, 0.0)}
    described = bipolar.describe()
    assert len(described.pop("sha256")) == 64
    assert described == {"file": "lexicon.txt", "terms": 2, "scale": "-1..1"}


@pytest.mark.parametrize("header", ["Word\tValence\tArousal\tDominance\n", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_headers_line_ends_and_byte_order_marks(tmp_path, header, end, encoding):
    text = (header + "sky\t-0.5\t0.5\t1\n").replace("\n", end)
    assert write(tmp_path, text, encoding).values == {"sky": (-0.5, 0.5, 1.0)}


def test_terms_of_several_words_later_lines_and_short_lines(tmp_path):
    lexicon = write(tmp_path, "a la carte\t0\t-1\t1\nsky\t1\t1\t1\nno entry\nsky\t-1\t0\t0\n\nx\t1\t1\t1\t1\n")
    assert lexicon.values == {"a la carte": (0.0, -1.0, 1.0), "sky": (-1.0, 0.0, 0.0)}


# ---- VAD of tokens ---------------------------------------------------------------------------------------------------

VALUES = {
    "sky": [0.5, -0.25, 0.25],
    "skies": [-1, -1, -1],
    "pad": [1, 1, 1],
    "<pad>": [0.125] * 3,
    "Boat": [0.75, 0, 0],
    "boat": [0.25, 0, 0],
    "is": [0.0625, 0, 0],
    "be": [-0.5, 0.5, 0.5],
    "é": [1, 0, 0],
    "Ã©": [-1, 0, 0],
}
SKY, SKIES, ZERO = VALUES["sky"], VALUES["skies"], [0, 0, 0]


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory) -> Lexicon:
    lines = ("\t".join([word, *map(str, values)]) for word, values in VALUES.items())
    return write(tmp_path_factory.mktemp("lexicon"), "\n".join(lines))


@pytest.fixture
def ids(codec):
    """Texts of one-token words -> [1, L]."""
    return lambda *words: np.array([[word if isinstance(word, int) else codec.bpe([word])[0][0] for word in words]])


def test_tokens_as_they_are(lexicon, ids, codec):
    """Case counts, the space before does not; special tokens keep their spelling; what is not listed is zero."""
    lookup, tokens = VADLookup(lexicon, "none", codec), ids(" sky", "sky", " Sky", " boats", PAD, END)
    values = lookup.for_texts(tokens)
    assert lookup.context_free and values.shape == (1, 6, 3) and values.dtype == np.float32
    assert values[0].tolist() == [SKY, SKY, ZERO, ZERO, [0.125] * 3, ZERO]
    assert lookup.for_generated(tokens).tolist() == values.tolist()


def test_training_texts_are_looked_up_in_byte_letters_and_generated_ones_as_words(lexicon, codec):
    """GPT-2 spells bytes in letters of its own: é is Ã© in a piece, and é again in the decoded word."""
    accented = np.array([[token for token, word in enumerate(codec.words()) if word == "é"]])
    lookup = VADLookup(lexicon, "none", codec)
    assert accented.size and set(lookup.for_texts(accented)[0, :, 0]) == {-1}
    assert set(lookup.for_generated(accented)[0, :, 0]) == {1}


def test_simplemmas_table_is_cached(lexicon, codec, tmp_path, monkeypatch):
    """One for each lexicon, vocabulary and version of simplemma."""
    calls, compute = [], VADLookup._values
    monkeypatch.setattr(VADLookup, "_values", lambda self, tokens: calls.append(len(tokens)) or compute(self, tokens))
    tokens, names = np.array([[0, 1, 2, 3]]), dict.fromkeys(("pieces", "words"), ["boats", "sky", "is", "<pad>"])
    for name in names:
        monkeypatch.setattr(TextCodec, name, lambda self, name=name: names[name])

    def look_up(lexicon=lexicon) -> tuple[list, list]:
        lookup = VADLookup(lexicon, "simplemma", codec, tmp_path)
        return lookup.for_texts(tokens).tolist(), lookup.for_generated(tokens).tolist()

    values = look_up()
    assert values == ([[VALUES["boat"], SKY, VALUES["be"], [0.125] * 3]],) * 2
    assert look_up() == values and len(calls) == 2
    other = replace(lexicon, values=lexicon.values | {"boat": (1.0, 1.0, 1.0)}, sha256="other")
    assert look_up(other)[0][0][0] == [1, 1, 1] and look_up() == values
    names["pieces"] = ["sky"] * 4
    assert look_up() == ([[SKY] * 4], values[1])
    names["words"] = ["sky"] * 4
    assert look_up() == ([[SKY] * 4],) * 2
    monkeypatch.setattr("utils.data.vad_lexicon.version", lambda name: "0")
    look_up()
    assert len(list(tmp_path.iterdir())) == 5
    VADLookup(lexicon, "none", codec, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
