"""preprocess/build_annotations.py: COCO's caption format, and the splits that are refused."""

from preprocess.build_annotations import main
from utils.files import read_json, write_json


def test_annotations_are_coco_captions(tmp_path, capsys):
    """Every explanation in its order, also a repeated one; numbered from 1 over all images."""
    texts = {"77": ["so wide", "a dark sky", "so wide"], "5": ["calm"]}
    shares = [0, 1, 0, 0, 0, 0, 0, 0, 0]
    records = {
        image_id: {
            "emotions": ["awe"] * len(explanations),
            "explanations": explanations,
            "image_name": f"Cubism/{image_id}.jpg",
            "origin_emotion_distribution": shares,
        }
        for image_id, explanations in texts.items()
    }
    for split in ("val", "test"):
        write_json(tmp_path / f"{split}.json", records)
    main([str(tmp_path / "val.json"), str(tmp_path / "test.json"), "--out_dir", str(tmp_path / "out")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test_annot_exp.json", "val_annot_exp.json"]
    assert read_json(tmp_path / "out/val_annot_exp.json") == {
        "info": {"description": "ArtEmis explanations"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": 77}, {"id": 5}],
        "annotations": [
            {"id": 1, "image_id": 77, "caption": "so wide"},
            {"id": 2, "image_id": 77, "caption": "a dark sky"},
            {"id": 3, "image_id": 77, "caption": "so wide"},
            {"id": 4, "image_id": 5, "caption": "calm"},
        ],
    }
    assert "2 images, 4 captions" in capsys.readouterr().out
