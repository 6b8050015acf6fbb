"""What a model says of held-out pictures, as the cards of a page: the worst, the best, and some at random."""

import argparse
import random
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from utils.constants import BECAUSE
from utils.data.images import split_name
from utils.data.records import Records, dominant_emotion
from utils.data.vad_lookup import Lexicon
from utils.evaluation.emotion_metrics import named_emotion
from utils.evaluation.evaluation import Evaluation
from utils.evaluation.page import Card, Page, bars, references, write_page
from utils.evaluation.report_tables import CAPTION_SCORES
from utils.evaluation.thumbnails import add_thumbnail
from utils.evaluation.word_tints import tinter

if TYPE_CHECKING:  # it brings torch along
    from utils.evaluation.evaluator import Evaluator

# The first of these ways to a distribution over the emotions that a model has is drawn, and named on the page.
WAYS = {"head": "the model's emotion head", "likelihood": "the model's text (probability of each emotion's name)"}
GROUPS = ("worst", "best", "random")
# The first of these that was computed ranks the pictures: BLEU-4 of one picture is 0 too often to rank by.
RANKING = ("CIDEr", "METEOR", "ROUGE_L", "SPICE", "Bleu_4")
SHOWN = ("Bleu_1", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")


def choose(scores: Mapping[int, float], number: int, seed: int) -> dict[int, str]:
    """Pictures to show: a third with the lowest scores, a third with the highest, the others drawn at random.

    Args:
        scores: image id -> score. number: of pictures; all where there are no more. seed: of the draw.

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
    """The score by which pictures are ranked, of those that they have."""
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
        of_images: image id -> scores of that picture alone (`CaptionScorer.score`'s second result).
        scores: of the whole split. number: of pictures to show. seed: of those that are drawn at random.
        folder: of the pictures. lexicon: whose values tint words. shares_of: way of `WAYS` -> image id -> the model's
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
        f"{len(cards)} of the {len(full)} pictures of {split or 'the split'}: those with the lowest and the highest "
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
        evaluation.shares,
        args.nle_data_val_path.name,
    )
    write_page(gallery_path(args.caption_save_path, epoch, step), page)


def names_of(image_name: str) -> dict[str, str]:
    """Title and byline of a picture as people write them: "Cubism/ann-lee_red-sea-7.jpg" -> Red sea 7, Ann Lee, Cubism."""
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
