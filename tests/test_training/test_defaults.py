"""Defaults of the commands beside the training script; its own are held against the published ones in test_opts.py."""

from pathlib import Path

from cococaption.__main__ import get_parser as cococaption_parser
from preprocess import build_annotations, build_splits, resize_wikiart, train_text2emotion
from tests.conftest import REPOSITORY


def defaults_of(parser, *names: str) -> dict:
    return {name: parser.get_default(name) for name in names}


def test_defaults_of_the_other_commands():
    assert defaults_of(resize_wikiart.get_parser(), "max_size", "quality") == {"max_size": 600, "quality": 95}
    chosen = defaults_of(build_splits.get_parser(), "dataset", "train_set", "test_sets")
    assert chosen == {"dataset": "v1", "train_set": "combined", "test_sets": []}
    assert build_annotations.get_parser().get_default("out_dir") == REPOSITORY / "cococaption" / "annotations"
    judge = {
        "data_dir": Path("data/artEmis/preprocess_data_nets"),
        "sizes": [100, 256, 256, 100],  # embedding, projection, LSTM, classifier
        "epochs": 40,
        "patience": 5,
        "batch_size": 1024,
        "learning_rate": 5e-4,
        "seed": 2021,
    }
    assert defaults_of(train_text2emotion.get_parser(), *judge) == judge
    scored = defaults_of(cococaption_parser(), "metrics", "meteor_jvms", "cache_dir")
    assert scored == {"metrics": ("bleu", "meteor", "rouge", "cider"), "meteor_jvms": 1, "cache_dir": None}
