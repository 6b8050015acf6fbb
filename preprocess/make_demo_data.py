"""Make the demo's dataset: generated images, annotations and a VAD lexicon in the layout of the ArtEmis release.

    python preprocess/make_demo_data.py --out_dir runs/demo/data

All random choices depend on one seed, so two runs give the same bytes. The other scripts of this folder process the
result.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.constants import IMAGE_FOLDERS

# ---- Make the demo's dataset: generated images, annotations and a VAD lexicon in the layout of the -----------------


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.demo_data.pictures import ACCENT_RGB, ACCENTS, GROUNDS, POSITIONS, STYLES, Picture, paint
from preprocess.demo_data.subjects import EMOTION_SUBJECTS
from preprocess.demo_data.texts import NUMBERS, PATTERN_SHARES, explain, lexicon_text, noun
from utils.constants import EMOTION_INDEX, EMOTIONS
from utils.errors import InputError, OneLineParser, run_script
from utils.files import check_place, write_text

PICTURES = 1600
MIN_PICTURES = 30
HELD_OUT_SHARE = 0.09  # of the images, for val and again for test

# These shares set the difficulty of the dataset.
AGREEMENT = 0.88  # share of images with more than half of the votes for one emotion
MAJORITY_VOTES = (8.0, 2.5)  # beta distribution of that emotion's share of the votes
FAR_EMOTIONS = 1.0  # share of the other votes that go to any emotion instead of a similar one
UNDERTONE = 0.02  # mean share of a second emotion in an image; 0.5 if no emotion has a majority
STRAY_SUBJECT = 0.0  # share of images whose subject belongs to another emotion

ANNOTATORS = (5, 8)
# As in ArtEmis, positive emotions are more frequent.
EMOTION_SHARES = {
    "amusement": 0.12,
    "awe": 0.13,
    "contentment": 0.14,
    "excitement": 0.11,
    "anger": 0.09,
    "disgust": 0.09,
    "fear": 0.11,
    "sadness": 0.12,
    "something else": 0.09,
}
NEIGHBOURS = {
    "amusement": ("excitement", "contentment", "awe", "something else"),
    "awe": ("contentment", "excitement", "fear", "something else"),
    "contentment": ("awe", "amusement", "sadness", "something else"),
    "excitement": ("amusement", "awe", "anger", "contentment"),
    "anger": ("fear", "disgust", "excitement", "sadness"),
    "disgust": ("anger", "fear", "amusement", "something else"),
    "fear": ("disgust", "sadness", "anger", "awe"),
    "sadness": ("fear", "contentment", "anger", "something else"),
    "something else": ("amusement", "awe", "disgust", "sadness"),
}
ARTISTS = ("ada-marlow", "bruno-kestrel", "carla-venn", "dario-lund", "edith-farrow", "felix-orme", "greta-solano")

RELEASE_FILE = "artemis_dataset_release_v0.csv"
HISTOGRAM_FILE = "preprocess_data_mini/image-emotion-histogram.csv"
PREPROCESSED_FILE = "preprocess_data_nets/artemis_preprocessed.csv"
LEXICON_FILE = "demo-VAD-Lexicon.txt"
IMAGE_FOLDER = "wikiart_originals"

SPECIAL_SYMBOLS = 4  # <pad> <sos> <eos> <unk> = 0 .. 3 in ArtEmis' word vocabulary
MIN_WORD_COUNT = 5


def plan_pictures(pictures: int, seed: int) -> pd.DataFrame:
    """Draw the content of every image, its annotators' emotions, and its split.

    Returns:
        one row per image, in random order: image (`Image`), name (`<artist>_<title>-<number>`), split, votes (a
        list of 5 to 8 emotions, one per annotator).
    """
    rng = np.random.default_rng([seed, 0])
    moods = _quota(list(EMOTION_SHARES), list(EMOTION_SHARES.values()), pictures)
    rows = []
    for mood, count in zip(EMOTION_SHARES, moods, strict=True):
        # stratify by emotion and agreement, so that each split is like the whole dataset
        agreed = rng.permutation(np.arange(count) < round(AGREEMENT * count))
        for agree in (True, False):
            size = int((agreed == agree).sum())
            splits = np.repeat(
                ["train", "val", "test"],
                _quota(["train", "val", "test"], [1 - 2 * HELD_OUT_SHARE, HELD_OUT_SHARE, HELD_OUT_SHARE], size, rng),
            )
            rows += [(mood, agree, split) for split in splits]
    planned = []
    for number, index in enumerate(rng.permutation(len(rows))):
        mood, agree, split = rows[index]
        undertone = str(rng.choice(NEIGHBOURS[mood]))
        picture = _imagine(mood, undertone, UNDERTONE * rng.random() * 2 if agree else 0.5, rng)
        title = "-".join(word for word in (NUMBERS[picture.count], picture.accent, noun(picture)) if word)
        name = f"{rng.choice(ARTISTS)}_{title}-{number:04d}"
        planned.append((picture, name, split, _vote(mood, undertone, agree, rng)))
    return pd.DataFrame(planned, columns=["picture", "name", "split", "votes"])


def _quota(names: list[str], shares: list[float], total: int, rng: np.random.Generator | None = None) -> list[int]:
    """Split `total` into integers in proportion to `shares`.

    The remainder goes to the largest fractions or, with `rng`, to randomly drawn ones.
    """
    exact = np.array(shares) * total / sum(shares)
    counts = np.floor(exact).astype(int)
    left = total - counts.sum()
    fractions = exact - counts
    if rng is None:
        receivers = np.argsort(-fractions, kind="stable")[:left]
    else:
        receivers = rng.choice(len(names), left, replace=False, p=fractions / fractions.sum()) if left else []
    counts[receivers] += 1
    return counts.tolist()


def _imagine(mood: str, undertone: str, undertone_share: float, rng: np.random.Generator) -> Picture:
    grounds = GROUNDS[mood]
    ground = str(rng.choice(list(grounds), p=[share for _, share in grounds.values()]))
    rgb = np.array(grounds[ground][0])
    visible = [
        name for name in ACCENTS[mood] if name != ground and np.abs(rgb - np.array(ACCENT_RGB[name])).sum() > 130
    ]
    subjects = EMOTION_SUBJECTS[str(rng.choice(EMOTIONS)) if rng.random() < STRAY_SUBJECT else mood]
    return Picture(
        style=str(rng.choice(list(STYLES))),
        mood=mood,
        undertone=undertone,
        undertone_share=float(undertone_share),
        ground=ground,
        accent=str(rng.choice(visible)),
        subject=str(rng.choice(subjects)),
        count=int(rng.choice([1, 2, 3], p=[0.5, 0.25, 0.25])),
        position=str(rng.choice(list(POSITIONS))),
    )


def _vote(mood: str, undertone: str, agree: bool, rng: np.random.Generator) -> list[str]:
    """The emotions of 5 to 8 annotators. If they agree, more than half are `mood`; else no emotion has a majority."""
    size = int(rng.integers(ANNOTATORS[0], ANNOTATORS[1] + 1))
    while True:
        if agree:
            votes = [mood] * int(np.clip(round(size * rng.beta(*MAJORITY_VOTES)), size // 2 + 1, size))
        else:
            votes = [mood] * (size // 2) + [undertone] * int(rng.integers(1, size // 2 + 1))
        while len(votes) < size:
            others = EMOTIONS if rng.random() < FAR_EMOTIONS else NEIGHBOURS[mood]
            votes.append(str(rng.choice([other for other in others if other != mood])))
        if agree or max(Counter(votes).values()) <= size / 2:
            return [votes[index] for index in rng.permutation(size)]


def annotate(planned: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Generate an explanation for every vote.

    Returns:
        a table with the columns of `artemis_preprocessed.csv`; its rows are shuffled, as in the release.
    """
    rng = np.random.default_rng([seed, 1])
    rows = []
    for picture, name, split, votes in planned.itertuples(index=False):
        for emotion in votes:
            text = explain(picture, emotion, int(rng.choice(len(PATTERN_SHARES), p=PATTERN_SHARES)), rng)
            utterance = text.replace(" i ", " I ")
            utterance = utterance[0].upper() + utterance[1:] + ("." if rng.random() < 0.8 else "")
            spelled = " ".join(text.replace(",", " ").split())
            rows.append((picture.style, name, emotion, utterance, len(votes), split, spelled.split(), spelled))
    columns = ["art_style", "painting", "emotion", "utterance", "repetition", "split", "tokens", "utterance_spelled"]
    frame = pd.DataFrame(rows, columns=columns).iloc[rng.permutation(len(rows))].reset_index(drop=True)
    frame.insert(frame.columns.get_loc("tokens") + 1, "tokens_len", frame["tokens"].map(len))

    counts = Counter(word for tokens in frame.loc[frame["split"] == "train", "tokens"] for word in tokens)
    words = [word for word, count in counts.items() if count >= MIN_WORD_COUNT]
    ids = {word: SPECIAL_SYMBOLS + index for index, word in enumerate(words)}
    longest = frame["tokens_len"].max()

    def encode(tokens: list[str]) -> list[int]:
        return [1, *(ids.get(word, 3) for word in tokens), 2] + [0] * (longest - len(tokens))

    frame["tokens_encoded"] = frame["tokens"].map(encode)
    frame["emotion_label"] = frame["emotion"].map(EMOTION_INDEX)
    return frame


def histogram(annotations: pd.DataFrame) -> pd.DataFrame:
    """The votes of every artwork as a table with the columns of `image-emotion-histogram.csv`, sorted by artwork."""
    votes = pd.crosstab([annotations["art_style"], annotations["painting"]], annotations["emotion"])
    votes = votes.reindex(columns=list(EMOTIONS), fill_value=0).astype(float)
    return pd.Series(votes.to_numpy().tolist(), votes.index, name="emotion_histogram").reset_index()


def make_demo_data(out_dir: Path, pictures: int = PICTURES, seed: int = 2021) -> pd.DataFrame:
    """Write the demo's dataset into `out_dir`; files of an earlier demo are replaced.

    The files are `artemis_dataset_release_v0.csv`, `preprocess_data_mini/image-emotion-histogram.csv`,
    `preprocess_data_nets/artemis_preprocessed.csv`, `demo-VAD-Lexicon.txt` and `wikiart_originals/<style>/<name>.jpg`.
    The release file is written last; if it exists, the dataset is complete.

    Args:
        out_dir: folder to fill.
        images: number of images, at least 30. HELD_OUT_SHARE of them are "val", as many "test", the rest "train".
        seed: seed of all random choices.

    Returns:
        the annotations, as in `artemis_preprocessed.csv`.

    Raises:
        InputError: too few images, or `out_dir` contains something other than an earlier demo.
    """
    out_dir = Path(out_dir)
    if pictures < MIN_PICTURES:
        raise InputError(f"--pictures {pictures}: at least {MIN_PICTURES} are needed for three splits of nine emotions")
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir}: is a file, the demo's data need a folder; name another --out_dir")
    if out_dir.exists() and any(out_dir.iterdir()) and not (out_dir / LEXICON_FILE).exists():
        raise InputError(f"{out_dir}: not empty and without {LEXICON_FILE}, so no earlier demo; name another --out_dir")
    check_place(out_dir / RELEASE_FILE)
    planned = plan_pictures(pictures, seed)
    annotations = annotate(planned, seed)

    (out_dir / RELEASE_FILE).unlink(missing_ok=True)
    write_text(out_dir / LEXICON_FILE, lexicon_text())
    _write_pictures(out_dir / IMAGE_FOLDER, planned, seed)
    write_text(out_dir / HISTOGRAM_FILE, histogram(annotations).to_csv(index=False))
    write_text(out_dir / PREPROCESSED_FILE, annotations.to_csv(index=False))
    release = annotations[["art_style", "painting", "emotion", "utterance", "repetition"]]
    write_text(out_dir / RELEASE_FILE, release.to_csv(index=False))
    return annotations


def _write_pictures(folder: Path, planned: pd.DataFrame, seed: int) -> None:
    """Paint all images into a temporary folder, then replace `folder` by it."""
    unfinished = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    for style in STYLES:
        (unfinished / style).mkdir(parents=True)

    def write(index: int) -> None:
        # each image has its own generator, so that the order of the threads does not matter
        picture, name = planned.loc[index, ["picture", "name"]]
        image = paint(picture, np.random.default_rng([seed, 2, index]))
        image.save(unfinished / picture.style / f"{name}.jpg", quality=92)

    try:
        with ThreadPoolExecutor(2) as pool:
            for _ in tqdm(pool.map(write, planned.index), "painting", len(planned), unit="picture"):
                pass
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", type=Path, default=Path("runs/demo/data"), help="folder to fill (%(default)s)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="number of images (%(default)s)")
    parser.add_argument("--seed", type=int, default=2021, help="seed of all random choices (%(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int | None:
    args = get_parser().parse_args(argv)
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}: must not be negative")
    annotations = make_demo_data(args.out_dir, args.pictures, args.seed)
    artworks = annotations.drop_duplicates(["art_style", "painting"])["split"].value_counts()
    print(f"{len(annotations)} annotations of {artworks.sum()} images in {args.out_dir}")
    print(", ".join(f"{split}: {artworks[split]} images" for split in ("train", "val", "test")))


# ---- Make the demo's data: generated images in ArtEmis' layout, processed by the scripts of ------------------------


def make_demo(folder: Path, pictures: int | None = None) -> None:
    """Make the demo's dataset in `folder`, unless the folder exists. The folder appears only when it is complete.

    Args:
        folder: where the dataset goes.
        images: number of images; None: make_demo_data's default.
    """
    from preprocess import build_annotations, build_splits, resize_wikiart

    if folder.is_dir():
        return
    print(f"making the demo's dataset in {folder}")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        count = [] if pictures is None else ["--pictures", str(pictures)]
        main(["--out_dir", str(temporary), *count])
        images = temporary / IMAGE_FOLDERS[0]
        resize_wikiart.main(["--wikiart_dir", str(temporary / "wikiart_originals"), "--out_dir", str(images)])
        build_splits.main(["--artemis_dir", str(temporary), "--out_dir", str(temporary), "--image_root", str(images)])
        splits = [str(temporary / f"artEmisX_{split}.json") for split in ("val", "test")]
        build_annotations.main([*splits, "--out_dir", str(temporary / "annotations")])
        try:
            os.replace(temporary, folder)
        except OSError:
            if not folder.is_dir():  # else another run has made the same data meanwhile
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
