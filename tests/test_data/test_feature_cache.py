"""The feature cache: filled by the script or before the first epoch, checked on use, and the training is the same with it."""

import errno
import multiprocessing
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import artEmisX_train
from models.image_encoder import ImageEncoder
from preprocess import cache_features
from tests.conftest import TINY_VIT, logged_losses
from utils.command_line import check_paths, parse_args
from utils.data.datasets import EvaluationImages
from utils.data.feature_cache import ROW, FeatureCache, ImageFile
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.load_inputs import build_images, read_inputs
from utils.errors import InputError, run_script
from utils.files import read_json, write_json

IMAGES = "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"


@pytest.fixture(scope="module")
def cache_argv(workspace):
    splits = [str(workspace.data / f"artEmisX_{split}.json") for split in ("train", "val")]
    flags = ["--image_root", str(workspace.data / IMAGES), "--clip_model", str(workspace.root / "vit")]
    return [*splits, *flags, "--from_scratch", "--num_workers", "0"]


@pytest.fixture(scope="module")
def cache(cache_argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "cache"
    assert cache_features.main([*cache_argv, "--out_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(cache, tmp_path):
    """A cache that may be damaged."""
    return shutil.copytree(cache, tmp_path / "cache")


@pytest.fixture
def images(workspace, tmp_path):
    """A folder of images that may be changed; its files have new times."""
    return shutil.copytree(workspace.data / IMAGES, tmp_path / "data" / "images", copy_function=shutil.copyfile)


def rows_of(folder):
    return np.memmap(folder / "rows.bin", ROW, "r+")


def features_of(folder):
    return np.memmap(folder / "features.f16", np.float16, "r+").reshape(len(rows_of(folder)), -1)


def names_of(folder):
    return read_json(folder / "header.json")["images"]


def open_run(workspace, out, *flags) -> SimpleNamespace:
    """What a run gets of its images: the source, the records of the scored split, the encoder if it is needed still."""
    args = parse_args(workspace.argv(out, *map(str, flags)))
    check_paths(args)
    read = read_inputs(args)
    torch.manual_seed(args.seed)
    model = SimpleNamespace(image_encoder=load_image_encoder(str(args.clip_model), from_scratch=True))
    source = build_images(args, model, read, torch.device("cpu"))
    return SimpleNamespace(source=source, records=read.records, left=model.image_encoder)


def load_all(run, workers=0) -> list[dict]:
    """Every batch of the scored images."""
    return list(DataLoader(EvaluationImages(run.records, run.source), 4, num_workers=workers))


# ---- the script ------------------------------------------------------------------------------------------------------


def test_script_continues_where_it_stopped(copy, cache_argv, capsys):
    """Unwritten and damaged rows are computed again, whole ones stay."""
    whole = features_of(copy).copy()
    rows_of(copy)["written"][5:9] = 0
    features_of(copy)[5:9] = 0
    features_of(copy)[20, 3] += 1
    assert cache_features.main([*cache_argv, "--out_dir", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(whole)} images in {copy}, 5 of them new" in printed
    assert f"the features of 1 images are damaged, e.g. {names_of(copy)[20]}: recomputing them" in printed
    # batches of another size may round the last float16 bit differently
    assert rows_of(copy)["written"].all() and np.allclose(features_of(copy), whole, atol=2e-3)


def test_fresh_features_are_compared(workspace, copy, cache_argv):
    cache = FeatureCache(copy, writable=True)
    for name, wrong in zip(names_of(copy), features_of(copy) + 1, strict=True):
        cache.write(name, wrong.reshape(5, 16), ImageFile.at(workspace.data / IMAGES / name))
    with pytest.raises(InputError, match="differs from fresh features"):
        cache_features.main([*cache_argv, "--out_dir", str(copy)])


def test_script_encodes_a_changed_image_and_refuses_other_folders(cache_argv, images, tmp_path, capsys):
    argv = [*cache_argv, "--image_root", str(images), "--out_dir", str(tmp_path / "cache")]
    cache_features.main(argv)
    before = features_of(tmp_path / "cache").copy()
    first, second, *_ = names_of(tmp_path / "cache")
    shutil.copy(images / second, images / first)
    cache_features.main(argv)
    assert f"images in {tmp_path}/cache, 1 of them new" in capsys.readouterr().out
    assert np.allclose(features_of(tmp_path / "cache")[:2], before[[1, 1]], atol=2e-3)
    with pytest.raises(InputError, match=f"made from images in {images}; those in .* differ, e.g. {first}"):
        cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache")])


# ---- the training with it --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_on_cached_features_is_the_same(workspace, tmp_path):
    """Nearly, also where loader processes are not forked, as on macOS and Windows: images and features go to them too."""
    plain = ["--num_train_epochs", "1", "--log_steps", "1"]
    cached = [*plain, "--feature_cache", "auto", "--cache_dir", str(tmp_path), "--num_workers", "1"]
    assert artEmisX_train.main(workspace.argv(tmp_path / "plain", *plain)) == 0
    multiprocessing.set_forkserver_preload(["artEmisX_train"])
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # as "spawn", but modules are imported once
    try:
        assert artEmisX_train.main(workspace.argv(tmp_path / "cached", *cached, "--eval_batch_size", "4")) == 0
    finally:
        multiprocessing.set_start_method(before, force=True)
    for found, expected in zip(logged_losses(tmp_path / "cached"), logged_losses(tmp_path / "plain"), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


def test_auto_encodes_what_is_new_or_changed(workspace, images, tmp_path, monkeypatch):
    """Another folder has a cache of its own."""
    encoded, forward = [], ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *args: encoded.append(len(args[1])) or forward(*args))
    flags = ("--feature_cache", "auto", "--cache_dir", tmp_path / "cache", "--image_root", images)
    run = open_run(workspace, tmp_path, *flags)
    assert run.left is None and sum(encoded) == len(run.source.row)
    (batch, *_) = load_all(run)
    assert batch.keys() == {"image_id", "cls", "grid"} and batch["grid"].dtype == torch.float16
    first, second, third, *_ = (record["image_name"] for record in run.records.values())
    status = os.stat(images / first)
    shutil.copy(images / second, images / first)
    os.utime(images / first, ns=(status.st_atime_ns, status.st_mtime_ns))  # another size is enough
    os.utime(images / third)  # another time is not
    encoded.clear()
    again = open_run(workspace, tmp_path, *flags)
    assert encoded == [1] and again.source.folder == run.source.folder
    changed = load_all(again, workers=1)[0]["grid"]
    assert torch.equal(changed[1:], batch["grid"][1:])
    torch.testing.assert_close(changed[0], changed[1], atol=2e-3, rtol=0)
    other = open_run(workspace, tmp_path, *flags[:-1], shutil.copytree(images, tmp_path / "other"))
    assert other.source.folder != run.source.folder


# ---- what the features depend on -------------------------------------------------------------------------------------


def test_damaged_headers_are_refused(copy):
    header = read_json(copy / "header.json")
    write_json(copy / "header.json", header | {"width": 224})
    with pytest.raises(InputError, match="header.json: damaged or modified"):
        FeatureCache(copy)
    (copy / "header.json").unlink()
    with pytest.raises(InputError, match="is not a feature cache"):
        FeatureCache(copy)


@pytest.mark.parametrize(
    ("flags", "fields", "message"),
    [
        ("--image_normalization own", {}, "transform.mean is .*, this run's is .*0.48145466"),
        ("--seed 2", {}, "encoder_sha256 is"),  # of its random weights
        ("", {"hidden_act": "gelu"}, "encoder_config.hidden_act is quick_gelu, this run's is gelu"),
        ("", {"num_attention_heads": 4}, "encoder_config.num_attention_heads is 2, this run's is 4"),
        ("", {"layer_norm_eps": 0.001}, "encoder_config.layer_norm_eps is 1e-05, this run's is 0.001"),
        ("", {"image_size": 48}, "encoder_sha256 is"),  # its positions have another shape
    ],
)
def test_another_encoder_or_preparation_is_refused(workspace, cache, tmp_path, flags, fields, message):
    write_json(tmp_path / "vit" / "config.json", TINY_VIT | fields)
    flags = ["--feature_cache", cache, "--clip_model", tmp_path / "vit", *flags.split()]
    with pytest.raises(InputError, match=f"its {message}"):
        open_run(workspace, tmp_path, *flags)


def test_image_files_are_compared(workspace, cache, images, tmp_path):
    """A moved or touched folder of the same images passes; another image, of the same size even, is named, also where the
    folder is not named but found beside the data. Images that are not at hand cannot be compared.
    """
    flags = ("--feature_cache", cache, "--cache_dir", tmp_path)
    assert open_run(workspace, tmp_path, *flags, "--image_root", images).left is None
    name = names_of(cache)[7]
    content = bytearray((images / name).read_bytes())
    content[-10] ^= 1
    (images / name).write_bytes(content)
    status = os.stat(workspace.data / IMAGES / name)
    os.utime(images / name, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and time, another folder
    split = shutil.copy(workspace.data / "artEmisX_train.json", tmp_path / "data")
    beside = ("--nle_data_train_path", split, "--nle_data_val_path", split, "--no-use_cl_loss")
    for which in (("--image_root", images), beside):
        with pytest.raises(InputError, match=f"other images than those in {images}: 1 differ, e.g. {name}"):
            open_run(workspace, tmp_path, *flags, *which)
    shutil.rmtree(images)
    assert open_run(workspace, tmp_path, *flags, *beside).left is None


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_damaged_row_is_refused_by_its_name(copy):
    features, names = features_of(copy), names_of(copy)
    features.view(np.uint16)[11, 3] ^= 1
    cache = FeatureCache(copy)
    with pytest.raises(InputError, match=rf"features.f16: row 11, {names[11]}, is damaged .*cache_features.py again"):
        cache.load(names[10:13])
    for row, loaded in zip((10, 9), cache.load([names[10], names[9]]), strict=True):
        assert np.array_equal(torch.vstack([loaded["cls"], loaded["grid"]]).flatten(), features[row])


def test_incomplete_caches_are_refused(workspace, copy, tmp_path):
    rows_of(copy)["written"][3:5] = 0
    with pytest.raises(InputError, match="has no features of . images"):
        open_run(workspace, tmp_path, "--feature_cache", copy)
    for file in ("rows.bin", "features.f16"):  # the second is looked at first
        os.truncate(copy / file, 100)
        with pytest.raises(InputError, match=f"{file}: missing or not"):
            FeatureCache(copy)


# ---- files and disks -------------------------------------------------------------------------------------------------


def test_a_finished_cache_is_opened_for_reading_alone(cache):
    assert {file.mode for file in FeatureCache(cache)._files.values()} == {"rb"}


def test_disk_fills_under_the_cache(cache_argv, tmp_path, monkeypatch, capsys):
    """A disk that is nearly full takes parts, then nothing: one line, and whole rows stay."""
    argv, pwrite, calls = [*cache_argv, "--out_dir", str(tmp_path / "cache")], os.pwrite, []

    def write_part(file, content, offset):
        calls.append(offset)
        if len(calls) == 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, content[:100], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write_part)
        assert run_script(lambda: cache_features.main(argv)) == 1
    assert f"error: the disk is full ({tmp_path}/cache/features.f16)" in capsys.readouterr().err
    unwritten = int((rows_of(tmp_path / "cache")["written"] == 0).sum())
    assert 0 < unwritten < 52
    assert run_script(lambda: cache_features.main(argv)) == 0
    assert f", {unwritten} of them new" in capsys.readouterr().out
