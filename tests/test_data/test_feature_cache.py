"""The feature cache: filled by the script or in the first epoch, checked on use, and the training is the same with it."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import artEmisX_train
from models.image_encoder import ImageEncoder, ImageFeatures
from preprocess import cache_features
from tests.test_models.test_objective import tiny_model
from tests.test_training.test_training import newest_state
from utils.data import feature_cache
from utils.data.datasets import EvaluationImages
from utils.data.feature_cache import ROW, FeatureCache, header_sha256
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.image_folder import Picture
from utils.data.image_inputs import ImageInputs
from utils.data.load_inputs import build_images, read_inputs
from utils.errors import InputError, run_script
from utils.opts import check_paths, parse_args

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
    shutil.copytree(cache, tmp_path / "cache")
    return tmp_path / "cache"


def rows_of(folder):
    return np.memmap(folder / "rows.bin", ROW, "r+")


def features_of(folder):
    return np.memmap(folder / "features.f16", np.float16, "r+").reshape(len(rows_of(folder)), -1)


def names_of(folder):
    return json.loads((folder / "index.json").read_text())


def change_header(folder, change, seal=True):
    header = json.loads((folder / "header.json").read_text()) | change
    header |= {"sha256": header_sha256(header)} if seal else {}
    (folder / "header.json").write_text(json.dumps(header))


def image_inputs(workspace, out, *more) -> ImageInputs:
    """What a run gets of its images, and the images of its splits; nothing is trained."""
    args = parse_args(workspace.argv(out, *more))
    check_paths(args)
    read = read_inputs(args)
    model = tiny_model()
    torch.manual_seed(args.seed)
    model.image_encoder = load_image_encoder(str(args.clip_model), from_scratch=True)
    inputs = build_images(args, model, read)
    inputs.encoder, inputs.records = model.image_encoder, read.records
    return inputs


def load_all(inputs, workers=0, batch_size=4) -> list[dict]:
    """Every batch of the validation images, with features, and kept where there is a cache to fill."""
    loader = DataLoader(EvaluationImages(inputs.records, inputs), batch_size, num_workers=workers)
    return [inputs.encode(inputs.encoder, batch["image_id"], batch) for batch in loader]


# ---- the script ------------------------------------------------------------------------------------------------------


def test_script_goes_on_where_it_was(copy, cache_argv, capsys):
    """Unwritten and damaged rows are computed anew, whole ones stay."""
    whole = features_of(copy).copy()
    rows_of(copy)["written"][5:9] = 0
    features_of(copy)[5:9] = 0
    features_of(copy)[20, 3] += 1
    assert cache_features.main([*cache_argv, "--out_dir", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert f"{len(whole)} images in {copy}, 5 of them new" in printed
    assert f"{copy}: the features of {names_of(copy)[20]} are damaged: recomputing them" in printed
    # batches of another size may round the last float16 bit differently
    assert rows_of(copy)["written"].all()
    assert np.allclose(features_of(copy).astype(np.float32), whole.astype(np.float32), atol=2e-3)


def test_estimate_writes_nothing(cache_argv, tmp_path, capsys):
    cache_features.main([*cache_argv, "--out_dir", str(tmp_path / "cache"), "--estimate"])
    assert "GB, about" in capsys.readouterr().out and not (tmp_path / "cache").exists()


def test_fresh_features_are_compared(copy, cache_argv):
    cache = FeatureCache(copy, writable=True)
    names = names_of(copy)
    pictures = {
        name: Picture(copy.parent / "picture", int(row["size"]), int(row["mtime_ns"]))
        for name, row in zip(names, rows_of(copy), strict=True)
    }
    cache_features.main([*cache_argv, "--out_dir", str(copy)])
    (copy.parent / "picture").write_bytes(b"")
    wrong = torch.from_numpy(features_of(copy) + 1).view(len(names), 5, 16)
    cache.forget(names)
    cache.write(names, pictures, ImageFeatures(wrong[:, 0], wrong[:, 1:]))
    with pytest.raises(InputError, match="differs from fresh features"):
        cache_features.main([*cache_argv, "--out_dir", str(copy)])


def test_script_encodes_changed_pictures_and_refuses_other_folders(workspace, cache_argv, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "cache"
    shutil.copytree(workspace.data / IMAGES, images)
    argv = [*cache_argv, "--image_root", str(images), "--out_dir", str(out)]
    cache_features.main(argv)
    first, second, *_ = names_of(out)
    shutil.copy(images / second, images / first)
    cache_features.main(argv)
    assert f"images in {out}, 1 of them new" in capsys.readouterr().out
    assert (features_of(out)[0] == features_of(out)[1]).mean() > 0.9
    with pytest.raises(InputError, match=f"made from pictures in {images}; those in .* differ, e.g. {first}"):
        cache_features.main([*cache_argv, "--out_dir", str(out)])


# ---- the training with it --------------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
def test_auto_reads_what_the_first_epoch_wrote(workspace, tmp_path, monkeypatch):
    calls = []
    forward = ImageEncoder.forward
    monkeypatch.setattr(ImageEncoder, "forward", lambda *a: calls.append(1) or forward(*a))
    artEmisX_train.main(workspace.argv(tmp_path, "--feature_cache", "auto", "--cache_dir", str(tmp_path / "cache")))
    assert len(calls) == 6 + 1  # the first epoch's batches and the first evaluation's


def test_filling_and_reading_give_the_same(workspace, tmp_path):
    """A batch is features or pixels as a whole, and what is encoded is what will be read, under autocast as without."""
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path))
    inputs = image_inputs(workspace, tmp_path, *flags)
    names = [record["image_name"] for record in inputs.records.values()]
    plain = inputs.encoder(torch.stack([inputs.pixels[name]["pixels"] for name in names[:4]]))
    with torch.autocast("cpu", torch.bfloat16):
        filled = load_all(inputs)
    assert torch.equal(filled[0]["grid"], plain.grid.half()) and torch.equal(filled[0]["cls"], plain.cls.half())
    assert all(batch.keys() == {"image_id", "cls", "grid"} for batch in filled)
    inputs.encoder = None  # all is in the cache now
    for ours, theirs in zip(load_all(inputs), filled, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    inputs.cache.forget(names[1:2])
    assert [set(image) for image in inputs.load(names[:3])] == [{"pixels"}] * 3
    assert [set(image) for image in inputs.load(names[2:4])] == [{"cls", "grid"}] * 2


def test_a_row_is_checked_once_a_run(workspace, tmp_path):
    """Loader processes share what was checked: they are new in every epoch."""
    inputs = image_inputs(workspace, tmp_path, "--feature_cache", "auto", "--cache_dir", str(tmp_path))
    load_all(inputs)
    again = image_inputs(workspace, tmp_path, "--feature_cache", "auto", "--cache_dir", str(tmp_path))
    assert (again.cache._checked == -1).all()
    load_all(again, workers=1)
    rows = [again.cache.row[record["image_name"]] for record in again.records.values()]
    assert (again.cache._checked[rows] == again.cache._rows()["checksum"][rows]).all()
    rows_of(again.cache.folder)["checksum"][rows[0]] ^= 1  # a row that was written anew meanwhile is another one
    assert again.cache.read(next(iter(again.records.values()))["image_name"]) is None


def test_pictures_that_change_during_the_run_are_not_kept(workspace, tmp_path):
    shutil.copytree(workspace.data / IMAGES, tmp_path / "images")
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path), "--image_root", str(tmp_path / "images"))
    inputs = image_inputs(workspace, tmp_path, *flags)
    names = [record["image_name"] for record in inputs.records.values()]
    os.utime(inputs.pictures[names[2]].path)
    load_all(inputs)
    assert inputs.cache.missing(names) == [names[2]]


# ---- what the features depend on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, seal, message",
    [
        ({"encoder_sha256": "0" * 64}, True, "its encoder_sha256 is 000.*this run's is"),
        ({"encoder_sha256": "0" * 64}, False, "header.json: damaged or altered.*rebuild it"),
        ({"format": 1}, False, "its format is 1.*another version; remove the folder and rebuild it"),
        ({"transform": {"size": 224}}, True, "its transform.size is 224, this run's is 32"),
        ({"precision": "bfloat16"}, True, "its precision is bfloat16, this run's is float32"),
        ({"index_sha256": "0"}, True, "index.json: missing, damaged or altered"),
        ({"sha256": 1, "image_root": 2, "format": None}, True, "its format is None"),
    ],
)
def test_other_headers_are_refused(workspace, copy, tmp_path, change, seal, message):
    change_header(copy, change, seal)
    with pytest.raises(InputError, match=message):
        image_inputs(workspace, tmp_path, "--feature_cache", str(copy))


def test_same_weights_under_another_config_are_refused(workspace, cache, tmp_path):
    config = json.loads((workspace.root / "vit" / "config.json").read_text())
    for name, value in (("hidden_act", "gelu"), ("num_attention_heads", 4), ("layer_norm_eps", 1e-3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(InputError, match=f"its encoder_config.{name} is .*, this run's is {value}"):
            image_inputs(workspace, tmp_path, "--feature_cache", str(cache), "--clip_model", str(tmp_path / name))


def test_pictures_are_compared(workspace, cache, tmp_path):
    """A moved or touched folder of the same pictures passes; another picture, of the same size even, is named."""
    images = tmp_path / "data" / "images"
    shutil.copytree(workspace.data / IMAGES, images, copy_function=shutil.copyfile)  # new times
    flags = ("--feature_cache", str(cache), "--cache_dir", str(tmp_path))
    assert image_inputs(workspace, tmp_path, *flags, "--image_root", str(images)).encoder is None
    name = names_of(cache)[7]
    content = bytearray((images / name).read_bytes())
    content[-10] ^= 1
    status = os.stat(workspace.data / IMAGES / name)
    (images / name).write_bytes(content)
    os.utime(images / name, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size and time, another folder
    message = f"made from other pictures than those in {images}: 1 differ, e.g. {name}"
    with pytest.raises(InputError, match=message):
        image_inputs(workspace, tmp_path, *flags, "--image_root", str(images))
    # found beside the data, though not named
    for split in ("cl_train", "val"):
        shutil.copy(workspace.data / f"artEmisX_{split}.json", tmp_path / "data")
    data = [f"--nle_data_{short}_path={tmp_path}/data/artEmisX_{long}.json" for short, long in SPLITS]
    with pytest.raises(InputError, match=message):
        image_inputs(workspace, tmp_path, *flags, *data)
    (images / name).unlink()  # pictures that are not at hand cannot be compared
    image_inputs(workspace, tmp_path, *flags, *data)
    shutil.rmtree(images)
    inputs = image_inputs(workspace, tmp_path, *flags, *data)
    assert len(load_all(inputs)) == 1


SPLITS = (("train", "cl_train"), ("val", "val"))


def test_auto_knows_pictures_apart(workspace, tmp_path, capsys):
    """Another folder has a cache of its own; in the same folder, a changed picture is encoded anew and no other."""
    folders = [tmp_path / name for name in ("one", "two")]
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path / "cache"), "--image_root")
    for folder in folders:
        shutil.copytree(workspace.data / IMAGES, folder)
    caches = [image_inputs(workspace, tmp_path, *flags, str(folder)).cache.folder for folder in folders]
    assert caches[0] != caches[1]
    inputs = image_inputs(workspace, tmp_path, *flags, str(folders[0]))
    load_all(inputs)
    names = [record["image_name"] for record in inputs.records.values()]
    times = os.stat(folders[0] / names[0])
    shutil.copy(folders[0] / names[1], folders[0] / names[0])
    os.utime(folders[0] / names[0], ns=(times.st_atime_ns, times.st_mtime_ns))  # another size is enough
    os.utime(folders[0] / names[2])  # another time is not
    capsys.readouterr()
    again = image_inputs(workspace, tmp_path, *flags, str(folders[0]))
    assert f"1 pictures have changed, e.g. {names[0]}: encoding them again" in capsys.readouterr().out
    assert again.cache.missing(names) == [names[0]]
    (first, *_) = load_all(again)
    assert torch.allclose(first["grid"][0].float(), first["grid"][1].float(), atol=2e-3)


# ---- damage ----------------------------------------------------------------------------------------------------------


def flip_a_bit(folder):
    features_of(folder).view(np.uint16)[11, 3] ^= 1


def zero_a_row(folder):
    features_of(folder)[11] = 0


def exchange_rows(folder):
    for array in (features_of(folder), rows_of(folder)):
        array[[11, 12]] = array[[12, 11]]


def claim_an_unwritten_row(folder):
    rows_of(folder)[11] = np.zeros((), ROW)
    rows_of(folder)["written"][11] = 1


def alter_the_picture(folder):
    rows_of(folder)["sha256"][11, 4] ^= 1


def exchange_names(folder):
    names = names_of(folder)
    names[11], names[12] = names[12], names[11]
    (folder / "index.json").write_text(json.dumps(names))


ROW_DAMAGES = (flip_a_bit, zero_a_row, exchange_rows, claim_an_unwritten_row, alter_the_picture)


@pytest.mark.parametrize("damage", ROW_DAMAGES)
def test_damaged_rows_are_refused_by_name(copy, damage):
    damage(copy)
    cache = FeatureCache(copy)
    names = names_of(copy)
    with pytest.raises(InputError, match=rf"features.f16: row 11, {names[11]}, is damaged .*cache_features.py again"):
        cache.read(names[11])
    cache.read(names[10])


def test_exchanged_names_are_refused(copy):
    exchange_names(copy)
    with pytest.raises(InputError, match="index.json: missing, damaged or altered"):
        FeatureCache(copy)


@pytest.mark.parametrize("damage", [*ROW_DAMAGES, exchange_names])
def test_our_own_damaged_cache_is_made_anew(workspace, tmp_path, capsys, damage):
    flags = ("--feature_cache", "auto", "--cache_dir", str(tmp_path))
    inputs = image_inputs(workspace, tmp_path, *flags)
    names = names_of(inputs.cache.folder)
    inputs.records = {str(id_): {"image_name": name} for id_, name in inputs.names.items() if name in names[8:16]}
    whole = load_all(inputs)
    capsys.readouterr()
    damage(inputs.cache.folder)
    again = image_inputs(workspace, tmp_path, *flags)
    again.records = inputs.records
    anew = load_all(again)
    assert re.search("recreating it|recomputing them|encoding them again", capsys.readouterr().out)
    for ours, theirs in zip(anew, whole, strict=True):
        assert torch.equal(ours["grid"], theirs["grid"])
    load_all(again)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("file", ["features.f16", "rows.bin"])
def test_truncated_cache_is_refused(copy, file):
    cache = FeatureCache(copy)
    cache.read(names_of(copy)[12])
    with open(copy / file, "r+b") as handle:
        handle.truncate(100)
    with pytest.raises(InputError, match=f"{file}: missing or not"):
        FeatureCache(copy)
    if file == "features.f16":  # cut short while in use: no map that ends the process
        with pytest.raises(InputError, match="row 12, .* is damaged"):
            cache.read(names_of(copy)[12])


def test_images_without_features_are_named(workspace, copy, tmp_path):
    rows_of(copy)["written"][3:5] = 0
    flags = ("--feature_cache", str(copy))
    with pytest.raises(InputError, match="has no features of . images"):
        image_inputs(workspace, tmp_path, *flags)
    rows_of(copy)["written"][3:5] = 1
    inputs = image_inputs(workspace, tmp_path, *flags)
    rows_of(copy)["written"][:] = 0  # a finished cache that is changed under a run: its encoder is gone
    with pytest.raises(InputError, match="holds no features of .*; run preprocess/cache_features.py again"):
        load_all(inputs)


# ---- files, disks, processes -----------------------------------------------------------------------------------------


def test_reading_needs_no_writing(workspace, cache, tmp_path, monkeypatch):
    """As in a folder without write permission, which a test running as root cannot make."""

    def refuse(path, mode="r", *rest, **more):
        assert set(mode) <= set("rb"), f"{path} opened for writing"
        return open(path, mode, *rest, **more)

    def no(*_):
        raise AssertionError("written to")

    before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    monkeypatch.setattr(feature_cache, "open", refuse, raising=False)
    for name in ("pwrite", "truncate"):
        monkeypatch.setattr(feature_cache.os, name, no)
    monkeypatch.setattr(feature_cache, "FileLock", no)
    load_all(image_inputs(workspace, tmp_path, "--feature_cache", str(cache)))
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


def test_disk_fills_under_the_cache(cache_argv, small_disk, monkeypatch, capsys):
    """There was room at the start and none later: one line, and what is written stays."""
    argv = [*cache_argv, "--out_dir", str(small_disk / "cache"), "--batch_size", "8"]
    write = FeatureCache.write

    def fill_before_the_second(*arguments):
        features = write(*arguments)
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "ballast").write_bytes(b"x" * free) if not (small_disk / "ballast").exists() else None
        return features

    monkeypatch.setattr(FeatureCache, "write", fill_before_the_second)
    assert run_script(lambda: cache_features.main(argv)) == 1
    printed = capsys.readouterr().err
    assert f"error: the disk is full ({small_disk}/cache/features.f16): free some space" in printed
    (small_disk / "ballast").unlink()
    monkeypatch.undo()
    unwritten = int((rows_of(small_disk / "cache")["written"] == 0).sum())
    assert 0 < unwritten <= 52 - 8
    assert run_script(lambda: cache_features.main(argv)) == 0
    assert f", {unwritten} of them new" in capsys.readouterr().out


HEADER = {"format": feature_cache.FORMAT, "tokens": 3, "width": 400}


def fill(folder, value: int, barrier) -> None:
    """Make the cache and write every image, with features that tell who wrote them."""
    barrier.wait()
    names = [str(number) for number in range(60)]
    cache = FeatureCache.create(folder, HEADER, names, folder, ours=True)
    tokens = torch.full([5, 3, 400], value)
    for start in range(0, 60, 5):
        some = names[start : start + 5]
        written = cache.write(
            some, {n: Picture(__file__, 1, value) for n in some}, ImageFeatures(tokens[:, 0], tokens[:, 1:])
        )
        for index, name in enumerate(some):  # what it was given is what is read, whoever wrote it
            assert torch.equal(written.grid[index], cache[name]["grid"])


@pytest.mark.slow
def test_several_processes_fill_one_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    for round_ in range(3):
        barrier = context.Barrier(4)
        folder = tmp_path / str(round_)
        processes = [context.Process(target=fill, args=(folder, value, barrier)) for value in range(1, 5)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        cache = FeatureCache(folder, HEADER)
        for name in cache.row:
            row = cache[name]  # its checksum is right
            assert len({float(row["cls"][0]), *row["grid"].flatten().tolist()}) == 1
