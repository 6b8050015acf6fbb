"""A look at the data before training: statistics of splits, as text, as JSON, and as a page of random records.

python -m utils.inspect runs/demo/data/artEmisX_train.json runs/demo/data/artEmisX_val.json --html look.html
"""

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from utils.constants import BECAUSE, EMOTIONS, PROMPT_TEXT
from utils.data.images import find_image, image_size, split_name
from utils.data.records import Records, dominant_emotion, read_records
from utils.data.vad_lexicon import Lexicon, read_lexicon
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, write_json
from utils.visualize.gallery_page import Page, record_card, write_page
from utils.visualize.html_page import tinter, word_value

BPE = Path(__file__).resolve().parents[1] / "models" / "gpt2-bpe"
WORD = re.compile(r"[^\W\d_]+")

# ---- statistics ------------------------------------------------------------------------------------------------------


def split_facts(records: Records, max_seq_len: int) -> dict:
    """Statistics of one split.

    Returns:
        images; explanations; explanations_per_image (mean); tokens: of a whole training text, prompt and end included
        (mean, p95, max), and cut: number of texts longer than max_seq_len; emotions: share of all votes of each;
        majority: share of images where one emotion has more than half of the votes; agreement: probability that two
        annotators of one image, drawn at random, name the same emotion, averaged over the images with two or more (None:
        no such image); repeated: number of explanations that repeat an earlier one of the split.
    """
    texts = [text for record in records.values() for text in record["explanations"]]
    votes = Counter(emotion for record in records.values() for emotion in record["emotions"])
    lengths = text_lengths(records)
    agreements = [_agreement(record["emotions"]) for record in records.values() if len(record["emotions"]) > 1]
    majority = [dominant_emotion(record["origin_emotion_distribution"]) is not None for record in records.values()]
    return {
        "images": len(records),
        "explanations": len(texts),
        "explanations_per_image": len(texts) / len(records),
        "tokens": {
            "mean": float(lengths.mean()),
            "p95": int(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
            "cut": int((lengths > max_seq_len).sum()),
        },
        "emotions": {emotion: votes[emotion] / len(texts) for emotion in EMOTIONS},
        "majority": sum(majority) / len(majority),
        "agreement": float(np.mean(agreements)) if agreements else None,
        "repeated": len(texts) - len(set(texts)),
    }


def text_lengths(records: Records) -> np.ndarray:
    """Tokens of every training text, int64 [N]: beginning, prompt, emotion, " because " and explanation, end."""
    from tokenizers import ByteLevelBPETokenizer  # not for --help, as its import takes most of a second

    bpe = ByteLevelBPETokenizer(str(BPE / "vocab.json"), str(BPE / "merges.txt"))
    beginnings = {emotion: len(bpe.encode(f"{PROMPT_TEXT} {emotion}").ids) for emotion in EMOTIONS}
    emotions = [emotion for record in records.values() for emotion in record["emotions"]]
    texts = [f" {BECAUSE} {text}" for record in records.values() for text in record["explanations"]]
    encoded = bpe.encode_batch(texts)
    return np.array([2 + beginnings[emotion] + len(code.ids) for emotion, code in zip(emotions, encoded, strict=True)])


def _agreement(emotions: list[str]) -> float:
    number = len(emotions)
    return sum(count * (count - 1) for count in Counter(emotions).values()) / (number * (number - 1))


def lexicon_coverage(records: Records, known: Callable[[str], bool]) -> dict:
    """Share of the words that the lexicon knows, and the most frequent unknown ones.

    Args:
        known: whether a word, in lower case, has an entry.
    """
    words = Counter(
        word for record in records.values() for text in record["explanations"] for word in WORD.findall(text.lower())
    )
    found = {word: known(word) for word in words}
    total = words.total()
    return {
        "words": total,
        "known": sum(count for word, count in words.items() if found[word]) / total if total else 0.0,
        "unknown": [word for word, _ in words.most_common() if not found[word]][:10],
    }


def overlaps(splits: Mapping[str, Records]) -> list[dict]:
    """For each two splits: the images that are in both, by name without extension, and the explanations."""
    names = {path: {split_name(r["image_name"])[0] for r in records.values()} for path, records in splits.items()}
    texts = {path: {text for r in records.values() for text in r["explanations"]} for path, records in splits.items()}
    return [
        {"splits": [a, b], "images": len(names[a] & names[b]), "explanations": len(texts[a] & texts[b])}
        for a, b in combinations(splits, 2)
    ]


def image_sizes(records: Records, folder: Path) -> dict:
    """Numbers of images found, missing and unreadable, and [min, median, max] of their sides in pixels, from the headers."""
    sizes, missing, unreadable = [], 0, 0
    for record in records.values():
        try:
            path = find_image(folder, record["image_name"])
            if path is None:
                missing += 1
            else:
                sizes.append(image_size(path))
        except InputError:
            unreadable += 1
    facts = {"found": len(sizes), "missing": missing, "unreadable": unreadable}
    for name, side in (("longer_side", max), ("shorter_side", min)):
        sides = [side(size) for size in sizes]
        facts[name] = [min(sides), int(np.median(sides)), max(sides)] if sizes else None
    return facts


# ---- the command -----------------------------------------------------------------------------------------------------


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.inspect",
        description="Print statistics of splits: counts, lengths, emotions, agreement, lexicon coverage, repeats, overlap.",
    )
    add = parser.add_argument
    add("splits", nargs="+", type=Path, metavar="SPLIT.json", help="splits, e.g. artEmisX_train.json")
    add("--max_seq_len", type=number(int, 8, 1024), default=30, help="tokens per text; longer ones are cut")
    add("--vad_lexicon", type=Path, help="lexicon, for its coverage and the tints of words")
    add("--image_root", type=Path, help="image folder, for the images and their sizes")
    add("--json", type=Path, help="write the statistics to this file as well")
    add("--html", type=Path, help="write a page of random records to this file")
    add("--number", type=number(int, 1, 100_000), default=60, help="of records on the page, of all splits together")
    add("--seed", type=number(int, 0, 2**32 - 1), default=42, help="of the records that are drawn")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    for path in filter(None, (args.json, args.html)):
        check_place(path)
    if args.image_root is not None and not args.image_root.is_dir():
        raise InputError(f"--image_root {args.image_root}: no such folder; make it with preprocess/resize_wikiart.py")

    splits = {str(path): read_records(path) for path in dict.fromkeys(args.splits)}
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    facts = {"splits": {path: split_facts(records, args.max_seq_len) for path, records in splits.items()}}
    for path, records in splits.items():
        if lexicon is not None:
            known = lambda word: word_value(word, lexicon) is not None  # noqa: E731
            facts["splits"][path]["lexicon"] = lexicon_coverage(records, known)
        if args.image_root is not None:
            facts["splits"][path]["image_files"] = image_sizes(records, args.image_root)
    facts["overlaps"] = overlaps(splits)
    print("\n\n".join([describe(path, one, args.max_seq_len) for path, one in facts["splits"].items()]))
    for pair in facts["overlaps"]:
        print(f"\n{' and '.join(pair['splits'])} share {pair['images']} images and {pair['explanations']} explanations")
    if args.json:
        write_json(args.json, facts, indent=1)
    if args.html:
        write_records(args, splits, lexicon)


def describe(path: str, facts: dict, max_seq_len: int) -> str:
    """A split's statistics in a few lines."""
    tokens = facts["tokens"]
    agreement = "-" if facts["agreement"] is None else f"{facts['agreement']:.1%}"
    lines = [
        path,
        f"  {facts['images']} images, {facts['explanations']} explanations ({facts['explanations_per_image']:.1f} each), "
        f"{facts['repeated']} of them repeated",
        f"  tokens per text: {tokens['mean']:.1f} on average, 95 % have at most {tokens['p95']}, the longest {tokens['max']}; "
        f"{tokens['cut']} ({tokens['cut'] / facts['explanations']:.1%}) are cut at {max_seq_len}",
        "  emotions: " + ", ".join(f"{emotion} {facts['emotions'][emotion]:.1%}" for emotion in EMOTIONS),
        f"  {facts['majority']:.1%} of the images have a majority emotion; two annotators of one image agree in {agreement}",
    ]
    if "lexicon" in facts:
        lexicon = facts["lexicon"]
        unknown = f"; the most frequent others: {', '.join(lexicon['unknown'])}" if lexicon["unknown"] else ""
        lines.append(f"  the lexicon knows {lexicon['known']:.1%} of {lexicon['words']} words{unknown}")
    if "image_files" in facts:
        images = facts["image_files"]
        line = f"  images: {images['found']} found, {images['missing']} missing, {images['unreadable']} unreadable"
        if images["found"]:
            sides = [(side, *images[f"{side}_side"]) for side in ("longer", "shorter")]
            ranges = [f"{side} side {low}-{high} (median {median})" for side, low, median, high in sides]
            line += f"; {', '.join(ranges)} pixels"
        lines.append(line)
    return "\n".join(lines)


def write_records(args: argparse.Namespace, splits: dict[str, Records], lexicon: Lexicon | None) -> None:
    """--html: write a page of random records."""
    candidates = [(path, record) for path, records in splits.items() for record in records.values()]
    chosen = random.Random(args.seed).sample(candidates, min(args.number, len(candidates)))
    tint = tinter(lexicon)
    cards = []
    for path, record in chosen:
        emotion = dominant_emotion(record["origin_emotion_distribution"]) or "no majority"
        cards.append(record_card(record, emotion, args.image_root, tint, group=Path(path).stem))
    lead = f"{len(cards)} of {len(candidates)} images, drawn at random (seed {args.seed})."
    counts = [(Path(path).name, f"{len(records)} images") for path, records in splits.items()]
    page = Page(
        "A look at the data",
        lead,
        cards,
        counts,
        tinted=lexicon is not None,
        references_name="explanations",
        references_open=True,
    )
    size = write_page(args.html, page)
    print(f"\n{args.html}: {len(cards)} records, {size / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    sys.exit(run_script(main))
