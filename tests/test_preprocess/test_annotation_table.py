"""A user's table: from a folder of images and a spreadsheet to an epoch, and the tables that are refused."""

import re
import shlex
import shutil
from collections import Counter

import pytest

import artEmisX_train
from preprocess import build_annotations, build_splits, cache_features
from preprocess.image_names import image_id
from tests.bad_input import LEXICON, Box, check_refused
from tests.conftest import REPOSITORY
from tests.test_preprocess.helpers import save_image, write_table
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError
from utils.explain import load
from utils.files import read_json

HEADER = ("image", "emotion", "text")
NAMES = [f"{'market/' if i % 2 else ''}p{i}.png" for i in range(40)]
# two emotions for every image, the first one twice
ROWS = [
    (name, EMOTIONS[(i + j // 2) % 9], f"Oh, picture {i} is {word}!")
    for i, name in enumerate(NAMES)
    for j, word in enumerate(("bright", "wide", "dark"))
]


def write_mine(folder, rows=ROWS, header=HEADER):
    return write_table(folder / "mine.csv", rows, header)


def argv(folder, *more):
    words = ["--dataset", "table", "--csv", folder / "mine.csv", "--out_dir", folder / "out", *more]
    return [str(word) for word in words]


def build(folder, *more):
    """Divide folder/mine.csv; returns the records of train, val and test."""
    build_splits.main(argv(folder, *more))
    return {split: read_records(folder / f"out/artEmisX_{split}.json") for split in ("train", "val", "test")}


def by_name(parts):
    """The records of all splits by image name."""
    return {record["image_name"]: record for part in parts.values() for record in part.values()}


def names_of(parts):
    return {split: [record["image_name"] for record in part.values()] for split, part in parts.items()}


# ---- the README's commands -------------------------------------------------------------------------------------------


def bash_block(page, heading):
    section = (REPOSITORY / page).read_text(encoding="utf-8").partition(heading)[2]
    lines = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].splitlines()
    return [shlex.split(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.slow
def test_readme_from_a_folder_and_a_spreadsheet_to_an_answer(tmp_path, monkeypatch):
    """Without any download: --tiny where the features are made and in training."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        save_image(tmp_path / "images" / name)
    write_table(tmp_path / "mine.csv", ROWS, ("file", "feeling", "reason"), encoding="utf-8-sig")
    (tmp_path / "NRC-VAD-Lexicon.txt").write_text(LEXICON)
    less = "--tiny --metrics bleu --num_workers 0 --cpu_threads 1 --batch_size 8".split()
    steps = [(build_splits.main, []), (build_annotations.main, []), (cache_features.main, ["--tiny"])]
    for command, (main, more) in zip(
        bash_block("README.md", "## Your own data"), [*steps, (artEmisX_train.main, less)], strict=True
    ):
        script = next(place for place, word in enumerate(command) if word.endswith(".py"))
        assert not main([*more, *command[script + 1 :]]), command
    assert [path.name for path in (tmp_path / "results/mine").glob("scores_exp_*")] == ["scores_exp_0_4_step.json"]
    (captions,) = (tmp_path / "results/mine").glob("unf_captions_full_*.json")
    val = read_records(tmp_path / "data/mine/artEmisX_val.json")
    assert {row["image_id"] for row in read_json(captions)} == {int(image_id) for image_id in val}
    answer = load("ckpts/mine")(tmp_path / "images" / NAMES[0])
    assert answer.text and answer.words[0].heat_map.shape == (8, 8)


def test_readme_affection_and_artelingo(tmp_path, monkeypatch, capsys):
    """The two lines of preprocess/README.md, on a small table with the columns of both releases. English is taken, or what
    --language says.
    """
    monkeypatch.chdir(tmp_path)
    header = "dataset image_name art_style painting emotion utterance utterance_spelled language split".split()
    rows = []
    for i, split in enumerate(["train", "val", "test", "rest"] * 10):
        for j, word in enumerate(("cat", "dog")):
            emotion = EMOTIONS[(i + j) % 9].title()
            row = [f"coco_{i % 3}", f"{i}.jpg", "Cubism", f"p{i}", emotion]
            rows.append([*row, f"A {word}!", f"a {word}", "English", split])
            rows.append([*row, "قارب أحمر، بعيد", "", "Arabic", split])
    found = {}
    for _, script, *flags in bash_block("preprocess/README.md", "Affection and ArtELingo are"):
        assert script == "preprocess/build_splits.py"
        write_table(tmp_path / flags[flags.index("--csv") + 1], rows, header)
        build_splits.main(flags)
        val = read_records(tmp_path / flags[flags.index("--out_dir") + 1] / "artEmisX_val.json")
        assert len(val) == 10
        found |= {record["image_name"]: (record["emotions"], record["explanations"]) for record in val.values()}
    assert found["coco_1/1.jpg"] == found["Cubism/p1"] == (["awe", "contentment"], ["a cat", "a dog"])
    build_splits.main([*flags, "--language", "ARABIC", "--keep_text"])
    assert "80 rows are in ARABIC, 80 in other languages left out" in capsys.readouterr().out
    (arabic, *_) = read_records(tmp_path / "data/artelingo/artEmisX_val.json").values()
    assert arabic["explanations"] == ["قارب أحمر، بعيد"] * 2


# ---- records ---------------------------------------------------------------------------------------------------------


def test_records_are_the_rows_of_an_image(tmp_path, capsys):
    """In their order, repeated rows too. Of a sentence without a word the vote counts; an image without any is left out."""
    more = [("p0.png", "something else", "--"), ("p0.png", "Something_Else ", " I  don't know"), ROWS[0]]
    write_mine(tmp_path, [*ROWS, *more, ("wordless.png", "awe", "--"), ("wordless.png", "fear", "...")])
    kept = build(tmp_path, "--keep_text")
    for names in names_of(kept).values():
        assert names == sorted(names, key=[*NAMES, "wordless.png"].index)
    first = by_name(kept)["p0.png"]
    assert first == {
        "emotions": ["amusement", "amusement", "awe", "something else", "something else", "amusement"],
        "explanations": [*(text for *_, text in ROWS[:3]), "--", "I don't know", ROWS[0][2]],
        "image_name": "p0.png",
        "origin_emotion_distribution": pytest.approx([3 / 6, 1 / 6, 0, 0, 0, 0, 0, 0, 2 / 6]),
    }
    words = by_name(build(tmp_path))
    assert set(words) == set(NAMES)
    said = [f"oh picture 0 is {word}" for word in ("bright", "wide", "dark")]
    emotions = ["amusement", "amusement", "awe", "something else", "amusement"]
    assert words["p0.png"] == first | {"emotions": emotions, "explanations": [*said, "i do not know", said[0]]}
    assert "3 annotations without a word left out" in capsys.readouterr().out


def test_one_image_under_two_names_is_one_image(tmp_path):
    """With and without extension, in composed and decomposed Unicode, with Windows' slashes. The first name stays."""
    rows = [*ROWS, ("p0", "fear", "small"), ("caf\u00e9.png", "awe", "a"), ("./cafe\u0301", "fear", "b")]
    write_mine(tmp_path, [*rows, ("market\\p1.png", "fear", "c")])
    records = build(tmp_path)
    counts = {name: len(record["emotions"]) for name, record in by_name(records).items()}
    assert counts["p0.png"] == 4 and counts["market/p1.png"] == 4 and counts["caf\u00e9.png"] == 2 and len(counts) == 41
    ids = {record["image_name"]: i for part in records.values() for i, record in part.items()}
    assert ids["market/p1.png"] == image_id("market", "p1") and ids["caf\u00e9.png"] == image_id("", "caf\u00e9")


def test_one_annotation_per_image(tmp_path, capsys):
    """No pairs, so no file of pairs, also not an earlier table's; training goes without the contrastive loss."""
    pairs = tmp_path / "out/artEmisX_cl_train.json"
    write_mine(tmp_path)
    build(tmp_path)
    assert read_json(pairs) == read_json(tmp_path / "out/artEmisX_train.json")
    write_mine(tmp_path, ROWS[::3])
    assert {len(record["emotions"]) for record in by_name(build(tmp_path)).values()} == {1}
    assert not pairs.exists()
    assert "train on artEmisX_train.json with --no-use_cl_loss" in capsys.readouterr().out


# ---- splits ----------------------------------------------------------------------------------------------------------


def test_images_are_divided_85_5_10_by_the_seed(tmp_path):
    """By their names, whatever the order of the rows, and each into one split."""
    # empty cells at the right and at the bottom, as spreadsheets save them
    empty_cells = [*((*row, "", "") for row in ROWS), [""] * 5]
    write_mine(tmp_path, empty_cells, (*HEADER, "", ""))
    drawn = names_of(build(tmp_path))
    assert {split: len(names) for split, names in drawn.items()} == {"train": 33, "val": 3, "test": 4}
    assert sorted(sum(drawn.values(), [])) == sorted(NAMES)
    write_mine(tmp_path, [(name.removesuffix(".png"), *row) for name, *row in reversed(ROWS)])
    again = names_of(build(tmp_path))
    assert {split: {f"{name}.png" for name in names} for split, names in again.items()} == {
        split: set(names) for split, names in drawn.items()
    }
    assert names_of(build(tmp_path, "--seed", 1))["train"] != again["train"]
    write_mine(tmp_path, ROWS[: 3 * 7])
    assert all(build(tmp_path).values())


def test_the_tables_own_splits(tmp_path, capsys):
    spelled = ("Train", "dev", "TEST", "training", "rest")
    rows = [(*row, spelled[i // 3 % 5]) for i, row in enumerate(ROWS)]
    write_mine(tmp_path, rows, (*HEADER, "split"))
    found = names_of(build(tmp_path))
    assert found["val"] == NAMES[1::5] and found["test"] == NAMES[2::5]
    assert sorted(found["train"]) == sorted(NAMES[::5] + NAMES[3::5])
    assert '24 rows of the split "rest" left out' in capsys.readouterr().out
    write_mine(tmp_path, rows, (*HEADER, "part"))
    assert names_of(build(tmp_path, "--columns", "split=part")) == found


# ---- emotions -------------------------------------------------------------------------------------------------------


def test_renamed_emotions(tmp_path):
    other = {"awe": "Won_der", "something else": "other", "fear": "FEAR", "anger": "disgust", "disgust": "anger"}
    write_mine(tmp_path, [(image, other.get(emotion, emotion), text) for image, emotion, text in ROWS])
    records = build(
        tmp_path, "--rename_emotions", "won der=awe", "OTHER=something_else", "anger=disgust", "disgust=anger"
    )
    assert by_name(records)["market/p1.png"]["emotions"] == ["awe", "awe", "contentment"]
    found = Counter(emotion for record in by_name(records).values() for emotion in record["emotions"])
    assert found == Counter(emotion for _, emotion, _ in ROWS)


def test_rows_of_unknown_emotions_are_left_out(tmp_path, capsys):
    """And do not count in the distribution."""
    more = [("p0.png", label, "wide") for label in ["joy"] * 3 + ["calm", ""]]
    write_mine(tmp_path, [*ROWS, *more])
    records = build(tmp_path, "--rename_emotions", "calm=contentment", "--skip_unknown_emotions")
    printed = capsys.readouterr().out
    assert "4 of 125 rows left out because their emotions are unknown: 'joy' (3), '' (1)\n" in printed
    assert by_name(records)["p0.png"]["origin_emotion_distribution"] == [0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0]


# ---- images ----------------------------------------------------------------------------------------------------------


def test_missing_images_are_counted(tmp_path, capsys):
    write_mine(tmp_path)
    for name in NAMES[3:]:
        save_image(tmp_path / "images" / name)
    root = ["--image_root", tmp_path / "images"]
    build(tmp_path, *root)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("WARNING: 40 images: 37 without a problem, 3 missing") and "archive" not in line
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(InputError, match="3 images have no image, see .*image_manifest.csv"):
        build(tmp_path, *root, "--require_images")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image_manifest.csv"]


@pytest.mark.parametrize("way", ["upper case", "hardlink_to", "symlink_to"])
def test_two_names_of_one_file(tmp_path, way):
    """Else an image could be in two splits."""
    other = "Market/P1.png" if way == "upper case" else "again.png"
    write_mine(tmp_path, [*ROWS, (other, "awe", "wide")])
    for name in NAMES:
        save_image(tmp_path / "images" / name)
    if way != "upper case":
        getattr(tmp_path / "images" / other, way)(tmp_path / "images/market/p1.png")
    message = f"mine.csv: market/p1.png and {other} are one file"
    check_refused(Box(tmp_path), build_splits.main, argv(tmp_path, "--image_root", tmp_path / "images"), message)


# ---- refusals --------------------------------------------------------------------------------------------------------


def named(name):
    return [*ROWS, (name, "awe", "wide")]


def labelled(*labels):
    return [(row[0], label, row[2]) for row, label in zip(ROWS, labels, strict=False)]


def split(changed):
    """Each image in one split, but for the changed rows."""
    return [(*row, changed.get(i, ("train", "train", "val", "test")[i // 3 % 4])) for i, row in enumerate(ROWS)]


OTHERS = labelled("sad", "sad", "Joy", "angry", "contempt", "excited")
LANGUAGES = [(*row, ("English", "Arabic")[i % 4 // 3]) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        (ROWS[:18], "", "6 images are too few for three splits; give at least 7"),
        (split({0: "val"}), "", "p0 is in val and train; put each image into one split"),
        (split({0: "val", 3: "test"}), "", "p0 is in val and train (so are 1 others)"),
        (split({0: "practice"}), "", "unknown split (known: train, "),
        (split({0: ""}), "", "an empty cell 1"),
        (split(dict.fromkeys(range(120), "test")), "", "no images for artEmisX_train.json; correct the table"),
        (OTHERS, "", "6 of 6 rows have unknown emotions: 'sad' (2, spelled like sadness), 'joy' (1), 'angry' (1, "),
        (OTHERS, "", "'contempt' (1), 'excited' (1, spelled like excitement); rename them with --rename_emotions"),
        (OTHERS, "--rename_emotions SAD=Sadness joy=contentment", "3 of 6 rows"),
        (OTHERS, "--skip_unknown_emotions", "6 of 6 rows have unknown emotions: 'sad' (2, "),
        (ROWS, "--rename_emotions joy=awe", "has no emotion 'joy'; leave it out"),
        (LANGUAGES, "--columns language=split --language Chinese", "(the column has: English 90, Arabic 30)"),
        (ROWS, "--language Chinese", "which column is the language?"),
        ([ROWS[0][:1]], "", "which column is the emotion? pass --columns emotion=COLUMN (it has: image; put commas, "),
        (ROWS, "--columns emotion=mood", "has no column 'mood' for --columns emotion= (it has: image, emotion, text)"),
        (ROWS, "--columns split=part", "has no column 'part' for --columns split="),
        (named("p0.jpg"), "", "p0.png and p0.jpg would be one image"),
        (named("../p0.png"), "", "row 121: image name '../p0.png' is not a file in the image folder"),
        ([("p0.png", "joy", "a"), *named("../p0.png")], "--skip_unknown_emotions", "row 122: image name '../p0.png'"),
        (named("C:\\pics\\a.jpg"), "", "row 121: image name 'C:/pics/a.jpg' is not a file"),
        (named("\\\\disk\\a.jpg"), "", "image name '//disk/a.jpg' is not a file"),
        (named(""), "", "row 121: image name ''"),
    ],
)
def test_refused_tables(tmp_path, rows, flags, message):
    write_mine(tmp_path, rows, (*HEADER, "split")[: len(rows[0])])
    message = f"mine.csv.*{re.escape(message)}"
    check_refused(Box(tmp_path), build_splits.main, argv(tmp_path, *flags.split()), message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--columns picture=image", "must be one of image, emotion, text, split, language"),
        ("--columns emotion=feeling emotion=text", "names one thing twice"),
        ("--columns feeling", "'feeling' is not of the form NAME=VALUE"),
        ("--rename_emotions other=joy", "--rename_emotions other=joy: 'joy' is not one of the nine"),
        ("--artemis_dir .", "--artemis_dir is for --dataset v1 or v2, not for table; leave it out"),
        ("--dataset v1", "--csv is for --dataset table, not for v1"),
    ],
)
def test_refused_flags(tmp_path, flags, message):
    write_mine(tmp_path)
    check_refused(Box(tmp_path), build_splits.main, argv(tmp_path, *flags.split()), message)
