"""Which artwork belongs to train, val, test and rest: ArtEmis v1.0, v2.0, and the sets that v2.0's papers name."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from utils.constants import MOST_ANNOTATIONS
from utils.errors import InputError

SEED = 2021
VAL_SHARE, TEST_SHARE = 0.05, 0.10
V2_TEST_SHARE = 0.15  # val and test together

TRAIN_SETS = ("full_combined", "new", "old_full", "old_small", "old_large", "combined")
TEST_SETS = ("test_new", "test_ref", "test_old", "test_all", "test_40")


def split_artworks(artworks: Sequence[str]) -> dict[str, str]:
    """ArtEmis' split of artworks, 85/5/10: id -> "train", "val" or "test".

    The unique ids, sorted, are split by scikit-learn with seed 2021: train against the others, then val against test.
    The shares are added as floats (0.15000000000000002), so that a number of artworks divisible by 20 gives one artwork
    more to val, as in ArtEmis.

    Raises:
        InputError: there are too few artworks for three splits.
    """
    unique = np.unique(np.asarray(artworks, dtype=str))
    try:
        train, others = train_test_split(unique, test_size=VAL_SHARE + TEST_SHARE, random_state=SEED)
        val, test = train_test_split(others, test_size=round(TEST_SHARE * len(unique)), random_state=SEED)
    except ValueError:
        raise InputError(f"{len(unique)} artworks are too few to be split 85/5/10: give the whole release") from None
    return {
        artwork: name for name, part in (("train", train), ("val", val), ("test", test)) for artwork in part.tolist()
    }


def split_v1(table: pd.DataFrame, rest: bool) -> pd.Series:
    """The split of every row; with `rest`, artworks of 41 annotations or more are "rest" and take no part in the draw.

    Args:
        table: columns art_style, painting, repetition (int).
        rest: whether there is a split "rest".
    """
    artworks = artwork_ids(table)
    drawn = table["repetition"] <= MOST_ANNOTATIONS if rest else pd.Series(True, index=table.index)
    return artworks.map(split_artworks(artworks[drawn])).where(drawn, "rest")


def split_v2(table: pd.DataFrame) -> pd.Series:
    """The split of every row of v2.0, new (contrastive) and old annotations together.

    - New artworks: those of repetition 5, then 6 ... 9, each group sorted by id, are taken until 15 % of the new rows
      are reached; the first two thirds of these artworks are test, the others val. All other new artworks are train.
    - Old artworks that are not new: 41 annotations or more, "rest"; else an anchor of a new one, train; the others are
      drawn with seed 2021 so that val and test together are 15 % of the old-only artworks, test two thirds of that.

    The published code walks unordered sets, so its membership cannot be reproduced; here ids are sorted first.

    Args:
        table: columns art_style, painting, repetition (int), version ("new"/"old"), anchor_art_style, anchor_painting.
    """
    artworks = artwork_ids(table)
    is_new = table["version"] == "new"
    split = _split_new(artworks[is_new], table.loc[is_new, "repetition"])

    often = set(artworks[~is_new & (table["repetition"] > MOST_ANNOTATIONS)]) - set(split)
    old_only = sorted(set(artworks) - set(split) - often)
    anchors = set(table.loc[is_new, "anchor_art_style"] + table.loc[is_new, "anchor_painting"]) & set(old_only)
    split |= dict.fromkeys(often, "rest") | dict.fromkeys(anchors, "train")

    others = [artwork for artwork in old_only if artwork not in anchors]
    evaluated = V2_TEST_SHARE * len(old_only)
    remaining_train = (1 - V2_TEST_SHARE) * len(old_only) - len(anchors)
    try:
        train, held_out = train_test_split(
            others, test_size=evaluated / (evaluated + remaining_train), random_state=SEED
        )
        val, test = train_test_split(held_out, test_size=2 / 3, random_state=SEED)
    except (ValueError, ZeroDivisionError):
        problem = f"{len(others)} old artworks that are no anchors are too few for val and test"
        raise InputError(f"{problem}; give the whole release and the whole Contrastive.csv") from None
    split |= dict.fromkeys(train, "train") | dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return artworks.map(split)


def _split_new(artworks: pd.Series, repetition: pd.Series) -> dict[str, str]:
    rows_of = artworks.value_counts()
    wanted, rows, taken = int(V2_TEST_SHARE * len(artworks)), 0, []
    for count in range(5, 10):
        for artwork in sorted(set(artworks[repetition == count]) - set(taken)):
            if rows >= wanted:
                break
            taken.append(artwork)
            rows += rows_of[artwork]
    tests = int(len(taken) * 2 / 3)
    return dict.fromkeys(artworks, "train") | dict.fromkeys(taken, "val") | dict.fromkeys(taken[:tests], "test")


def v2_set(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one of `TRAIN_SETS` or `TEST_SETS`.

    combined (new + old_small) is the v2.0 that papers train on, test_all the test set they report. Where there are
    fewer old rows than a sample wants, all are taken.

    Args:
        table: all cleaned rows, columns art_style, painting, version ("new"/"old") and split, in the file's order: the
            samples depend on it.
        name: full_combined: all training rows; new, old_full: those of one version; old_small, old_large: as many
            random old ones as there are new ones, and twice as many; combined: new and old_small; test_new, test_ref:
            the test rows of one version; test_old: those of half the old test artworks; test_all: test_new and
            test_old; test_40: the split "rest".
    """
    new, old = table[table["version"] == "new"], table[table["version"] == "old"]
    if name == "test_40":
        return table[table["split"] == "rest"]
    if name in TEST_SETS:
        new, old = new[new["split"] == "test"], old[old["split"] == "test"]
        half = old
        if name in ("test_old", "test_all"):
            ids = np.unique(artwork_ids(old).to_numpy(dtype=str))
            chosen = np.random.RandomState(42).choice(ids, len(ids) // 2, replace=False) if len(ids) else ids
            half = old[artwork_ids(old).isin(chosen)]
        return {"test_new": new, "test_ref": old, "test_old": half, "test_all": pd.concat([new, half])}[name]
    new, old = new[new["split"] == "train"], old[old["split"] == "train"]
    if name in ("full_combined", "new", "old_full"):
        return {"full_combined": pd.concat([new, old]), "new": new, "old_full": old}[name]
    sample = old.sample(min(len(new) * (2 if name == "old_large" else 1), len(old)), random_state=42)
    return pd.concat([new, sample]) if name == "combined" else sample


def artwork_ids(table: pd.DataFrame) -> pd.Series:
    """art_style + painting of every row: what ArtEmis sorts and draws by."""
    return table["art_style"] + table["painting"]
