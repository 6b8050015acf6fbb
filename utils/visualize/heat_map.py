"""Where the model looked: the cross-attention behind each token, and heat maps of a text's words as PNG or HTML."""

import contextlib
import math
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from models.image_encoder import ImageFeatures
from models.sevlm import SEVLM
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import Lexicon
from utils.evaluation.decoding_state import DecodingState, VADOfTokens
from utils.files import atomic_path, write_text
from utils.visualize.html_page import data_url, render, tinter

# ---- attention -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def cross_attention(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    tokens: list[list[int]],
) -> Tensor:
    """The attention over the image behind each token of generated texts: float32 [T, S, blocks, G].

    Entry [t, s] belongs to token s of text t: the weights at the position before it, from which it was predicted, in the
    very step in which it was generated (later tokens would change the VAD features, and the weights with them). They are
    averaged over the heads and sum to 1 over the G patches of the grid, row by row from the top left. Behind a text's end,
    up to the S tokens of the longest, they mean nothing.

    Args:
        model: in evaluation mode. image: features of the B images.
        vad_of: None for a model without VAD fusion.
        tokens: of T = n B texts, what follows the prompt; those of an image are neighbours.
    """
    state = DecodingState(model, image, codec.prompt(), vad_of, len(tokens) // image.grid.shape[0])
    steps = max(map(len, tokens))
    padded = torch.tensor([text + [codec.pad_id] * (steps - len(text)) for text in tokens], device=state.ids.device)
    weights = []
    with _queries(model) as queries:
        for step in range(steps):
            state.next_hidden()
            of_blocks = [_last_weights(model, state, block, queries[block]) for block in range(len(queries))]
            weights.append(torch.stack(of_blocks, dim=1))
            state.append(padded[:, step])
    if not weights:  # all texts are empty
        return torch.zeros(len(tokens), 0, len(model.decoder.transformer.h), image.grid.shape[1])
    return torch.stack(weights, dim=1)


@contextlib.contextmanager
def _queries(model: SEVLM) -> Iterator[dict[int, Tensor]]:
    """Block -> its latest cross-attention queries, [images, texts x positions, D], within the context."""
    queries: dict[int, Tensor] = {}
    hooks = [
        block.crossattention.q_attn.register_forward_hook(
            lambda layer, inputs, output, index=index: queries.update({index: output})
        )
        for index, block in enumerate(model.decoder.transformer.h)
    ]
    try:
        yield queries
    finally:
        for hook in hooks:
            hook.remove()


def _last_weights(model: SEVLM, state: DecodingState, block: int, queries: Tensor) -> Tensor:
    """Weights of every text's last position in one block, averaged over the heads: [T, G]."""
    keys, _ = state.image[block]  # [images, heads, G, d]
    texts = state.ids.shape[0]
    last = queries.reshape(texts, -1, queries.shape[-1])[:, -1]
    last = last.view(keys.shape[0], -1, keys.shape[1], keys.shape[3]).transpose(1, 2)  # [images, heads, texts, d]
    scores = model.decoder.transformer.h[block].crossattention.scaling * last.float() @ keys.float().mT
    return scores.softmax(dim=-1).mean(dim=1).flatten(0, 1)


# ---- heat maps -------------------------------------------------------------------------------------------------------

NOTE = (
    "Bright: where the word's cross-attention went, relative to its strongest patch, mean over heads and {blocks}. "
    "Attention shows where the model looked; it does not explain why the model chose a word."
)
LEGEND = "Under each panel its word: orange for a positive valence in the lexicon, blue for a negative, stronger where it is larger; white where it is 0 or unknown."
DIMMED = 0.8  # how dark a patch without attention gets
# of valence, as in the gallery; colour-blind people can tell orange from blue
POSITIVE, NEGATIVE = (240, 130, 30), (64, 140, 230)
# of a PNG, in pixels but for the panels in a row
PANEL, COLUMNS, MARGIN, LINE = 180, 6, 12, 25
WIDTH = COLUMNS * (PANEL + MARGIN) + MARGIN
FONT = ImageFont.load_default(17)


@dataclass
class WordHeat:
    """A word of a text and where the model looked when it wrote it.

    text: the word. heat_map: its attention to each patch, float [rows, columns], sum 1. vad: valence, arousal and
    dominance in [-1, 1], or None for a word that the lexicon lacks.
    """

    text: str
    heat_map: np.ndarray
    vad: tuple[float, float, float] | None = None

    @property
    def valence(self) -> float | None:
        return None if self.vad is None else self.vad[0]

    @property
    def bare(self) -> str:
        """The word without punctuation around it."""
        return self.text.strip(string.punctuation + "“”‘’")

    @property
    def strongest(self) -> str:
        """The patch that the word attended to most, in words; rows and columns count from 1."""
        rows, columns = self.heat_map.shape
        row, column = divmod(int(self.heat_map.argmax()), columns)
        return f"strongest in row {row + 1}, column {column + 1} of {rows}"


@dataclass
class TextHeat:
    """A text, as the title of its words' heat maps."""

    title: str
    words: list[WordHeat]


@dataclass
class ImageHeat:
    """An image (RGB, any size) with the texts about it; `lines` are shown above them."""

    name: str
    image: Image.Image
    lines: list[str]
    texts: list[TextHeat]


def heat_of_words(
    tokens: list[int], weights: np.ndarray, codec: TextCodec, lexicon: Lexicon | None, skipped: int = 0
) -> list[WordHeat]:
    """The words of a text and their attention.

    Args:
        tokens: S of them. weights: [S, G], rows that sum to 1, G = n^2 patches; a word's are the mean of its tokens'.
        lexicon: for the VAD of whole words, see `word_value`; for words joined by signs, of the first that it has.
            None: no VAD.
        skipped: number of tokens at the beginning that were given, not generated.
    """
    if not tokens:
        return []
    side = math.isqrt(weights.shape[1])
    pieces = codec.tokenizer.convert_ids_to_tokens(tokens)
    starts = [place for place, piece in enumerate(pieces) if place == 0 or piece.startswith("Ġ")]
    spans = [range(start, end) for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    words = [codec.decode([tokens[place] for place in span]).strip() for span in spans]
    tint = tinter(lexicon)
    values = [next((piece.vad for piece in tint(word) if piece.vad), None) for word in words]
    return [
        WordHeat(word, weights[span.start : span.stop].mean(axis=0).reshape(side, side), value)
        for word, span, value in zip(words, spans, values, strict=True)
        if span.start >= skipped
    ]


def shade(weights: np.ndarray) -> Image.Image:
    """The darkness to lay over an image: RGBA, one pixel per patch, black, clear where the attention is strongest."""
    alpha = DIMMED * (1 - weights / weights.max())
    layer = np.zeros((*weights.shape, 4), dtype=np.uint8)
    layer[..., 3] = np.round(255 * alpha)
    return Image.fromarray(layer)


# ---- PNG -------------------------------------------------------------------------------------------------------------


def write_png(path: Path, heat: ImageHeat, blocks: str) -> None:
    """Write the heat maps of one image: its name and lines, then for each text the image itself and a panel per word.

    blocks: names the decoder blocks whose attention is shown.
    """
    scale = PANEL / max(heat.image.size)
    panel = heat.image.resize([max(1, round(side * scale)) for side in heat.image.size], Image.Resampling.LANCZOS)
    whole = WordHeat("(the image)", np.ones((1, 1)))
    strips = [_text_strip([heat.name, *heat.lines])]
    for text in heat.texts:
        strips += [_text_strip([text.title]), _panel_strip(panel, [whole, *text.words])]
    strips.append(_text_strip([NOTE.format(blocks=blocks), LEGEND]))
    canvas = Image.new("RGB", (WIDTH, sum(strip.height for strip in strips) + MARGIN), "white")
    top = MARGIN
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def _text_strip(paragraphs: list[str]) -> Image.Image:
    """Lines of text as wide as the page."""
    lines = [line for paragraph in paragraphs for line in _wrapped(paragraph, WIDTH - 2 * MARGIN)]
    strip = Image.new("RGB", (WIDTH, LINE * len(lines) + MARGIN), "white")
    for number, text in enumerate(lines):
        ImageDraw.Draw(strip).text((MARGIN, LINE * number), text, "black", FONT)
    return strip


def _panel_strip(image: Image.Image, words: list[WordHeat]) -> Image.Image:
    """Rows of panels: the image under the shade of each word, and the word on its tint."""
    cell_width, cell_height = PANEL + MARGIN, image.height + LINE + MARGIN
    strip = Image.new("RGB", (WIDTH, cell_height * math.ceil(len(words) / COLUMNS)), "white")
    drawing = ImageDraw.Draw(strip)
    for number, word in enumerate(words):
        x, y = MARGIN + cell_width * (number % COLUMNS), cell_height * (number // COLUMNS)
        strip.paste(draw_panel(image, word.heat_map), (x, y))
        colour, strength = word_tint(word.valence)
        fill = tuple(round(255 + (part - 255) * strength) for part in colour)
        drawing.rectangle((x, y + image.height, x + image.width - 1, y + image.height + LINE - 1), fill=fill)
        drawing.text((x + 4, y + image.height + 2), _cut(word.text, PANEL - 8), "black", FONT)
    return strip


def draw_panel(image: Image.Image, weights: np.ndarray) -> Image.Image:
    """An image under its shade. The model sees it stretched to a square, so the grid is stretched over all of it."""
    layer = shade(weights).resize(image.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def word_tint(valence: float | None) -> tuple[tuple[int, int, int], float]:
    """Colour (RGB) and strength (0..1) of a word's background; none for 0 and for a word that the lexicon lacks."""
    if not valence:
        return POSITIVE, 0.0
    return POSITIVE if valence > 0 else NEGATIVE, 0.1 + 0.5 * abs(valence)


def _wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and FONT.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(line, width) for line in lines]


def _cut(text: str, width: int) -> str:
    """A text, shortened to at most `width` pixels."""
    while text and FONT.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


# ---- HTML ------------------------------------------------------------------------------------------------------------


def write_html(path: Path, heats: list[ImageHeat], blocks: str) -> None:
    """Write one self-contained page with the heat maps of all images. blocks: as in `write_png`."""
    images = [
        {
            "heat": heat,
            "size": heat.image.size,
            "source": data_url(heat.image, "JPEG"),
            "texts": [(text, [_word(word) for word in text.words]) for text in heat.texts],
        }
        for heat in heats
    ]
    write_text(path, render("heat_map.html", images=images, note=f"{NOTE.format(blocks=blocks)} {LEGEND}"))


def _word(word: WordHeat) -> dict:
    colour, strength = word_tint(word.valence)
    return {
        "text": word.text,
        "shade": data_url(shade(word.heat_map), "PNG"),
        "label": f"{word.text}: {word.strongest}",
        "background": f"rgb({colour[0]} {colour[1]} {colour[2]} / {strength:.2f})",
        "value": "not in the lexicon" if word.valence is None else f"valence {word.valence:+.2f}",
    }
