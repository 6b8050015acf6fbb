"""Where the explainer looks: the cross-attention with which each token of a text was chosen."""

import base64
import io
import math
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
from utils.evaluation.generation import DecodingState, VADOfTokens
from utils.files import atomic_path, write_text
from utils.visualize.word_colors import tinter

# ---- Where the explainer looks: the cross-attention with which each token of a text was chosen -----------------------


@torch.inference_mode()
def cross_attention(
    model: SEVLM,
    image: ImageFeatures,
    codec: TextCodec,
    vad_of: VADOfTokens | None,
    tokens: list[list[int]],
) -> Tensor:
    """The attention over the image behind each token of texts that are written: float32 [T, S, blocks, G].

    Entry [t, s] belongs to token s of text t: the weights at the position before it, from which it was predicted, in the
    very step in which it was written (later tokens would change the VAD features, and the weights with them). They are
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
    with _Queries(model) as queries:
        for step in range(steps):
            state.next_hidden()
            weights.append(torch.stack([_weights(model, state, *of_block) for of_block in enumerate(queries.seen)], 1))
            state.append(padded[:, step])
    return torch.stack(weights, dim=1)


class _Queries:
    """While it is entered, keeps each block's latest cross-attention queries, [images, texts x positions, D]."""

    def __init__(self, model: SEVLM):
        self.layers = [block.crossattention.q_attn for block in model.decoder.transformer.h]
        self.seen: list[Tensor | None] = [None] * len(self.layers)

    def __enter__(self) -> "_Queries":
        def keep(index: int):
            def hook(layer, inputs, output: Tensor) -> None:
                self.seen[index] = output

            return hook

        self.hooks = [layer.register_forward_hook(keep(index)) for index, layer in enumerate(self.layers)]
        return self

    def __exit__(self, *raised) -> None:
        for hook in self.hooks:
            hook.remove()


def _weights(model: SEVLM, state: DecodingState, block: int, queries: Tensor) -> Tensor:
    """Weights of every text's last position in one block, averaged over the heads: [T, G]."""
    keys, _ = state.image[block]  # [images, heads, G, d]
    texts = state.ids.shape[0]
    last = queries.reshape(texts, -1, queries.shape[-1])[:, -1]
    last = last.view(keys.shape[0], -1, keys.shape[1], keys.shape[3]).transpose(1, 2)  # [images, heads, texts, d]
    scores = model.decoder.transformer.h[block].crossattention.scaling * last.float() @ keys.float().mT
    return scores.softmax(dim=-1).mean(dim=1).flatten(0, 1)


# ---- Heat maps: for every generated word of a text the patches it attended to, as a PNG file or an HTML --------------


NOTE = (
    "Bright: where the word's cross-attention went, relative to its strongest patch, mean over heads and {blocks}. "
    "Attention shows where the model looked; it does not explain why the model chose a word."
)
DIMMED = 0.8  # how dark a patch without attention gets
POSITIVE, NEGATIVE = (
    (240, 130, 30),
    (64, 140, 230),
)  # of valence, as in the gallery; orange and blue are told apart by colour-blind people
PANEL, COLUMNS, MARGIN, TEXT_SIZE = 180, 6, 12, 17  # of a PNG: pixels, panels in a row, pixels, pixels


@dataclass
class WordHeat:
    """A word; the share of its attention on each patch, float [rows, columns], sum 1; its valence in [-1, 1] or None."""

    word: str
    weights: np.ndarray
    valence: float | None


@dataclass
class TextHeat:
    """A text with its words; `title` says whose it is."""

    title: str
    words: list[WordHeat]


@dataclass
class ImageHeat:
    """An image (RGB, any size) with its texts; `lines` are said above them."""

    name: str
    picture: Image.Image
    lines: list[str]
    texts: list[TextHeat]


def heat_of_words(
    tokens: list[int], weights: np.ndarray, codec: TextCodec, lexicon: Lexicon | None, skipped: int = 0
) -> list[WordHeat]:
    """The words of a text and their attention.

    Args:
        tokens: S of them. weights: [S, G], rows that sum to 1, G = n^2 patches; a word's are the mean of its tokens'.
        lexicon: for the valence of whole words, see `word_value`; of words joined by signs that of the first which it has.
            None: no valence.
        skipped: so many tokens at the beginning were given, not generated.
    """
    side = math.isqrt(weights.shape[1])
    pieces = codec.tokenizer.convert_ids_to_tokens(tokens)
    starts = [place for place, piece in enumerate(pieces) if place == 0 or piece.startswith("Ġ")]
    spans = [range(start, end) for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    words = [codec.decode([tokens[place] for place in span]).strip() for span in spans]
    tint = tinter(lexicon)
    values = [next((piece.vad[0] for piece in tint(word) if piece.vad), None) for word in words]
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


def draw_panel(picture: Image.Image, weights: np.ndarray) -> Image.Image:
    """An image under its shade. The model sees it stretched to a square, so the grid is stretched back over all of it."""
    layer = shade(weights).resize(picture.size, Image.Resampling.NEAREST)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def write_png(path: Path, heat: ImageHeat, blocks: str) -> None:
    """One image: its lines and itself, then panels for each text, a word each."""
    font, line = ImageFont.load_default(TEXT_SIZE), TEXT_SIZE + 8
    scale = PANEL / max(heat.picture.size)
    panel = heat.picture.resize([max(1, round(side * scale)) for side in heat.picture.size], Image.Resampling.LANCZOS)
    cell_width, cell_height = PANEL + MARGIN, panel.height + line + MARGIN
    width = COLUMNS * cell_width + MARGIN
    wrap = lambda text: _wrapped(text, font, width - 2 * MARGIN)  # noqa: E731
    parts: list[list[str] | TextHeat] = [[part for text in (heat.name, *heat.lines) for part in wrap(text)]]
    whole = WordHeat("(the image)", np.ones((1, 1)), None)
    for text in heat.texts:
        parts += [wrap(text.title), TextHeat(text.title, [whole, *text.words])]
    parts.append(wrap(NOTE.format(blocks=blocks)))
    rows = [
        line * len(part) + MARGIN if isinstance(part, list) else cell_height * math.ceil(len(part.words) / COLUMNS)
        for part in parts
    ]
    canvas = Image.new("RGB", (width, sum(rows) + MARGIN), "white")
    drawing, top = ImageDraw.Draw(canvas), MARGIN
    for part, height in zip(parts, rows, strict=True):
        if isinstance(part, list):
            for number, text in enumerate(part):
                drawing.text((MARGIN, top + line * number), text, "black", font)
        else:
            for number, word in enumerate(part.words):
                x = MARGIN + cell_width * (number % COLUMNS)
                y = top + cell_height * (number // COLUMNS)
                canvas.paste(draw_panel(panel, word.weights), (x, y))
                box = (x, y + panel.height, x + panel.width - 1, y + panel.height + line - 1)
                drawing.rectangle(box, fill=_on_white(word.valence))
                drawing.text((x + 4, box[1] + 2), _cut(word.word, font, PANEL - 8), "black", font)
        top += height
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def _on_white(valence: float | None) -> tuple[int, ...]:
    colour, strength = tint(valence)
    return tuple(round(255 + (part - 255) * strength) for part in colour)


def tint(valence: float | None) -> tuple[tuple[int, int, int], float]:
    """Colour (RGB) and strength (0..1) of a word's background; none for 0 and for a word that the lexicon lacks."""
    if not valence:
        return POSITIVE, 0.0
    return POSITIVE if valence > 0 else NEGATIVE, 0.1 + 0.5 * abs(valence)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_cut(line, font, width) for line in lines]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


# ---- HTML ------------------------------------------------------------------------------------------------------------


def write_html(path: Path, heats: list[ImageHeat], blocks: str) -> None:
    """One self-contained page for all images: no script, nothing loaded from elsewhere."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=jinja2.StrictUndefined
    )
    pictures = [
        {
            "heat": heat,
            "size": heat.picture.size,
            "source": _data_url(heat.picture, "JPEG"),
            "texts": [(text, [_word(word) for word in text.words]) for text in heat.texts],
        }
        for heat in heats
    ]
    page = environment.get_template("heat_map.html").render(pictures=pictures, note=NOTE.format(blocks=blocks))
    write_text(path, page)


def _word(word: WordHeat) -> dict:
    row, column = np.unravel_index(word.weights.argmax(), word.weights.shape)
    colour, strength = tint(word.valence)
    return {
        "text": word.word,
        "shade": _data_url(shade(word.weights), "PNG"),
        "label": f"{word.word}: strongest in row {row + 1}, column {column + 1} of {word.weights.shape[0]}",
        "background": f"rgb({colour[0]} {colour[1]} {colour[2]} / {strength:.2f})",
        "value": "not in the lexicon" if word.valence is None else f"valence {word.valence:+.2f}",
    }


def _data_url(image: Image.Image, kind: str) -> str:
    content = io.BytesIO()
    image.save(content, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
