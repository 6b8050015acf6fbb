"""The feature cache: filled by the script or before the first epoch, checked on use, and the training is the same with it."""

import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import artEmisX_train
from models.image_encoder import ImageEncoder
from preprocess import cache_features
from tests.test_models.tiny import build as tiny_model
from tests.test_training.test_training import newest_state
from utils.command_line import check_paths, parse_args
from utils.data import feature_cache
from utils.data.datasets import EvaluationImages
from utils.data.feature_cache import ROW, FeatureCache, ImageFile, header_sha256
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.load_inputs import build_images, read_inputs
from utils.errors import InputError, run_script

IMAGES = "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
SPLITS = (("train", "cl_train"), ("val", "val"))


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
    shutil.copytree(cache, tmp_path / "cache")
    return tmp_path / "cache"


def rows_of(folder):
    return np.memmap(folder / "rows.bin", ROW, "r+")


def features_of(folder):
    return np.memmap(folder / "features.f16", np.float16, "r+").reshape(len(rows_of(folder)), -1)


def header_of(folder):
    return json.loads((folder / "header.json").read_text())


def names_of(folder):
    return header_of(folder)["images"]


def change_header(folder, change, seal=True):
    header = {name: value for name, value in header_of(folder).items() if name != "sha256"} | change
    seal = header_sha256(header) if seal else header_of(folder)["sha256"]
    (folder / "header.json").write_text(json.dumps(header | {"sha256": seal}))


def images_of(workspace, out, *more) -> SimpleNamespace:
    """What a run gets of its images: the source, the records of the scored split, the encoder; nothing is trained."""
    args = parse_args(workspace.argv(out, *more))
    check_paths(args)
    read = read_inputs(args)
    model = tiny_model()
    torch.manual_seed(args.seed)
    encoder = model.image_encoder = load_image_encoder(str(args.clip_model), from_scratch=True)
    source = build_images(args, model, read, torch.device("cpu"))
    names = [record["image_name"] for record in read.records.values()]
    return SimpleNamespace(source=source, records=read.records, names=names, encoder=encoder, left=model.image_encoder)


def load_all(images, workers=0, batch_size=4) -> list[dict]:
    """Every batch of the validation images."""
    return list(DataLoader(EvaluationImages(images.records, images.source), batch_size, num_workers=workers))


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
    assert rows_of(copy)["written"].all()
    assert np.allclose(features_of(copy).astype(np.float32), whole.astype(np.float32), atol=2e-3)


def test_estimate_writes_nothing(cache_argv, tmp_path, capsys):
    cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache"), "--estimate"])
    assert "GB, about" in capsys.readouterr().out and not (tmp_path / "cache").exists()


def test_fresh_features_are_compared(workspace, copy, cache_argv):
    cache = FeatureCache(copy, writable=True)
    for name, wrong in zip(names_of(copy), features_of(copy) + 1, strict=True):
        cache.write(name, wrong.reshape(5, 16), ImageFile.at(workspace.data / IMAGES / name))
    with pytest.raises(InputError, match="differs from fresh features"):
        cache_features.main([*cache_argv, "--out_dir", str(copy)])


def test_script_encodes_changed_images_and_refuses_other_folders(workspace, cache_argv, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "cache"
    shutil.copytree(workspace.data / IMAGES, images)
    argv = [*cache_argv, "--image_root", str(images), "--out_dir", str(out)]
    cache_features.main(argv)
    first, second, *_ = names_of(out)
    shutil.copy(images / second, images / first)
    cache_features.main(argv)
    assert f"images in {out}, 1 of them new" in capsys.readouterr().out
    assert (features_of(out)[0] == features_of(out)[1]).mean() > 0.9
    with pytest.raises(InputError, match=f"made from images in {images}; those in .* differ, e.g. {first}"):
        cache_features.main([*cache_argv, "--out_dir", str(out)])


# ---- the training with it --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_on_cached_features_is_the_same(workspace, cache, tmp_path):
    """Cached by the script, and cached before the first epoch: the same weights; without a cache nearly the same."""
    ways = {"script": ["--feature_cache", str(cache)], "auto": ["--feature_cache", "auto"], "none": []}
    for name, more in ways.items():
        assert artEmisX_train.main(workspace.argv(tmp_path / name, *more)) == 0
    states = {name: newest_state(tmp_path / name)["model"] for name in ways}
    for name, tensor in states["script"].items():
        # encoded in batches of another size, float16 features may differ in their last bit
        assert torch.allclose(states["auto"][name], tensor, atol=2e-3), name
        assert torch.allclose(states["none"][name], tensor, atol=2e-3), name


def test_auto_is_filled_once(workspace, tmp_path, monkeypatch):
    """In float32 under autocast as without; a second run encodes nothing."""
    calls = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *a: calls.append(len(a[1])) or forward(*a))
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path))
    with torch.autocast("cpu", torch.bfloat16):
        images = images_of(workspace, tmp_path, *flags)
    assert images.left is None and sum(calls) == len(images.source.row)
    (batch, *_) = load_all(images)
    assert batch.keys() == {"image_id", "cls", "grid"} and batch["grid"].dtype == torch.float16
    pixels = images_of(workspace, tmp_path).source.load(images.names[:4])
    plain = images.encoder(torch.stack([image["pixels"] for image in pixels]))
    torch.testing.assert_close(batch["grid"].float(), plain.grid, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(batch["cls"].float(), plain.cls, atol=2e-3, rtol=2e-3)
    calls.clear()
    again = images_of(workspace, tmp_path, *flags)
    assert not calls and torch.equal(load_all(again, workers=1)[0]["grid"], batch["grid"])


def test_images_that_change_while_they_are_encoded(workspace, tmp_path, monkeypatch):
    shutil.copytree(workspace.data / IMAGES, tmp_path / "images")
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path), "--image_root", str(tmp_path / "images"))
    changed = names_of_val(workspace)[2]
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *a: os.utime(tmp_path / "images" / changed) or forward(*a))
    with pytest.raises(InputError, match=f"1 images changed during the run, e.g. {changed}; start again"):
        images_of(workspace, tmp_path, *flags)
    monkeypatch.undo()
    assert len(load_all(images_of(workspace, tmp_path, *flags))) == 1


def names_of_val(workspace) -> list[str]:
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    return [record["image_name"] for record in records.values()]


# ---- what the features depend on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, seal, message",
    [
        ({"encoder_sha256": "0" * 64}, True, "its encoder_sha256 is 000.*this run's is"),
        ({"encoder_sha256": "0" * 64}, False, "header.json: damaged or modified"),
        ({"transform": {"size": 224}}, True, "its transform.size is 224, this run's is 32"),
    ],
)
def test_other_headers_are_refused(workspace, copy, tmp_path, change, seal, message):
    change_header(copy, change, seal)
    with pytest.raises(InputError, match=message):
        images_of(workspace, tmp_path, "--feature_cache", str(copy))


def test_same_weights_under_another_config_are_refused(workspace, cache, tmp_path):
    config = json.loads((workspace.root / "vit" / "config.json").read_text())
    for name, value in (("hidden_act", "gelu"), ("num_attention_heads", 4), ("layer_norm_eps", 1e-3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(InputError, match=f"its encoder_config.{name} is .*, this run's is {value}"):
            images_of(workspace, tmp_path, "--feature_cache", str(cache), "--clip_model", str(tmp_path / name))


def test_image_files_are_compared(workspace, cache, tmp_path):
    """A moved or touched folder of the same images passes; another image, of the same size even, is named."""
    images = tmp_path / "data" / "images"
    shutil.copytree(workspace.data / IMAGES, images, copy_function=shutil.copyfile)  # new times
    flags = ("--feature_cache", str(cache), "--cache_dir", str(tmp_path))
    assert images_of(workspace, tmp_path, *flags, "--image_root", str(images)).left is None
    name = names_of(cache)[7]
    content = bytearray((images / name).read_bytes())
    content[-10] ^= 1
    status = os.stat(workspace.data / IMAGES / name)
    (images / name).write_bytes(content)
    os.utime(images / name, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and time, another folder
    message = f"made from other images than those in {images}: 1 differ, e.g. {name}"
    with pytest.raises(InputError, match=message):
        images_of(workspace, tmp_path, *flags, "--image_root", str(images))
    # found beside the data, though not named
    for split in ("cl_train", "val"):
        shutil.copy(workspace.data / f"artEmisX_{split}.json", tmp_path / "data")
    data = [f"--nle_data_{short}_path={tmp_path}/data/artEmisX_{long}.json" for short, long in SPLITS]
    with pytest.raises(InputError, match=message):
        images_of(workspace, tmp_path, *flags, *data)
    shutil.rmtree(images)  # images that are not at hand cannot be compared
    assert len(load_all(images_of(workspace, tmp_path, *flags, *data))) == 1


def test_auto_knows_images_apart(workspace, tmp_path, monkeypatch):
    """Another folder has a cache of its own; in the same folder, a changed image is encoded again and no other."""
    folders = [tmp_path / name for name in ("one", "two")]
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path / "cache"), "--image_root")
    for folder in folders:
        shutil.copytree(workspace.data / IMAGES, folder)
    caches = [images_of(workspace, tmp_path, *flags, str(folder)).source.folder for folder in folders]
    assert caches[0] != caches[1]
    names = names_of_val(workspace)
    times = os.stat(folders[0] / names[0])
    shutil.copy(folders[0] / names[1], folders[0] / names[0])
    os.utime(folders[0] / names[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # another size is enough
    os.utime(folders[0] / names[2])  # another time is not
    calls = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *a: calls.append(len(a[1])) or forward(*a))
    (first, *_) = load_all(images_of(workspace, tmp_path, *flags, str(folders[0])))
    assert calls == [1]
    assert torch.allclose(first["grid"][0].float(), first["grid"][1].float(), atol=2e-3)


# ---- damage ----------------------------------------------------------------------------------------------------------


def flip_a_bit(folder):
    features_of(folder).view(np.uint16)[11, 3] ^= 1


def exchange_rows(folder):
    for array in (features_of(folder), rows_of(folder)):
        array[[11, 12]] = array[[12, 11]]


@pytest.mark.parametrize("damage", [flip_a_bit, exchange_rows])
def test_damaged_rows_are_refused_by_name(copy, damage):
    damage(copy)
    cache, names = FeatureCache(copy), names_of(copy)
    with pytest.raises(InputError, match=rf"features.f16: row 11, {names[11]}, is damaged .*cache_features.py again"):
        cache.load(names[10:13])
    assert names[11] in cache.damaged(names) and len(cache.load(names[9:11])) == 2


@pytest.mark.parametrize("file", ["features.f16", "rows.bin"])
def test_truncated_cache_is_refused(copy, file):
    with open(copy / file, "r+b") as handle:
        handle.truncate(100)
    with pytest.raises(InputError, match=f"{file}: missing or not"):
        FeatureCache(copy)


def test_images_without_features_are_named(workspace, copy, tmp_path):
    rows_of(copy)["written"][3:5] = 0
    flags = ("--feature_cache", str(copy))
    with pytest.raises(InputError, match="has no features of . images"):
        images_of(workspace, tmp_path, *flags)


# ---- files and disks -------------------------------------------------------------------------------------------------


def test_reading_needs_no_writing(workspace, cache, tmp_path, monkeypatch):
    """As in a folder without write permission, which a test running as root cannot make."""

    def refuse(path, mode="r", *rest, **more):
        assert set(mode) <= set("rb"), f"{path} opened for writing"
        return open(path, mode, *rest, **more)

    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    monkeypatch.setattr(feature_cache, "open", refuse, raising=False)
    load_all(images_of(workspace, tmp_path, "--feature_cache", str(cache)))
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_disk_fills_under_the_cache(cache_argv, small_disk, monkeypatch, capsys):
    """There was room at the start and none later: one line, and what is written stays."""
    argv = [*cache_argv, "--out_dir", str(small_disk / "cache"), "--batch_size", "8"]
    write, written = FeatureCache.write, []

    def fill_before_the_ninth(*arguments):
        write(*arguments)
        written.append(1)
        if len(written) == 8:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "ballast").write_bytes(b"x" * free)

    monkeypatch.setattr(FeatureCache, "write", fill_before_the_ninth)
    assert run_script(lambda: cache_features.main(argv)) == 1
    printed = capsys.readouterr().err
    assert f"error: the disk is full ({small_disk}/cache/features.f16)" in printed
    (small_disk / "ballast").unlink()
    monkeypatch.undo()
    unwritten = int((rows_of(small_disk / "cache")["written"] == 0).sum())
    assert 0 < unwritten <= 52 - 8
    assert run_script(lambda: cache_features.main(argv)) == 0
    assert f", {unwritten} of them new" in capsys.readouterr().out
