"""Image encoders, decoders and tokenizers that cannot be loaded."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from tests.bad_input import check_training_refused, content, torn, unchanged
from tests.conftest import GOLDEN, TINY_GPT2, TINY_VIT
from utils.data.text_codec import SHIPPED_BPE

LOAD = "--from_scratch False"
NO_ENCODER = "--clip_model gone"  # which is looked for later


def another_bpe(box) -> None:
    """A tokenizer of GPT-2's size with two words exchanged."""
    vocabulary = json.loads((SHIPPED_BPE / "vocab.json").read_text())
    vocabulary["Ġdark"], vocabulary["Ġlight"] = vocabulary["Ġlight"], vocabulary["Ġdark"]
    box.write("gpt2/vocab.json", json.dumps(vocabulary))
    shutil.copy(SHIPPED_BPE / "merges.txt", box / "gpt2")


def added_token_with_a_wrong_id(box) -> None:
    shutil.copytree(SHIPPED_BPE, box / "gpt2", dirs_exist_ok=True)
    box.write("gpt2/added_tokens.json", json.dumps({"<pad>": 50257, "<explanation>": 50260}))


def vocabulary_of(size: int):
    return content("gpt2/config.json", json.dumps(TINY_GPT2 | {"vocab_size": size}))


def openai_file_with_a_nan(box) -> None:
    state = load_file(GOLDEN / "image_encoder" / "weights.safetensors")
    state["class_embedding"][2] = torch.nan
    torch.save(state, box / "clip.pt")


NOT_GPT2 = "is not GPT-2's 50257; only GPT-2's vocabulary fits; give distilgpt2, gpt2"
OFFLINE = "gone: no such folder, and HF_HUB_OFFLINE is set.*hf download gone"

# (change, flags, message)
MODELS = [
    (unchanged, NO_ENCODER, f"--clip_model {OFFLINE}"),
    (unchanged, LOAD, "--clip_model vit: no weights found.*hf download"),
    (unchanged, f"{LOAD} --clip_model ViT-B/16", "ViT-B/16.*pip install git"),
    (unchanged, f"{LOAD} --clip_model RN50", "RN50: a ResNet.*ViT-B/16"),
    (
        openai_file_with_a_nan,
        f"{LOAD} --clip_model clip.pt",
        "clip.pt: image encoder: embeddings.class_embedding holds numbers that are not finite .*; use another",
    ),
    (unchanged, "--clip_model data", "--clip_model data: no config.json in this folder"),
    (content("vit/config.json", "{"), "", "--clip_model vit: vit/config.json: not valid JSON"),
    (unchanged, "--gpt2_model gone", OFFLINE),
    (content("gpt2/tokenizer.json", "{}"), NO_ENCODER, "gpt2/tokenizer.json: not the files of a GPT-2 tokenizer"),
    (another_bpe, LOAD, "gpt2: its tokenizer has another token .*; give distilgpt2"),
    (vocabulary_of(50256), NO_ENCODER, f"gpt2: .*vocab_size 50256 {NOT_GPT2}"),
    (vocabulary_of(51258), NO_ENCODER, f"gpt2: .*vocab_size 51258 {NOT_GPT2}"),
    (added_token_with_a_wrong_id, NO_ENCODER, "added token '<explanation>' has id 50260 instead of 50258"),
    (unchanged, "--lemmatizer nltk", "--lemmatizer nltk: NLTK's .*python -m nltk.downloader"),
]


@pytest.mark.parametrize(("change", "flags", "message"), MODELS)
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
    root = tmp_path_factory.mktemp("weights")
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(root / "vit")
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(root / "gpt2")
    return root


def last_norm(weight: torch.Tensor | None):
    """Replace the last normalisation's weight, or remove it (None)."""

    def change(box, folder: str) -> None:
        state = load_file(box / folder / "model.safetensors")
        (name,) = (name for name in state if name.endswith(("post_layernorm.weight", "ln_f.weight")))
        del state[name]
        save_file(state if weight is None else state | {name: weight}, box / folder / "model.safetensors")

    return change


def config_of_another_width(box, folder: str) -> None:
    box.json(f"{folder}/config.json", lambda config: config | {"n_embd": 32, "hidden_size": 32})


# what -> (change, message behind the folder's name)
WEIGHTS = {
    "truncated weights": (lambda box, folder: torn(f"{folder}/model.safetensors")(box), ".*truncated"),
    "a weight missing": (last_norm(None), "lacks"),
    "a weight of another shape": (last_norm(torch.zeros(2, 2)), "weights of another shape: .*norm|ln_f"),
    "a weight that is infinite": (
        last_norm(torch.full((16,), -torch.inf)),
        r"[\w.]*(ln_f|layernorm).weight holds numbers that are not finite .*; give",
    ),
    "config of another width": (config_of_another_width, "weights"),
}


@pytest.mark.parametrize("folder", ["vit", "gpt2"])
@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights(box, downloads, change, message, folder):
    shutil.copytree(downloads, box.root, dirs_exist_ok=True)
    change(box, folder)
    check_training_refused(box, f"_model {folder}: {message}", LOAD)
