"""Make the demo's dataset: generated images, annotations and a VAD lexicon in the layout of the ArtEmis release.

A small tokenizer for the demo's decoder is trained on the training texts.

    python preprocess/make_demo_data.py --out_dir runs/demo/data

All random choices depend on one seed, so two runs give the same bytes. The other scripts of this folder process the
result.
"""

import argparse
import functools
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from preprocess.artemis_files import (
    MIN_WORD_COUNT,
    RELEASE_COLUMNS,
    add_text_columns,
    emotion_histograms,
    write_table,
)
from preprocess.demo_data.paintings import ACCENT_RGB, ACCENTS, GROUNDS, POSITIONS, STYLES, Painting, paint
from preprocess.demo_data.subjects import EMOTION_SUBJECTS
from preprocess.demo_data.texts import NUMBERS, PATTERN_PROBABILITIES, explain, lexicon_text, noun
from utils.command_line import CONFIGS
from utils.constants import BECAUSE, EMOTIONS, EOS, IMAGE_FOLDERS, PROMPT_TEXT
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, read_json, remove, write_json, write_lock, write_text
from utils.processes import process_pool

PAINTINGS = 1600
FEWEST_PAINTINGS = 30  # for three splits of nine emotions
HELD_OUT = 0.09  # fraction of the paintings in val, and again in test

# These numbers set the difficulty of the dataset.
AGREEMENT = 0.88  # fraction of paintings with more than half of the votes for one emotion
MAJORITY_VOTES = (8.0, 2.5)  # beta distribution of that emotion's fraction of the votes
FAR_EMOTIONS = 1.0  # probability that another vote goes to any emotion instead of a similar one
UNDERTONE = 0.02  # mean weight of a second emotion in a painting; 0.5 if no emotion has a majority
STRAY_SUBJECT = 0.0  # probability that a painting's subject belongs to another emotion

ANNOTATORS = (5, 8)
# As in ArtEmis, positive emotions are more frequent.
EMOTION_FREQUENCIES = {
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

# The layout of the ArtEmis release.
RELEASE_FILE = "artemis_dataset_release_v0.csv"
HISTOGRAM_FILE = "preprocess_data_mini/image-emotion-histogram.csv"
PREPROCESSED_FILE = "preprocess_data_nets/artemis_preprocessed.csv"
LEXICON_FILE = "demo-VAD-Lexicon.txt"
IMAGE_FOLDER = "wikiart_originals"

DECODER_FOLDER = "gpt2"
MOST_TOKENS = 1000  # enough for every word of the training texts to be one token


def plan_paintings(paintings: int, seed: int) -> pd.DataFrame:
    """Draw the content of every painting, its annotators' emotions, and its split.

    Returns:
        one row per painting, in random order: painting (`Painting`), name (`<artist>_<title>-<number>`), split, votes
        (a list of 5 to 8 emotions, one per annotator).
    """
    rng = np.random.default_rng([seed, 0])
    moods = _quota(list(EMOTION_FREQUENCIES.values()), paintings)
    rows = []
    for mood, count in zip(EMOTION_FREQUENCIES, moods, strict=True):
        # stratify by emotion and agreement, so that each split is like the whole dataset
        agreed = rng.permutation(np.arange(count) < round(AGREEMENT * count))
        for agree in (True, False):
            size = int((agreed == agree).sum())
            splits = np.repeat(["train", "val", "test"], _quota([1 - 2 * HELD_OUT, HELD_OUT, HELD_OUT], size, rng))
            rows += [(mood, agree, split) for split in splits]
    planned = []
    for place, index in enumerate(rng.permutation(len(rows))):
        mood, agree, split = rows[index]
        undertone = str(rng.choice(NEIGHBOURS[mood]))
        painting = _imagine(mood, undertone, UNDERTONE * rng.random() * 2 if agree else 0.5, rng)
        title = "-".join(word for word in (NUMBERS[painting.count], painting.accent, noun(painting)) if word)
        name = f"{rng.choice(ARTISTS)}_{title}-{place:04d}"
        planned.append((painting, name, split, _vote(mood, undertone, agree, rng)))
    return pd.DataFrame(planned, columns=["painting", "name", "split", "votes"])


def _quota(weights: list[float], total: int, rng: np.random.Generator | None = None) -> list[int]:
    """Split `total` into integers in proportion to `weights`.

    The remainder goes to the largest fractions or, with `rng`, to randomly drawn ones.
    """
    exact = np.array(weights) * total / sum(weights)
    counts = np.floor(exact).astype(int)
    left = total - counts.sum()
    fractions = exact - counts
    if rng is None:
        receivers = np.argsort(-fractions, kind="stable")[:left]
    else:
        receivers = rng.choice(len(weights), left, replace=False, p=fractions / fractions.sum()) if left else []
    counts[receivers] += 1
    return counts.tolist()


def _imagine(mood: str, undertone: str, undertone_weight: float, rng: np.random.Generator) -> Painting:
    grounds = GROUNDS[mood]
    ground = str(rng.choice(list(grounds), p=[probability for _, probability in grounds.values()]))
    rgb = np.array(grounds[ground][0])
    visible = [
        name for name in ACCENTS[mood] if name != ground and np.abs(rgb - np.array(ACCENT_RGB[name])).sum() > 130
    ]
    subjects = EMOTION_SUBJECTS[str(rng.choice(EMOTIONS)) if rng.random() < STRAY_SUBJECT else mood]
    return Painting(
        style=str(rng.choice(list(STYLES))),
        mood=mood,
        undertone=undertone,
        undertone_weight=float(undertone_weight),
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
    for painting, name, split, votes in planned.itertuples(index=False):
        for emotion in votes:
            pattern = int(rng.choice(len(PATTERN_PROBABILITIES), p=PATTERN_PROBABILITIES))
            text = explain(painting, emotion, pattern, rng)
            utterance = text.replace(" i ", " I ")
            utterance = utterance[0].upper() + utterance[1:] + ("." if rng.random() < 0.8 else "")
            tokens = text.replace(",", " ").split()
            rows.append((painting.style, name, emotion, utterance, len(votes), split, tokens, len(tokens)))
    columns = [*RELEASE_COLUMNS, "split", "tokens", "tokens_len"]
    table = pd.DataFrame(rows, columns=columns).iloc[rng.permutation(len(rows))].reset_index(drop=True)
    return add_text_columns(table, MIN_WORD_COUNT)[0]


def write_decoder(folder: Path, annotations: pd.DataFrame) -> None:
    """Write a --gpt2_model without weights: the sizes of the demo's decoder, and a tokenizer of GPT-2's kind.

    The tokenizer is trained on the training texts. GPT-2's own has 50 257 tokens, and the output layer over these would
    take most of the demo's time.
    """
    from tokenizers import ByteLevelBPETokenizer  # not for --help

    train = annotations[annotations["split"] == "train"]
    pairs = zip(train["emotion"], train["utterance_spelled"], strict=True)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [f"{PROMPT_TEXT} {emotion} {BECAUSE} {text}" for emotion, text in pairs],
        vocab_size=MOST_TOKENS,
        special_tokens=[EOS],
        show_progress=False,
    )
    folder.mkdir(exist_ok=True)
    tokenizer.save_model(str(folder))  # vocab.json and merges.txt
    end = tokenizer.token_to_id(EOS)
    tokens = {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": end, "eos_token_id": end}
    write_json(folder / "config.json", read_json(CONFIGS / "demo-gpt2" / "config.json") | tokens, indent=2)


def make_demo_data(out_dir: Path, paintings: int = PAINTINGS, seed: int = 2021) -> pd.DataFrame:
    """Write the demo's dataset into `out_dir`; files of an earlier demo are replaced.

    The files are `artemis_dataset_release_v0.csv`, `preprocess_data_mini/image-emotion-histogram.csv`,
    `preprocess_data_nets/artemis_preprocessed.csv`, `demo-VAD-Lexicon.txt`, `wikiart_originals/<style>/<name>.jpg`, and in
    `gpt2/` config and tokenizer of the decoder. The release file is written last; if it exists, the dataset is complete.

    Args:
        out_dir: folder to fill.
        paintings: number of paintings, at least FEWEST_PAINTINGS. HELD_OUT of them are "val", as many "test", the rest
            "train".
        seed: seed of all random choices.

    Returns:
        the annotations, as in `artemis_preprocessed.csv`.

    Raises:
        InputError: `out_dir` contains something other than an earlier demo.
    """
    check_place(out_dir / RELEASE_FILE)
    if out_dir.exists() and any(out_dir.iterdir()) and not (out_dir / LEXICON_FILE).exists():
        raise InputError(f"{out_dir}: not empty and without {LEXICON_FILE}, so no earlier demo; name another --out_dir")
    planned = plan_paintings(paintings, seed)
    annotations = annotate(planned, seed)

    (out_dir / RELEASE_FILE).unlink(missing_ok=True)
    write_text(out_dir / LEXICON_FILE, lexicon_text())
    write_decoder(out_dir / DECODER_FOLDER, annotations)
    _write_images(out_dir / IMAGE_FOLDER, planned, seed)
    write_table(out_dir / HISTOGRAM_FILE, emotion_histograms(annotations))
    write_table(out_dir / PREPROCESSED_FILE, annotations)
    write_table(out_dir / RELEASE_FILE, annotations[RELEASE_COLUMNS])
    return annotations


def _write_images(folder: Path, planned: pd.DataFrame, seed: int) -> None:
    """Replace `folder` by a folder of all paintings."""
    shutil.rmtree(folder, ignore_errors=True)
    for style in STYLES:
        (folder / style).mkdir(parents=True)

    work = functools.partial(_write_image, folder, seed)
    with process_pool(2) as pool:
        done = pool.map(work, planned.index, planned["painting"], planned["name"], chunksize=16)
        for _ in tqdm(done, "painting", len(planned), unit="image"):
            pass


def _write_image(folder: Path, seed: int, index: int, painting: Painting, name: str) -> None:
    # each painting has its own generator, so that the order of the processes does not matter
    image = paint(painting, np.random.default_rng([seed, 2, index]))
    image.save(folder / painting.style / f"{name}.jpg", quality=92)


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", type=Path, default=Path("runs/demo/data"), help="folder to fill (%(default)s)")
    parser.add_argument(
        "--images", type=number(int, FEWEST_PAINTINGS), default=PAINTINGS, help="number of images (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=number(int, 0, 2**63 - 1), default=2021, help="seed of all random choices (%(default)s)"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    annotations = make_demo_data(args.out_dir, args.images, args.seed)
    artworks = annotations.drop_duplicates(["art_style", "painting"])["split"].value_counts()
    splits = ", ".join(f"{split} {artworks[split]}" for split in ("train", "val", "test"))
    print(f"{args.out_dir}: {len(annotations)} annotations of {artworks.sum()} images ({splits})")


def make_demo(folder: Path, paintings: int = PAINTINGS) -> None:
    """Make the demo's dataset in `folder` and process it with the scripts of this folder, unless the folder exists.

    The training script's --demo reads it. The folder appears only when it is complete.
    """
    from preprocess import build_annotations, build_splits, resize_wikiart  # scripts, not needed to make the data

    if folder.is_dir():
        return
    temporary = folder.with_name(f".{folder.name}.tmp")
    with write_lock(folder):
        if folder.is_dir():  # the runs of a sweep start together, and another has made it
            return
        print(f"making the demo's dataset in {folder}")
        remove(temporary)  # left from a kill
        try:
            main(["--out_dir", str(temporary), "--images", str(paintings)])
            images = temporary / IMAGE_FOLDERS[0]
            resize_wikiart.main(["--wikiart_dir", str(temporary / IMAGE_FOLDER), "--out_dir", str(images)])
            build_splits.main(
                ["--artemis_dir", str(temporary), "--out_dir", str(temporary), "--image_root", str(images)]
            )
            splits = [str(temporary / f"artEmisX_{split}.json") for split in ("val", "test")]
            build_annotations.main([*splits, "--out_dir", str(temporary / "annotations")])
            os.replace(temporary, folder)
        finally:
            remove(temporary)


if __name__ == "__main__":
    sys.exit(run_script(main))
