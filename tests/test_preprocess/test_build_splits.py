"""From ArtEmis' two folders to the JSON splits and their COCO annotations, and what is refused on the way."""

import hashlib
import json
import os
import shutil
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from preprocess import build_annotations, build_splits, prepare_artemis, resize_wikiart
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError
from utils.files import read_json, write_json

FIXTURE = Path(__file__).parents[1] / "data" / "artemis"
FILES = ["artEmisX_train.json", "artEmisX_val.json", "artEmisX_test.json", "artEmisX_cl_train.json"]


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def build(out_dir, *more, artemis_dir=FIXTURE):
    build_splits.main(["--artemis_dir", str(artemis_dir), "--out_dir", str(out_dir), *map(str, more)])


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("splits")
    build(folder)
    return folder


@pytest.fixture
def artemis(tmp_path):
    """A copy of the two folders that a test may damage."""
    for name in ("preprocess_data_mini/image-emotion-histogram.csv", "preprocess_data_nets/artemis_preprocessed.csv"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(FIXTURE / name, tmp_path / name)
    return tmp_path


def test_image_ids_are_the_same_everywhere():
    name = "Impressionism/albrecht-dürer_hare-0091"
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8")).digest()
    expected = str(int.from_bytes(digest[:8], "big") // 2)
    for form in ("NFC", "NFD"):
        assert build_splits.image_id(*unicodedata.normalize(form, name).split("/")) == expected
    assert 0 < int(expected) < 2**63


def test_records_are_the_kept_rows(splits):
    rows = read(FIXTURE / "preprocess_data_nets/artemis_preprocessed.csv")
    votes = read(FIXTURE / "preprocess_data_mini/image-emotion-histogram.csv").set_index(["art_style", "painting"])
    rows = rows[rows["repetition"].astype(int) <= 40]
    count = 0
    for split in ("train", "val", "test"):
        records = read_records(splits / f"artEmisX_{split}.json")
        groups = rows[rows["split"] == split].groupby(["art_style", "painting"], sort=False)
        assert list(records) == [build_splits.image_id(*artwork) for artwork, _ in groups]
        for (artwork, group), record in zip(groups, records.values(), strict=True):
            histogram = json.loads(votes.loc[artwork, "emotion_histogram"])
            assert record == {
                "emotions": group["emotion"].tolist(),
                "explanations": group["utterance_spelled"].tolist(),
                "image_name": "/".join(artwork) + ".jpg",
                "origin_emotion_distribution": pytest.approx([vote / sum(histogram) for vote in histogram]),
            }
            count += len(group)
    assert count == len(rows) == 771


def test_cl_train_is_the_multi_emotion_part_of_train(splits):
    train, pairs = (read_records(splits / f"artEmisX_{name}.json") for name in ("train", "cl_train"))
    assert pairs == {i: record for i, record in train.items() if len(set(record["emotions"])) > 1}
    assert 0 < len(pairs) < len(train)
    # by the kept rows, not by the histogram, which knows of dropped annotations too
    assert any(sum(share > 0 for share in train[i]["origin_emotion_distribution"]) > 1 for i in set(train) - set(pairs))


def test_two_runs_give_the_same_bytes(splits, tmp_path):
    build(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (splits / name).read_bytes()


def test_summary(tmp_path, capsys):
    build(tmp_path)
    lines = dict(line.rsplit(maxsplit=4)[::4] for line in capsys.readouterr().out.splitlines()[2:])
    assert lines["images"] == "121" and lines["texts"] == "599" and set(EMOTIONS) < set(lines)


def test_both_folders_can_be_named_alone(splits, tmp_path):
    mini, nets = FIXTURE / "preprocess_data_mini", FIXTURE / "preprocess_data_nets"
    build_splits.main(["--mini_dir", str(mini), "--nets_dir", str(nets), "--out_dir", str(tmp_path)])
    assert (tmp_path / FILES[0]).read_bytes() == (splits / FILES[0]).read_bytes()
    with pytest.raises(InputError, match="--artemis_dir, or both"):
        build_splits.main(["--mini_dir", str(mini), "--out_dir", str(tmp_path)])


def test_words_that_pandas_takes_for_nothing_stay(artemis, tmp_path):
    path = artemis / "preprocess_data_nets/artemis_preprocessed.csv"
    table = read(path)
    table.loc[0, "utterance_spelled"] = "null"
    table.to_csv(path, index=False)
    build(tmp_path / "out", artemis_dir=artemis)
    records = read_records(tmp_path / "out/artEmisX_train.json")
    assert next(iter(records.values()))["explanations"][0] == "null"


def test_the_mini_variant_in_place_of_nets_is_noticed(tmp_path, capsys, monkeypatch):
    mini = FIXTURE / "preprocess_data_mini"
    arguments = ["--mini_dir", str(mini), "--nets_dir", str(mini), "--out_dir", str(tmp_path)]
    build_splits.main(arguments)
    warning = capsys.readouterr().err
    assert "mini variant" in warning and "143 texts" in warning and 'split "rest"' in warning
    build(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(build_splits, "MINI_VOCABULARY", 112)  # the fixture's number of words
    build(tmp_path)
    assert "vocabulary has 112 words" in capsys.readouterr().err


def test_artworks_without_an_image_are_reported(splits, tmp_path, capsys):
    records = [record for name in FILES[:3] for record in read_records(splits / name).values()]
    spelled = sum("é" in record["image_name"] for record in records[5:])
    for record in records[5:]:
        name = record["image_name"].replace("é", "#U00e9")
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(tmp_path / "images" / name)
    (tmp_path / "images" / records[9]["image_name"].replace("é", "#U00e9")).write_bytes(b"damaged")
    build(tmp_path, "--image_root", tmp_path / "images")
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("WARNING: 156 images: 150 without a problem, 5 missing, 1 unreadable, 0 ambiguous; ")
    assert f"{spelled} spelled differently from the list (0 of them guessed)" in line and spelled > 0
    rows = read(tmp_path / "image_manifest.csv")
    missing = rows.loc[rows["problem"] == "missing", "image_name"].tolist()
    assert missing == [record["image_name"] for record in records[:5]]
    with pytest.raises(InputError, match="no such image folder"):
        build(tmp_path, "--image_root", tmp_path / "nowhere")
    with pytest.raises(InputError, match="5 artworks have no image, see .*image_manifest.csv"):
        build(tmp_path / "out", "--image_root", tmp_path / "images", "--require_images")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image_manifest.csv"]
    with pytest.raises(InputError, match="--require_images needs --image_root"):
        build(tmp_path / "out", "--require_images")


def in_row(row, **cells):
    def change(table):
        table.loc[row, list(cells)] = list(cells.values())
        return table

    return change


HISTOGRAM, ROWS = "preprocess_data_mini/image-emotion-histogram.csv", "preprocess_data_nets/artemis_preprocessed.csv"


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (HISTOGRAM, lambda table: table.drop(columns="painting"), "has no column painting"),
        (HISTOGRAM, lambda table: table.drop(index=3), "has no histogram"),
        (HISTOGRAM, lambda table: pd.concat([table, table[:1]]), "row 161.*twice"),
        (HISTOGRAM, in_row(1, emotion_histogram="[1, 2]"), "row 2 .*not a list of 9 vote counts"),
        (HISTOGRAM, in_row(1, emotion_histogram=str([0.0] * 9)), "not a list of 9"),
        (HISTOGRAM, in_row(1, emotion_histogram=str([-1.0] + [1.0] * 8)), "not a list of 9"),
        (HISTOGRAM, in_row(1, emotion_histogram="[1e999" + ", 1" * 8 + "]"), "not a list of 9"),
        (HISTOGRAM, in_row(1, emotion_histogram="__import__('os').getcwd()"), "not a list of 9"),
        (ROWS, lambda table: table.drop(columns=["utterance_spelled", "split"]), "no column split, utterance_spelled"),
        (ROWS, in_row(4, emotion="joy"), "row 5: unknown emotion 'joy'"),
        (ROWS, in_row(4, repetition="5.5"), "row 5: repetition '5.5'"),
        (ROWS, in_row(4, split="practice"), "unknown split 'practice'"),
        (ROWS, in_row(0, split="val"), "in several splits"),
        (ROWS, lambda table: table[table["split"] != "val"], "no artworks for artEmisX_val.json"),
        (ROWS, lambda table: table.assign(emotion="awe"), "no training images with annotations of two emotions"),
        (ROWS, lambda table: table.assign(version="new"), "add --dataset v2"),
        (ROWS, in_row(0, painting=unicodedata.normalize("NFD", "albrecht-dürer_hare-0091")), "two Unicode spellings"),
    ],
)
def test_bad_folders(artemis, tmp_path, file, change, problem):
    change(read(artemis / file)).to_csv(artemis / file, index=False)
    with pytest.raises(InputError, match=problem):
        build(tmp_path / "out", artemis_dir=artemis)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_csv(artemis, tmp_path):
    with pytest.raises(InputError, match="no such file; make the folder"):
        build(tmp_path / "out", artemis_dir=tmp_path / "nowhere")
    for content in (b"\xff\xfe\x00", b"", b'art_style,painting,emotion_histogram\na,b,"open\n', b"a,b,c\n1,2,3,4\n"):
        (artemis / HISTOGRAM).write_bytes(content)
        with pytest.raises(InputError, match="image-emotion-histogram.csv"):
            build(tmp_path / "out", artemis_dir=artemis)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("cl_train", lambda records: records.popitem(), "not the multi-emotion part"),
        ("val", lambda records: records.clear(), "holds no records"),
        ("val", lambda records: next(iter(records.values()))["emotions"].pop(), "emotions but"),
        ("val", lambda r: next(iter(r.values())).update(origin_emotion_distribution=[0.9999] + [0] * 8), "sum to 1"),
    ],
)
def test_what_was_written_is_checked(splits, tmp_path, name, change, problem):
    paths = {split: tmp_path / f"artEmisX_{split}.json" for split in ("train", "val", "test", "cl_train")}
    for path in paths.values():
        shutil.copy(splits / path.name, path)
    build_splits.check_written(paths)
    records = read_json(paths[name])
    change(records)
    write_json(paths[name], records)
    with pytest.raises(InputError, match=problem):
        build_splits.check_written(paths)


def test_an_artwork_in_two_splits_is_found(splits, tmp_path):
    paths = {split: splits / f"artEmisX_{split}.json" for split in ("train", "val", "test", "cl_train")}
    records = read_json(paths["test"])
    stray = dict(next(iter(read_json(paths["train"]).values())))
    stray["image_name"] = unicodedata.normalize("NFD", stray["image_name"])
    records["7"] = stray
    write_json(tmp_path / "test.json", records)
    with pytest.raises(InputError, match="is in train as well"):
        build_splits.check_written(paths | {"test": tmp_path / "test.json"})


def test_v2(tmp_path, capsys):
    release = read(FIXTURE / "artemis_dataset_release_v0.csv")
    anchors = release.drop_duplicates(["art_style", "painting"])[:40]
    new = pd.concat([anchors] * 6).assign(
        anchor_painting=lambda t: t["painting"], anchor_art_style=lambda t: t.art_style
    )
    new = new.assign(painting="new-" + new["painting"], utterance="a calm blue sky over the sea", repetition="6")
    new["emotion"] = [EMOTIONS[index % 9] for index in range(len(new))]
    new.to_csv(tmp_path / "Contrastive.csv", index=False)
    prepare_artemis.main(
        ["--release_csv", str(FIXTURE / "artemis_dataset_release_v0.csv"), "--out_dir", str(tmp_path), "--jobs", "1"]
        + ["--contrastive_csv", str(tmp_path / "Contrastive.csv")]
    )
    build(tmp_path, "--dataset", "v2", "--test_sets", "test_new", "test_40", artemis_dir=tmp_path)
    assert "train and cl_train are the set 'combined', test is 'test_all'" in capsys.readouterr().out
    sets = tmp_path / "preprocess_data_nets/sets"
    for name, of in {"train": "combined", "test": "test_all", "test_new": "test_new", "test_40": "test_40"}.items():
        rows, records = read(sets / f"{of}.csv"), read_records(tmp_path / f"artEmisX_{name}.json")
        assert sorted(text for record in records.values() for text in record["explanations"]) == sorted(
            rows["utterance_spelled"]
        )
        assert {record["image_name"] for record in records.values()} == set(
            rows["art_style"] + "/" + rows["painting"] + ".jpg"
        )
    with pytest.raises(InputError, match="no column version"):
        build(tmp_path / "out", "--dataset", "v2")


def test_annotations_are_coco_captions(splits, tmp_path, capsys):
    build_annotations.main([str(splits / FILES[1]), str(splits / FILES[2]), "--out_dir", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "artEmisX_test_annot_exp.json",
        "artEmisX_val_annot_exp.json",
    ]
    records, coco = read_records(splits / FILES[1]), read_json(tmp_path / "artEmisX_val_annot_exp.json")
    assert set(coco) == {"info", "licenses", "type", "images", "annotations"} and coco["type"] == "captions"
    assert coco["images"] == [{"id": int(image_id)} for image_id in records]
    assert [note["id"] for note in coco["annotations"]] == list(range(1, 40))
    assert [(str(note["image_id"]), note["caption"]) for note in coco["annotations"]] == [
        (image_id, text) for image_id, record in records.items() for text in record["explanations"]
    ]
    assert "8 images, 39 captions" in capsys.readouterr().out
    with pytest.raises(InputError, match="overwrite each other"):
        build_annotations.main([str(splits / FILES[1]), str(tmp_path / FILES[1]), "--out_dir", str(tmp_path)])


def test_resize(tmp_path, capsys):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    (source / "Baroque").mkdir(parents=True)
    pictures = {"wide": (900, 300), "tall": (200, 800), "small": (60, 50), "thin": (3000, 1)}
    for name, size in pictures.items():
        Image.new("RGB", size, (200, 30, 60)).save(source / f"Baroque/{name}.jpg")
    Image.new("CMYK", (700, 700)).save(source / "Baroque/cmyk.jpg")
    Image.new("I;16", (700, 70)).save(source / "Baroque/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (1200, 600)).save(source / "Baroque/turned.jpg", exif=exif)
    whole = (source / "Baroque/wide.jpg").read_bytes()
    (source / "Baroque/cut.jpg").write_bytes(whole[: len(whole) // 2])

    arguments = ["--wikiart_dir", str(source), "--out_dir", str(target), "--jobs", "2"]
    resize_wikiart.main(arguments)
    assert "8 images: 7 without a problem, 0 missing, 1 unreadable" in capsys.readouterr().out
    sizes = {path.stem: Image.open(path).size for path in target.rglob("*.jpg")}
    assert sizes == {
        "wide": (600, 200),
        "tall": (150, 600),
        "small": (60, 50),
        "thin": (600, 1),
        "cmyk": (600, 600),
        "deep": (600, 60),
        "turned": (300, 600),
    }
    assert {Image.open(path).mode for path in target.rglob("*.jpg")} == {"RGB"}
    assert Image.open(target / "Baroque/wide.jpg").getpixel((300, 100)) == pytest.approx((200, 30, 60), abs=3)
    rows = read(target / "manifest.csv").set_index("image_name")
    assert rows.loc["Baroque/turned.jpg", ["width", "height"]].tolist() == ["600", "1200"]
    assert "cut.jpg" in rows.loc["Baroque/cut.jpg", "problem"]

    # a second run does what is missing or wrong, and nothing else
    (target / "Baroque/tall.jpg").unlink()
    (target / "Baroque/small.jpg").write_bytes(b"half")
    before = (target / "Baroque/wide.jpg").stat().st_mtime_ns
    resize_wikiart.main(arguments)
    assert (target / "Baroque/wide.jpg").stat().st_mtime_ns == before
    assert Image.open(target / "Baroque/tall.jpg").size == (150, 600)
    assert Image.open(target / "Baroque/small.jpg").size == (60, 50)


def test_resize_of_annotated_artworks(tmp_path, capsys):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    (source / "Baroque").mkdir(parents=True)
    for name in ("jos#U00e9", "not-annotated"):
        Image.new("RGB", (30, 20)).save(source / f"Baroque/{name}.jpg")
    (tmp_path / "release.csv").write_text("art_style,painting\nBaroque,josé\nBaroque,gone\nBaroque,josé\n")
    arguments = ["--wikiart_dir", source, "--out_dir", target, "--release_csv", tmp_path / "release.csv", "--jobs", "1"]
    resize_wikiart.main(list(map(str, arguments)))
    assert [path.name for path in (target / "Baroque").iterdir()] == ["josé.jpg"]
    assert capsys.readouterr().out.startswith("WARNING: 2 images: 1 without a problem, 1 missing")
    with pytest.raises(InputError, match="1 artworks have no image, see .*manifest.csv"):
        resize_wikiart.main([*map(str, arguments), "--require_images"])
    with pytest.raises(InputError, match="--require_images needs --release_csv"):
        resize_wikiart.main([*map(str, arguments[:4]), "--require_images"])


def test_resize_of_names_as_long_as_may_be(tmp_path):
    source, target = tmp_path / "wikiart", tmp_path / "small"
    source.mkdir()
    for stem in ("a" * 251, os.fsdecode(b"\xe9" * 251)):  # the second is no UTF-8
        Image.new("RGB", (30, 20)).save(source / f"{stem}.jpg")
    Image.new("RGB", (30, 20)).save(source / f"{'b' * 250}.png")  # grows by nothing, as .jpg
    os.mkfifo(source / "pipe.jpg")
    resize_wikiart.main(["--wikiart_dir", str(source), "--out_dir", str(target), "--jobs", "1"])
    assert sorted(path.name.encode("utf-8", "surrogateescape")[:1] for path in target.glob("*.jpg")) == [
        b"a",
        b"b",
        b"\xe9",
    ]
    (tmp_path / "release.csv").write_text(f"art_style,painting\n.,{'é' * 251}\n", encoding="utf-8")
    arguments = ["--wikiart_dir", source, "--out_dir", target, "--release_csv", tmp_path / "release.csv", "--jobs", "1"]
    resize_wikiart.main(list(map(str, arguments)))
    assert "its name is too long" in read(target / "manifest.csv").loc[0, "problem"]


def test_resize_refuses_to_overwrite_and_to_do_nothing(tmp_path):
    with pytest.raises(InputError, match="no such image folder"):
        resize_wikiart.main(["--wikiart_dir", str(tmp_path / "no"), "--out_dir", str(tmp_path / "out")])
    with pytest.raises(InputError, match="overwritten"):
        resize_wikiart.main(["--wikiart_dir", str(tmp_path), "--out_dir", str(tmp_path)])
    with pytest.raises(InputError, match="no image"):
        resize_wikiart.main(["--wikiart_dir", str(tmp_path), "--out_dir", str(tmp_path / "out")])


def test_gigantic_pictures_are_decoded_at_a_fraction(tmp_path, monkeypatch):
    monkeypatch.setattr(resize_wikiart, "MANY_PIXELS", 1000)
    Image.linear_gradient("L").resize((1600, 800)).save(tmp_path / "big.jpg", quality=95)
    (tmp_path / "out").mkdir()
    row = resize_wikiart.ManifestRow("big.jpg", str(tmp_path / "big.jpg"))
    assert resize_wikiart.resize(row, tmp_path / "out", max_size=100, quality=95).problem == ""
    made = Image.open(tmp_path / "out/big.jpg")
    assert made.size == (100, 50)
    assert made.getpixel((50, 25))[0] == pytest.approx(128, abs=4)
