"""What --demo changes: paths under runs/demo/, and the same model classes in small sizes, from random weights."""

from pathlib import Path

from utils.constants import IMAGE_FOLDERS

CONFIGS = Path(__file__).resolve().parents[1] / "models" / "configs"
DEMO = Path("runs/demo")

DEMO_DEFAULTS = {
    "nle_data_train_path": DEMO / "data" / "artEmisX_cl_train.json",
    "nle_data_val_path": DEMO / "data" / "artEmisX_val.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_val_annot_exp.json",
    "image_root": DEMO / "data" / IMAGE_FOLDERS[0],
    "vad_lexicon": DEMO / "data" / "demo-VAD-Lexicon.txt",
    "ckpt_path": DEMO / "ckpts",
    "caption_save_path": DEMO / "results",
    "cache_dir": DEMO / "cache",
    "clip_model": str(CONFIGS / "demo-clip-vit"),
    "gpt2_model": str(CONFIGS / "demo-gpt2"),
    "from_scratch": True,
    "fixed_encoder": False,
    "lemmatizer": "simplemma",
    "num_train_epochs": 5,
    "use_emotion_loss": True,  # without pretrained weights the image encoder learns emotions faster from votes than from words
    "emotion_loss_weight": 3.0,
    "cl_Loss_weight": 0.1,
    "batch_size": 8,
    "num_workers": 0,
    "learning_rate": 2e-3,
    "en_LR": 1e-3,
    "emo_en_LR": 2e-3,
}
# What --demo --split test changes besides.
DEMO_TEST = {
    "nle_data_val_path": DEMO / "data" / "artEmisX_test.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_test_annot_exp.json",
    "caption_save_path": DEMO / "results" / "test",
}
