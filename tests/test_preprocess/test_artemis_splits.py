"""Where ArtEmis' splits and filters begin and end: 40 annotations against 41, lengths, v2.0's proportions and sets."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from preprocess.artemis_files import TEST_SETS, TRAIN_SETS, split_v1, split_v2, v2_set
from preprocess.build_splits import choose_sets, mini_variant_signs
from preprocess.prepare_artemis import filter_lengths
from utils.errors import InputError


def artworks(*counts: int, prefix: str = "p", **columns: str) -> pd.DataFrame:
    """One row per annotation; `repetition` says how many the artwork has."""
    rows = [("S", f"{prefix}{n:03}", count) for n, count in enumerate(counts) for _ in range(count)]
    return pd.DataFrame(rows, columns=["art_style", "painting", "repetition"]).assign(**columns)


def split_of(table: pd.DataFrame, split: pd.Series) -> dict[str, str]:
    """The split of every painting, which is the same in all its rows."""
    assert table.assign(split=split).groupby("painting")["split"].nunique().eq(1).all()
    return dict(zip(table["painting"], split, strict=True))


def test_artworks_of_40_annotations_are_used_and_of_41_not():
    """And texts of five words are no sign of the mini variant, those of four are."""
    table = artworks(*[5] * 40, 40, 41, utterance_spelled="a b c d e")
    split = split_v1(table, rest=True)
    assert [name for name, part in split_of(table, split).items() if part == "rest"] == ["p041"]
    assert mini_variant_signs(table.assign(split=split)) == []
    assert mini_variant_signs(table[:5].assign(split=split, utterance_spelled="a b c d")) == [
        "5 texts have fewer than 5 words"
    ]
    mini = table.assign(split="train")
    assert len(mini_variant_signs(mini)) == 1
    assert set(choose_sets(mini, "v1", "combined", [])["train"]["repetition"]) == {5, 40}
    v2 = table.assign(version="new", split=split.where(split == "rest", "train"))
    sets = choose_sets(v2, "v2", "new", ["test_40"])
    assert set(sets["train"]["repetition"]) == {5, 40} and set(sets["test_40"]["repetition"]) == {41}


def test_lengths_kept():
    """From 5 tokens to the training texts' 95th percentile, both included, short texts counted for the percentile."""

    def lengths(*values: int, split: str = "train") -> pd.DataFrame:
        return pd.DataFrame({"tokens_len": values, "split": split})

    train = lengths(*[4] * 61, *range(5, 45))  # of 101 the 95th percentile is 39
    kept, dropped = filter_lengths(pd.concat([train, lengths(4, 5, 39, *[40] * 40, split="val")]))
    assert sorted(set(kept["tokens_len"])) == [*range(5, 40)]
    assert dropped == {"too short": 62, "too long": 45}


# ---- v2.0 ------------------------------------------------------------------------------------------------------------


def test_v2_split_by_hand():
    """15 new artworks of 6 and 22 of 5: 30 of the 200 rows are wanted, 6 artworks of 5; the first 4 of them are test."""
    new = artworks(*[6] * 15, *[5] * 22, prefix="new", version="new", anchor_art_style="S")
    new["anchor_painting"] = "old00" + new["painting"].str[-1]
    no_anchor = {"version": "old", "anchor_art_style": "", "anchor_painting": ""}
    old = artworks(*[5] * 109, 40, 41, prefix="old", **no_anchor)
    both = artworks(45, prefix="new", **no_anchor)  # new000, in one split
    table = pd.concat([new, old, both], ignore_index=True)
    split = split_of(table, split_v2(table))
    assert [split[f"new{n:03}"] for n in range(37)] == ["train"] * 15 + ["test"] * 4 + ["val"] * 2 + ["train"] * 16
    assert all(split[f"old{n:03}"] == "train" for n in range(10))
    others = Counter(split[f"old{n:03}"] for n in range(111))
    # ceil(0.15 * 110) = 17, ceil(17 * 2 / 3) = 12
    assert others == {"train": 110 - 17, "val": 5, "test": 12, "rest": 1} and split["old110"] == "rest"
    with pytest.raises(InputError, match="too few"):
        split_v2(table[table["painting"].str.fullmatch("new...|old00.")])


def cleaned_v2() -> pd.DataFrame:
    """Rows of both versions, train and test and rest, each with a number of its own."""
    parts = (("new", "train", 12), ("new", "test", 9), ("old", "train", 60), ("old", "test", 30), ("old", "rest", 6))
    rows = [(version, part, f"{version}-{part}-{n // 3:02}") for version, part, count in parts for n in range(count)]
    return pd.DataFrame(rows, columns=["version", "split", "painting"]).assign(art_style="S").reset_index(names="row")


def test_training_sets_of_v2():
    table = cleaned_v2()
    rows = {name: v2_set(table, name)["row"].tolist() for name in TRAIN_SETS}
    new, old = list(range(12)), list(range(21, 81))
    old_train = table[(table["version"] == "old") & (table["split"] == "train")]
    assert (rows["new"], rows["old_full"], rows["full_combined"]) == (new, old, new + old)
    small, large = (old_train.sample(size, random_state=42)["row"].tolist() for size in (12, 24))
    assert (rows["old_small"], rows["old_large"], rows["combined"]) == (small, large, new + small)
    assert sorted(v2_set(table[table["row"] < 23], "old_large")["row"]) == [21, 22]


def test_test_sets_of_v2():
    table = cleaned_v2()
    rows = {name: v2_set(table, name)["row"].tolist() for name in TEST_SETS}
    new, ref = list(range(12, 21)), list(range(81, 111))
    assert (rows["test_new"], rows["test_ref"], rows["test_40"]) == (new, ref, list(range(111, 117)))
    chosen = np.random.RandomState(42).choice([f"Sold-test-{n:02}" for n in range(10)], 5, replace=False)
    half = [row for row in ref if "S" + table.loc[row, "painting"] in chosen]
    assert len(half) == 15 and rows["test_old"] == half and rows["test_all"] == new + half
