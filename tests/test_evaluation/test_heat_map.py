"""Cross-attention weights are those of stock GPT-2 blocks, and land on the right patch of the right word's image."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GPT2Model

from models.sevlm import SEVLM
from tests.test_evaluation.tiny import VAD_OF, build, features, segments_of
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon
from utils.visualize.heat_map import (
    ImageHeat,
    TextHeat,
    WordHeat,
    cross_attention,
    heat_of_words,
    shade,
    write_html,
    write_png,
)
from utils.visualize.html_page import tinter

TOKENS = [[5, 900, 3, 77, 11, 4000, 8], [13, 262], [290, 1310, 50, 60, 70], [50256, 1, 2]]


def stock(model: SEVLM) -> GPT2Model:
    """transformers' own GPT-2 with eager attention and our weights."""
    config = model.decoder.config.__class__(**model.decoder.config.to_dict() | {"attn_implementation": "eager"})
    plain = GPT2Model(config).eval()
    plain.load_state_dict(model.decoder.transformer.state_dict(), strict=False)
    return plain


@pytest.mark.parametrize("causal", [False, True])
def test_weights_of_stock_gpt2(codec: TextCodec, causal):
    model, image = build(50261, 6, causal=causal), features(images=2)
    plain, prompt, seen = stock(model), codec.prompt(), []
    weights = cross_attention(model, image, codec, VAD_OF, TOKENS)
    assert weights.shape == (4, 7, 2, 4)
    for text, tokens in enumerate(TOKENS):
        grid = image.grid[text // 2][None]  # two texts for each image
        for step in range(len(tokens)):
            ids = torch.tensor([prompt.ids + tokens[:step]])
            vad = model.vad_encoder(torch.from_numpy(VAD_OF(ids.numpy())))
            with torch.no_grad():
                x = model.decoder.transformer.embed(ids, torch.tensor([segments_of(prompt, tokens[:step])]), vad)
                x = x - model.decoder.transformer.wpe(torch.arange(ids.shape[1]))  # stock GPT-2 adds it itself
                attentions = plain(inputs_embeds=x, encoder_hidden_states=grid, output_attentions=True).cross_attentions
            for block in range(2):
                expected = attentions[block][0, :, -1].mean(dim=0)
                torch.testing.assert_close(weights[text, step, block], expected, atol=1e-5, rtol=0)
                seen.append(expected)
    assert torch.stack(seen).std(dim=0).min() > 0.02, "these weights would not show a wrong row"


def test_empty_texts_have_no_words(codec: TextCodec):
    """An untrained model may end at once."""
    for texts, steps in (([[], []], 0), ([[], [13]], 1)):
        weights = cross_attention(build(50261, 6), features(images=2), codec, VAD_OF, texts)
        assert weights.shape == (2, steps, 2, 4)
        assert heat_of_words([], weights[0, :0].mean(dim=1).numpy(), codec, None) == []


def one_hot(row: int, column: int, side: int = 4) -> np.ndarray:
    weights = np.full((side, side), 1e-6)
    weights[row, column] = 1
    return weights / weights.sum()


def test_words_of_a_text(codec):
    """Tokens are joined to words, their weights averaged; those of a given emotion are left out."""
    (tokens,) = codec.bpe([" contentment because the sunlit, hopeful"])
    weights = np.stack([one_hot(place // 4, place % 4).ravel() for place in range(len(tokens))])
    words = heat_of_words(tokens, weights, codec, None)
    assert [word.text for word in words] == ["contentment", "because", "the", "sunlit,", "hopeful"]
    assert words[0].heat_map[0].tolist() == pytest.approx([0.5, 0.5, 0, 0], abs=1e-4)  # " content" and "ment"
    assert words[1].heat_map.argmax() == 2 and words[1].heat_map.shape == (4, 4)
    assert all(word.heat_map.sum() == pytest.approx(1) for word in words)
    assert [word.text for word in heat_of_words(tokens, weights, codec, None, 3)] == ["the", "sunlit,", "hopeful"]


def test_heat_maps_and_pages_tint_alike(codec):
    """Whole words in their spelling, in lower case, or by their lemma; never by their pieces."""
    values = {"sunlit": 0.1, "tower": 0.2, "towering-high": 0.3, "US": 0.4, "dying": -0.5, "die": -0.6, "content": 0.7}
    lexicon = Lexicon({word: (value, 0.0, 0.0) for word, value in values.items()}, None, "", "-1..1")
    text = "contentment because the SUNLIT, towers (dying!) are towering-high; US it's x_tower/dying"
    (tokens,) = codec.bpe([" " + text])
    words = heat_of_words(tokens, np.full((len(tokens), 16), 1 / 16), codec, lexicon)
    valences = [None, None, None, 0.1, 0.2, -0.5, None, 0.3, 0.4, None, 0.2]
    assert [(word.text, word.valence) for word in words] == list(zip(text.split(), valences, strict=True))
    pieces = tinter(lexicon)(text)
    shown = [piece.vad[0] for piece in pieces if piece.vad]
    assert "".join(piece.text for piece in pieces) == text
    assert shown == [value for value in valences if value is not None] + [-0.5]  # the page tints both of "tower/dying"


def heat_of(words: list[WordHeat], name="a.png") -> ImageHeat:
    """A white image, twice as wide as high."""
    return ImageHeat(name, Image.new("RGB", (120, 60), (250, 250, 250)), ["a line"], [TextHeat("a title", words)])


def test_png_shows_the_patch(tmp_path):
    """The patch that a word attended to is the only bright one of its panel."""
    places = [(0, 0), (2, 1), (3, 3), (1, 2), (0, 3), (3, 0), (2, 2)]  # seven words: two rows of panels
    words = [WordHeat("word", one_hot(*place), None) for place in places]
    write_png(tmp_path / "heat.png", heat_of(words), "all blocks")
    pixels = np.asarray(Image.open(tmp_path / "heat.png").convert("L")).astype(int)
    # the shade of a patch without attention appears nowhere else
    rows = np.flatnonzero((np.abs(pixels - 50) <= 2).sum(axis=1) > 60)
    bands = np.split(rows, np.flatnonzero(np.diff(rows) > 20) + 1)
    assert [len(band) for band in bands] == [90, 90]  # 180 x 90 pixels each
    for number, (row, column) in enumerate(places, start=1):  # the first panel is the image itself
        top, left = bands[number // 6][0], 12 + (180 + 12) * (number % 6)
        bright = np.argwhere(pixels[top : top + 90, left : left + 180] > 200)
        assert (bright.min(axis=0) // [22, 45]).tolist() == [row, column]
        assert bright.mean(axis=0).tolist() == pytest.approx([22.5 * row + 11, 45 * column + 22], abs=1)
        assert len(bright) == pytest.approx(22.5 * 45, rel=0.05)


def test_png_of_an_image_one_pixel_wide(tmp_path):
    thin = ImageHeat(
        "thin.png", Image.new("RGB", (1, 600)), [], [TextHeat("a title", [WordHeat("word", one_hot(0, 0))])]
    )
    write_png(tmp_path / "heat.png", thin, "all blocks")
    assert Image.open(tmp_path / "heat.png").height > 180


def test_html_is_self_contained_and_names_stay_text(tmp_path):
    name = '</h2><script>alert(1)</script>"><img onerror=alert(1)>.png'
    words = [
        WordHeat("<b>sad", one_hot(3, 1), (-0.5, 0.9, 0.9)),
        WordHeat("sky", one_hot(0, 2), (0.25, -0.9, -0.9)),
        WordHeat("a", one_hot(0, 0), None),
    ]
    write_html(tmp_path / "heat.html", [heat_of(words, name), heat_of(words[:1])], "block 2")
    page = (tmp_path / "heat.html").read_text()
    assert "<script" not in page and "<img onerror" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page and "block 2" in page
    sources = re.findall(r'(?:src|href|action)=["\']?([^"\' >]*)|url\(([^)]*)\)', page)
    assert len(sources) == 2 * 2 + 4 and all(re.match("data:image/(png|jpeg);base64,", a or b) for a, b in sources)
    assert 'title="valence -0.50"' in page and 'title="not in the lexicon"' in page
    assert "sky: strongest in row 1, column 3 of 4" in page
    colours = re.findall(r"background: (rgb\([^)]*\))", page)
    assert colours[:3] == ["rgb(64 140 230 / 0.35)", "rgb(240 130 30 / 0.23)", "rgb(240 130 30 / 0.00)"]
    assert "aspect-ratio: 120 / 60" in page
    (first, *_) = re.findall(r"image/png;base64,([^\"]*)", page)
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(first))))
    assert np.argwhere(decoded[..., 3] == 0).tolist() == [[3, 1]]
    alpha = np.asarray(shade(np.array([[0.1, 0.4], [0.3, 0.2]])))[..., 3]  # relative to the strongest patch
    assert alpha.tolist() == [[153, 0], [51, 102]]  # 0.8 * 255 where there is no attention
