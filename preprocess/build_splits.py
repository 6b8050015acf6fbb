"""Step 3: from the two folders of ArtEmis' preprocessing to the four JSON files that training and evaluation read.

    python preprocess/build_splits.py --artemis_dir data/artEmis --out_dir data/artEmis

Joins the vote histogram of every image (`preprocess_data_mini/image-emotion-histogram.csv`) with the cleaned
annotations (`preprocess_data_nets/artemis_preprocessed.csv`), leaves out artworks with more than 40 annotations, and
writes one record per image: artEmisX_train.json, artEmisX_val.json, artEmisX_test.json, and artEmisX_cl_train.json, which holds the
training images whose annotations name more than one emotion (pairs for the contrastive loss are drawn from these).
"""

import argparse
import ast
import hashlib
import sys
import unicodedata
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.constants import EMOTIONS
from utils.errors import InputError, run_script
from utils.files import write_json
from utils.image_files import ImageFolder, manifest
from utils.records import Records, read_records
from utils.tables import check_emotions, column_of_integers, read_table

SPLITS = ("train", "val", "test")
MAX_REPETITION = 40  # artworks annotated more often belong to ArtEmis' split "rest"
REMEDY = "make the folder with preprocess/prepare_artemis.py or with ArtEmis' own tools"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artemis_dir", type=Path, help="holds preprocess_data_mini/ and preprocess_data_nets/")
    parser.add_argument("--mini_dir", type=Path, help="the folder preprocess_data_mini, when it is elsewhere")
    parser.add_argument("--nets_dir", type=Path, help="the folder preprocess_data_nets, when it is elsewhere")
    parser.add_argument("--out_dir", type=Path, required=True, help="where the JSON files go")
    parser.add_argument(
        "--image_root",
        type=Path,
        help="folder of <art_style>/<painting>.jpg: artworks without a readable image are counted and listed",
    )
    return parser


def image_id(art_style: str, painting: str) -> str:
    """A positive 63-bit integer, as a string: the same for an artwork on every machine and in every Unicode spelling.

    It is the first 8 bytes (big-endian) of the SHA-256 of "art_style/painting" in NFC and UTF-8, shifted right by one.
    """
    name = unicodedata.normalize("NFC", f"{art_style}/{painting}").encode()
    return str(int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1)


def read_distributions(path: Path) -> dict[str, list[float]]:
    """Image id -> shares of the nine emotions, sum 1, from a csv of vote counts.

    Its columns are art_style, painting and emotion_histogram, the latter a list of nine counts as text.

    Raises:
        InputError: a histogram is not a list of nine counts with a positive sum, or an artwork is there twice.
    """
    table = read_table(path, ["art_style", "painting", "emotion_histogram"], REMEDY)
    distributions = {}
    for row, (style, painting, text) in enumerate(table.itertuples(index=False), start=1):
        try:
            votes = [float(count) for count in ast.literal_eval(text)]
            shares = [count / sum(votes) for count in votes]
            good = len(votes) == len(EMOTIONS) and min(votes) >= 0 and sum(votes) < float("inf")
        except (ValueError, TypeError, SyntaxError, ZeroDivisionError, RecursionError, MemoryError):
            good = False
        if not good:
            problem = f"emotion_histogram {text[:60]!r} is not a list of {len(EMOTIONS)} vote counts"
            raise InputError(f"{path}: row {row} ({style}/{painting}): {problem}; {REMEDY}")
        if distributions.setdefault(image_id(style, painting), shares) is not shares:
            raise InputError(f"{path}: row {row} ({style}/{painting}): the artwork is there twice; {REMEDY}")
    return distributions


def read_annotations(path: Path) -> pd.DataFrame:
    """The cleaned annotations, columns art_style, painting, emotion, repetition (int), split and utterance_spelled.

    Raises:
        InputError: a column is missing, or a row has an unknown emotion or a repetition that is no whole number.
    """
    columns = ["art_style", "painting", "emotion", "repetition", "split", "utterance_spelled"]
    table = read_table(path, columns, REMEDY)
    check_emotions(table, EMOTIONS, path, REMEDY)
    return table.assign(repetition=column_of_integers(table, "repetition", path, REMEDY))


def build_records(annotations: pd.DataFrame, distributions: dict[str, list[float]], source: Path) -> dict[str, Records]:
    """Split name -> records, artworks in the order of their first annotation, annotations in their order.

    Raises:
        InputError: an artwork has no histogram or stands in two splits.
    """
    splits: dict[str, Records] = {split: {} for split in SPLITS}
    split_of: dict[str, str] = {}
    for (style, painting), rows in annotations.groupby(["art_style", "painting"], sort=False):
        identity, name = image_id(style, painting), f"{style}/{painting}"
        if identity not in distributions:
            raise InputError(f"{source}: {name} has no histogram; take both folders from one preprocessing")
        if rows["split"].nunique() > 1 or identity in split_of:
            raise InputError(f"{source}: {name} stands in two splits or under two spellings; {REMEDY}")
        split = split_of[identity] = rows["split"].iloc[0]
        if split not in splits:
            raise InputError(f"{source}: {name}: unknown split {split!r} (known: {', '.join(SPLITS)}); {REMEDY}")
        splits[split][identity] = {
            "emotions": rows["emotion"].tolist(),
            "explanations": rows["utterance_spelled"].tolist(),
            "image_name": f"{name}.jpg",
            "origin_emotion_distribution": distributions[identity],
        }
    return splits


def several_emotions(records: Records) -> Records:
    """The records whose annotations name more than one emotion."""
    return {identity: record for identity, record in records.items() if len(set(record["emotions"])) > 1}


def check_written(paths: dict[str, Path]) -> dict[str, Records]:
    """Read the four files again and check what must hold between and inside them.

    Returns:
        split name ("train", "val", "test", "cl_train") -> its records.

    Raises:
        InputError: a record is malformed, a distribution does not sum to 1, an artwork is in two splits, or cl_train is
            not exactly the part of train with several emotions.
    """
    splits = {split: read_records(path) for split, path in paths.items()}
    seen: dict[str, str] = {}
    for split in SPLITS:
        for identity, record in splits[split].items():
            name = unicodedata.normalize("NFC", record["image_name"])
            if name in seen:
                raise InputError(f"{paths[split]}: {name} is in {seen[name]} as well; {REMEDY}")
            seen[name] = split
            if abs(sum(record["origin_emotion_distribution"]) - 1) > 1e-6:
                raise InputError(f"{paths[split]}: record {identity}: the distribution does not sum to 1; {REMEDY}")
    if splits["cl_train"] != several_emotions(splits["train"]):
        raise InputError(f"{paths['cl_train']}: is not the multi-emotion part of train; {REMEDY}")
    return splits


def print_summary(splits: dict[str, Records]) -> None:
    """Images, texts and annotations per emotion of every split, as a table."""
    columns = {
        split: [emotion for record in records.values() for emotion in record["emotions"]]
        for split, records in splits.items()
    }
    print(f"{'':16}" + "".join(f"{split:>10}" for split in splits))
    print(f"{'images':16}" + "".join(f"{len(records):10}" for records in splits.values()))
    print(f"{'texts':16}" + "".join(f"{len(emotions):10}" for emotions in columns.values()))
    for emotion in EMOTIONS:
        print(f"{emotion:16}" + "".join(f"{emotions.count(emotion):10}" for emotions in columns.values()))


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    if not args.artemis_dir and not (args.mini_dir and args.nets_dir):
        raise InputError("give --artemis_dir, or both --mini_dir and --nets_dir")
    mini_dir = args.mini_dir or args.artemis_dir / "preprocess_data_mini"
    nets_dir = args.nets_dir or args.artemis_dir / "preprocess_data_nets"
    images = ImageFolder(args.image_root) if args.image_root else None

    source = nets_dir / "artemis_preprocessed.csv"
    distributions = read_distributions(mini_dir / "image-emotion-histogram.csv")
    annotations = read_annotations(source)
    often = annotations["repetition"] > MAX_REPETITION
    empty = annotations["utterance_spelled"].str.strip() == ""
    print(f"{len(annotations)} annotations read, {often.sum()} of artworks with more than {MAX_REPETITION} left out")
    if empty.any():
        print(f"{empty.sum()} annotations without a word left out")
    splits = build_records(annotations[~often & ~empty], distributions, source)
    for split, records in splits.items():
        if not records:
            raise InputError(f"{source}: no artwork is left in split {split!r}; {REMEDY}")
    splits["cl_train"] = several_emotions(splits["train"])
    if not splits["cl_train"]:
        raise InputError(f"{source}: no training image has annotations of two emotions; {REMEDY}")

    paths = {split: args.out_dir / f"artEmisX_{split}.json" for split in splits}
    for split, path in paths.items():
        write_json(path, splits[split])
    print_summary(check_written(paths))
    if images:
        names = [record["image_name"] for split in SPLITS for record in splits[split].values()]
        problems = manifest(images, names, args.out_dir / "image_manifest.csv")
        found = ", ".join(f"{problems[problem]} {problem}" for problem in ("missing", "unreadable", "ambiguous"))
        print(f"images under {args.image_root}: {problems['']} of {len(names)} found, {found}")
        if problems.total() > problems[""]:
            print(f"which these are: {args.out_dir / 'image_manifest.csv'}")


if __name__ == "__main__":
    sys.exit(run_script(main))
