"""The VAD lexicon, and simplemma's table of its tokens (NLTK's way: test_nltk.py; tokens as they are: test_golden.py)."""

from dataclasses import replace

import numpy as np
import pytest

from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon, VADLookup, read_lexicon
from utils.files import sha256


def write(folder, text: str) -> Lexicon:
    (folder / "lexicon.txt").write_bytes(text.encode())
    return read_lexicon(folder / "lexicon.txt")


# ---- the lexicon -----------------------------------------------------------------------------------------------------


def test_only_a_unipolar_file_is_mapped(tmp_path):
    unipolar = write(tmp_path, "sky\t0.75\t0.5\t1\nfog\t0\t0.25\t0.125\n")
    assert unipolar.values == {"sky": (0.5, 0.0, 1.0), "fog": (-1.0, -0.5, -0.75)} and unipolar.scale == "0..1"
    bipolar = write(tmp_path, "sky\t0.75\t0.5\t1\nfog\t-0.01\t0.25\t0\n")
    assert bipolar.values == {"sky": (0.75, 0.5, 1.0), "fog": (-0.01, 0.25, 0.0)}
    described = {"file": "lexicon.txt", "sha256": sha256(bipolar.path), "terms": 2, "scale": "-1..1"}
    assert bipolar.describe() == described


@pytest.mark.parametrize("start", ["", "\ufeff", "Word\tValence\tArousal\tDominance\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_header_line_ends_and_byte_order_mark(tmp_path, start, end):
    text = f"{start}sky\t-0.5\t0.5\t1\na la carte\t0\t-1\t1\n".replace("\n", end)
    assert write(tmp_path, text).values == {"sky": (-0.5, 0.5, 1.0), "a la carte": (0.0, -1.0, 1.0)}


# ---- VAD of tokens ---------------------------------------------------------------------------------------------------


def test_simplemmas_table_is_cached(codec, tmp_path, monkeypatch):
    """One for each lexicon, vocabulary and version of simplemma."""
    sky, be, boat = [0.5, -0.25, 0.25], [-0.5, 0.5, 0.5], [0.25, 0, 0]
    lexicon = Lexicon({"sky": sky, "be": be, "boat": boat}, tmp_path, "sha256", "-1..1")
    calls, compute = [], VADLookup._values
    monkeypatch.setattr(VADLookup, "_values", lambda self, tokens: calls.append(len(tokens)) or compute(self, tokens))
    tokens, names = np.array([[0, 1, 2, 3]]), dict.fromkeys(("pieces", "words"), ["boats", "sky", "is", "red"])
    for name in names:
        monkeypatch.setattr(TextCodec, name, lambda self, name=name: names[name])

    def look_up(lexicon=lexicon) -> tuple[list, list]:
        lookup = VADLookup(lexicon, "simplemma", codec, tmp_path)
        return lookup.for_texts(tokens).tolist(), lookup.for_generated(tokens).tolist()

    values = look_up()
    assert values == ([[boat, sky, be, [0, 0, 0]]],) * 2
    assert look_up() == values and len(calls) == 2
    other = replace(lexicon, values=lexicon.values | {"boat": [1, 1, 1]}, sha256="other")
    assert look_up(other)[0][0][0] == [1, 1, 1] and look_up() == values
    names["pieces"] = ["sky"] * 4
    assert look_up() == ([[sky] * 4], values[1])
    names["words"] = ["sky"] * 4
    assert look_up() == ([[sky] * 4],) * 2
    monkeypatch.setattr("utils.data.vad_lexicon.version", lambda name: "0")
    look_up()
    assert len(list(tmp_path.iterdir())) == 5
