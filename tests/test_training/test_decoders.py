"""Decoders: GPT-2 of every size, one with cross-attention and added tokens of its own, and the line that says what is new."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

from models.image_encoder import ImageFeatures
from tests.conftest import TINY_GPT2
from utils.command_line import parse_args
from utils.data import pretrained
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
    return model.eval()


def build(folder, *more: str):
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


def check_parity(decoder, gpt2: GPT2LMHeadModel) -> None:
    """Without VAD fusion the hidden states are those of transformers' own GPT-2 that attends to the grid."""
    decoder.eval()
    width = gpt2.config.n_embd
    grid, ids = torch.randn(2, 5, width), torch.randint(50257, (2, 7))
    segments = torch.full_like(ids, 11)
    with torch.no_grad():
        weights = decoder(ids, segments, ImageFeatures(torch.zeros(2, width), grid))
        embeddings = gpt2.transformer.wte(ids) + gpt2.transformer.wte(segments)
        expected = gpt2.transformer(inputs_embeds=embeddings, encoder_hidden_states=grid).last_hidden_state
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [(), ("--from_scratch", "decoder")])
def test_a_mistake_in_our_own_class_is_no_fault_of_the_files(tmp_path, monkeypatch, more):
    save(tmp_path)
    monkeypatch.setattr("models.decoder.Dropout", lambda rate: rate.nothing)
    with pytest.raises(AttributeError, match="nothing"):
        build(tmp_path, *more)
    (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2 | {"n_head": 3}))
    with pytest.raises(InputError, match="config.json: .*use another model"):
        build(tmp_path, *more)


def save_nlx_tokenizer(folder: Path, old: bool) -> None:
    tokenizer = GPT2TokenizerFast(str(SHIPPED_BPE / "vocab.json"), str(SHIPPED_BPE / "merges.txt"))
    added = ["<question>", "<answer>", "<explanation>"]
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": added})
    assert tokenizer.convert_tokens_to_ids(["<pad>", *added]) == [50257, 50258, 50259, 50260]
    tokenizer.save_pretrained(folder)
    if old:
        (folder / "tokenizer.json").unlink()
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(SHIPPED_BPE / file, folder)
        (folder / "added_tokens.json").write_text(json.dumps(tokenizer.get_added_vocab()))


@pytest.mark.parametrize("old", [True, False], ids=["vocab.json", "tokenizer.json"])
def test_caption_pretrained(tmp_path, old):
    gpt2 = save(tmp_path, vocab_size=50261, add_cross_attention=True)
    save_nlx_tokenizer(tmp_path, old)
    decoder, codec = build(tmp_path)
    weights, saved = decoder.state_dict(), gpt2.state_dict()
    for name in saved.keys() - {"transformer.wte.weight", "lm_head.weight"}:
        assert torch.equal(weights[name], saved[name]), name
    assert torch.equal(weights["transformer.wte.weight"][:50261], saved["transformer.wte.weight"])
    assert (codec.pad_id, codec.explanation_id) == (50257, 50260)
    check_drawn(decoder, codec, "<prefix>", "<emotion>")
    check_parity(decoder, gpt2)
    added = "4 added tokens (<pad> <question> <answer> <explanation>)"
    assert decoder.origin == (
        f"decoder {tmp_path}: 44 weights loaded, with {added}; drawn at random: {NEW}, 2 tokens (<prefix> <emotion>)"
    )


@pytest.mark.parametrize(
    ("rows", "tokenizer", "drawn", "size", "origin"),
    [
        (50257, None, ADDED, 50261, f"28 weights loaded; {ALL_NEW}"),
        # as many rows as SEVLM's, but they may be <question> and <answer>
        (50261, None, ADDED, 50261, f"{ALL_NEW}; ignored: 4 rows of the token table without"),
        (50304, "GPT-2's", ADDED, 50261, f"{ALL_NEW}; ignored: 47 rows"),  # padded
        (
            50257,
            "NLX-GPT's",
            f"{ADDED} <question>",
            50263,
            "6 tokens (<pad> <question> <answer> <explanation> <prefix>",
        ),
    ],
)
def test_rows_of_the_token_table(tmp_path, rows, tokenizer, drawn, size, origin):
    save(tmp_path, vocab_size=rows)
    if tokenizer == "GPT-2's":
        shutil.copytree(SHIPPED_BPE, tmp_path, dirs_exist_ok=True)
    elif tokenizer:
        save_nlx_tokenizer(tmp_path, old=False)
    decoder, codec = build(tmp_path)
    assert decoder.transformer.wte.weight.shape[0] == decoder.config.vocab_size == len(codec.tokenizer) == size
    check_drawn(decoder, codec, *drawn.split())
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


def test_output_layer_of_its_own(tmp_path):
    """The table needs no new rows here: transformers ties the two again only where it resizes them."""
    gpt2 = save(tmp_path, tie_word_embeddings=False, vocab_size=50263)
    save_nlx_tokenizer(tmp_path, old=False)
    decoder, codec = build(tmp_path)
    assert decoder.lm_head.weight is decoder.transformer.wte.weight
    assert torch.equal(decoder.lm_head.weight[:50261], gpt2.transformer.wte.weight[:50261])
    check_drawn(decoder, codec, "<prefix>", "<emotion>")
    assert "; ignored: lm_head.weight, which SEVLM does not use" in decoder.origin


def test_heads_and_older_names(tmp_path):
    """Tiny, with gpt2-xl's number of heads and the files' older names, which lack `transformer.`."""
    gpt2 = save(tmp_path, n_embd=100, n_head=25, add_cross_attention=True)
    state = load_file(tmp_path / "model.safetensors")
    state = {part.removeprefix("transformer."): tensor for part, tensor in state.items() if part != "lm_head.weight"}
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    decoder, _ = build(tmp_path, "--prefix_dim", "100")
    check_parity(decoder, gpt2)


def test_another_kind_of_model(workspace, tmp_path):
    config = json.loads((workspace.root / "gpt2" / "config.json").read_text()) | {"model_type": "opt"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="config.json: is a opt model; only .* supported"):
        build(tmp_path)


def test_id_with_another_vocabulary(tmp_path, monkeypatch):
    """A Hugging Face id of GPT-2's size is asked for its tokenizer: GPT-2's would name other words' rows."""
    (tmp_path / "config.json").write_text(json.dumps(TINY_GPT2))
    vocabulary = json.loads((SHIPPED_BPE / "vocab.json").read_text())
    vocabulary["Ġdark"], vocabulary["Ġlight"] = vocabulary["Ġlight"], vocabulary["Ġdark"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    shutil.copy(SHIPPED_BPE / "merges.txt", tmp_path)

    def fetch(_name: str, file: str) -> Path | None:
        return tmp_path / file if (tmp_path / file).exists() else None

    monkeypatch.setattr(pretrained, "fetch_file", fetch)
    with pytest.raises(InputError, match="--gpt2_model some/gpt2: its tokenizer has another token .* give distilgpt2"):
        build("some/gpt2")
