"""One HTML page of pictures with what is said of them: self-contained, no server, no outside resource.

The template is utils/templates/page.html; jinja2 escapes every text, so that markup in texts and names stays text. A
Content-Security-Policy beside it lets a browser run the page's own script alone and load nothing.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from utils.constants import EMOTIONS
from utils.files import write_text

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"


@dataclass
class Word:
    """A piece of a text. vad: its valence, arousal and dominance in -1..1; None for blanks and words without."""

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


@dataclass
class Bar:
    """One emotion's shares in percent. marked: the emotion that most annotators feel."""

    emotion: str
    people: int
    model: int = 0
    marked: bool = False


@dataclass
class Reference:
    """What one annotator said."""

    emotion: str
    words: list[Word]


@dataclass
class Card:
    """One picture. thumbnail: a data: URI of width x height pixels; missing: why there is none.

    emotion, words: the generated ones, or the annotators' emotion and no words. scores: of this picture, by title.
    """

    name: str
    title: str
    byline: str
    emotion: str
    references: list[Reference]
    bars: list[Bar]
    words: list[Word] = field(default_factory=list)
    has_model: bool = False
    verdict: str = ""
    group: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""

    @property
    def verdict_class(self) -> str:
        """CSS class of the verdict."""
        return self.verdict if self.verdict in ("right", "wrong") else "open"


@dataclass
class Page:
    """What the template shows. facts: (name, value) pairs below the title; lead: one sentence above them."""

    title: str
    lead: str
    cards: list[Card]
    facts: list[tuple[str, str]] = field(default_factory=list)
    model_name: str = "model"  # what the model's bars are
    references_name: str = "references"
    references_open: bool = False
    tinted: bool = False

    @property
    def has_model(self) -> bool:
        return any(card.has_model for card in self.cards)

    @property
    def score_names(self) -> list[str]:
        return list(self.cards[0].scores)

    @property
    def emotions(self) -> list[str]:
        """Those of the cards: the nine in their order, then what else a model has named."""
        found = {card.emotion for card in self.cards}
        return [name for name in EMOTIONS if name in found] + sorted(found - {*EMOTIONS, ""})

    @property
    def verdicts(self) -> list[str]:
        return list(dict.fromkeys(card.verdict for card in self.cards if card.verdict))

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(card.group for card in self.cards if card.group))


def render(page: Page) -> str:
    """The page as HTML."""
    import jinja2  # here, as a training without --gallery needs none of it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    css, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    safe = jinja2.filters.do_mark_safe  # our own two files, which hold nothing that a user brings
    return environment.get_template("page.html").render(page=page, css=safe(css), js=safe(script), script_hash=digest)


def write_page(path: Path, page: Page) -> int:
    """Write the page whole or not at all; returns its size in bytes."""
    text = render(page)
    write_text(path, text)
    return len(text.encode())


def bars(annotators: list[float], model: list[float] | None = None) -> list[Bar]:
    """Nine shares each, in the order of `EMOTIONS`, as bars."""
    most = max(annotators)
    shares = [0.0] * len(EMOTIONS) if model is None else model
    return [
        Bar(emotion, round(100 * people), round(100 * share), people == most)
        for emotion, people, share in zip(EMOTIONS, annotators, shares, strict=True)
    ]


def references(record: dict, tint: Callable[[str], list[Word]]) -> list[Reference]:
    """What the annotators of one record said."""
    return [
        Reference(emotion, tint(text)) for emotion, text in zip(record["emotions"], record["explanations"], strict=True)
    ]
