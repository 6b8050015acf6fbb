"""Step 4: write the reference explanations in COCO's caption format, for the COCO-caption scores.

    python preprocess/build_annotations.py data/artEmis/artEmisX_val.json data/artEmis/artEmisX_test.json

Writes artEmisX_val_annot_exp.json for artEmisX_val.json, and so on: one caption per reference explanation.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.data.records import Records, read_records
from utils.errors import InputError, OneLineParser, run_script
from utils.files import write_json

ANNOTATIONS = Path(__file__).resolve().parents[1] / "cococaption" / "annotations"


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, nargs="+", help="JSON splits, e.g. artEmisX_val.json artEmisX_test.json")
    parser.add_argument("--out_dir", type=Path, default=ANNOTATIONS, help="folder to write to (default: %(default)s)")
    return parser


def coco_annotations(records: Records) -> dict:
    """Convert records to COCO's caption format: info, licenses, type, images, annotations [{id, image_id, caption}].

    Image ids are the records' keys as integers. Annotation ids count from 1, in the order of the records.
    """
    captions = [
        (int(image_id), explanation) for image_id, record in records.items() for explanation in record["explanations"]
    ]
    return {
        "info": {"description": "ArtEmis explanations"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": int(image_id)} for image_id in records],
        "annotations": [
            {"id": number, "image_id": image_id, "caption": caption}
            for number, (image_id, caption) in enumerate(captions, start=1)
        ],
    }


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    outputs = {path: args.out_dir / f"{path.stem}_annot_exp.json" for path in args.splits}
    if len(set(outputs.values())) < len(args.splits):
        raise InputError("two splits of the same file name would overwrite each other; give each its own --out_dir")
    all_records = {path: read_records(path) for path in args.splits}
    for path, records in all_records.items():
        annotations = coco_annotations(records)
        write_json(outputs[path], annotations)
        print(f"{outputs[path]}: {len(annotations['images'])} images, {len(annotations['annotations'])} captions")


if __name__ == "__main__":
    sys.exit(run_script(main))
