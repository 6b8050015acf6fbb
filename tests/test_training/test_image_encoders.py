"""A run with other kinds of image encoders: cache, training, evaluation, heat map; saved, resumed, scored again and shared."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import artEmisX_train
from models.image_encoder import default_preparation
from models.sevlm import SEVLM
from preprocess import cache_features
from tests.conftest import without
from tests.test_training.test_share import scored
from tests.tiny_encoders import save
from utils import explain, share
from utils.constants import IMAGE_FOLDERS
from utils.data.feature_cache import FeatureCache
from utils.data.image_encoder_weights import load_image_encoder
from utils.training.build_model import load_checkpoint
from utils.training.resume import state_folders

pytestmark = pytest.mark.slow


def saved(kind: str, folder: Path) -> Path:
    """A folder with a tiny encoder, which says how it wants its images."""
    save(kind, folder)
    prepared = {"size": {"height": 60, "width": 60}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared | {"resample": 0}))
    return folder


def flags(workspace, out, encoder, *more):
    """A run of one epoch with this encoder's own weights; without a flag for the width of its features."""
    more = ("--clip_model", str(encoder), "--image_normalization", "own", "--num_train_epochs", "1", *more)
    argv = without(workspace.argv(out, *workspace.gpt2), "prefix_dim", "from_scratch")
    return [*argv, "--from_scratch", "decoder", "--no-use_VAD", "--no-use_VAD_loss", *more]


def test_from_images_to_a_heat_map(workspace, tmp_path):
    encoder, cache, root = saved("dinov3_vit", tmp_path / "vit"), tmp_path / "cache", workspace.data / IMAGE_FOLDERS[0]
    splits = [workspace.data / f"artEmisX_{name}.json" for name in ("cl_train", "val")]
    caching = [*splits, "--image_root", root, "--out_dir", cache, "--clip_model", encoder, "--num_workers", 0]
    assert cache_features.main([*map(str, caching), "--image_normalization", "own"]) == 0
    header = json.loads((cache / "header.json").read_text())
    assert (header["tokens"], header["width"]) == (1 + (60 // 14) ** 2, 24)
    assert header["transform"]["size"] == 60 and header["transform"]["mean"] == [0.4, 0.5, 0.6]
    assert header["transform"]["resize"].startswith("to a square, nearest")

    assert artEmisX_train.main(flags(workspace, tmp_path, encoder, "--feature_cache", str(cache))) == 0
    (name, *_) = FeatureCache(cache).row
    heat, answers = tmp_path / "heat.html", tmp_path / "answers.json"
    asked = [root / name, "--ckpt", tmp_path / "ckpts", "--name", "best-acc", "--heat", heat, "--json", answers]
    assert explain.main(list(map(str, asked))) == 0
    assert json.loads(answers.read_text())[0]["explanations"] and heat.stat().st_size
    trained = load_checkpoint(tmp_path / "ckpts", "best-acc")
    features = trained.model.image_features(trained.read_images([root / name]).cpu(), None, None)
    (cached,) = FeatureCache(cache).load([name])
    torch.testing.assert_close(features.grid[0], cached["grid"].float(), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(features.cls[0], cached["cls"].float(), rtol=1e-3, atol=2e-3)
    share_and_compare(tmp_path, trained.model)


def share_and_compare(run, trained: SEVLM) -> Path:
    """Share best-acc: what is loaded from the folder is the checkpoint's model, down to how images are prepared."""
    assert share.main([str(run / "ckpts"), str(run / "shared"), "--name", "best-acc"]) == 0
    model, encoder = SEVLM.from_pretrained(run / "shared"), trained.image_encoder
    assert same(model.state_dict(), trained.state_dict())
    assert model.image_encoder.preparation == encoder.preparation != default_preparation(encoder.vision.config)
    return run / "shared"


def weights_of(state) -> dict[str, torch.Tensor]:
    return torch.load(state / "state.pt", weights_only=True)["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_trained_resumed_scored_and_shared(workspace, tmp_path):
    run, encoder = tmp_path / "run", saved("siglip2", tmp_path / "encoder")
    argv = flags(workspace, run, encoder, "--no-fixed_encoder", "--num_train_epochs", "2", "--en_LR", "0.01")
    assert artEmisX_train.main(argv) == 0
    newest, older = state_folders(run / "ckpts")
    whole = weights_of(newest)
    shutil.rmtree(newest)
    assert artEmisX_train.main([*argv, "--resume"]) == 0
    assert same(weights_of(newest), whole)

    trained = load_checkpoint(run / "ckpts", "best-acc").model
    vision, before = trained.image_encoder.vision, load_image_encoder(str(encoder)).vision.state_dict()
    assert not same(vision.state_dict(), before)
    captions = scored(workspace, run / "ckpts", tmp_path / "a", "--load_from_epoch", "best-acc")
    shared = share_and_compare(run, trained)
    assert scored(workspace, shared, tmp_path / "b") == captions
