"""From ArtEmis' two folders to the JSON splits, and the folders that are refused."""

import hashlib
import json
import shutil
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from preprocess import build_splits, prepare_artemis
from preprocess.build_splits import main
from tests.bad_input import (
    ARTEMIS_CSV,
    HISTOGRAM_CSV,
    TEXTS,
    VOTES,
    appended,
    check_accepted,
    check_refused,
    check_refused_in_shell,
    removed,
    replaced,
)
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError

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


def test_the_mini_variant_instead_of_nets_is_noticed(tmp_path, capsys):
    mini = FIXTURE / "preprocess_data_mini"
    arguments = ["--mini_dir", str(mini), "--nets_dir", str(mini), "--out_dir", str(tmp_path)]
    build_splits.main(arguments)
    warning = capsys.readouterr().err
    assert "mini variant" in warning and "143 texts" in warning and 'split "rest"' in warning
    build(tmp_path)
    assert capsys.readouterr().err == ""


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


GOOD = "--artemis_dir artemis --out_dir out"
FROM_ARTEMIS = "; make the folder with preprocess/prepare_artemis.py"
ALL = -1  # of `replaced`: everywhere

# command line -> message
ARGV = {
    "--out_dir out": "give --artemis_dir, or both",
    f"{GOOD} --image_root gone": "gone: no such image folder",
    f"{GOOD} --dataset v3": "--dataset.*v3",
    f"{GOOD} --dataset v2": f"{ARTEMIS_CSV}: has no column version",
    f"{GOOD} --train_set all": "--train_set.*all",
    "--artemis_dir artemis --out_dir vit/config.json": "vit/config.json",
}


@pytest.mark.parametrize(("argv", "message"), ARGV.items())
def test_refused_flags(box, argv, message):
    check_refused(box, main, argv, message)


def annotations_are_a_folder(box):
    box.remove(ARTEMIS_CSV)
    (box / ARTEMIS_CSV).mkdir()


def one_artwork_in_two_spellings(box, splits=("train", "train")):
    """The same é as one character and as two."""
    for name, split in zip(("caf\u00e9", "cafe\u0301"), splits, strict=True):
        box.append(ARTEMIS_CSV, f"Baroque,{name},awe,{TEXTS[0]},6,{split},[],1")
    box.append(HISTOGRAM_CSV, 'Baroque,caf\u00e9,"[1,0,0,0,0,0,0,0,0]"')


# what -> (change, message)
FOLDERS = {
    "no histogram file": (removed(HISTOGRAM_CSV), f"{HISTOGRAM_CSV}: no such file{FROM_ARTEMIS}"),
    "no annotations": (removed(ARTEMIS_CSV), f"{ARTEMIS_CSV}: no such file{FROM_ARTEMIS}"),
    "annotations are a folder": (annotations_are_a_folder, f"{ARTEMIS_CSV}: is a folder"),
    "v2 called v1": (
        replaced(ARTEMIS_CSV, "emotion_label", "version"),
        f"{ARTEMIS_CSV}: has a column version.*--dataset v2",
    ),
    "unknown split": (
        replaced(ARTEMIS_CSV, ",val,", ",dev,"),
        f"{ARTEMIS_CSV}: unknown split 'dev' .known: rest, test",
    ),
    "artwork in two splits": (
        replaced(ARTEMIS_CSV, ",val,", ",train,"),
        f"{ARTEMIS_CSV}: Baroque/val0.jpg is in two splits, train and val{FROM_ARTEMIS}",
    ),
    "artwork in two splits and spellings": (
        lambda box: one_artwork_in_two_spellings(box, ("train", "val")),
        f"{ARTEMIS_CSV}: Baroque/.* is in two splits, train and val",
    ),
    "artwork in two spellings": (
        one_artwork_in_two_spellings,
        f"{ARTEMIS_CSV}: Baroque/.* occurs in two Unicode spellings",
    ),
    "unknown emotion": (replaced(ARTEMIS_CSV, ",fear,", ",joy,"), f"{ARTEMIS_CSV}: row 2: unknown emotion 'joy'"),
    "half a repetition": (replaced(ARTEMIS_CSV, ",6,", ",5.5,"), f"{ARTEMIS_CSV}: row 1: repetition '5.5'"),
    "missing columns": (
        replaced(ARTEMIS_CSV, "utterance_spelled", "text"),
        f"{ARTEMIS_CSV}: has no column utterance_spelled",
    ),
    "artwork without histogram": (
        appended(ARTEMIS_CSV, f"Baroque,new,awe,{TEXTS[0]},6,train,[],1"),
        f"{ARTEMIS_CSV}: Baroque/new has no histogram; take both",
    ),
    "only one emotion": (
        replaced(ARTEMIS_CSV, ",fear,", ",awe,", ALL),
        f"{ARTEMIS_CSV}: no training images with annotations of two emotions",
    ),
    "no test artworks": (
        replaced(ARTEMIS_CSV, ",test,", ",val,", ALL),
        f"{ARTEMIS_CSV}: no artworks for artEmisX_test",
    ),
    "histogram twice": (
        appended(HISTOGRAM_CSV, 'Baroque,val0,"[1,0,0,0,0,0,0,0,0]"'),
        f"{HISTOGRAM_CSV}: row 7 .Baroque/val0.: the artwork occurs twice",
    ),
}


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_refused_folders(box, change, message):
    change(box)
    check_refused(box, main, GOOD, message)


HISTOGRAMS = {
    "of eight": "[1, 1, 0, 0, 0, 0, 0, 0]",
    "negative": "[-1, 3, 0, 0, 0, 0, 0, 0, 0]",
    "of zeros": str([0] * 9),
    "infinite": "[1e999, 1, 0, 0, 0, 0, 0, 0, 0]",
    "of code": "__import__('os').system('echo harm > canary')",
    "of texts": str(["a"] * 9),
    "of NaN": "[NaN, 1, 0, 0, 0, 0, 0, 0, 0]",
    "a number": "3",
}


@pytest.mark.parametrize("votes", HISTOGRAMS.values(), ids=HISTOGRAMS)
def test_refused_histograms(box, votes):
    box.replace(HISTOGRAM_CSV, VOTES, votes)
    check_refused(box, main, GOOD, f"{HISTOGRAM_CSV}: row 1 .Baroque/train0.: .*9 vote counts{FROM_ARTEMIS}")


def test_good_files_are_accepted(box):
    check_accepted(box, main, GOOD)


@pytest.mark.slow
def test_in_the_shell(box):
    box.remove(ARTEMIS_CSV)
    message = f"error: {ARTEMIS_CSV}: no such file{FROM_ARTEMIS}"
    check_refused_in_shell(box, f"preprocess/build_splits.py {GOOD}", message)
