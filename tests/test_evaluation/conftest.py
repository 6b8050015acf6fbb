"""What several tests of evaluation share."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

import artEmisX_train
from models.sevlm import SEVLM
from tests.test_evaluation.tiny import CLIP_LENGTH, CLIP_SIDE, build
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.evaluation.evaluator import Evaluator


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 30)


@pytest.fixture(scope="session")
def model(codec) -> SEVLM:
    """Random weights, GPT-2's vocabulary."""
    return build(len(codec.tokenizer), 4)


@pytest.fixture(scope="session")
def run(workspace, tmp_path_factory) -> Path:
    """A run with an emotion head, a gallery and its lexicon; its weights are so large that images get different texts."""
    out, evaluate = tmp_path_factory.mktemp("evaluated") / "runs" / "demo", Evaluator.__call__
    out.mkdir(parents=True)
    lexicon = shutil.copy(workspace.data / "demo-VAD-Lexicon.txt", out / "VAD.txt")

    def with_large_weights(self, model):
        torch.manual_seed(0)
        with torch.no_grad():
            for part in (model.decoder, model.vad_encoder, model.emotion_head):
                for parameter in part.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return evaluate(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", with_large_weights)
        flags = ("--num_train_epochs", "1", "--batch_size", "45", "--use_emotion_loss", "--gallery", "50")
        assert artEmisX_train.main(workspace.argv(out, *workspace.gpt2, *flags, "--vad_lexicon", str(lexicon))) == 0
    return out


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A folder with a whole CLIP model, its tokenizer made of bytes and a few merges."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    letters = list(bytes_to_unicode().values())
    merges = [("s", "e"), ("se", "a</w>"), ("t", "h"), ("th", "e</w>"), ("d", "a"), ("da", "r"), ("dar", "k</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=merges).save_pretrained(folder)
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = half | {"vocab_size": len(tokens), "max_position_embeddings": CLIP_LENGTH, "projection_dim": 8}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": 1}
    vision = half | {"image_size": CLIP_SIDE, "patch_size": 16, "projection_dim": 8}
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    with torch.no_grad():  # far from the initial weights, so that texts and images differ clearly
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """axe-core's script, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm, which axe-core is had from")
    try:
        subprocess.run(["npm", "pack", "axe-core"], cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot fetch axe-core")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/requirements.txt")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=flags)
        yield started
        started.close()
