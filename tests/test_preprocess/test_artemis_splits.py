"""Where ArtEmis' splits and filters begin and end: 40 annotations against 41, v2.0's sets, lengths and rare words."""

import numpy as np
import pandas as pd
import pytest

from preprocess import prepare_artemis
from preprocess.artemis_files import TEST_SETS, TRAIN_SETS, split_v1, split_v2, v2_set
from preprocess.build_splits import choose_sets, image_id, mini_variant_signs, several_emotions
from tests.conftest import REPOSITORY
from utils.data.untrusted_files import load_vocabulary

FIXTURE = REPOSITORY / "tests/data/artemis"

# ---- 40 and 41 annotations -------------------------------------------------------------------------------------------


def artworks(*counts: int, style: str = "S", prefix: str = "p") -> pd.DataFrame:
    """One row per annotation; `repetition` says how many the artwork has."""
    rows = [(style, f"{prefix}{n:03}", count) for n, count in enumerate(counts) for _ in range(count)]
    return pd.DataFrame(rows, columns=["art_style", "painting", "repetition"])


def split_of(table: pd.DataFrame, split: pd.Series) -> dict[str, str]:
    return dict(zip(table["painting"], split, strict=True))


def test_v1_rest_begins_at_41():
    table = artworks(*[5] * 40, 39, 40, 41, 42)
    split = split_of(table, split_v1(table, rest=True))
    assert [split[f"p{n:03}"] == "rest" for n in range(44)] == [False] * 42 + [True] * 2
    assert "rest" not in set(split_v1(table, rest=False))


def test_v2_rest_begins_at_41():
    old = artworks(*[5] * 40, 40, 41, prefix="old").assign(version="old", anchor_art_style="", anchor_painting="")
    new = artworks(*[5] * 10, prefix="new").assign(version="new", anchor_art_style="S", anchor_painting="old000")
    table = pd.concat([new, old], ignore_index=True)
    split = split_of(table, split_v2(table))
    assert [name for name, part in split.items() if part == "rest"] == ["old041"]


def test_json_splits_hold_artworks_of_40_and_not_of_41():
    table = artworks(39, 40, 41, 42).assign(split="train", utterance_spelled="a b c d e")
    assert set(choose_sets(table, "v1", "combined", [])["train"]["repetition"]) == {39, 40}
    v2 = table.assign(version="new")
    v2.loc[v2["repetition"] > 40, "split"] = "rest"
    sets = choose_sets(v2, "v2", "new", ["test_40"])
    assert set(sets["train"]["repetition"]) == {39, 40} and set(sets["test_40"]["repetition"]) == {41, 42}


def test_signs_of_the_mini_variant():
    """An artwork of 41 outside of "rest" is a sign, one of 40 is not; texts of four words are, those of five are not."""
    fine = artworks(40).assign(split="train", utterance_spelled="a b c d e")
    assert mini_variant_signs(fine) == []
    assert len(mini_variant_signs(artworks(41).assign(split="train", utterance_spelled="a b c d e"))) == 1
    assert mini_variant_signs(fine.assign(utterance_spelled="a b c d")) == ["40 texts have fewer than 5 words"]


def test_several_emotions_are_different_ones():
    records = {"1": {"emotions": ["awe", "awe"]}, "2": {"emotions": ["awe", "fear"]}, "3": {"emotions": ["awe"]}}
    assert list(several_emotions(records)) == ["2"]


def test_a_known_image_id():
    """Fixed for ever, as files of several machines are joined by it: SHA-256 of the name, eight bytes, one bit less."""
    assert image_id("Abstract_Expressionism", "aaron-siskind_chicago-1951") == "1831236175493183382"


# ---- v2.0 ------------------------------------------------------------------------------------------------------------


def by_repetition(*groups: int) -> pd.DataFrame:
    """10 new artworks of each of these repetitions, and 60 old ones of 5."""
    counts = [count for count in groups for _ in range(10)]
    new = artworks(*counts, prefix="new").assign(version="new", anchor_art_style="S", anchor_painting="old000")
    old = artworks(*[5] * 60, prefix="old").assign(version="old", anchor_art_style="", anchor_painting="")
    return pd.concat([new, old], ignore_index=True)


@pytest.mark.parametrize(("groups", "first", "taken"), [((9, 50), "new000", 10), ((7, 9, 20), "new000", 6)])
def test_held_out_new_artworks_have_5_to_9_annotations(groups, first, taken):
    """9 and 50: all ten of 9, though 15 % of 590 rows are not reached; 7, 9, 20: six of 7, as 6 * 7 < 54 = 15 % of 360."""
    table = by_repetition(*groups)
    split = split_of(table, split_v2(table))
    held_out = [name for name, part in split.items() if name.startswith("new") and part != "train"]
    wanted = 8 if len(groups) == 3 else taken  # ceil(54 / 7) artworks reach the wanted rows
    assert held_out == [f"new{n:03}" for n in range(wanted)]
    tests = [name for name in held_out if split[name] == "test"]
    assert tests == held_out[: wanted * 2 // 3] and first in tests


def cleaned_v2() -> pd.DataFrame:
    """Rows of both versions, train and test and rest, each with a number of its own."""
    rows = [
        (version, split, f"{version}-{split}-{n // 3:02}")
        for version, split, count in (
            ("new", "train", 12),
            ("new", "test", 9),
            ("old", "train", 60),
            ("old", "test", 30),
            ("old", "rest", 6),
        )
        for n in range(count)
    ]
    return pd.DataFrame(rows, columns=["version", "split", "painting"]).assign(art_style="S").reset_index(names="row")


def test_training_sets_of_v2():
    table = cleaned_v2()
    rows = {name: v2_set(table, name)["row"].tolist() for name in TRAIN_SETS}
    new, old = list(range(12)), list(range(21, 81))
    old_train = table[(table["version"] == "old") & (table["split"] == "train")]
    assert (rows["new"], rows["old_full"], rows["full_combined"]) == (new, old, new + old)
    small, large = (old_train.sample(size, random_state=42)["row"].tolist() for size in (12, 24))
    assert (rows["old_small"], rows["old_large"], rows["combined"]) == (small, large, new + small)
    assert v2_set(table[table["row"] < 23], "old_large")["row"].tolist() in ([21, 22], [22, 21])


def test_test_sets_of_v2():
    table = cleaned_v2()
    rows = {name: v2_set(table, name)["row"].tolist() for name in TEST_SETS}
    new, ref = list(range(12, 21)), list(range(81, 111))
    assert (rows["test_new"], rows["test_ref"], rows["test_40"]) == (new, ref, list(range(111, 117)))
    ids = sorted({f"Sold-test-{n:02}" for n in range(10)})
    chosen = np.random.RandomState(42).choice(ids, 5, replace=False)
    half = [row for row in ref if "S" + table.loc[row, "painting"] in chosen]
    assert len(half) == 15 and rows["test_old"] == half and rows["test_all"] == new + half


def lengths_table(*lengths: int, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"tokens_len": lengths, "split": split})


def test_lengths_kept():
    """From 5 tokens to the training texts' 95th percentile, both included, short texts counted for the percentile."""
    train = lengths_table(*[4] * 10, *range(11, 21), *[30] * 80)  # of 100 the 95th percentile is 30
    kept, dropped = prepare_artemis.filter_lengths(pd.concat([train, lengths_table(4, 5, 30, 31, split="val")]))
    assert sorted(set(kept["tokens_len"])) == [5, *range(11, 21), 30]
    assert dropped == {"too short": 11, "too long": 1}
    # with the short ones left out the percentile of 21 texts would be another: 1 .. 20 and 100
    kept, dropped = prepare_artemis.filter_lengths(lengths_table(*range(1, 21), 100))
    assert kept["tokens_len"].tolist() == list(range(5, 21)) and dropped == {"too short": 4, "too long": 1}
    _, dropped = prepare_artemis.filter_lengths(lengths_table(*[3] * 20, 4))  # 4 is longer than most, and too short
    assert dropped == {"too short": 21, "too long": 0}


def test_words_seen_5_times_are_kept_and_in_the_mini_variant_all(tmp_path):
    """Of two invented words in training texts, one is written four times, the other five."""
    release = pd.read_csv(FIXTURE / "artemis_dataset_release_v0.csv", dtype=str, keep_default_na=False)
    prepared = pd.read_csv(FIXTURE / "preprocess_data_nets/artemis_preprocessed.csv", dtype=str)
    train = set(prepared.loc[prepared["split"] == "train", "art_style"] + prepared["painting"])
    rows = release.index[(release["art_style"] + release["painting"]).isin(train)]
    for word, places in (("qwxzvy", rows[:4]), ("wzqxyv", rows[4:9]), ("vyxwzq", rows[9:10])):
        release.loc[places, "utterance"] = f"the old {word} looks calm to me"
    release.to_csv(tmp_path / "release.csv", index=False)
    prepare_artemis.main(
        ["--release_csv", str(tmp_path / "release.csv"), "--out_dir", str(tmp_path), "--jobs", "1"],
    )
    vocabulary = load_vocabulary(tmp_path / "preprocess_data_nets/vocabulary.pkl")
    assert "wzqxyv" in vocabulary and "qwxzvy" not in vocabulary
    mini = pd.read_csv(tmp_path / "preprocess_data_mini/artemis_preprocessed.csv", dtype=str)
    mini = mini[mini["utterance_spelled"].str.contains("vyxwzq") & (mini["split"] == "train")]
    assert len(mini) == 1 and " 3," not in mini["tokens_encoded"].item()  # no <unk>
