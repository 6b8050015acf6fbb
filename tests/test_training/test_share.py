"""An exported model gives the captions of its checkpoint, and only a complete folder loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import artEmisX_train
from models.sevlm import SEVLM
from tests.conftest import without
from utils import explain, share
from utils.errors import InputError
from utils.files import sha256
from utils.training.build_model import load_checkpoint

pytestmark = pytest.mark.slow

PROMPT = " what i feel when looking is"


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    flags = "--num_train_epochs 1 --use_emotion_loss --seed 3 --no-use_cl_loss --en_LR 0.004 --emo_en_LR 0.002"
    flags += " --num_beams 2 --drop_last_token --alpha 1.5"
    argv = workspace.argv(out, *workspace.gpt2, *flags.split(), "--prompt_text", PROMPT)
    assert artEmisX_train.main(argv) == 0
    return out


@pytest.fixture(scope="module")
def exported(trained):
    assert share.main([str(trained / "ckpts"), str(trained / "exported" / "small"), "--name", "best-acc"]) == 0
    return trained / "exported" / "small"


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def scored(workspace, ckpt_path, out, *more):
    argv = without(workspace.argv(out), "ckpt_path", "from_scratch", "clip_model", "gpt2_model", "prefix_dim")
    assert artEmisX_train.main([*argv, "--eval_only", *more, "--ckpt_path", str(ckpt_path)]) == 0
    (captions,) = (out / "results").glob("unf_captions_full_*.json")
    report = json.loads((out / "results" / "report.json").read_text())
    return json.loads(captions.read_text()), report["scores"]


def test_checkpoint_and_folder_give_the_captions_of_the_training(workspace, trained, exported, tmp_path):
    """With a prompt of another length, which the emotion span follows: bos, six words, the emotion's two tokens."""
    config = json.loads((trained / "ckpts" / "nle_model_best-acc" / "config.json").read_text())
    assert config["emotion_span"] == 9
    expected = scored(workspace, trained / "ckpts", tmp_path / "a", "--load_from_epoch", "best-acc")
    assert expected[0] == json.loads((trained / "results" / "unf_captions_full_0_5_step.json").read_text())
    assert scored(workspace, exported, tmp_path / "b") == expected
    model = explain.load(exported, vad_lexicon=workspace.data / "demo-VAD-Lexicon.txt")  # with the recorded beams
    root = next(workspace.data.glob("wikiart_rescaled*"))
    assert [model(root / row["image_name"]).text for row in expected[0]] == [row["caption"] for row in expected[0]]


def test_the_folder_holds_the_checkpoints_weights_no_pickle_and_no_path(workspace, trained, exported):
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in exported.iterdir()
    }
    assert {path.suffix for path in exported.iterdir()} == {".json", ".safetensors", ".md"}
    for name in ("config.json", "README.md"):
        text = (exported / name).read_text()
        assert str(workspace.root) not in text and str(trained) not in text
    kept = json.loads((exported / "config.json").read_text())["sevlm_settings"]["fingerprints"].keys()
    assert {"lexicon_sha256", "training_texts_sha256", "precision", "images"} <= kept
    assert "lm_head" not in "".join(load_file(exported / "model.safetensors"))
    model, expected = SEVLM.from_pretrained(exported), load_checkpoint(trained / "ckpts", "best-acc").model.state_dict()
    state = model.state_dict()
    assert expected.keys() == state.keys() and all(torch.equal(expected[name], state[name]) for name in state)
    assert model.decoder.lm_head.weight is model.decoder.transformer.wte.weight and not model.training


def test_a_model_without_its_image_encoder_needs_one(trained, exported, tmp_path):
    model = load_checkpoint(trained / "ckpts", "best-acc").model
    model.save_pretrained(tmp_path / "model", include_encoder=False)
    with pytest.raises(ValueError, match="holds no image encoder; pass the one"):
        SEVLM.from_pretrained(tmp_path / "model")
    again, expected = SEVLM.from_pretrained(tmp_path / "model", model.image_encoder).state_dict(), model.state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    with pytest.raises(ValueError, match="holds its image encoder; pass no other"):
        SEVLM.from_pretrained(exported, model.image_encoder)


def test_the_card_tells_what_the_model_is(trained, exported, tmp_path):
    """Every setting with its own value: those of the run are no defaults, and differ from each other."""
    card = (exported / "README.md").read_text()
    fingerprints = json.loads((exported / "config.json").read_text())["sevlm_settings"]["fingerprints"]
    lines = (
        "- data: `artEmisX_cl_train.json` (45 images).",
        f"- VAD lexicon: SHA-256 {fingerprints['lexicon_sha256']}; not included",
        "- image encoder: `vit`, included; decoder: `gpt2`",
        "- use_VAD: True\n- use_VAD_loss: True\n- use_cl_loss: False\n- use_emotion_loss: True\n",
        "- num_train_epochs: 1\n- batch_size: 8\n- gradient_accumulation_steps: 1\n- learning_rate: 0.001\n"
        "- en_LR: 0.004\n- emo_en_LR: 0.002\n- seed: 3\n",
        "- alpha: 1.5\n",  # what has another value than the default
        f"- prompt_text: {PROMPT!r}\n- max_seq_len: 30\n- num_beams: 2\n- drop_last_token: True\n",
        "--vad_lexicon FILE",
        "No test report was given",
        "must not be used",
        "may not be passed on",
    )
    assert [line for line in lines if line not in card] == [] and "adam_eps" not in card


def test_a_report_on_the_card(trained, tmp_path):
    """It must be of the checkpoint as it is now."""
    digest = sha256(trained / "ckpts" / "nle_model_best-acc" / "manifest.json")
    report = {"checkpoint": "ckpts/nle_model_best-acc", "checkpoint_sha256": digest, "scores": {"sub_acc": 0.625}}
    report["test_set"] = "v1.0"

    def write(name: str, **changes: str) -> str:
        (tmp_path / "report.json").write_text(json.dumps(report | changes))
        share.main([str(trained), str(tmp_path / "model"), "--name", name, "--report", str(tmp_path / "report.json")])
        return (tmp_path / "model" / "README.md").read_text()

    with pytest.raises(InputError, match="is a report of ckpts/nle_model_best-acc, not of .*nle_model_best-res"):
        write("best-res")
    with pytest.raises(InputError, match="nle_model_best-acc as it is now"):
        write("best-acc", checkpoint_sha256="of another run")
    card = write("best-acc")
    assert "| this run " in card and "62.5" in card and "SEVLM (published)" in card


def test_scores_of_the_checkpoint_on_the_card():
    def card(stats: dict, included: bool, **flags) -> str:
        settings = {"flags": {"clip_model": "vit"} | flags, "fingerprints": {}}
        return share.model_card("small", settings, {}, stats, included, False)

    text = card({"best_acc": 0.4567, "best_res": 0.0912}, included=False)
    assert "emotion accuracy 45.7, best-res score 9.1" in text and "`vit`, not included: it is loaded by name" in text
    assert "VAD lexicon" not in text and "--vad_lexicon" not in text and "recorded no settings" not in text
    text = card({}, included=True, demo=True)
    assert "Best of its training" not in text and "The demo's data" in text


def test_weights_that_are_not_the_models(copy):
    good = load_file(copy / "model.safetensors")
    for name, weight, message in (
        ("unknown", torch.zeros(1), "do not fit"),
        ("decoder.transformer.ln_f.bias", torch.zeros(1), "do not fit"),
        ("emotion_head.bias", torch.full((9,), torch.nan), "emotion_head.bias holds numbers that are not"),
    ):
        save_file(good | {name: weight}, copy / "model.safetensors")
        with pytest.raises(InputError, match=f"{message}.*; copy the folder again"):
            load_checkpoint(copy)


def test_a_pickle_in_its_place_is_not_read(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        SEVLM.from_pretrained(copy)


def test_a_config_cannot_ask_for_code(copy):
    config = json.loads((copy / "config.json").read_text())
    asked = dict.fromkeys(("attn_implementation", "_attn_implementation"), "some/repo") | {"auto_map": {"A": "b.C"}}
    for part in ("decoder_config", "vision_config"):
        config[part] |= asked
    (copy / "config.json").write_text(json.dumps(config))
    model = SEVLM.from_pretrained(copy)
    for part in (model.decoder.config, model.image_encoder.vision.config):
        assert part._attn_implementation == "sdpa" and not hasattr(part, "auto_map")


WRONG = {"n_layer": "two"}
DAMAGED = {"decoder_config": WRONG, "vision_config": WRONG, "sevlm_settings": {"flags": []}, "model_type": "gpt2"}


@pytest.mark.parametrize("field", DAMAGED)
def test_damaged_configs(workspace, copy, field):
    config = json.loads((copy / "config.json").read_text())
    missing = {name: value for name, value in config.items() if name != field}
    for damaged in (missing, config | {field: DAMAGED[field]}):
        (copy / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(InputError):
            load_checkpoint(copy, None, ["--vad_lexicon", str(workspace.data / "demo-VAD-Lexicon.txt")])


def test_bad_input(workspace, trained, exported, tmp_path):
    for argv, message in (
        ([tmp_path / "none", tmp_path / "out"], "no such folder"),
        ([trained / "ckpts", exported], "exists already"),
        ([exported, tmp_path / "out"], "is an exported model already"),
        ([trained / "ckpts", tmp_path / "out", "--encoder", "reference"], "has random weights"),
        (["nobody/nothing", tmp_path / "out"], "unset HF_HUB_OFFLINE"),
        ([trained / "ckpts", tmp_path / "out", "--push_to_hub", "x"], "an id such as me/my-sevlm"),
        ([trained / "ckpts", tmp_path / "out", "--private"], "pass both"),
    ):
        with pytest.raises(InputError, match=message):
            share.main([str(part) for part in argv])
    with pytest.raises(InputError, match="is one exported model"):
        artEmisX_train.main(["--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(exported)])
    with pytest.raises(InputError, match="a training needs another --ckpt_path"):
        artEmisX_train.main(["--ckpt_path", str(exported)])
    with pytest.raises(InputError, match=r"leave the checkpoint's name \(best-acc\) out"):
        explain.main([str(next(workspace.data.rglob("*.jpg"))), "--ckpt", str(exported), "--name", "best-acc"])
    with pytest.raises(InputError, match="leave --clip_model out"):
        load_checkpoint(exported, None, ["--clip_model", str(workspace.root / "vit2")])
    assert not (tmp_path / "out").exists()


def test_upload(trained, tmp_path, monkeypatch, capsys):
    """Up to the wire: what is created and what is sent; a hub that fails leaves the folder and one line."""
    sent = {}

    def create(self, name, **options):
        if name == "me/none":
            raise ConnectionError("no network")
        sent[name] = options

    def upload(self, repo_id, folder_path, repo_type):
        sent[repo_id]["files"] = {path.name for path in folder_path.iterdir()}
        return "https://x"

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)

    def push(out: str, name: str) -> None:
        share.main([str(trained / "ckpts"), str(tmp_path / out), "--private", "--push_to_hub", name])

    push("out", "me/model")
    assert "https://x" in capsys.readouterr().out
    assert {"README.md", "model.safetensors"} <= sent["me/model"].pop("files")
    assert sent == {"me/model": {"private": True, "exist_ok": True, "repo_type": "model", "space_sdk": None}}
    kept = "no network; the folder .* is complete: .*`hf upload me/none .*out2 --private`"
    with pytest.raises(InputError, match=kept):
        push("out2", "me/none")
    assert (tmp_path / "out2" / "model.safetensors").is_file()
