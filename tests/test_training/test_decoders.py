"""Decoders: GPT-2 of every size, one with cross-attention and added tokens of its own, and the line that says what is new."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from models.decoder import Explainer
from tests.conftest import TINY_GPT2
from utils.command_line import parse_args
from utils.data.text_codec import SHIPPED_BPE, TextCodec, check_vocabulary, load_tokenizer
from utils.errors import InputError
from utils.training.build_model import build_decoder, model_config

NEW = "VAD fusion, contrastive head, VAD head"
ADDED = "<pad> <prefix> <emotion> <explanation>"
ALL_NEW = f"drawn at random: cross-attention, {NEW}, 4 tokens ({ADDED})"


def save(folder: Path, **fields) -> GPT2LMHeadModel:
    """Save transformers' own GPT-2 with weights far from any initial value."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(**TINY_GPT2 | fields))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    model.save_pretrained(folder)
    return model


def build(folder: Path, *more: str) -> tuple[Explainer, TextCodec]:
    """The decoder of --gpt2_model, and its codec."""
    torch.manual_seed(0)
    args = parse_args(["--gpt2_model", str(folder), "--prefix_dim", "16", *more])
    tokenizer = load_tokenizer(str(folder))
    check_vocabulary(str(folder), tokenizer)
    codec = TextCodec(tokenizer, args.prompt_text, args.max_seq_len, args.len_prefix)
    return build_decoder(args, codec, None, model_config(args, codec, None)), codec


def check_drawn(decoder, codec, *tokens: str) -> None:
    """These tokens' rows are small, as drawn rows are; those of `save` are not."""
    rows = decoder.transformer.wte.weight[codec.tokenizer.convert_tokens_to_ids(list(tokens))]
    assert rows.std().item() == pytest.approx(0.02, rel=6 / math.sqrt(32 * len(tokens)))


@pytest.mark.parametrize("more", [(), ("--from_scratch", "decoder")])
def test_a_mistake_in_our_own_class_is_no_fault_of_the_files(tmp_path, monkeypatch, more):
    save(tmp_path)
    monkeypatch.setattr("models.decoder.Dropout", lambda rate: rate.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        build(tmp_path, *more)
    (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2 | {"n_head": 3}))
    with pytest.raises(InputError, match="config.json: .*use another model"):
        build(tmp_path, *more)


@pytest.mark.parametrize("old", [True, False])
def test_caption_pretrained(tmp_path, old):
    """As NLX-GPT is: with cross-attention and added tokens. Old: the files of earlier versions of transformers."""
    gpt2 = save(tmp_path, vocab_size=50261, add_cross_attention=True)
    tokenizer = GPT2TokenizerFast(str(SHIPPED_BPE / "vocab.json"), str(SHIPPED_BPE / "merges.txt"))
    added = ["<question>", "<answer>", "<explanation>"]
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": added})
    tokenizer.save_pretrained(tmp_path)
    if old:
        (tmp_path / "tokenizer.json").unlink()
        shutil.copytree(SHIPPED_BPE, tmp_path, dirs_exist_ok=True)
        (tmp_path / "added_tokens.json").write_text(json.dumps(tokenizer.get_added_vocab()))
        state = load_file(tmp_path / "model.safetensors")
        state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
        save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    decoder, codec = build(tmp_path)
    weights, saved = decoder.state_dict(), gpt2.state_dict()
    for name in saved.keys() - {"transformer.wte.weight", "lm_head.weight"}:
        assert torch.equal(weights[name], saved[name]), name
    assert torch.equal(weights["transformer.wte.weight"][:50261], saved["transformer.wte.weight"])
    assert (codec.pad_id, codec.explanation_id) == (50257, 50260)
    check_drawn(decoder, codec, "<prefix>", "<emotion>")
    added = "4 added tokens (<pad> <question> <answer> <explanation>)"
    assert decoder.origin == (
        f"decoder {tmp_path}: 44 weights loaded, with {added}; drawn at random: {NEW}, 2 tokens (<prefix> <emotion>)"
    )


@pytest.mark.parametrize(
    ("rows", "with_tokenizer", "origin"),
    [
        (50257, False, f"28 weights loaded; {ALL_NEW}"),
        # as many rows as SEVLM's, but they may be <question> and <answer>
        (50261, False, f"{ALL_NEW}; ignored: 4 rows of the token table without"),
        (50304, True, f"{ALL_NEW}; ignored: 47 rows"),  # padded
    ],
)
def test_rows_of_the_token_table(tmp_path, rows, with_tokenizer, origin):
    save(tmp_path, vocab_size=rows)
    if with_tokenizer:
        shutil.copytree(SHIPPED_BPE, tmp_path, dirs_exist_ok=True)
    decoder, codec = build(tmp_path)
    assert decoder.transformer.wte.weight.shape[0] == decoder.config.vocab_size == len(codec.tokenizer) == 50261
    check_drawn(decoder, codec, *ADDED.split())
    assert origin in decoder.origin


def test_checkpoint_of_this_model(tmp_path):
    save(tmp_path / "gpt2")
    first, codec = build(tmp_path / "gpt2")
    first.save_pretrained(tmp_path / "saved")
    second, _ = build(tmp_path / "saved")
    loaded = f"{len(list(first.parameters()))} weights loaded, with 4 added tokens ({ADDED})"
    assert second.origin == f"decoder {tmp_path / 'saved'}: {loaded}"
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_weights_that_are_missing_or_have_no_place(tmp_path):
    save(tmp_path, add_cross_attention=True)
    state = load_file(tmp_path / "model.safetensors")
    for name in [name for name in state if name.startswith("transformer.h.1.ln_cross_attn")]:
        del state[name]
    state |= {"score.weight": torch.zeros(2), "score.bias": torch.zeros(2), "transformer.h.0.attn.bias": torch.ones(1)}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    origin = build(tmp_path)[0].origin
    assert f"42 weights loaded; drawn at random: cross-attention (2 of 16 weights), {NEW}" in origin
    assert origin.endswith("; ignored: score.bias and 1 more, which SEVLM does not use")


def test_another_kind_of_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2 | {"model_type": "opt"}))
    with pytest.raises(InputError, match="config.json: is a opt model; only .* supported"):
        build(tmp_path)
