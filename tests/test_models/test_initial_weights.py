"""Initial values: what no file brings is drawn as GPT-2 draws it, and what a file brings is the file's."""

import json
import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tests.conftest import TINY_VIT
from utils.command_line import parse_args
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.training.build_model import build_model

RANGE, BLOCKS = 0.05, 3  # not the defaults, so that a constant in their place shows
SIZES = {"n_embd": 96, "n_layer": BLOCKS, "n_head": 4, "n_positions": 64, "initializer_range": RANGE}
FLAGS = ["--use_emotion_loss", "--len_prefix", "2", "--prefix_dim", "16"]
CROSS_ATTENTION = ("crossattention.q_attn", "crossattention.c_attn", "crossattention.c_proj", "ln_cross_attn")
NEW_PARTS = (*CROSS_ATTENTION, "VAD_linear", "clip_project", "image_projection", "sim_mlp", "VAD_head")


@pytest.fixture(scope="module")
def saved_gpt2(tmp_path_factory):
    """A GPT-2 without cross-attention, as distilgpt2 is, whose weights are far from any initial value."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("gpt2")
    model = GPT2LMHeadModel(GPT2Config(**SIZES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.5, 0.3)
    model.save_pretrained(folder)
    (folder / "vit").mkdir()
    (folder / "vit" / "config.json").write_text(json.dumps(TINY_VIT))
    return folder, model.state_dict()


def build(folder, *more):
    torch.manual_seed(0)
    args = parse_args(["--clip_model", str(folder / "vit"), "--gpt2_model", str(folder), *FLAGS, *more])
    codec = TextCodec(load_tokenizer(str(folder)), args.prompt_text, args.max_seq_len, args.len_prefix)
    return build_model(args, codec, None)


def check_new(name: str, tensor: torch.Tensor) -> None:
    if ".ln_" in name or name.endswith("bias"):
        assert torch.equal(tensor, torch.full_like(tensor, float(name.endswith("weight")))), name
        return
    std = RANGE / math.sqrt(2 * BLOCKS) if name.endswith("c_proj.weight") else RANGE
    assert tensor.std(correction=0).item() == pytest.approx(std, rel=6 / math.sqrt(2 * tensor.numel())), name
    assert abs(tensor.mean().item()) <= 6 * std / math.sqrt(tensor.numel()), name


def test_every_new_tensor_beside_a_saved_gpt2(saved_gpt2):
    folder, saved = saved_gpt2
    model, kinds = build(folder, "--from_scratch", "encoder"), set()
    for name, tensor in model.decoder.named_parameters():
        if name == "transformer.wte.weight":
            assert torch.equal(tensor[:50257], saved[name]) and tensor.shape[0] == 50261
            check_new("added rows", tensor[50257:])
        elif name in saved:
            assert torch.equal(tensor, saved[name]), name
        else:
            kinds.add(next(part for part in NEW_PARTS if part in name))
            check_new(name, tensor)
    assert kinds == set(NEW_PARTS)


def test_every_tensor_from_scratch(saved_gpt2):
    folder, saved = saved_gpt2
    model = build(folder, "--from_scratch")
    names = dict(model.decoder.named_parameters())
    scaled = {f"transformer.h.2.{part}.c_proj.weight" for part in ("attn", "crossattention", "mlp")}
    assert (set(saved) - {"lm_head.weight"} | scaled) <= set(names)
    for name, tensor in names.items():
        check_new(name, tensor)
    assert model.decoder.lm_head.weight is model.decoder.transformer.wte.weight
    assert model.emotion_head.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not model.emotion_head.bias.any()
    assert model.vad_encoder.pos_encoder.weight.std().item() == pytest.approx(1.0, rel=0.05)
