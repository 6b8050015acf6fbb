"""The gallery: a page of images with the annotators' emotions and explanations, and the model's where there are any."""

import argparse
import hashlib
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
from utils.evaluation.tables import CAPTION_SCORES, caption_scores
from utils.files import write_text
from utils.visualize.html_page import Word, data_url, render, tinter

if TYPE_CHECKING:  # it imports torch
    from utils.evaluation.evaluator import Evaluator

SIDE = 400  # pixels of a thumbnail's longer side

# The first of these distributions that a model has is shown, under this name.
SOURCES = {"head": "the model's emotion head", "likelihood": "the model's text (probability of each emotion's name)"}
# The first of these that was computed ranks the images: BLEU-4 of one image is 0 too often to rank by.
RANKING = ("CIDEr", "METEOR", "ROUGE_L", "SPICE", "Bleu_4")
SHOWN = ("Bleu_1", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")


# ---- the page, as its template takes it ------------------------------------------------------------------------------


@dataclass
class Bar:
    """One emotion's probabilities in percent. marked: the emotion that most annotators feel."""

    emotion: str
    annotators: int
    model: int
    marked: bool


@dataclass
class Reference:
    """The emotion and explanation of one annotator."""

    emotion: str
    words: list[Word]


@dataclass
class Thumbnail:
    """A small image. url: a data: URL of width x height pixels; missing: why there is none."""

    url: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


@dataclass
class Card:
    """One image.

    emotion, words: the generated ones, or the annotators' emotion and no words. correctness: of the generated emotion,
    "right", "wrong" or "no majority". group: why the image is on the page. scores: of this image, by heading.
    """

    name: str
    emotion: str
    references: list[Reference]
    bars: list[Bar]
    thumbnail: Thumbnail
    words: list[Word] = field(default_factory=list)
    correctness: str = ""
    group: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return title_and_byline(self.name)[0]

    @property
    def identifier(self) -> str:
        return card_id(self.name)

    @property
    def byline(self) -> str:
        return title_and_byline(self.name)[1]


def card_id(image_name: str) -> str:
    """The anchor of an image's card on the page."""
    return f"i{hashlib.sha256(image_name.encode()).hexdigest()[:12]}"


@dataclass
class Page:
    """A page. lead: one sentence below the title. facts: (name, value) pairs. model_name: of the model's bars; "": none."""

    title: str
    lead: str
    cards: list[Card]
    facts: list[tuple[str, str]]
    tinted: bool
    model_name: str = ""
    references_name: str = "references"
    references_open: bool = False

    @property
    def score_names(self) -> list[str]:
        return list(self.cards[0].scores)

    @property
    def emotions(self) -> list[str]:
        """Those of the cards: the nine in their order, then any other text that a model has named."""
        named = {card.emotion for card in self.cards}
        return [name for name in EMOTIONS if name in named] + sorted(named - {*EMOTIONS, ""})

    def distinct(self, name: str) -> list[str]:
        """The distinct values of a field of the cards that are not empty, in order."""
        return list(dict.fromkeys(value for card in self.cards if (value := getattr(card, name))))


def write_page(path: Path, page: Page) -> int:
    """Write the page as HTML; returns its size in bytes."""
    text = render("page.html", page=page)
    write_text(path, text)
    return len(text.encode())


def record_card(
    record: dict,
    emotion: str,
    folder: Path | None,
    tint: Callable[[str], list[Word]],
    model: list[float] | None = None,
    **fields,
) -> Card:
    """The card of one image.

    Args:
        folder: of the images. tint: `tinter`'s. model: the model's distribution over the nine emotions.
        fields: further ones of `Card`.
    """
    annotators = record["origin_emotion_distribution"]
    references = zip(record["emotions"], record["explanations"], strict=True)
    return Card(
        name=record["image_name"],
        emotion=emotion,
        references=[Reference(reference_emotion, tint(text)) for reference_emotion, text in references],
        bars=[
            Bar(name, round(100 * share), round(100 * probability), share == max(annotators))
            for name, share, probability in zip(EMOTIONS, annotators, model or [0.0] * len(EMOTIONS), strict=True)
        ],
        thumbnail=thumbnail(folder, record["image_name"]),
        **fields,
    )


def thumbnail(folder: Path | None, image_name: str) -> Thumbnail:
    """The image of a card, or why there is none."""
    if folder is None:
        return Thumbnail(missing="no image folder was named")
    try:
        path = find_image(folder, image_name)
        if path is None:
            return Thumbnail(missing=f"no image file {image_name}")
        image = open_image(path, SIDE)
    except InputError as error:
        return Thumbnail(missing=str(error))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return Thumbnail(data_url(image, "JPEG", quality=84, optimize=True), *image.size)


def title_and_byline(image_name: str) -> tuple[str, str]:
    """Readable names: "Cubism/ann-lee_red-sea-7.jpg" -> "Red sea 7" and "Ann Lee, Cubism"."""
    path = PurePosixPath(image_name)
    stem = split_name(path.name)[0]
    artist, _, work = stem.partition("_")
    if not artist or not work:
        return stem or image_name, str(path.parent)
    words, artist = work.replace("-", " "), artist.replace("-", " ").title()
    style = path.parent.name.replace("_", " ")
    return words[:1].upper() + words[1:], f"{artist}, {style}" if style else artist


# ---- an evaluation's gallery: the worst images, the best, and some at random -----------------------------------------


def choose(scores: Mapping[int, float], number: int, seed: int) -> dict[int, str]:
    """Images to show: a third with the lowest scores, a third with the highest, the others drawn at random.

    Args:
        scores: image id -> score. number: of images; all where there are no more. seed: of the draw.

    Returns:
        image id -> "worst", "best" or "random", in this order; the worst and the best begin with their extreme.
    """
    ranked = sorted(scores, key=lambda image: (scores[image], image))
    number = min(number, len(ranked))
    low, high = (number + 2) // 3, (number + 1) // 3
    worst, best = ranked[:low], ranked[len(ranked) - high :][::-1]
    middle = sorted(ranked[low : len(ranked) - high])
    drawn = random.Random(seed).sample(middle, number - low - high)
    return dict.fromkeys(worst, "worst") | dict.fromkeys(best, "best") | dict.fromkeys(drawn, "random")


def gallery_page(
    title: str,
    split: str,
    records: Records,
    evaluation: Evaluation,
    number: int,
    seed: int,
    folder: Path | None,
    lexicon: Lexicon | None,
) -> Page:
    """The gallery of one evaluation.

    Args:
        split: name of the file of `records`. number: of images to show. seed: of those that are drawn at random.
        folder: of the images. lexicon: whose values tint words.
    """
    of_images, tint = evaluation.of_images, tinter(lexicon)
    ranking = next(name for name in RANKING if name in evaluation.scores)
    source = next((name for name in SOURCES if name in evaluation.distributions), None)
    cards = []
    for image, group in choose({image: row[ranking] for image, row in of_images.items()}, number, seed).items():
        record, full = records[str(image)], evaluation.full[image]
        named, dominant = named_emotion(full), dominant_emotion(record["origin_emotion_distribution"])
        cards.append(
            record_card(
                record,
                named if BECAUSE in full else full,
                folder,
                tint,
                None if source is None else evaluation.distributions[source][image],
                words=tint(evaluation.explanations[image]) if BECAUSE in full else [],
                correctness="no majority" if dominant is None else "right" if named == dominant else "wrong",
                group=group,
                scores={CAPTION_SCORES[name]: of_images[image][name] for name in SHOWN if name in of_images[image]},
            )
        )
    lead = (
        f"{len(cards)} of the {len(of_images)} images of {split}: those with the lowest and the highest "
        f"{CAPTION_SCORES[ranking]}, the others drawn at random (seed {seed}). Right: the emotion named is that of more "
        "than half of the annotators."
    )
    facts = list(caption_scores(evaluation.scores).items())
    return Page(title, lead, cards, facts, lexicon is not None, SOURCES.get(source, ""))


def gallery_path(folder: Path, epoch: int | str, step: int) -> Path:
    """The file of an evaluation's gallery."""
    return folder / f"gallery_{epoch}_{step}.html"


def write_gallery(
    args: argparse.Namespace, evaluation: Evaluation, evaluator: "Evaluator", epoch: int | str, step: int
) -> None:
    """--gallery: write the gallery of an evaluation beside its captions."""
    if not args.gallery:
        return
    page = gallery_page(
        f"Epoch {epoch}, step {step}" if isinstance(epoch, int) else epoch,
        args.nle_data_val_path.name,
        evaluator.records,
        evaluation,
        args.gallery,
        args.seed,
        args.image_root,
        None if evaluator.vad is None else evaluator.vad.lexicon,
    )
    write_page(gallery_path(args.caption_save_path, epoch, step), page)
