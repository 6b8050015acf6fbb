"""From ArtEmis' two folders to the JSON splits, and from these to COCO's caption format (refusals: test_refusals.py)."""

import json
import unicodedata

import pandas as pd
import pytest
from PIL import Image

from preprocess import build_annotations
from preprocess.build_splits import image_id, main
from preprocess.prepare_artemis import read_v2
from tests import bad_input
from tests.test_preprocess.helpers import ARTEMIS, HISTOGRAMS, NETS, RELEASE, prepare, read, save_image
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.files import read_json, write_json

SPLITS = ("train", "val", "test")


def build(out_dir, *more, artemis_dir=ARTEMIS):
    main(["--artemis_dir", str(artemis_dir), "--out_dir", str(out_dir), *map(str, more)])


def records_of(folder, names=SPLITS):
    return {name: read_records(folder / f"artEmisX_{name}.json") for name in names}


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    build(folder)
    return folder


def test_records_are_the_kept_rows(splits):
    """Of artworks with at most 40 annotations, in the file's order; votes are those of all rows."""
    rows = read(ARTEMIS / NETS)
    votes = read(ARTEMIS / HISTOGRAMS).set_index(["art_style", "painting"])["emotion_histogram"]
    rows = rows[rows["repetition"].astype(int) <= 40]
    records = records_of(splits)
    for split, part in records.items():
        groups = rows[rows["split"] == split].groupby(["art_style", "painting"], sort=False)
        assert list(part) == [image_id(*artwork) for artwork, _ in groups]
        for (artwork, group), record in zip(groups, part.values(), strict=True):
            histogram = json.loads(votes[artwork])
            assert record == {
                "emotions": group["emotion"].tolist(),
                "explanations": group["utterance_spelled"].tolist(),
                "image_name": "/".join(artwork) + ".jpg",
                "origin_emotion_distribution": pytest.approx([vote / sum(histogram) for vote in histogram]),
            }
    assert sum(len(record["emotions"]) for part in records.values() for record in part.values()) == len(rows) == 771


def test_cl_train_is_the_multi_emotion_part_of_train(splits):
    train, pairs = records_of(splits, ("train", "cl_train")).values()
    assert pairs == {i: record for i, record in train.items() if len(set(record["emotions"])) > 1}
    assert 0 < len(pairs) < len(train)
    # by the kept rows, not by the histogram, which knows of dropped annotations too
    assert any(sum(share > 0 for share in train[i]["origin_emotion_distribution"]) > 1 for i in set(train) - set(pairs))


def test_the_folders_named_alone_give_the_same_bytes(splits, tmp_path, capsys):
    mini, nets = ARTEMIS / "preprocess_data_mini", ARTEMIS / "preprocess_data_nets"
    main(["--mini_dir", str(mini), "--nets_dir", str(nets), "--out_dir", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in splits.iterdir()} == {
        path.name: path.read_bytes() for path in tmp_path.iterdir()
    }
    printed = capsys.readouterr()
    assert printed.err == "" and "910 annotations read; 139 left out, of artworks with more than 40" in printed.out
    counts = dict(line.rsplit(maxsplit=4)[::4] for line in printed.out.splitlines()[2:])  # the last column
    assert counts["images"] == "121" and counts["texts"] == "599" and set(EMOTIONS) < set(counts)


def test_texts_without_a_word_are_left_out(tmp_path, capsys):
    table = read(ARTEMIS / NETS)
    table.loc[1, "utterance_spelled"] = " "
    (tmp_path / NETS).parent.mkdir()
    table.to_csv(tmp_path / NETS, index=False)
    build(tmp_path, "--mini_dir", ARTEMIS / "preprocess_data_mini", artemis_dir=tmp_path)
    assert "1 annotations without a word left out" in capsys.readouterr().out
    assert sum(len(record["explanations"]) for part in records_of(tmp_path).values() for record in part.values()) == 770


def test_the_mini_variant_instead_of_nets_is_noticed(tmp_path, capsys):
    mini = str(ARTEMIS / "preprocess_data_mini")
    main(["--mini_dir", mini, "--nets_dir", mini, "--out_dir", str(tmp_path)])
    warning = capsys.readouterr().err
    assert "mini variant" in warning and "143 texts" in warning and 'split "rest"' in warning


def test_every_record_names_the_file_of_its_own_image(splits, tmp_path, capsys):
    """Damaged names, in every split: each image has a size of its own. Missing and unreadable ones are counted."""
    names = [record["image_name"] for part in records_of(splits).values() for record in part.values()]
    images, size_of = tmp_path / "images", {}
    for number, name in enumerate(names[5:]):
        size_of[name] = (number + 1, 7)
        save_image(images / name.replace("é", "#U00e9").replace("ü", "u"), size_of[name])
    damaged = names[9].replace("é", "#U00e9").replace("ü", "u")
    (images / damaged).write_bytes(b"damaged")
    build(tmp_path, "--image_root", images)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("WARNING: 156 images: 150 without a problem, 5 missing, 1 unreadable, 0 ambiguous; ")
    odd, guessed = sum("é" in name or "ü" in name for name in names[5:]), sum("ü" in name for name in names[5:])
    assert f"{odd} with another spelling or extension than in the list ({guessed} of them guessed)" in line
    found = records_of(tmp_path)
    for name, record in zip(names, (record for part in found.values() for record in part.values()), strict=True):
        if name in size_of and record["image_name"] != damaged:
            with Image.open(images / record["image_name"]) as image:
                assert image.size == size_of[name], (name, record["image_name"])
    pairs = read_records(tmp_path / "artEmisX_cl_train.json")
    assert pairs == {i: found["train"][i] for i in pairs}


# ---- v2.0 ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both_versions(tmp_path_factory):
    """A release of both versions, prepared: 60 new artworks of 5 to 8 annotations, one in six of them an old one; anchors
    among the first old ones, of whose styles there is one for every old artwork."""
    folder, old, rows = tmp_path_factory.mktemp("v2"), read(RELEASE), []
    ids = sorted(set(zip(old["art_style"], old["painting"], strict=True)))
    for number in range(60):
        style, painting = ids[-number - 1] if number % 6 == 0 else ("Rococo", f"new-é-{number}")
        for vote in range(5 + number % 4):
            text = f"the sky over this old town {number} feels so calm"
            rows.append((style, painting, ("awe", "fear")[vote % 2], text, 5 + number % 4, *ids[number % 20]))
    header = "art_style painting emotion utterance repetition anchor_art_style anchor_painting".split()
    pd.DataFrame(rows, columns=header).to_csv(folder / "Contrastive.csv", index=False)
    return prepare(RELEASE, folder, contrastive_csv=folder / "Contrastive.csv")


def test_a_release_of_both_versions(both_versions, tmp_path):
    """New rows before old ones, names decomposed, artworks in one split; the styles of anchors may be lacking."""
    made = read(both_versions / NETS)
    kept = made[made["split"] != "rest"]
    assert kept["version"].tolist() == sorted(kept["version"])
    assert all(unicodedata.is_normalized("NFD", name) for name in [*made["painting"], *made["anchor_painting"]])
    assert (made.groupby(["art_style", "painting"])["split"].nunique() == 1).all()
    read(both_versions / "Contrastive.csv").drop(columns="anchor_art_style").to_csv(tmp_path / "bare.csv", index=False)
    styled, bare = (read_v2(RELEASE, path) for path in (both_versions / "Contrastive.csv", tmp_path / "bare.csv"))
    pd.testing.assert_frame_equal(styled, bare[styled.columns])


def test_sets_of_v2(both_versions, tmp_path, capsys):
    tests = ["--test_sets", "test_new", "test_40"]
    build(tmp_path, "--dataset", "v2", "--train_set", "old_full", *tests, artemis_dir=both_versions)
    assert "train and cl_train are the set 'old_full', test is 'test_all'" in capsys.readouterr().out
    of = {"train": "old_full", "test": "test_all", "test_new": "test_new", "test_40": "test_40"}
    for name, records in records_of(tmp_path, of).items():
        rows = read(both_versions / f"preprocess_data_nets/sets/{of[name]}.csv")
        texts = sorted(text for record in records.values() for text in record["explanations"])
        assert texts == sorted(rows["utterance_spelled"])
        names = {record["image_name"] for record in records.values()}
        assert names == set(rows["art_style"] + "/" + rows["painting"] + ".jpg")
    build(tmp_path, "--dataset", "v2", artemis_dir=both_versions)
    assert "the set 'combined'" in capsys.readouterr().out


# ---- COCO's caption format -------------------------------------------------------------------------------------------


def test_annotations_are_coco_captions(tmp_path, monkeypatch, capsys):
    """Every explanation in its order, also a repeated one; numbered from 1 over all images."""
    monkeypatch.chdir(tmp_path)
    texts = {"77": ["so wide", "so wide"], "5": ["calm", "a dark sky"]}
    for split in ("val", "test"):
        write_json(f"{split}.json", {key: bad_input.record(0) | {"explanations": texts[key]} for key in texts})
    build_annotations.main(["val.json", "test.json", "--out_dir", "out"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test_annot_exp.json", "val_annot_exp.json"]
    assert read_json(tmp_path / "out/val_annot_exp.json") == {
        "info": {"description": "ArtEmis explanations"},
        "licenses": [],
        "type": "captions",
        "images": [{"id": 77}, {"id": 5}],
        "annotations": [
            {"id": 1, "image_id": 77, "caption": "so wide"},
            {"id": 2, "image_id": 77, "caption": "so wide"},
            {"id": 3, "image_id": 5, "caption": "calm"},
            {"id": 4, "image_id": 5, "caption": "a dark sky"},
        ],
    }
    assert "2 images, 4 captions" in capsys.readouterr().out
