"""Where ArtEmis' splits and filters begin and end: 40 annotations against 41, proportions, v2.0's sets, lengths."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from preprocess.artemis_files import TEST_SETS, TRAIN_SETS, split_artworks, split_v1, split_v2, v2_set
from preprocess.build_splits import choose_sets, mini_variant_signs
from preprocess.prepare_artemis import filter_lengths
from utils.errors import InputError


def artworks(*counts: int, prefix: str = "p", **columns: str) -> pd.DataFrame:
    """One row per annotation; `repetition` says how many the artwork has."""
    rows = [("S", f"{prefix}{n:03}", count) for n, count in enumerate(counts) for _ in range(count)]
    return pd.DataFrame(rows, columns=["art_style", "painting", "repetition"]).assign(**columns)


def new_artworks(*counts: int) -> pd.DataFrame:
    """Their anchor is the first old one."""
    return artworks(*counts, prefix="new", version="new", anchor_art_style="S", anchor_painting="old000")


def old_artworks(*counts: int) -> pd.DataFrame:
    return artworks(*counts, prefix="old", version="old", anchor_art_style="", anchor_painting="")


def split_of(table: pd.DataFrame, split: pd.Series) -> dict[str, str]:
    """The split of every painting, which is the same in all its rows."""
    assert table.assign(split=split).groupby("painting")["split"].nunique().eq(1).all()
    return dict(zip(table["painting"], split, strict=True))


# ---- v1.0 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "parts"), [(160, (135, 9, 16)), (156, (132, 8, 16))])
def test_85_5_10(count, parts):
    """A number of artworks that is divisible by 20 gives val one more. Order and number of rows move none."""
    names = [f"{n:03}" for n in range(count)]
    split = split_artworks(names)
    assert Counter(split.values()) == dict(zip(("train", "val", "test"), parts, strict=True))
    assert split_artworks(names[::-1] * 3) == split and split_artworks(names, seed=1) != split


def test_v1_rest_begins_at_41():
    table = artworks(*[5] * 40, 39, 40, 41, 42)
    split = split_of(table, split_v1(table, rest=True))
    assert [name for name, part in split.items() if part == "rest"] == ["p042", "p043"]
    assert "rest" not in set(split_v1(table, rest=False))


def test_json_splits_hold_artworks_of_40_and_not_of_41():
    table = artworks(39, 40, 41, 42, split="train", utterance_spelled="a b c d e")
    assert set(choose_sets(table, "v1", "combined", [])["train"]["repetition"]) == {39, 40}
    v2 = table.assign(version="new")
    v2.loc[v2["repetition"] > 40, "split"] = "rest"
    sets = choose_sets(v2, "v2", "new", ["test_40"])
    assert set(sets["train"]["repetition"]) == {39, 40} and set(sets["test_40"]["repetition"]) == {41, 42}


def test_signs_of_the_mini_variant():
    """An artwork of 41 outside of "rest" is a sign, one of 40 is not; texts of four words are, those of five are not."""
    fine = artworks(40, split="train", utterance_spelled="a b c d e")
    assert mini_variant_signs(fine) == []
    assert len(mini_variant_signs(artworks(41, split="train", utterance_spelled="a b c d e"))) == 1
    assert mini_variant_signs(fine.assign(utterance_spelled="a b c d")) == ["40 texts have fewer than 5 words"]


def lengths_table(*lengths: int, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"tokens_len": lengths, "split": split})


def test_lengths_kept():
    """From 5 tokens to the training texts' 95th percentile, both included, short texts counted for the percentile."""
    train = lengths_table(*[4] * 10, *range(11, 21), *[30] * 80)  # of 100 the 95th percentile is 30
    kept, dropped = filter_lengths(pd.concat([train, lengths_table(4, 5, 30, *[31] * 40, split="val")]))
    assert sorted(set(kept["tokens_len"])) == [5, *range(11, 21), 30]
    assert dropped == {"too short": 11, "too long": 40}
    # with the short ones left out the percentile of 21 texts would be another: 1 .. 20 and 100
    kept, dropped = filter_lengths(lengths_table(*range(1, 21), 100))
    assert kept["tokens_len"].tolist() == list(range(5, 21)) and dropped == {"too short": 4, "too long": 1}
    _, dropped = filter_lengths(lengths_table(*[3] * 20, 4))  # 4 is longer than most, and too short
    assert dropped == {"too short": 21, "too long": 0}


# ---- v2.0 ------------------------------------------------------------------------------------------------------------


def test_v2_rest_begins_at_41():
    table = pd.concat([new_artworks(*[5] * 10), old_artworks(*[5] * 40, 40, 41)], ignore_index=True)
    split = split_of(table, split_v2(table))
    assert [name for name, part in split.items() if part == "rest"] == ["old041"]


@pytest.mark.parametrize(("groups", "taken"), [((9, 60), 10), ((7, 9, 20), 8), ((5, 5, 5, 5, 5, 5), 9)])
def test_held_out_new_artworks_have_5_to_9_annotations(groups, taken):
    """10 artworks of each: of 9 and 60 all of 9, though 15 % of the rows are not reached; else just as many as reach it,
    8 * 7 >= 54 = 15 % of 360 rows and 9 * 5 = 45 = 15 % of 300. The first two thirds are test."""
    new = new_artworks(*[count for count in groups for _ in range(10)])
    table = pd.concat([new, old_artworks(*[5] * 60)], ignore_index=True)
    split = split_of(table, split_v2(table))
    held_out = {name: part for name, part in split.items() if name.startswith("new") and part != "train"}
    assert list(held_out) == [f"new{n:03}" for n in range(taken)]
    tests = taken * 2 // 3
    assert list(held_out.values()) == ["test"] * tests + ["val"] * (taken - tests)


def test_v2_split_by_hand():
    """20 new artworks of 5 and 20 of 6: 33 of the 220 rows are wanted, 7 artworks of 5; 4 of them are test."""
    new = new_artworks(*[5] * 20, *[6] * 20)
    new["anchor_painting"] = "old00" + new["painting"].str[-1]
    old = old_artworks(*[5] * 110, 45)
    both = artworks(45, prefix="new", version="old", anchor_art_style="", anchor_painting="")  # new000, in one split
    table = pd.concat([new, old, both], ignore_index=True)
    split = split_of(table, split_v2(table))
    assert [split[f"new{n:03}"] for n in range(40)] == ["test"] * 4 + ["val"] * 3 + ["train"] * 33
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
