"""Every flag's default in one table: the published ones, and ours, whose change would make another training of a bare command."""

from pathlib import Path

from cococaption.__main__ import get_parser as cococaption_parser
from preprocess import build_annotations, build_splits, resize_wikiart, train_text2emotion
from tests.conftest import REPOSITORY
from utils.opts import get_parser, parse_args

DEFAULTS = {
    # what to do
    "demo": False,
    "load_from_epoch": None,
    "resume": False,
    "eval_only": False,
    "seed": 42,
    # files
    "nle_data_train_path": Path("data/artEmis/artEmisX_cl_train.json"),
    "nle_data_val_path": Path("data/artEmis/artEmisX_val.json"),
    "annFileExp": Path("cococaption/annotations/artEmisX_val_annot_exp.json"),
    "image_root": None,
    "vad_lexicon": None,
    "ckpt_path": Path("ckpts"),
    "caption_save_path": Path("results"),
    "cache_dir": Path("cache"),
    # model
    "clip_model": "openai/clip-vit-base-patch16",
    "gpt2_model": "distilgpt2",
    "from_scratch": False,
    "fixed_encoder": True,
    "prefix_dim": None,
    "len_prefix": 0,
    "prompt_text": " the emotion is",
    "max_seq_len": 30,
    "use_VAD": True,
    "VAD_En_Layers": 3,
    "VAD_En_Heads": 1,
    "lemmatizer": "nltk",
    "dropout": 0.1,
    # objective
    "alpha": 1.0,
    "use_cl_loss": True,
    "cl_Loss_weight": 1.0,
    "use_VAD_loss": True,
    "VAD_Loss_weight": 1.0,
    # training
    "num_train_epochs": 35,
    "batch_size": 32,
    "gradient_accumulation_steps": 1,
    "mixed_precision": None,
    "learning_rate": 2e-5,
    "en_LR": 2e-5,
    "emo_en_LR": 4e-5,
    "adam_eps": 1e-6,
    "adamw": "published",
    "max_grad_norm": 0.0,
    "nan_policy": "stop",
    "first_text": "walk",
    "num_workers": 2,
    "skip_bad_images": False,
    "compile": False,
    "feature_cache": None,
    "save_steps": 0,
    "log_steps": 50,
    "cpu_threads": 0,
    # evaluation
    "eval_steps": 0,
    "eval_batch_size": 128,
    "stop_after_evals": 10,
    "metrics": ["bleu", "meteor", "rouge", "cider"],
    "meteor_jvms": 1,
    "drop_last_token": False,
    "num_beams": 1,
    "gallery": 0,
    "test_set": None,
    "append_to": None,
    "text2emotion": None,
    "vocabulary": None,
    "clip_score": None,
    # beyond the paper
    "use_emotion_loss": False,
    "emotion_loss_weight": 1.0,
    "emotion_pooling": "cls",
    "use_label_loss": False,
    "label_loss_weight": 1.0,
    "emotion_from": "text",
    "vad_causal": False,
    "masked_pooling": False,
    "plain_special_tokens": False,
    "split": None,
    "report_to": ["none"],
    "image_normalization": "imagenet",
}


def test_defaults():
    """A new flag wants a line here; a changed default, a good reason."""
    assert vars(parse_args([])) == DEFAULTS


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


def test_no_default_is_hidden_from_help():
    known = {action.dest for action in get_parser()._actions if action.dest != "help"}
    assert known == set(DEFAULTS)
