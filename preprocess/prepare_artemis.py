"""Step 2: convert ArtEmis' release file to the two folders of ArtEmis' own preprocessing.

    python preprocess/prepare_artemis.py --release_csv artemis_dataset_release_v0.csv --out_dir data/artEmis

    python preprocess/prepare_artemis.py --release_csv artemis_dataset_release_v0.csv \\
        --contrastive_csv Contrastive.csv --out_dir data/artEmis-v2

writes

    preprocess_data_mini/image-emotion-histogram.csv        votes per artwork, over all annotations
    preprocess_data_mini/artemis_preprocessed.csv           every row and word, all artworks split 85/5/10 (v1.0)
    preprocess_data_nets/artemis_preprocessed.csv           no short or long texts; often annotated artworks: "rest"
    preprocess_data_nets/vocabulary.pkl                     training words seen at least 5 times
    preprocess_data_nets/artemis_gt_references_grouped.pkl  reference texts per split and artwork
    preprocess_data_nets/sets/<name>.csv                    v2.0's training and test sets by their published names

Artworks, rows, splits and votes are the same as those of ArtEmis' tools. Texts can differ in two cases: ArtEmis
corrects words with a hand-made spelling list (give it as --spelling), and it leaves words alone that GloVe knows but
the spelling dictionary does not (give GloVe as --known_words).
"""

import argparse
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.artemis_files import (
    CLEANED_COLUMNS,
    MIN_WORD_COUNT,
    RELEASE_COLUMNS,
    TEST_SETS,
    TRAIN_SETS,
    TextColumns,
    emotion_histograms,
    grouped_references,
    split_v1,
    split_v2,
    v2_set,
    write_grouped_references,
    write_table,
    write_vocabulary,
)
from preprocess.artemis_text import SpellChecker, read_corrections, read_known_words, tokenize_all
from preprocess.csv_tables import check_emotions, column_of_integers, read_table
from utils.constants import EMOTIONS
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place
from utils.processes import cores, process_pool

REMEDY = "give ArtEmis' release as it was downloaded"

TOO_SHORT = 5  # texts of fewer tokens are dropped
LONG_PERCENTILE = 95  # texts longer than this percentile of the training texts' lengths are dropped

# The counts of ArtEmis v1.0 as published.
V1_COUNTS = {
    "rows": 454_684,
    "artworks": 80_031,
    "too short": 3_057,
    "too long": 22_196,
    "longest kept (tokens)": 30,
    "kept": 429_431,
    "kept in train": 338_777,
    "test artworks": 7_933,
    "vocabulary": 14_469,
}


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release_csv", type=Path, required=True, help="artemis_dataset_release_v0.csv")
    parser.add_argument("--contrastive_csv", type=Path, help="v2.0's Contrastive.csv: prepare v2.0")
    parser.add_argument("--out_dir", type=Path, required=True, help="where the two folders go")
    parser.add_argument("--spelling", type=Path, help="hand-made corrections: a json file, or ArtEmis' own spelling.py")
    parser.add_argument("--known_words", type=Path, help="words not to correct: GloVe's text file, or one word a line")
    parser.add_argument("--jobs", type=number(int, 1), default=cores(), help="processes (default: all cores)")
    return parser


def read_release(path: Path, more_columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a release file with all its columns; repetition becomes int.

    Raises:
        InputError: the file is missing or malformed, lacks a column, or is already preprocessed; or a row has an
            unknown emotion or a repetition that is not an integer.
    """
    table = read_table(path, [*RELEASE_COLUMNS, *more_columns], REMEDY, all_columns=True)
    check_emotions(table, EMOTIONS, path, REMEDY)
    cleaned = [column for column in CLEANED_COLUMNS if column in table and column != "split"]
    if cleaned:
        raise InputError(f"{path}: has a column {cleaned[0]}, so it is a preprocessed file already; {REMEDY}")
    return table.assign(repetition=column_of_integers(table, "repetition", path, REMEDY))


def read_v2(release_csv: Path, contrastive_csv: Path) -> pd.DataFrame:
    """Read v2.0: new rows, then old ones, with a column `version`. Paintings are in Unicode NFD.

    New rows have the columns anchor_painting and anchor_art_style. If the file lacks the latter, it is taken from the
    old artwork of that name.

    Raises:
        InputError: as in `read_release`, or only one of the two files has a column split.
    """
    new, old = read_release(contrastive_csv, ["anchor_painting"]), read_release(release_csv)
    if ("split" in new) != ("split" in old):
        raise InputError(
            f"{contrastive_csv}: one of the two files has a column split, the other does not; add it to both, or to neither"
        )
    table = pd.concat([new.assign(version="new"), old.assign(version="old")], ignore_index=True).fillna("")
    for column in ("painting", "anchor_painting"):
        table[column] = table[column].map(lambda name: unicodedata.normalize("NFD", name))
    if "anchor_art_style" not in table:
        styles = table[table["version"] == "old"].drop_duplicates("painting").set_index("painting")["art_style"]
        table["anchor_art_style"] = table["anchor_painting"].map(styles).fillna("")
    return table


def clean(utterances: list[str], checker: SpellChecker, corrections: dict[str, str], jobs: int) -> list[str]:
    """The corrected tokens of every text, joined by spaces. `jobs` processes tokenize."""
    texts = [corrections.get(utterance, utterance) for utterance in utterances]
    chunks = [texts[start : start + 2000] for start in range(0, len(texts), 2000)]
    with process_pool(jobs) as pool:
        tokenized = pool.map(tokenize_all, chunks)
        return [
            " ".join([word for token in text.split() for word in checker.correct(token)])
            for chunk in tqdm(tokenized, total=len(chunks), desc="clean", unit="x2000 texts", mininterval=1)
            for text in chunk
        ]


def filter_lengths(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop texts that have fewer than 5 tokens or are longer than the 95th percentile of the training texts' lengths.

    Returns:
        the remaining rows, and how many were "too short" and "too long".
    """
    lengths = table["tokens_len"]
    longest = np.percentile(lengths[table["split"] == "train"], LONG_PERCENTILE)
    short, long = lengths < TOO_SHORT, lengths > longest
    return table[~short & ~long], {"too short": int(short.sum()), "too long": int((long & ~short).sum())}


def check_splits(table: pd.DataFrame, path: Path) -> None:
    """Check the splits, which may be the user's own.

    Raises:
        InputError: a split has an unknown name, there are no training rows, or two splits share an artwork.
    """
    unknown = set(table["split"]) - {"train", "val", "test", "rest"}
    if unknown:
        raise InputError(f"{path}: unknown split {sorted(unknown)[0]!r} (known: train, val, test, rest)")
    if "train" not in set(table["split"]):
        raise InputError(f"{path}: no row has the split train")
    splits = table.groupby(["art_style", "painting"])["split"].nunique()
    if (splits > 1).any():
        raise InputError(f"{path}: {'/'.join(splits.idxmax())} is in several splits; an artwork belongs to one")


def print_counts(counts: dict[str, int]) -> None:
    """Print the run's counts, next to the published ones if the input has v1.0's number of rows."""
    compare = counts["rows"] == V1_COUNTS["rows"]
    print(f"{'':24}{'here':>12}" + (f"{'published':>12}" if compare else ""))
    for name, count in counts.items():
        print(f"{name:24}{count:12}" + (f"{V1_COUNTS[name]:12}" if compare and name in V1_COUNTS else ""))


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    corrections = read_corrections(args.spelling) if args.spelling else {}
    known_words = read_known_words(args.known_words) if args.known_words else None
    v2 = args.contrastive_csv is not None
    table = read_v2(args.release_csv, args.contrastive_csv) if v2 else read_release(args.release_csv)
    own_split = "split" in table
    if not own_split:
        table["split"] = split_v2(table) if v2 else split_v1(table, rest=True)
    check_splits(table, args.release_csv)

    mini, nets = args.out_dir / "preprocess_data_mini", args.out_dir / "preprocess_data_nets"
    for folder in (mini, nets):
        check_place(folder / "artemis_preprocessed.csv")
    histograms = emotion_histograms(table)
    checker = SpellChecker(known_words, corrections)
    texts = clean(table["utterance"].tolist(), checker, corrections, args.jobs)
    table["utterance_spelled"], table["tokens_len"] = texts, [len(text.split()) for text in texts]
    counts = {"rows": len(table), "artworks": len(histograms)}
    # a stable sort keeps the release's order and moves "rest" to the end
    every_row, table = table, table.iloc[np.argsort(table["split"] == "rest", kind="stable")]
    table, dropped = filter_lengths(table)
    if not (table["split"] == "train").any():
        raise InputError(f"{args.release_csv}: no training text has between {TOO_SHORT} tokens and the longest allowed")
    write_table(mini / "image-emotion-histogram.csv", histograms)  # write nothing before all checks pass
    if not v2:
        every_row = every_row if own_split else every_row.assign(split=split_v1(every_row, rest=False))
        write_table(mini / "artemis_preprocessed.csv", every_row, TextColumns(every_row, min_count=1).add)
    counts |= dropped | {"longest kept (tokens)": int(table["tokens_len"].max()), "kept": len(table)}
    columns = TextColumns(table, MIN_WORD_COUNT)
    vocabulary = columns.vocabulary
    write_table(nets / "artemis_preprocessed.csv", table, columns.add)
    write_vocabulary(nets / "vocabulary.pkl", vocabulary)
    references = grouped_references(table, vocabulary)
    write_grouped_references(nets / "artemis_gt_references_grouped.pkl", references)

    artworks = {split: len(rows) for split, rows in references.items()}
    counts |= {f"kept in {split}": count for split, count in table["split"].value_counts().items()}
    counts |= {f"{split} artworks": count for split, count in artworks.items()} | {"vocabulary": len(vocabulary)}
    if v2:
        for name in TRAIN_SETS + TEST_SETS:
            rows = v2_set(table, name)
            write_table(nets / "sets" / f"{name}.csv", rows, columns.add)
            counts[name] = len(rows)
    print_counts(counts)


if __name__ == "__main__":
    sys.exit(run_script(main))
