"""One HTML page of images with what is said of them: self-contained, no server, no outside resource.

The template is utils/templates/page.html; jinja2 escapes every text, so that markup in texts and names stays text. A
Content-Security-Policy beside it lets a browser run the page's own script alone and load nothing.
"""

import argparse
import base64
import hashlib
import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from PIL import Image

from utils.constants import BECAUSE, EMOTIONS
from utils.data.images import find_image, open_image, split_name
from utils.data.records import Records, dominant_emotion
from utils.data.vad_lexicon import Lexicon
from utils.errors import InputError
from utils.evaluation.emotion_metrics import named_emotion
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.tables import CAPTION_SCORES
from utils.files import write_text
from utils.visualize.word_colors import Word, tinter

if TYPE_CHECKING:  # it brings torch along
    from utils.evaluation.evaluator import Evaluator


# ---- One HTML page of images with what is said of them: self-contained, no server, no outside resource -------------


TEMPLATES = Path(__file__).with_name("templates")


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
    """One image. thumbnail: a data: URI of width x height pixels; missing: why there is none.

    emotion, words: the generated ones, or the annotators' emotion and no words. scores: of this image, by title.
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


# ---- Small images inside a page ------------------------------------------------------------------------------------


SIDE = 400  # pixels of the longer side
MOST_BYTES = 45_000  # of one JPEG: with 200 of them a page stays under 15 MB
QUALITIES = (84, 70, 55, 40, 25)


def add_thumbnail(card: Card, folder: Path | None) -> None:
    """Give a card its image, or the reason why it has none."""
    if folder is None:
        card.missing = "no image folder was named"
        return
    try:
        path = find_image(folder, card.name)
        if path is None:
            card.missing = f"no image file {card.name}"
            return
        image = open_image(path, SIDE)
    except InputError as error:
        card.missing = str(error)
        return
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    card.width, card.height = image.size
    card.thumbnail = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image)).decode()}"


def _jpeg(image: Image.Image) -> bytes:
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    return buffer.getvalue()


# ---- What a model says of held-out images, as the cards of a page: the worst, the best, and some at ----------------


# The first of these ways to a distribution over the emotions that a model has is drawn, and named on the page.
WAYS = {"head": "the model's emotion head", "likelihood": "the model's text (probability of each emotion's name)"}
GROUPS = ("worst", "best", "random")
# The first of these that was computed ranks the images: BLEU-4 of one image is 0 too often to rank by.
RANKING = ("CIDEr", "METEOR", "ROUGE_L", "SPICE", "Bleu_4")
SHOWN = ("Bleu_1", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")


def choose(scores: Mapping[int, float], number: int, seed: int) -> dict[int, str]:
    """Images to show: a third with the lowest scores, a third with the highest, the others drawn at random.

    Args:
        scores: image id -> score. number: of images; all where there are no more. seed: of the draw.

    Returns:
        image id -> one of GROUPS, in this order; the worst and the best begin with their extreme.
    """
    ranked = sorted(scores, key=lambda image: (scores[image], image))
    number = min(number, len(ranked))
    low, high = (number + 2) // 3, (number + 1) // 3
    worst, best = ranked[:low], ranked[len(ranked) - high :][::-1]
    middle = sorted(ranked[low : len(ranked) - high])
    drawn = random.Random(seed).sample(middle, number - low - high)
    return dict.fromkeys(worst, "worst") | dict.fromkeys(best, "best") | dict.fromkeys(drawn, "random")


def ranking_score(of_images: Mapping[int, Mapping[str, float]]) -> str:
    """The score by which images are ranked, of those that they have."""
    scores = next(iter(of_images.values()))
    return next(name for name in RANKING if name in scores)


def gallery_page(
    title: str,
    records: Records,
    full: Mapping[int, str],
    explanations: Mapping[int, str],
    of_images: Mapping[int, Mapping[str, float]],
    scores: Mapping[str, float],
    number: int,
    seed: int = 42,
    folder: Path | None = None,
    lexicon: Lexicon | None = None,
    shares_of: Mapping[str, Mapping[int, list[float]]] | None = None,
    split: str = "",
) -> Page:
    """The gallery of one evaluation.

    Args:
        full, explanations: image id -> whole generated text, and its explanation.
        of_images: image id -> scores of that image alone (`CaptionScorer.score`'s second result).
        scores: of the whole split. number: of images to show. seed: of those that are drawn at random.
        folder: of the images. lexicon: whose values tint words. shares_of: way of `WAYS` -> image id -> the model's
            shares of the nine emotions. split: name of the scored file.
    """
    ranking = ranking_score(of_images)
    chosen = choose({image: row[ranking] for image, row in of_images.items()}, number, seed)
    way = next((way for way in WAYS if (shares_of or {}).get(way)), None)
    tint = tinter(lexicon)
    cards = []
    for image, group in chosen.items():
        record = records[str(image)]
        shares = record["origin_emotion_distribution"]
        named, dominant = named_emotion(full[image]), dominant_emotion(shares)
        model = None if way is None else shares_of[way].get(image)
        card = Card(
            name=record["image_name"],
            **names_of(record["image_name"]),
            emotion=named if BECAUSE in full[image] else full[image],
            words=tint(explanations[image]) if BECAUSE in full[image] else [],
            references=references(record, tint),
            bars=bars(shares, model),
            has_model=model is not None,
            verdict="no majority" if dominant is None else "right" if named == dominant else "wrong",
            group=group,
            scores={CAPTION_SCORES[name]: of_images[image][name] for name in SHOWN if name in of_images[image]},
        )
        add_thumbnail(card, folder)
        cards.append(card)
    ranked_by = CAPTION_SCORES[ranking]
    lead = (
        f"{len(cards)} of the {len(full)} images of {split or 'the split'}: those with the lowest and the highest "
        f"{ranked_by}, the others drawn at random (seed {seed}). Right: the emotion named is that of more than half of "
        "the annotators."
    )
    facts = [(heading, f"{100 * scores[name]:.1f}") for name, heading in CAPTION_SCORES.items() if name in scores]
    return Page(title, lead, cards, facts, model_name=WAYS.get(way, "model"), tinted=lexicon is not None)


def write_gallery(
    args: argparse.Namespace, evaluation: Evaluation, evaluator: "Evaluator", epoch: int | str, step: int
) -> None:
    """--gallery: a page of images with what the model says of them, beside the captions."""
    if not args.gallery:
        return
    page = gallery_page(
        f"Epoch {epoch}, step {step}" if isinstance(epoch, int) else epoch,
        evaluator.records,
        evaluation.full,
        evaluation.explanations,
        evaluation.of_images,
        evaluation.scores,
        args.gallery,
        args.seed,
        args.image_root,
        None if evaluator.vad is None else evaluator.vad.lexicon,
        evaluation.distributions,
        args.nle_data_val_path.name,
    )
    write_page(gallery_path(args.caption_save_path, epoch, step), page)


def names_of(image_name: str) -> dict[str, str]:
    """Title and byline of an image as people write them: "Cubism/ann-lee_red-sea-7.jpg" -> Red sea 7, Ann Lee, Cubism."""
    path = PurePosixPath(image_name)
    stem = split_name(path.name)[0]
    artist, _, work = stem.partition("_")
    if not artist or not work:
        return {"title": stem or image_name, "byline": str(path.parent)}
    words, artist = work.replace("-", " "), artist.replace("-", " ").title()
    style = path.parent.name.replace("_", " ")
    return {"title": words[:1].upper() + words[1:], "byline": f"{artist}, {style}" if style else artist}


def gallery_path(folder: Path, epoch: int | str, step: int) -> Path:
    """Where an evaluation's gallery lies."""
    return folder / f"gallery_{epoch}_{step}.html"
