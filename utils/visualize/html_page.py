"""What the HTML pages share: rendering with every text escaped, images inside the page, and words tinted by their valence."""

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from utils.data.vad_lexicon import Lexicon, lemmatize_english

TEMPLATES = Path(__file__).with_name("templates")


def render(template: str, **values: Any) -> str:
    """The HTML of a template in templates/."""
    import jinja2  # only where a page is written

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(values)


def data_url(image: Image.Image, kind: str, **options: Any) -> str:
    """An image as a data: URL. kind: "JPEG" or "PNG". options: of `Image.save`."""
    content = io.BytesIO()
    image.save(content, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


# ---- words and their values in a VAD lexicon -------------------------------------------------------------------------


_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


@dataclass
class Word:
    """A piece of a text. vad: its valence, arousal and dominance in -1..1; None for spaces and words without."""

    text: str
    vad: tuple[float, float, float] | None = None

    @property
    def sign(self) -> str:
        """CSS class of the tint: pleasant, unpleasant, or neither."""
        valence = self.vad[0]
        return "p" if valence > 0 else "n" if valence < 0 else ""

    @property
    def strength(self) -> int:
        """The tint's strength in percent."""
        return round(100 * abs(self.vad[0]))

    @property
    def label(self) -> str:
        return "   ".join(f"{name} {value:+.2f}" for name, value in zip("VAD", self.vad, strict=True))


def word_value(word: str, lexicon: Lexicon) -> tuple[float, float, float] | None:
    """VAD of a whole word in -1..1: in this spelling, else in lower case, else its lemma's (simplemma); None without one.

    Every page and heat map tints by this rule, so that a word always has the same colour and a reader finds its value in the
    lexicon. The model gets the same value only for words of one BPE piece: of a longer word it gets its pieces' values
    (" content", "ment"), and a tagger's lemma depends on the other tokens of the text.
    """
    for spelling in (word, word.lower(), lemmatize_english(word.lower())):
        if spelling in lexicon.values:
            return lexicon.values[spelling]
    return None


def tinter(lexicon: Lexicon | None) -> Callable[[str], list[Word]]:
    """A function text -> pieces, which joined give the text. Without a lexicon the text is one piece."""
    if lexicon is None:
        return lambda text: [Word(text)]
    values: dict[str, tuple[float, float, float] | None] = {}

    def tint(text: str) -> list[Word]:
        pieces, plain = [], 0
        for match in _WORD.finditer(text):
            word = match[0]
            if word not in values:
                values[word] = word_value(word, lexicon)
            if values[word] is None:
                continue
            pieces += [Word(text[plain : match.start()]), Word(word, values[word])]
            plain = match.end()
        return [piece for piece in [*pieces, Word(text[plain:])] if piece.text]

    return tint
