"""Step 3: convert the two folders of ArtEmis' preprocessing to the four JSON files that training and evaluation read.

    python preprocess/build_splits.py --artemis_dir data/artEmis --out_dir data/artEmis

Joins the vote histogram of every image (`preprocess_data_mini/image-emotion-histogram.csv`) with the cleaned
annotations (`preprocess_data_nets/artemis_preprocessed.csv`), leaves out artworks with more than 40 annotations, and
writes one record per image to artEmisX_train.json, artEmisX_val.json and artEmisX_test.json. artEmisX_cl_train.json
gets the training images whose annotations name more than one emotion, because the contrastive loss needs such pairs.

    python preprocess/build_splits.py --dataset v2 --artemis_dir data/artEmis-v2 --out_dir data/artEmis-v2

does the same for ArtEmis v2.0. The training files contain its set "combined", artEmisX_test.json its test set
"test_all". --test_sets also writes other published test sets, e.g. artEmisX_test_new.json.

    python preprocess/build_splits.py --dataset table --csv mine.csv --columns image=file emotion=feeling text=reason \\
        --image_root images --out_dir data/mine

does the same for any CSV or TSV file, or Excel workbook, with one row per annotation. Its images are divided 85/5/10, or
as its column of splits says; the emotion distribution of an image is that of its rows. Only rows without a word are left
out. If no training image has two emotions, there is no artEmisX_cl_train.json: train on artEmisX_train.json without the
contrastive loss.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess import annotation_table
from preprocess.artemis_files import SEED, TEST_SETS, TRAIN_SETS, v2_set
from preprocess.csv_tables import check_emotions, column_of_integers, read_table, table_layout
from preprocess.image_manifest import ONE_PER_ARTWORK, manifest_rows, measure, write_manifest
from preprocess.image_names import ImageFolder, image_id
from utils.constants import EMOTIONS, MOST_ANNOTATIONS
from utils.data.records import Records, read_records
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import write_json

SPLITS = ("train", "val", "test")
TABLE_REMEDY = "correct the table"
REMEDY = "make the folder with preprocess/prepare_artemis.py or with ArtEmis' own tools"


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset",
        choices=("v1", "v2", "table"),
        default="v1",
        help="ArtEmis' version, or a table of your own (default: %(default)s)",
    )
    parser.add_argument("--artemis_dir", type=Path, help="contains preprocess_data_mini/ and preprocess_data_nets/")
    parser.add_argument("--mini_dir", type=Path, help="the folder preprocess_data_mini, if it is elsewhere")
    parser.add_argument("--nets_dir", type=Path, help="the folder preprocess_data_nets, if it is elsewhere")
    parser.add_argument("--out_dir", type=Path, required=True, help="where the JSON files go")
    parser.add_argument(
        "--image_root",
        type=Path,
        help="folder of <art_style>/<painting>.jpg, or of the table's images; missing and unreadable images are counted "
        "and listed",
    )
    parser.add_argument("--require_images", action="store_true", help="an artwork without an image is an error")
    parser.add_argument(
        "--train_set", choices=TRAIN_SETS, default="combined", help="v2: what to train on (default: %(default)s)"
    )
    parser.add_argument("--test_sets", choices=TEST_SETS, nargs="*", default=[], help="v2: further test sets to write")
    table = parser.add_argument_group("a table of your own (--dataset table)")
    table.add_argument(
        "--csv",
        type=Path,
        help="a table of one row per annotation: CSV or TSV in UTF-8, or an Excel workbook (needs openpyxl)",
    )
    table.add_argument(
        "--columns",
        type=pair,
        nargs="+",
        default=[],
        metavar="WHAT=COLUMN",
        help=f"WHAT is {', '.join(annotation_table.COLUMNS)}; default: the column of that name. image=STYLE/PAINTING joins "
        "two columns by a slash",
    )
    table.add_argument(
        "--language",
        help=f"take the rows of this language (default: {annotation_table.LANGUAGE}, if there is a column)",
    )
    table.add_argument(
        "--rename_emotions", type=pair, nargs="+", default=[], metavar="OLD=NEW", help="NEW is one of the nine"
    )
    table.add_argument(
        "--skip_unknown_emotions", action="store_true", help="leave out rows whose emotion is not one of the nine"
    )
    table.add_argument(
        "--keep_text",
        action="store_true",
        help="keep the sentences instead of turning them into lower-case words without punctuation",
    )
    table.add_argument(
        "--seed", type=number(int, 0, 2**32 - 1), default=SEED, help="of the division 85/5/10 (default: %(default)s)"
    )
    return parser


def pair(text: str) -> tuple[str, str]:
    """A type for argparse: "a=b" -> ("a", "b")."""
    left, _, right = (part.strip() for part in text.partition("="))
    if not left or not right:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return left, right


def read_distributions(path: Path) -> dict[str, list[float]]:
    """Read a csv of vote counts: image id -> distribution of the nine emotions, sum 1.

    Its columns are art_style, painting and emotion_histogram, a list of nine counts as text.

    Raises:
        InputError: the file is missing or malformed, a histogram is not a list of nine counts with a positive sum, or
            an artwork occurs twice.
    """
    table = read_table(path, ["art_style", "painting", "emotion_histogram"], REMEDY)
    distributions: dict[str, list[float]] = {}
    for row, (style, painting, text) in enumerate(table.itertuples(index=False), start=1):
        try:
            votes = [float(count) for count in json.loads(text)]
        except (ValueError, TypeError):
            votes = []
        total = sum(votes)
        if len(votes) != len(EMOTIONS) or min(votes) < 0 or not 0 < total < float("inf"):
            problem = f"emotion_histogram {text[:60]!r} is not a list of {len(EMOTIONS)} vote counts"
            raise InputError(f"{path}: row {row} ({style}/{painting}): {problem}; {REMEDY}")
        identity = image_id(style, painting)
        if identity in distributions:
            raise InputError(f"{path}: row {row} ({style}/{painting}): the artwork occurs twice; {REMEDY}")
        distributions[identity] = [count / total for count in votes]
    return distributions


def read_annotations(path: Path, dataset: str) -> pd.DataFrame:
    """Read the cleaned annotations.

    Columns: art_style, painting, emotion, repetition (int), split, utterance_spelled; for v2 also version.

    Raises:
        InputError: the file is for the other dataset; a column is missing; a row has an unknown emotion, split or
            version, or a repetition that is not an integer.
    """
    columns = ["art_style", "painting", "emotion", "repetition", "split", "utterance_spelled"]
    if dataset == "v2":
        columns.append("version")
    table = read_table(path, columns, REMEDY)
    if dataset == "v1" and "version" in table_layout(path, columns).header:
        raise InputError(f"{path}: has a column version, so it is ArtEmis v2.0; add --dataset v2")
    table = table.assign(repetition=column_of_integers(table, "repetition", path, REMEDY))
    check_emotions(table, EMOTIONS, path, REMEDY)
    for column, known in (("split", {*SPLITS, "rest"}), ("version", {"new", "old"})):
        unknown = sorted(set(table.get(column, ())) - known)
        if unknown:
            raise InputError(
                f"{path}: unknown {column} {unknown[0][:40]!r} (known: {', '.join(sorted(known))}); {REMEDY}"
            )
    return table


def mini_variant_signs(annotations: pd.DataFrame) -> list[str]:
    """Signs that a folder is ArtEmis' mini variant instead of nets. Mini keeps every row and word; it has no "rest"."""
    signs = []
    often = annotations.loc[annotations["repetition"] > MOST_ANNOTATIONS, "split"]
    if len(often) and "rest" not in set(often):
        signs.append('artworks annotated often are not in split "rest"')
    short = int((annotations["utterance_spelled"].str.count(" ") < 4).sum())
    if short:
        signs.append(f"{short} texts have fewer than 5 words")
    return signs


def choose_sets(
    annotations: pd.DataFrame, dataset: str, train_set: str, test_sets: list[str]
) -> dict[str, pd.DataFrame]:
    """Name of the JSON file ("train", "val", "test", "test_new", ...) -> its rows.

    Artworks with more than 40 annotations are left out, except in test_40, which contains only these.
    """
    sets = {split: annotations[annotations["split"] == split] for split in SPLITS}
    if dataset == "v2":
        sets |= {"train": v2_set(annotations, train_set), "test": v2_set(annotations, "test_all")}
        sets |= {name: v2_set(annotations, name) for name in test_sets}
    return {
        name: rows if name == "test_40" else rows[rows["repetition"] <= MOST_ANNOTATIONS] for name, rows in sets.items()
    }


def build_records(rows: pd.DataFrame, distributions: dict[str, list[float]], source: Path) -> Records:
    """Build one record per artwork. Records are in the order of their first row, annotations in the order of the rows.

    Raises:
        InputError: an artwork has no histogram, or its name occurs in two Unicode spellings.
    """
    records: Records = {}
    record_of: dict[tuple[str, str], dict] = {}
    columns = (rows[column] for column in ("art_style", "painting", "emotion", "utterance_spelled"))
    for style, painting, emotion, text in zip(*columns, strict=True):
        record = record_of.get((style, painting))
        if record is None:
            identity, name = image_id(style, painting), f"{style}/{painting}"
            if identity not in distributions:
                raise InputError(f"{source}: {name} has no histogram; take both folders from one preprocessing")
            if identity in records:
                raise InputError(f"{source}: {name} occurs in two Unicode spellings; {REMEDY}")
            record = {
                "emotions": [],
                "explanations": [],
                "image_name": f"{name}.jpg",
                "origin_emotion_distribution": distributions[identity],
            }
            record_of[style, painting] = records[identity] = record
        record["emotions"].append(emotion)
        record["explanations"].append(text)
    return records


def several_emotions(records: Records) -> Records:
    """The records whose annotations name more than one emotion."""
    return {identity: record for identity, record in records.items() if len(set(record["emotions"])) > 1}


def check_disjoint(records: dict[str, Records], source: Path, remedy: str) -> None:
    """Raise InputError if an image is in two of train, val and test, also under another Unicode spelling."""
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for identity, record in records[split].items():
            if identity in split_of:
                both = f"{split_of[identity]} and {split}"
                raise InputError(f"{source}: {record['image_name']} is in two splits, {both}; {remedy}")
            split_of[identity] = split


def print_summary(sets: dict[str, Records]) -> None:
    """Print a table with the number of images, texts, and annotations per emotion in every file."""
    counts = {
        name: Counter(e for record in records.values() for e in record["emotions"]) for name, records in sets.items()
    }
    print(f"{'':16}" + "".join(f"{name:>10}" for name in sets))
    print(f"{'images':16}" + "".join(f"{len(records):10}" for records in sets.values()))
    print(f"{'texts':16}" + "".join(f"{count.total():10}" for count in counts.values()))
    for emotion in EMOTIONS:
        print(f"{emotion:16}" + "".join(f"{count[emotion]:10}" for count in counts.values()))


def read_artemis(args: argparse.Namespace) -> tuple[Path, dict[str, Records]]:
    """The file of the annotations, and name of the JSON file -> its records, for ArtEmis v1.0 and v2.0."""
    mini_dir = args.mini_dir or args.artemis_dir / "preprocess_data_mini"
    nets_dir = args.nets_dir or args.artemis_dir / "preprocess_data_nets"
    source = nets_dir / "artemis_preprocessed.csv"
    distributions = read_distributions(mini_dir / "image-emotion-histogram.csv")
    annotations = read_annotations(source, args.dataset)
    if signs := mini_variant_signs(annotations):
        print(
            f"warning: {nets_dir} looks like ArtEmis' mini variant instead of nets: {'; '.join(signs)}",
            file=sys.stderr,
        )
    often = annotations["repetition"] > MOST_ANNOTATIONS
    empty = annotations["utterance_spelled"].str.strip() == ""
    print(
        f"{len(annotations)} annotations read; {often.sum()} left out, of artworks with more than {MOST_ANNOTATIONS} "
        "annotations"
    )
    if empty.any():
        print(f"{empty.sum()} annotations without a word left out")
    sets = choose_sets(annotations[~empty], args.dataset, args.train_set, args.test_sets)
    return source, {name: build_records(rows, distributions, source) for name, rows in sets.items()}


def read_own_table(args: argparse.Namespace, images: ImageFolder | None) -> tuple[Path, dict[str, Records]]:
    """The user's table, and name of the JSON file -> its records."""
    columns, renamed = dict(args.columns), dict(args.rename_emotions)
    if len(columns) < len(args.columns) or len(renamed) < len(args.rename_emotions):
        raise InputError("--columns or --rename_emotions names one thing twice; give each once")
    if unknown := sorted(set(columns) - set(annotation_table.COLUMNS)):
        known = ", ".join(annotation_table.COLUMNS)
        raise InputError(f"--columns {unknown[0]}=...: the name before the equals sign must be one of {known}")
    path = args.csv
    table = annotation_table.read_annotation_table(path, columns)
    table = annotation_table.select_language(table, args.language, path)
    table = annotation_table.normalize_emotions(table, renamed, path, args.skip_unknown_emotions)
    table = annotation_table.add_image_keys(table, path)
    table = annotation_table.assign_splits(table, args.seed, path)
    if images:
        annotation_table.check_files_differ(table, images, path)
    return path, annotation_table.table_records(table, args.keep_text)


def check_flags(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise InputError if a needed flag is missing, or one is given that is for the other kind of dataset."""
    table_flags = ("csv", "columns", "language", "rename_emotions", "skip_unknown_emotions", "keep_text", "seed")
    artemis_flags = ("artemis_dir", "mini_dir", "nets_dir", "train_set", "test_sets")
    is_table = args.dataset == "table"
    for name in artemis_flags if is_table else table_flags:
        if getattr(args, name) != parser.get_default(name):
            fitting = "v1 or v2" if is_table else "table"
            raise InputError(f"--{name} is for --dataset {fitting}, not for {args.dataset}; leave it out")
    if is_table and not args.csv:
        raise InputError("--dataset table: give the table as --csv FILE")
    if not is_table and not args.artemis_dir and not (args.mini_dir and args.nets_dir):
        raise InputError("pass --artemis_dir, or both --mini_dir and --nets_dir")
    if args.require_images and not args.image_root:
        raise InputError("--require_images needs --image_root")


def main(argv: list[str] | None = None) -> None:
    parser = get_parser()
    args = parser.parse_args(argv)
    check_flags(args, parser)
    images = ImageFolder(args.image_root) if args.image_root else None
    is_table = args.dataset == "table"
    source, records = read_own_table(args, images) if is_table else read_artemis(args)
    remedy, things = (TABLE_REMEDY, "images") if is_table else (REMEDY, "artworks")
    records["cl_train"] = several_emotions(records["train"])
    without_pairs = is_table and not records["cl_train"]  # as with one annotation per image
    if without_pairs:
        del records["cl_train"]
    for name in records:
        if not records[name]:
            what = "training images with annotations of two emotions" if name == "cl_train" else things
            raise InputError(f"{source}: no {what} for artEmisX_{name}.json; {remedy}")
    check_disjoint(records, source, remedy)  # write nothing before all checks pass

    if images:
        manifest = args.out_dir / "image_manifest.csv"
        names = list({record["image_name"]: None for part in records.values() for record in part.values()})
        rows = manifest_rows(images, names)
        measured = tqdm(map(measure, rows), "images", len(rows), unit="file", mininterval=1)
        counts = write_manifest(manifest, measured)
        if args.require_images and counts.problems["missing"]:
            raise InputError(f"{args.image_root}: {counts.problems['missing']} {things} have no image, see {manifest}")
        # training opens the files by their own names; the records of cl_train are those of train
        file_of = {row.image_name: Path(row.found_path) for row in rows if row.found_path}
        for record in (record for name in records if name != "cl_train" for record in records[name].values()):
            if file := file_of.get(record["image_name"]):
                record["image_name"] = file.relative_to(images.root).as_posix()
    paths = {name: args.out_dir / f"artEmisX_{name}.json" for name in records}
    if without_pairs:
        (args.out_dir / "artEmisX_cl_train.json").unlink(missing_ok=True)  # an earlier table's
    for name, path in paths.items():
        write_json(path, records[name])
    if without_pairs:
        print("no training image has two emotions: train on artEmisX_train.json with --no-use_cl_loss")
    print_summary({name: read_records(path) for name, path in paths.items()})  # read again: training will accept them
    if args.dataset == "v2":
        print(f"v2.0: train and cl_train are the set {args.train_set!r}, test is 'test_all'")
    if images:
        print(counts.line(manifest, None if is_table else ONE_PER_ARTWORK))


if __name__ == "__main__":
    sys.exit(run_script(main))
