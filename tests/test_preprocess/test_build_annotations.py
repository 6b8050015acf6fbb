"""preprocess/build_annotations.py: COCO's caption format, and the splits that are refused."""

import pytest

from preprocess import build_splits
from preprocess.build_annotations import main
from tests.bad_input import BRACKETS, VAL, check_accepted, check_refused, content, unchanged
from tests.conftest import REPOSITORY
from utils.data.records import read_records
from utils.files import read_json


def test_annotations_are_coco_captions(tmp_path, capsys):
    build_splits.main(["--artemis_dir", str(REPOSITORY / "tests/data/artemis"), "--out_dir", str(tmp_path)])
    splits = [str(tmp_path / f"artEmisX_{split}.json") for split in ("val", "test")]
    main([*splits, "--out_dir", str(tmp_path / "annotations")])
    assert sorted(path.name for path in (tmp_path / "annotations").iterdir()) == [
        "artEmisX_test_annot_exp.json",
        "artEmisX_val_annot_exp.json",
    ]
    records, coco = read_records(splits[0]), read_json(tmp_path / "annotations/artEmisX_val_annot_exp.json")
    assert set(coco) == {"info", "licenses", "type", "images", "annotations"} and coco["type"] == "captions"
    assert coco["images"] == [{"id": int(image_id)} for image_id in records]
    assert [annotation["id"] for annotation in coco["annotations"]] == list(range(1, 40))
    assert [(str(annotation["image_id"]), annotation["caption"]) for annotation in coco["annotations"]] == [
        (image_id, text) for image_id, record in records.items() for text in record["explanations"]
    ]
    assert "8 images, 39 captions" in capsys.readouterr().out


# command line -> (change, message)
CASES = {
    "gone.json --out_dir out": (unchanged, "gone.json: no such file"),
    f"{VAL} other/artEmisX_val.json --out_dir out": (unchanged, "two splits of the same file name.*--out_dir"),
    f"{VAL} --out_dir vit/config.json": (unchanged, "vit/config.json"),
    f"{VAL} bad.json --out_dir out": (content("bad.json", "{}"), "bad.json: holds no records"),
    "bad.json --out_dir out": (content("bad.json", BRACKETS), "bad.json: JSON nested too deeply"),
}


@pytest.mark.parametrize(("argv", "case"), CASES.items(), ids=CASES)
def test_refused(box, argv, case):
    change, message = case
    change(box)
    check_refused(box, main, argv, message)


def test_good_files_are_accepted(box):
    check_accepted(box, main, f"{VAL} --out_dir out")
