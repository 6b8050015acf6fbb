"""Image encoders, decoders and tokenizers that cannot be loaded."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.bad_input import check_training_refused, content, torn, unchanged
from tests.conftest import GOLDEN, TINY_GPT2, TINY_VIT
from utils.data.text_codec import SHIPPED_BPE

LOAD = "--from_scratch False"
OPENAI_FILE = f"{LOAD} --clip_model clip.pt"


def another_bpe(box) -> None:
    """A tokenizer of GPT-2's size with two words exchanged."""
    vocabulary = json.loads((SHIPPED_BPE / "vocab.json").read_text())
    vocabulary["Ġdark"], vocabulary["Ġlight"] = vocabulary["Ġlight"], vocabulary["Ġdark"]
    box.write("gpt2/vocab.json", json.dumps(vocabulary))
    shutil.copy(SHIPPED_BPE / "merges.txt", box / "gpt2")


def added_token_with_a_wrong_id(box) -> None:
    shutil.copytree(SHIPPED_BPE, box / "gpt2", dirs_exist_ok=True)
    box.write("gpt2/added_tokens.json", json.dumps({"<pad>": 50257, "<explanation>": 50260}))


def vocabulary_of(size: object, tokenizer: bool = False):
    def change(box) -> None:
        box.json("gpt2/config.json", lambda config: config | {"vocab_size": size})
        if tokenizer:
            shutil.copytree(SHIPPED_BPE, box / "gpt2", dirs_exist_ok=True)

    return change


def openai_file_with_a_nan(box) -> None:
    state = load_file(GOLDEN / "image_encoder" / "weights.safetensors")
    state["class_embedding"][2] = torch.nan
    torch.save(state, box / "clip.pt")


NOT_GPT2 = "is not GPT-2's 50257; only GPT-2's vocabulary fits; give distilgpt2, gpt2"
NO_ENCODER = "--clip_model gone"  # is looked for later

# what -> (change, flags, message)
MODELS = {
    "no image encoder": (
        unchanged,
        "--clip_model gone",
        "--clip_model gone: no such folder, and HF_HUB_OFFLINE is set.*hf download gone",
    ),
    "no weights of the image encoder": (unchanged, LOAD, "--clip_model vit: no weights found.*hf download"),
    "OpenAI's name without its package": (unchanged, f"{LOAD} --clip_model ViT-B/16", "ViT-B/16.*pip install git"),
    "a ResNet": (unchanged, f"{LOAD} --clip_model RN50", "RN50: a ResNet.*ViT-B/16"),
    "image encoder of garbage": (
        content("clip.pt", b"junk" * 99),
        OPENAI_FILE,
        "clip.pt: truncated, modified or unsafe.*; give the id openai/clip-vit-base-patch16",
    ),
    "image encoder with a NaN": (
        openai_file_with_a_nan,
        OPENAI_FILE,
        "clip.pt: image encoder: embeddings.class_embedding holds numbers that are not finite .*; take another",
    ),
    "path of no image encoder": (
        unchanged,
        "--clip_model ./modell",
        "--clip_model ./modell: no such folder; check[^:]*$",
    ),
    "path of no decoder": (unchanged, "--gpt2_model ckpts/x/", "ckpts/x/: no such folder; check[^:]*$"),
    "no OpenAI file": (unchanged, f"{LOAD} --clip_model clipp.pt", "clipp.pt: no such file; check[^:]*$"),
    "folder without a config": (unchanged, "--clip_model data", "--clip_model data: no config.json in this folder"),
    "broken config of the image encoder": (content("vit/config.json", "{"), "", "--clip_model vit"),
    "no decoder": (unchanged, "--gpt2_model gone", "gone: no such folder, and HF_HUB_OFFLINE is set.*hf download gone"),
    "broken config of the decoder": (content("gpt2/config.json", "{"), "", "--gpt2_model gpt2"),
    "broken tokenizer": (
        content("gpt2/tokenizer.json", "{}"),
        NO_ENCODER,
        "gpt2/tokenizer.json: not the files of a GPT-2 tokenizer",
    ),
    "decoder of another BPE": (another_bpe, LOAD, "gpt2: its tokenizer has another token .*; give distilgpt2"),
    "decoder of another vocabulary": (vocabulary_of(21128), NO_ENCODER, f"gpt2: .*vocab_size 21128 {NOT_GPT2}"),
    "fewer rows than GPT-2's tokens": (vocabulary_of(30000, True), LOAD, f"gpt2: .*30000 {NOT_GPT2}"),
    "added token with a wrong id": (
        added_token_with_a_wrong_id,
        NO_ENCODER,
        "added token '<explanation>' has id 50260 instead of 50258",
    ),
    "nltk without its data": (
        unchanged,
        "--lemmatizer nltk",
        "--lemmatizer nltk: NLTK's .*python -m nltk.downloader",
    ),
}


@pytest.mark.parametrize(("change", "flags", "message"), MODELS.values(), ids=MODELS)
def test_model(box, monkeypatch, change, flags, message):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setitem(sys.modules, "clip", None)
    change(box)
    check_training_refused(box, message, flags)


# ---- weights as downloads have them ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    """Folders `vit` and `gpt2` with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

    root = tmp_path_factory.mktemp("weights")
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(root / "vit")
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(root / "gpt2")
    return root


LAST_NORM = {"vit": "vision_model.post_layernorm.weight", "gpt2": "transformer.ln_f.weight"}


def last_norm_becomes(box, folder: str, weight: torch.Tensor | None) -> None:
    """Replace the last normalisation's weight, or remove it (None). Some versions save it without the first prefix."""
    state = load_file(box / folder / "model.safetensors")
    long, short = LAST_NORM[folder], LAST_NORM[folder].partition(".")[2]
    name = long if long in state else short
    del state[name]
    if weight is not None:
        state[name] = weight
    save_file(state, box / folder / "model.safetensors", {"format": "pt"})


def config_is_of_another_width(box, folder: str) -> None:
    box.json(f"{folder}/config.json", lambda config: config | {"n_embd": 32, "hidden_size": 32})


# what -> (change, message behind the folder's name)
WEIGHTS = {
    "truncated weights": (lambda box, folder: torn(f"{folder}/model.safetensors")(box), ""),
    "a weight missing": (lambda box, folder: last_norm_becomes(box, folder, None), "lacks"),
    "a weight of another shape": (lambda box, folder: last_norm_becomes(box, folder, torch.zeros(2, 2)), ""),
    "a weight that is infinite": (
        lambda box, folder: last_norm_becomes(box, folder, torch.full((16,), -torch.inf)),
        r"[\w.]*(ln_f|layernorm).weight holds numbers that are not finite .*; give",
    ),
    "config of another width": (config_is_of_another_width, ""),
}


@pytest.mark.parametrize("folder", LAST_NORM)
@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(box, downloads, change, message, folder):
    shutil.copytree(downloads, box.root, dirs_exist_ok=True)
    change(box, folder)
    check_training_refused(box, f"_model {folder}: {message}", LOAD)
