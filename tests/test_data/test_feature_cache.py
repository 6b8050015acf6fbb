"""The feature cache: filled by the script or in the first epoch, checked on use, and the training is the same with it."""

import json
import shutil

import numpy as np
import pytest
import torch

import artEmisX_train
from preprocess import cache_features
from tests.test_training.test_training import newest_state
from utils.data.feature_cache import FeatureCache, ImageInputs
from utils.errors import InputError


@pytest.fixture(scope="module")
def cache_argv(workspace):
    splits = [str(workspace.data / f"artEmisX_{split}.json") for split in ("train", "val")]
    images = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    flags = ["--image_root", str(images), "--clip_model", str(workspace.root / "vit"), "--from_scratch"]
    return [*splits, *flags, "--num_workers", "0"]


@pytest.fixture(scope="module")
def cache(cache_argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "cache"
    assert cache_features.main([*cache_argv, "--out_dir", str(folder)]) == 0
    return folder


def test_script_goes_on_where_it_was(cache, cache_argv, tmp_path, capsys):
    shutil.copytree(cache, tmp_path / "cache")
    done = np.memmap(tmp_path / "cache" / "done.u8", np.uint8, "r+")
    features = np.memmap(tmp_path / "cache" / "features.f16", np.float16, "r+")
    whole = features.copy()
    done[5:9] = 0
    features.reshape(len(done), -1)[5:9] = 0
    assert cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache")]) == 0
    assert f"{len(done)} images in {tmp_path / 'cache'}, 4 of them new" in capsys.readouterr().out
    # batches of another size may round the last float16 bit differently
    assert done.all() and np.allclose(features.astype(np.float32), whole.astype(np.float32), atol=2e-3)


def test_estimate_writes_nothing(cache_argv, tmp_path, capsys):
    cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache"), "--estimate"])
    assert "GB, about" in capsys.readouterr().out and not (tmp_path / "cache").exists()


def test_fresh_features_are_compared(cache, cache_argv, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    np.memmap(tmp_path / "cache" / "features.f16", np.float16, "r+")[:] += 1
    with pytest.raises(InputError, match="differs from fresh features"):
        cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache")])


def test_training_on_cached_features_is_the_same(workspace, cache, tmp_path):
    """Cached by the script, and cached during the first epoch: the same weights; without a cache nearly the same."""
    for name, more in (
        ("script", ["--feature_cache", str(cache)]),
        ("auto", ["--feature_cache", "auto"]),
        ("none", []),
    ):
        assert artEmisX_train.main(workspace.argv(tmp_path / name, *more)) == 0
    states = {name: newest_state(tmp_path / name)["model"] for name in ("script", "auto", "none")}
    for name, tensor in states["script"].items():
        # encoded in batches of another size, float16 features may differ in their last bit
        assert torch.allclose(states["auto"][name], tensor, atol=2e-3), name
        assert torch.allclose(states["none"][name], tensor, atol=2e-3), name


def test_auto_reads_what_the_first_epoch_wrote(workspace, tmp_path, monkeypatch):
    calls = []
    forward = ImageInputs.fill
    monkeypatch.setattr(ImageInputs, "fill", lambda *a: calls.append(1) or forward(*a))
    artEmisX_train.main(workspace.argv(tmp_path, "--feature_cache", "auto", "--cache_dir", str(tmp_path / "cache")))
    assert len(calls) == 6 + 1  # the first epoch's batches and the first evaluation's


@pytest.mark.parametrize(
    "change, message",
    [
        ({"encoder_sha256": "0" * 64}, "its encoder_sha256 is 000"),
        ({"format": 9}, "its format is 9"),
        ({"transform": {"size": 224}}, "its transform is"),
    ],
)
def test_wrong_encoder_is_refused(workspace, cache, tmp_path, change, message):
    shutil.copytree(cache, tmp_path / "cache")
    header = json.loads((cache / "header.json").read_text())
    (tmp_path / "cache" / "header.json").write_text(json.dumps(header | change))
    with pytest.raises(InputError, match=message):
        artEmisX_train.main(workspace.argv(tmp_path, "--feature_cache", str(tmp_path / "cache")))


def test_truncated_cache_is_refused(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    with open(tmp_path / "cache" / "features.f16", "r+b") as file:
        file.truncate(100)
    with pytest.raises(InputError, match="features.f16: missing or not"):
        FeatureCache(tmp_path / "cache")


def test_images_without_features_are_named(workspace, cache, tmp_path):
    shutil.copytree(cache, tmp_path / "cache")
    np.memmap(tmp_path / "cache" / "done.u8", np.uint8, "r+")[3:5] = 0
    with pytest.raises(InputError, match="has no features of . images"):
        artEmisX_train.main(workspace.argv(tmp_path, "--feature_cache", str(tmp_path / "cache")))
