"""A user's table: from a folder of images and a spreadsheet to an epoch, and the tables that are refused."""

import csv
import re
import shlex
import shutil
from collections import Counter

import pytest
from PIL import Image

import artEmisX_train
from preprocess import build_annotations, build_splits, cache_features
from preprocess.image_names import ImageFolder
from tests.conftest import REPOSITORY
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.report import split_warnings
from utils.files import read_json, write_json
from utils.inspect import overlaps

SPLITS = ("train", "val", "test")
PAIRS = "artEmisX_cl_train.json"
NAMES = [f"{'market/' if i % 2 else ''}p{i}.png" for i in range(40)]
# two emotions for every image, the first one twice
ROWS = [
    (name, EMOTIONS[(i + j // 2) % 9], f"Oh, picture {i} is {word}!")
    for i, name in enumerate(NAMES)
    for j, word in enumerate(("bright", "wide", "dark"))
]


def write_table(path, rows=ROWS, header=("image", "emotion", "text"), delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def build(folder, *more):
    """Divide folder/mine.csv; returns the records of train, val and test."""
    out = folder / "out"
    build_splits.main(["--dataset", "table", "--csv", str(folder / "mine.csv"), "--out_dir", str(out), *map(str, more)])
    return {split: read_records(out / f"artEmisX_{split}.json") for split in SPLITS}


def refused(folder, message, *more):
    """One line that holds `message` and the file's name, and nothing written."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError) as caught:
        build(folder, *more)
    refusal = str(caught.value)
    assert "mine.csv" in refusal and message in refusal, refusal
    assert sorted(folder.rglob("*")) == before


def names_of(records):
    return {split: sorted(record["image_name"] for record in part.values()) for split, part in records.items()}


def save_images(folder, names=NAMES):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (len(name) * 9, 99, 50)).save(folder / name)


def with_column(rows, header, values):
    return [(*row, value) for row, value in zip(rows, values, strict=True)], ("image", "emotion", "text", header)


def test_readme_from_a_folder_and_a_spreadsheet_to_the_first_epoch(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("## Your own data")[2]
    block = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1]
    commands = [shlex.split(line) for line in block.splitlines() if line and not line.startswith("#")]
    assert len(commands) == 4
    save_images(tmp_path / "images")
    write_table(tmp_path / "mine.csv", header=("file", "feeling", "reason"), encoding="utf-8-sig")
    shutil.copy(workspace.data / "demo-VAD-Lexicon.txt", "NRC-VAD-Lexicon.txt")
    vit = ["--clip_model", str(workspace.root / "vit"), "--from_scratch", "--num_workers", "0"]
    tiny = {  # script -> its main, and what makes it small
        "preprocess/build_splits.py": (build_splits.main, []),
        "preprocess/build_annotations.py": (build_annotations.main, []),
        "preprocess/cache_features.py": (cache_features.main, vit),
        "artEmisX_train.py": (artEmisX_train.main, workspace.argv(tmp_path)),
    }
    for command in commands:
        script = next(word for word in command if word.endswith(".py"))
        main, more = tiny[script]
        assert not main([*more, *command[command.index(script) + 1 :]]), command
    assert [path.name for path in (tmp_path / "results/mine").glob("scores_exp_*")] == ["scores_exp_0_4_step.json"]
    assert (tmp_path / "ckpts/mine/ckpt_stats_best-res.tar").is_file()
    (captions,) = (tmp_path / "results/mine").glob("unf_captions_full_*.json")
    val = read_records(tmp_path / "data/mine/artEmisX_val.json")
    assert {row["image_id"] for row in read_json(captions)} == {int(image_id) for image_id in val}


def test_records_are_the_rows_of_an_image(tmp_path):
    rows = [*ROWS, ("p0.png", "something else", "--"), ("p0.png", "Something_Else", "I don't know")]
    write_table(tmp_path / "mine.csv", rows)
    records = build(tmp_path, "--keep_text")
    merged = {record["image_name"]: record for part in records.values() for record in part.values()}
    assert set(merged) == set(NAMES)
    first = merged["p0.png"]
    assert first["emotions"] == ["amusement", "amusement", "awe", "something else", "something else"]
    assert first["explanations"][2:] == ["Oh, picture 0 is dark!", "--", "I don't know"]
    assert first["origin_emotion_distribution"] == [2 / 5, 1 / 5, 0, 0, 0, 0, 0, 0, 2 / 5]
    merged = {
        record["image_name"]: record for part in build(tmp_path).values() for record in part.values()
    }  # without --keep_text "--" has no word: the vote counts, the sentence is gone
    assert merged["p0.png"]["explanations"] == [
        "oh picture 0 is bright",
        "oh picture 0 is wide",
        "oh picture 0 is dark",
        "i do not know",
    ]
    assert merged["p0.png"]["origin_emotion_distribution"] == first["origin_emotion_distribution"]
    assert read_json(tmp_path / "out" / PAIRS) == read_json(tmp_path / "out/artEmisX_train.json")


def test_images_are_divided_85_5_10_by_the_seed(tmp_path):
    write_table(tmp_path / "mine.csv")
    drawn = build(tmp_path)
    assert {split: len(part) for split, part in drawn.items()} == {
        "train": 33,
        "val": 3,
        "test": 4,
    }  # val: see split_artworks
    assert sum(len(record["emotions"]) for part in drawn.values() for record in part.values()) == len(ROWS)
    write_table(tmp_path / "mine.csv", reversed(ROWS))
    assert names_of(build(tmp_path)) == names_of(drawn)
    assert names_of(build(tmp_path, "--seed", 1)) != names_of(drawn)
    few = [row for row in ROWS if row[0] in NAMES[:7]]
    write_table(tmp_path / "mine.csv", few)
    assert all(build(tmp_path).values())
    shutil.rmtree(tmp_path / "out")
    write_table(tmp_path / "mine.csv", few[3:])
    refused(tmp_path, "6 images are too few for three splits; give at least 7")


def test_the_tables_own_splits(tmp_path):
    of_image = {name: ("Train", "dev", "TEST", "training")[i % 4] for i, name in enumerate(NAMES)}
    rows, header = with_column(ROWS, "split", [of_image[row[0]] for row in ROWS])
    write_table(tmp_path / "mine.csv", rows, header)
    found = names_of(build(tmp_path))
    assert found["val"] == sorted(NAMES[1::4]) and found["test"] == sorted(NAMES[2::4])
    assert found["train"] == sorted(NAMES[::4] + NAMES[3::4])
    write_table(tmp_path / "mine.csv", rows, (*header[:3], "part"))
    assert names_of(build(tmp_path, "--columns", "split=part")) == found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({0: "val"}, "p0 is in val and train; put each image into one split"),
        ({0: "val", 3: "test"}, "p0 is in val and train (so are 1 others)"),
        ({0: "practice"}, "unknown split (known: train, "),
        ({0: ""}, "an empty cell 1"),
        (dict.fromkeys(range(len(ROWS)), "test"), "no images for artEmisX_train.json; correct the table"),
    ],
)
def test_refused_splits(tmp_path, changed, message):
    values = [("train", "train", "train", "val", "test")[i // 3 % 5] for i in range(len(ROWS))]
    rows, header = with_column(ROWS, "split", [changed.get(i, value) for i, value in enumerate(values)])
    write_table(tmp_path / "mine.csv", rows, header)
    refused(tmp_path, message)


def test_one_image_under_two_names_is_one_image(tmp_path):
    """With and without extension, in composed and decomposed Unicode."""
    rows = [*ROWS, ("p0", "fear", "small"), ("caf\u00e9.png", "awe", "a"), ("./cafe\u0301", "fear", "b")]
    write_table(tmp_path / "mine.csv", rows)
    records = build(tmp_path)
    counts = {record["image_name"]: len(record["emotions"]) for part in records.values() for record in part.values()}
    assert counts["p0.png"] == 4 and counts["caf\u00e9.png"] == 2 and len(counts) == 41


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p0.jpg", "p0.png and p0.jpg would be one image"),
        ("../p0.png", "row 121: image name '../p0.png' is not a file in the image folder"),
        ("/p0.png", "is not a file in the image folder"),
        ("", "row 121: image name ''"),
    ],
)
def test_refused_image_names(tmp_path, name, message):
    write_table(tmp_path / "mine.csv", [*ROWS, (name, "awe", "wide")])
    refused(tmp_path, message)


def test_one_annotation_per_image(tmp_path, capsys):
    """No pairs, so no file of pairs, also not an earlier table's; training goes without the contrastive loss."""
    write_table(tmp_path / "mine.csv")
    build(tmp_path)
    assert (tmp_path / "out" / PAIRS).is_file()
    write_table(tmp_path / "mine.csv", ROWS[::3])
    records = build(tmp_path)
    assert not (tmp_path / "out" / PAIRS).exists()
    assert "train on artEmisX_train.json with --no-use_cl_loss" in capsys.readouterr().out
    assert {len(record["emotions"]) for part in records.values() for record in part.values()} == {1}


def test_names_without_extension_train(workspace, tmp_path):
    """SAEA's variant of ArtEmis' files; the folder's images have their extensions. Here with one emotion an image."""
    splits = {}
    for split in ("train", "val"):
        records = read_records(workspace.data / f"artEmisX_{split}.json")
        for record in records.values():
            record["image_name"] = record["image_name"].removesuffix(".jpg")
            record["emotions"], record["explanations"] = record["emotions"][:1], record["explanations"][:1]
        splits[split] = tmp_path / f"saea_{split}.json"
        write_json(splits[split], records)
    build_annotations.main([str(splits["val"]), "--out_dir", str(tmp_path)])
    argv = workspace.argv(tmp_path, "--num_train_epochs", "1", "--no-use_cl_loss", "--no-use_VAD", "--no-use_VAD_loss")
    argv += ["--nle_data_train_path", splits["train"], "--nle_data_val_path", splits["val"]]
    argv += ["--annFileExp", tmp_path / "saea_val_annot_exp.json"]
    argv += ["--image_root", workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"]
    assert artEmisX_train.main(list(map(str, argv))) == 0
    assert (tmp_path / "ckpts/ckpt_stats_best-res.tar").is_file()


def test_names_without_extension_are_compared_with_others(tmp_path):
    """An image of the training file is found in the test file, whichever of the two has the extension."""
    whole, bare = {"1": {"image_name": "Cubism/st.-ives.jpg"}}, {"2": {"image_name": "Cubism/st.-ives"}}
    for test, train in ((whole, bare), (bare, whole)):
        warned = "\n".join(split_warnings(tmp_path / "test.json", test, train, "v1.0"))
        assert "1 of the 1 images of test.json are in the training file as well" in warned
    records = [{i: {**record, "explanations": ["x"]} for i, record in part.items()} for part in (whole, bare)]
    assert overlaps({"a": records[0], "b": records[1]})[0]["images"] == 1


def test_unknown_emotions_are_listed_with_the_nearest(tmp_path):
    labels = ["sad", "sad", "Joy", "angry", "contempt", "excited"]
    write_table(tmp_path / "mine.csv", [(*row[:1], label, row[2]) for row, label in zip(ROWS, labels, strict=False)])
    refused(tmp_path, "6 of 6 rows have unknown emotions: 'sad' (2, spelled like sadness), 'joy' (1), 'angry' (1, ")
    refused(tmp_path, "'contempt' (1), 'excited' (1, spelled like excitement); rename them with --rename_emotions")
    refused(tmp_path, "3 of 6 rows", "--rename_emotions", "SAD=Sadness", "joy=contentment")


def test_renamed_emotions(tmp_path):
    rows = [
        (image, {"awe": "Wonder", "something else": "other"}.get(emotion, emotion), t) for image, emotion, t in ROWS
    ]
    write_table(tmp_path / "mine.csv", rows)
    records = build(tmp_path, "--rename_emotions", "wonder=awe", "OTHER=something_else")
    found = Counter(emotion for part in records.values() for r in part.values() for emotion in r["emotions"])
    assert found == Counter(emotion for _, emotion, _ in ROWS)
    shutil.rmtree(tmp_path / "out")
    refused(tmp_path, "has no emotion 'joy'; leave it out", "--rename_emotions", "joy=awe")
    with pytest.raises(InputError, match="--rename_emotions wonder=joy: 'joy' is not one of the nine"):
        build(tmp_path, "--rename_emotions", "wonder=joy")


def test_rows_of_unknown_emotions_are_left_out(tmp_path, capsys):
    """And do not count in the distribution."""
    more = [("p0.png", label, "wide") for label in ["joy"] * 3 + ["calm", ""]]
    write_table(tmp_path / "mine.csv", [*ROWS, *more])
    records = build(tmp_path, "--rename_emotions", "calm=contentment", "--skip_unknown_emotions")
    printed = capsys.readouterr().out
    assert "4 of 125 rows left out because their emotions are unknown: 'joy' (3), '' (1)\n" in printed
    merged = {record["image_name"]: record for part in records.values() for record in part.values()}
    assert merged["p0.png"]["origin_emotion_distribution"] == [0.5, 0.25, 0.25, 0, 0, 0, 0, 0, 0]
    shutil.rmtree(tmp_path / "out")
    write_table(tmp_path / "mine.csv", more)
    refused(tmp_path, "5 of 5 rows have unknown emotions: 'joy' (3), 'calm' (1), ", "--skip_unknown_emotions")


def test_readme_affection_and_artelingo(tmp_path, monkeypatch):
    """The two lines of preprocess/README.md, on small tables with the columns of the releases."""
    monkeypatch.chdir(tmp_path)
    section = (
        (REPOSITORY / "preprocess/README.md").read_text(encoding="utf-8").partition("Affection and ArtELingo are")[2]
    )
    lines = re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].splitlines()
    affection, artelingo = (shlex.split(line.partition("build_splits.py")[2]) for line in lines)
    datasets = ("coco_affective", "visual_genome_affective", "flickr30k_affective", "you_aaai_affective")
    splits = [("train", "val", "test", "rest")[i % 4] for i in range(40)]
    header = (
        "workerid utterance emotion dataset image_name utterance_spelled tokens tokens_len tokens_encoded split".split()
    )
    rows = [
        (
            i,
            f"Oh: a {word}",
            EMOTIONS[(i + j) % 9],
            datasets[i % 3],
            f"{i:012}.jpg",
            f"oh a {word}",
            "[]",
            3,
            "[]",
            splits[i],
        )
        for i in range(40)
        for j, word in enumerate(("cat", "dog"))
    ]
    write_table(tmp_path / affection[affection.index("--csv") + 1], rows, header)
    header = "art_style painting emotion utterance language split".split()
    rows = [
        ("Cubism", f"p{i}", EMOTIONS[(i + j) % 9], f"A {word}!", language, splits[i])
        for i in range(40)
        for j, word in enumerate(("cat", "dog"))
        for language in ("english", "arabic")
    ]
    write_table(tmp_path / artelingo[artelingo.index("--csv") + 1], rows, header)
    for command, name, image, text in (
        (affection, "affection", "visual_genome_affective/000000000001.jpg", "oh a cat"),
        (artelingo, "artelingo", "Cubism/p1", "a cat"),
    ):
        build_splits.main(command)
        val = read_records(tmp_path / "data" / name / "artEmisX_val.json")
        record = next(record for record in val.values() if record["image_name"] == image)
        assert len(val) == 10 and record["explanations"][0] == text
        assert record["emotions"] == ["awe", "contentment"]


def test_rows_of_a_language(tmp_path, capsys):
    """As in ArtELingo: style and painting in two columns, several languages, emotions with capitals."""
    header = ("art_style", "painting", "emotion", "language", "utterance")
    rows = [("Cubism", name[:-4], emotion.title(), "English", text) for name, emotion, text in ROWS]
    rows += [("Cubism", name[:-4], "Fear", "Arabic", "قارب أحمر، بعيد") for name in NAMES]
    write_table(tmp_path / "mine.csv", rows, header)
    columns = ["--columns", "image=art_style/painting", "text=utterance"]
    english = build(tmp_path, *columns)
    assert "120 rows are in english, 40 in other languages left out" in capsys.readouterr().out
    names = [record["image_name"] for part in english.values() for record in part.values()]
    assert sorted(names) == sorted(f"Cubism/{name[:-4]}" for name in NAMES)
    assert sum(len(r["emotions"]) for part in english.values() for r in part.values()) == len(ROWS)
    arabic = build(tmp_path, *columns, "--language", "ARABIC", "--keep_text")
    assert {text for part in arabic.values() for r in part.values() for text in r["explanations"]} == {rows[-1][-1]}
    shutil.rmtree(tmp_path / "out")
    message = "no row is in Chinese; give --language (the column has: English 120, Arabic 40)"
    refused(tmp_path, message, *columns, "--language", "Chinese")
    write_table(tmp_path / "mine.csv")
    refused(tmp_path, "which column is the language?", "--language", "Chinese")


def test_columns(tmp_path):
    write_table(tmp_path / "mine.csv", header=("image", "feeling", "text"))
    has = "(it has: image, feeling, text)"
    refused(tmp_path, f"which column is the emotion? give --columns emotion=COLUMN {has}")
    refused(tmp_path, f"has no column 'mood' for --columns emotion= {has}", "--columns", "emotion=mood")
    refused(tmp_path, "has no column 'part' for --columns split=", "--columns", "emotion=feeling", "split=part")
    write_table(tmp_path / "mine.csv", [(*row, "") for row in ROWS], header=("image", "emotion", "text", "text"))
    refused(tmp_path, "has two columns 'text'; rename one")
    for given, message in (
        (["picture=image"], "must be one of image, emotion, text, split, language"),
        (["emotion=feeling", "emotion=text"], "names one thing twice"),
        (["feeling"], "'feeling' is not of the form NAME=VALUE"),
    ):
        with pytest.raises(InputError, match=message):
            build(tmp_path, "--columns", *given)
    assert not (tmp_path / "out").exists()


def test_the_split_rest_is_left_out(tmp_path, capsys):
    of_image = {name: ("train", "val", "test", "rest")[i % 4] for i, name in enumerate(NAMES)}
    rows, header = with_column(ROWS, "split", [of_image[row[0]] for row in ROWS])
    write_table(tmp_path / "mine.csv", rows, header)
    assert sum(map(len, names_of(build(tmp_path)).values())) == 30
    assert '30 rows of the split "rest" left out' in capsys.readouterr().out


def test_empty_cells_of_a_spreadsheet(tmp_path):
    """At the right and at the bottom, as spreadsheets save them."""
    write_table(
        tmp_path / "mine.csv", [*((*row, "", "") for row in ROWS), [""] * 5], ("image", "emotion", "text", "", "")
    )
    assert sum(map(len, build(tmp_path).values())) == len(NAMES)


def test_missing_images_are_counted(tmp_path, capsys):
    write_table(tmp_path / "mine.csv")
    save_images(tmp_path / "images", NAMES[3:])
    build(tmp_path, "--image_root", tmp_path / "images")
    line = capsys.readouterr().out.splitlines()[-1]
    assert (
        line.startswith("WARNING: 40 images: 37 without a problem, 3 missing")
        and "; training needs all of them; the list" in line
        and "archive" not in line
    )
    with open(tmp_path / "out/image_manifest.csv", newline="", encoding="utf-8") as file:
        missing = {row["image_name"] for row in csv.DictReader(file) if row["problem"] == "missing"}
    assert missing == set(NAMES[:3])
    with pytest.raises(InputError, match="3 images have no image, see .*image_manifest.csv"):
        build(tmp_path, "--image_root", tmp_path / "images", "--require_images")


def test_two_names_of_one_file(tmp_path):
    """Else an image could be in two splits."""
    write_table(tmp_path / "mine.csv", [*ROWS, ("Market/P1.png", "awe", "wide")])
    save_images(tmp_path / "images")
    refused(tmp_path, "market/p1.png and Market/P1.png are one file", "--image_root", tmp_path / "images")


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_two_names_of_one_file_by_a_link(tmp_path, link):
    write_table(tmp_path / "mine.csv", [*ROWS, ("again.png", "awe", "wide")])
    save_images(tmp_path / "images")
    getattr(tmp_path / "images/again.png", link)(tmp_path / "images/p0.png")
    refused(tmp_path, "p0.png and again.png are one file", "--image_root", tmp_path / "images")


@pytest.mark.parametrize("extension", [".webp", ".gif", ".bmp", ".tif", ".tiff", ".JPG"])
def test_images_of_all_formats_are_found(tmp_path, extension):
    save_images(tmp_path, [f"a{extension}"])
    for name in ("a", "a.jpg", f"a{extension}"):
        assert ImageFolder(tmp_path).find(name) == tmp_path / f"a{extension}"


def test_flags_of_the_other_kind_are_refused(tmp_path):
    write_table(tmp_path / "mine.csv")
    with pytest.raises(InputError, match="--artemis_dir is for --dataset v1 or v2, not for table; leave it out"):
        build(tmp_path, "--artemis_dir", tmp_path)
    for flags, message in (
        (["--csv", "mine.csv"], "--csv is for --dataset table, not for v1"),
        (["--artemis_dir", ".", "--seed", "1"], "--seed is for --dataset table"),
        (["--dataset", "table"], "give the table as --csv FILE"),
    ):
        with pytest.raises(InputError, match=message):
            build_splits.main([*flags, "--out_dir", str(tmp_path / "out")])
