"""A look at the data before training: what the splits hold, as text, as JSON, and as a page of random records.

python -m utils.inspect runs/demo/data/artEmisX_train.json runs/demo/data/artEmisX_val.json --html look.html
"""

import argparse
import random
import sys
from pathlib import Path

from utils.constants import EMOTIONS
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, write_json


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.inspect",
        description="Say what splits hold: counts, lengths, emotions, agreement, lexicon coverage, repeats, overlap.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("splits", nargs="+", type=Path, metavar="SPLIT.json", help="splits, e.g. artEmisX_train.json")
    add("--max_seq_len", type=number(int, 8, 1024), default=30, help="tokens per text; longer ones are cut")
    add("--vad_lexicon", type=Path, help="lexicon whose coverage is told, and whose values tint words")
    add("--image_root", type=Path, help="image folder: tells the pictures' sizes")
    add("--json", type=Path, help="write the figures to this file as well")
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

    # after the checks, as they bring numpy and tokenizers along
    from utils.data.records import read_records
    from utils.data.split_facts import lexicon_coverage, overlaps, picture_sizes, split_facts
    from utils.data.vad_lookup import read_lexicon
    from utils.evaluation.word_tints import word_value

    splits = {str(path): read_records(path) for path in dict.fromkeys(args.splits)}
    lexicon = None if args.vad_lexicon is None else read_lexicon(args.vad_lexicon)
    facts = {"splits": {path: split_facts(records, args.max_seq_len) for path, records in splits.items()}}
    for path, records in splits.items():
        if lexicon is not None:
            coverage = lexicon_coverage(records, lambda word: word_value(word, lexicon) is not None)
            facts["splits"][path]["lexicon"] = coverage
        if args.image_root is not None:
            facts["splits"][path]["pictures"] = picture_sizes(records, args.image_root)
    facts["overlaps"] = overlaps(splits)
    print("\n\n".join([describe(path, one, args.max_seq_len) for path, one in facts["splits"].items()]))
    for pair in facts["overlaps"]:
        print(
            f"\n{' and '.join(pair['splits'])} share {pair['images']} pictures and {pair['explanations']} explanations"
        )
    if args.json:
        write_json(args.json, facts, indent=1)
    if args.html:
        write_records(args, splits, lexicon)


def describe(path: str, facts: dict, max_seq_len: int) -> str:
    """A split's figures in a few lines."""
    tokens = facts["tokens"]
    agreement = "-" if facts["agreement"] is None else f"{facts['agreement']:.1%}"
    lines = [
        path,
        f"  {facts['images']} pictures, {facts['explanations']} explanations ({facts['explanations_per_image']:.1f} each), "
        f"{facts['repeated']} of them said before",
        f"  tokens per text: {tokens['mean']:.1f} on average, 95 % have at most {tokens['p95']}, the longest {tokens['max']}; "
        f"{tokens['cut']} ({tokens['cut'] / facts['explanations']:.1%}) are cut at {max_seq_len}",
        "  emotions: " + ", ".join(f"{emotion} {facts['emotions'][emotion]:.1%}" for emotion in EMOTIONS),
        f"  {facts['majority']:.1%} of the pictures have a majority emotion; two annotators of one picture agree in {agreement}",
    ]
    if "lexicon" in facts:
        lexicon = facts["lexicon"]
        unknown = f"; the most frequent others: {', '.join(lexicon['unknown'])}" if lexicon["unknown"] else ""
        lines.append(f"  the lexicon knows {lexicon['known']:.1%} of {lexicon['words']} words{unknown}")
    if "pictures" in facts:
        found = facts["pictures"]
        sides = ""
        if found["found"]:
            sides = ", ".join(
                f"{side} side {'-'.join(str(found[f'{side}_side'][index]) for index in (0, 2))} (median {found[f'{side}_side'][1]})"
                for side in ("longer", "shorter")
            )
            sides = f"; {sides} pixels"
        lines.append(
            f"  pictures: {found['found']} found, {found['missing']} missing, {found['unreadable']} unreadable{sides}"
        )
    return "\n".join(lines)


def write_records(args: argparse.Namespace, splits: dict[str, dict], lexicon) -> None:
    """The page of random records."""
    from utils.data.records import dominant_emotion
    from utils.evaluation.gallery_cards import names_of
    from utils.evaluation.page import Card, Page, bars, references, write_page
    from utils.evaluation.thumbnails import add_thumbnail
    from utils.evaluation.word_tints import tinter

    everything = [(path, record) for path, records in splits.items() for record in records.values()]
    drawn = random.Random(args.seed).sample(everything, min(args.number, len(everything)))
    tint = tinter(lexicon)
    cards = []
    for path, record in drawn:
        shares = record["origin_emotion_distribution"]
        card = Card(
            name=record["image_name"],
            **names_of(record["image_name"]),
            emotion=dominant_emotion(shares) or "no majority",
            references=references(record, tint),
            bars=bars(shares),
            group=Path(path).stem,
        )
        add_thumbnail(card, args.image_root)
        cards.append(card)
    lead = f"{len(cards)} of {len(everything)} pictures, drawn at random (seed {args.seed})."
    counts = [(Path(path).name, f"{len(records)} pictures") for path, records in splits.items()]
    page = Page("A look at the data", lead, cards, counts, references_name="explanations", references_open=True)
    page.tinted = lexicon is not None
    size = write_page(args.html, page)
    print(f"\n{args.html}: {len(cards)} records, {size / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    sys.exit(run_script(main))
