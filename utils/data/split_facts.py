"""What a split holds: counts, lengths, emotions, agreement, lexicon coverage, repeats. No torch here."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
from tokenizers import ByteLevelBPETokenizer

from utils.constants import BECAUSE, EMOTIONS, PROMPT_TEXT
from utils.data.images import find_image, image_size, split_name
from utils.data.records import Records, dominant_emotion
from utils.errors import InputError

BPE = Path(__file__).resolve().parents[2] / "models" / "gpt2-bpe"
WORD = re.compile(r"[^\W\d_]+")


def split_facts(records: Records, max_seq_len: int) -> dict:
    """Figures of one split.

    Returns:
        images; explanations; explanations_per_image (mean); tokens: of a whole training text, prompt and end included
        (mean, p95, max), and cut: how many texts are longer than max_seq_len; emotions: share of all votes of each;
        majority: share of images where one emotion has more than half of the votes; agreement: probability that two
        annotators of one image, drawn at random, name one emotion, averaged over the images with two or more (None:
        no such image); repeated: explanations that another one of the split equals.
    """
    texts = [text for record in records.values() for text in record["explanations"]]
    votes = Counter(emotion for record in records.values() for emotion in record["emotions"])
    lengths = text_lengths(records)
    agreements = [_agreement(record["emotions"]) for record in records.values() if len(record["emotions"]) > 1]
    majority = [dominant_emotion(record["origin_emotion_distribution"]) is not None for record in records.values()]
    return {
        "images": len(records),
        "explanations": len(texts),
        "explanations_per_image": len(texts) / len(records),
        "tokens": {
            "mean": float(lengths.mean()),
            "p95": int(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
            "cut": int((lengths > max_seq_len).sum()),
        },
        "emotions": {emotion: votes[emotion] / len(texts) for emotion in EMOTIONS},
        "majority": sum(majority) / len(majority),
        "agreement": float(np.mean(agreements)) if agreements else None,
        "repeated": len(texts) - len(set(texts)),
    }


def text_lengths(records: Records) -> np.ndarray:
    """Tokens of every training text, int64 [N]: beginning, prompt, emotion, " because " and explanation, end."""
    bpe = ByteLevelBPETokenizer(str(BPE / "vocab.json"), str(BPE / "merges.txt"))
    heads = {emotion: len(bpe.encode(f"{PROMPT_TEXT} {emotion}").ids) for emotion in EMOTIONS}
    emotions = [emotion for record in records.values() for emotion in record["emotions"]]
    texts = [f" {BECAUSE} {text}" for record in records.values() for text in record["explanations"]]
    encoded = bpe.encode_batch(texts)
    return np.array([2 + heads[emotion] + len(code.ids) for emotion, code in zip(emotions, encoded, strict=True)])


def _agreement(emotions: list[str]) -> float:
    number = len(emotions)
    return sum(count * (count - 1) for count in Counter(emotions).values()) / (number * (number - 1))


def lexicon_coverage(records: Records, known: Callable[[str], bool]) -> dict:
    """Share of the words that the lexicon knows, and the most frequent unknown ones.

    Args:
        known: whether a word, in lower case, has an entry.
    """
    words = Counter(
        word for record in records.values() for text in record["explanations"] for word in WORD.findall(text.lower())
    )
    found = {word: known(word) for word in words}
    total = words.total()
    return {
        "words": total,
        "known": sum(count for word, count in words.items() if found[word]) / total if total else 0.0,
        "unknown": [word for word, _ in words.most_common() if not found[word]][:10],
    }


def overlaps(splits: Mapping[str, Records]) -> list[dict]:
    """For each two splits: the images that are in both, by name without extension, and the explanations."""
    names = {path: {split_name(r["image_name"])[0] for r in records.values()} for path, records in splits.items()}
    texts = {path: {text for r in records.values() for text in r["explanations"]} for path, records in splits.items()}
    return [
        {"splits": [a, b], "images": len(names[a] & names[b]), "explanations": len(texts[a] & texts[b])}
        for a, b in combinations(splits, 2)
    ]


def picture_sizes(records: Records, folder: Path) -> dict:
    """How many pictures are found, missing and unreadable, and their sides in pixels, from the files' headers."""
    sizes, missing, unreadable = [], 0, 0
    for record in records.values():
        try:
            path = find_image(folder, record["image_name"])
            if path is None:
                missing += 1
            else:
                sizes.append(image_size(path))
        except InputError:
            unreadable += 1
    longer = [max(size) for size in sizes]
    shorter = [min(size) for size in sizes]
    return {
        "found": len(sizes),
        "missing": missing,
        "unreadable": unreadable,
        "longer_side": [min(longer), int(np.median(longer)), max(longer)] if sizes else None,
        "shorter_side": [min(shorter), int(np.median(shorter)), max(shorter)] if sizes else None,
    }
