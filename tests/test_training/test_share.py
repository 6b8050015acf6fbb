"""An exported model gives the captions of its checkpoint, and only a complete folder loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import artEmisX_train
from models.sevlm import SEVLM
from tests.conftest import REPOSITORY
from utils import explain, share
from utils.errors import InputError
from utils.opts import declared
from utils.training.build_model import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    argv = workspace.argv(out, "--num_train_epochs", "1", "--use_emotion_loss", "--seed", "3")
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
    argv = workspace.argv(out, "--eval_only", *more)
    for flag in ("--ckpt_path", "--from_scratch", "--clip_model", "--gpt2_model"):
        while flag in argv:
            at = argv.index(flag)
            del argv[at : at + (1 if argv[at + 1 : at + 2] and argv[at + 1].startswith("--") else 2)]
    assert artEmisX_train.main([*argv, "--ckpt_path", str(ckpt_path)]) == 0
    (captions,) = (out / "results").glob("unf_captions_full_*.json")
    report = json.loads((out / "results" / "report.json").read_text())
    return json.loads(captions.read_text()), report["scores"]


def test_evaluation_of_the_folder_is_that_of_the_checkpoint(workspace, trained, exported, tmp_path):
    expected = scored(workspace, trained / "ckpts", tmp_path / "a", "--load_from_epoch", "best-acc")
    assert scored(workspace, exported, tmp_path / "b") == expected


def test_explained_in_another_process_and_folder(workspace, trained, exported, tmp_path):
    """The same answer about an image as from the checkpoint."""
    (image, *_) = sorted(workspace.data.rglob("*.jpg"))
    lexicon = next(workspace.data.glob("*Lexicon*.txt"))
    answers = []
    for ckpt in (["--ckpt", str(trained / "ckpts"), "--name", "best-acc"], ["--ckpt", str(exported)]):
        file = tmp_path / f"{len(answers)}.json"
        argv = [str(image), *ckpt, "--vad_lexicon", str(lexicon), "--json", str(file)]
        if answers:
            code = (
                f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from utils.explain import main; main({argv!r})"
            )
            subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
        else:
            assert explain.main(argv) == 0
        answers.append(json.loads(file.read_text()))
    assert answers[0] == answers[1]


def test_the_folder_holds_no_pickle_and_no_path_of_this_machine(workspace, trained, exported):
    names = sorted(path.name for path in exported.iterdir())
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".pt", ".tar", ".pkl"))]
    for name in ("config.json", "README.md"):
        text = (exported / name).read_text()
        assert str(workspace.root) not in text and str(trained) not in text
    card = (exported / "README.md").read_text()
    fields = json.loads((exported / "config.json").read_text())
    assert fields["sevlm_settings"]["fingerprints"]["lexicon_sha256"] in card
    assert "must not be used" in card and "No test report was given" in card and "seed: 3" in card
    assert "lm_head" not in "".join(load_file(exported / "model.safetensors"))


def test_every_weight_is_the_checkpoints(trained, exported):
    expected = load_checkpoint(trained / "ckpts", "best-acc").model.state_dict()
    model = SEVLM.from_pretrained(exported)
    state = model.state_dict()
    assert expected.keys() == state.keys() and all(torch.equal(expected[name], state[name]) for name in state)
    assert model.decoder.lm_head.weight is model.decoder.transformer.wte.weight and not model.training


def test_saved_again_by_the_model_itself(exported, tmp_path):
    SEVLM.from_pretrained(exported).save_pretrained(tmp_path / "again")
    first, again = load_file(exported / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)


def change_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("decoder.transformer.ln_f.bias"),
        lambda state: state.update(unknown=torch.zeros(1)),
        lambda state: state.update({"emotion_head.bias": torch.zeros(8)}),
    ],
)
def test_weights_that_are_not_the_models(copy, change):
    change_weights(copy, change)
    with pytest.raises(ValueError, match="do not fit"):
        SEVLM.from_pretrained(copy)
    with pytest.raises(InputError, match="copy the folder again"):
        load_checkpoint(copy)


def test_weights_that_are_not_finite(copy):
    change_weights(copy, lambda state: state["image_encoder.vision.post_layernorm.bias"][1].fill_(torch.nan))
    with pytest.raises(ValueError, match="post_layernorm.bias holds numbers that are not finite"):
        SEVLM.from_pretrained(copy)
    with pytest.raises(
        InputError, match="post_layernorm.bias holds numbers that are not finite .*; copy the folder again"
    ):
        load_checkpoint(copy)


def test_a_pickle_in_its_place_is_not_read(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        SEVLM.from_pretrained(copy)


def test_a_config_cannot_ask_for_code(copy):
    config = json.loads((copy / "config.json").read_text())
    for part in ("decoder_config", "vision_config"):
        config[part] |= {
            "attn_implementation": "some/repo",
            "_attn_implementation": "some/repo",
            "auto_map": {"A": "b.C"},
        }
    (copy / "config.json").write_text(json.dumps(config))
    model = SEVLM.from_pretrained(copy)
    assert model.decoder.config._attn_implementation == "sdpa" and not hasattr(model.decoder.config, "auto_map")
    assert model.image_encoder.vision.config._attn_implementation == "sdpa"


def test_damaged_configs(workspace, copy):
    lexicon = ["--vad_lexicon", str(next(workspace.data.glob("*Lexicon*.txt")))]
    load_checkpoint(copy, None, lexicon)  # before it is damaged
    config = json.loads((copy / "config.json").read_text())
    for change in (
        {"decoder_config": {}},
        {"decoder_config": config["decoder_config"] | {"n_layer": "two"}},
        {"vision_config": config["vision_config"] | {"model_type": "siglip_vision_model"}},
        {"sevlm_settings": {"flags": []}},
        {"model_type": "gpt2"},
    ):
        (copy / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError):
            load_checkpoint(copy, None, lexicon)
    for field in config.keys() - {"architectures"}:
        (copy / "config.json").write_text(json.dumps({name: value for name, value in config.items() if name != field}))
        with pytest.raises(InputError):
            load_checkpoint(copy, None, lexicon)


def test_a_fixed_encoder_by_reference(workspace, trained, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="has random weights|was trained"):
        share.main([str(trained / "ckpts"), str(tmp_path / "x"), "--encoder", "reference"])
    assert not (tmp_path / "x").exists() and list(tmp_path.iterdir()) == []


def test_bad_input(workspace, trained, exported, tmp_path, monkeypatch):
    for argv, message in (
        ([tmp_path / "none", tmp_path / "out"], "no such folder"),
        ([trained / "ckpts", exported], "exists already"),
        ([exported, tmp_path / "out"], "is an exported model already"),
        ([trained / "ckpts", tmp_path / "out", "--name", "best-none"], "no checkpoint 'best-none'"),
        (["nobody/nothing", tmp_path / "out"], "unset HF_HUB_OFFLINE"),
        ([trained / "ckpts", tmp_path / "out", "--push_to_hub", "x"], "an id such as me/my-sevlm"),
    ):
        with pytest.raises(InputError, match=message):
            share.main([str(part) for part in argv])
    with pytest.raises(InputError, match="is one exported model"):
        artEmisX_train.main(["--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(exported)])
    with pytest.raises(InputError, match="a training needs another --ckpt_path"):
        artEmisX_train.main(["--ckpt_path", str(exported)])
    with pytest.raises(InputError, match="leave --name out"):
        explain.main([str(next(workspace.data.rglob("*.jpg"))), "--ckpt", str(exported), "--name", "best-acc"])
    with pytest.raises(InputError, match="leave --clip_model out"):
        load_checkpoint(exported, None, ["--clip_model", str(workspace.root / "vit2")])
    assert not (tmp_path / "out").exists()


def test_upload(trained, tmp_path, monkeypatch, capsys):
    """Up to the wire: what is created and what is sent; a hub that fails leaves the folder and one line."""
    import huggingface_hub

    sent = []
    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, name, **more: sent.append((name, more["private"]))
    )
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "upload_folder",
        lambda self, repo_id, folder_path: (
            sent.append((repo_id, sorted(p.name for p in folder_path.iterdir()))) or "https://x"
        ),
    )
    argv = [str(trained / "ckpts"), str(tmp_path / "out"), "--push_to_hub", "me/model", "--private"]
    assert share.main(argv) == 0 and "https://x" in capsys.readouterr().out
    assert sent[0] == ("me/model", True) and {"README.md", "model.safetensors"} <= set(sent[1][1])

    def fails(self, name, **more):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
    argv[1] = str(tmp_path / "out2")
    with pytest.raises(InputError, match="no network; the folder .* is complete"):
        share.main(argv)
    assert (tmp_path / "out2" / "model.safetensors").is_file()


def test_exported_settings_hold_no_paths(tmp_path):
    flags = {
        "seed": 7,
        "learning_rate": 0.1,
        "prompt_text": "p",
        "demo": True,
        "num_workers": 3,
        "cache_dir": "/home/me/cache",
    }
    flags |= {"image_root": "/home/me/images", "vad_lexicon": "/home/me/lexicon.txt", "clip_model": str(tmp_path)}
    fingerprints = {"lexicon_sha256": "abc", "images": 5, "references_sha256": "def", "images_per_step": 8}
    settings = share.exported_settings({"flags": dict.fromkeys(declared()) | flags, "fingerprints": fingerprints})
    settings["flags"] = {name: value for name, value in settings["flags"].items() if value is not None}
    expected = {"seed": 7, "learning_rate": 0.1, "prompt_text": "p", "demo": True}
    assert settings["flags"] == expected | {"vad_lexicon": "lexicon.txt", "clip_model": tmp_path.name}
    assert settings["fingerprints"] == {"lexicon_sha256": "abc", "images": 5}
