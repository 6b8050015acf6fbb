"""Models from a Hugging Face hub on 127.0.0.1: downloads of one commit, and every failure with its cause and remedy."""

import errno
import json
import os
import re
import shutil
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from tests import tiny_encoders
from tests.hub_server import Hub
from utils import hub as client
from utils import progress as progress_line
from utils.command_line import find_model
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pretrained import find_file
from utils.data.text_codec import SHIPPED_BPE, load_tokenizer
from utils.errors import InputError

CLIP, DINO, GPT2 = "me/clip", "me/dino", "gpt2"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Folders `clip`, `dino`, which takes 28 pixels by its preprocessor and 48 by its config, and `gpt2`, a tokenizer."""
    root = tmp_path_factory.mktemp("saved")
    tiny_encoders.save("clip", root / "clip")
    tiny_encoders.save("dinov2", root / "dino")
    (root / "dino" / "preprocessor_config.json").write_text(json.dumps({"size": 28}))
    shutil.copytree(SHIPPED_BPE, root / "gpt2")
    (root / "gpt2" / "config.json").write_text("{}")
    (root / "gpt2" / "added_tokens.json").write_text('{"<of its own>": 50257}')
    return root


@pytest.fixture
def hub(saved, tmp_path, monkeypatch) -> Hub:
    server = Hub()
    server.push(CLIP, saved / "clip")
    server.push(DINO, saved / "dino")
    server.push(GPT2, saved / "gpt2")
    use_hub(monkeypatch, server.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", *client.ADDRESSES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between tries
    new_process(monkeypatch)
    yield server
    client._resolve.cache_clear()
    stop(server)


def use_hub(monkeypatch, address: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def stop(server: Hub) -> None:
    server.shutdown()
    server.server_close()
    close_session()  # an open connection would still be served


def new_process(monkeypatch, offline: bool = False) -> None:
    client._resolve.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)


def with_size(saved: Path, folder: Path, size: int) -> Path:
    """The encoder `dino` with another size in its preprocessor's file."""
    shutil.copytree(saved / "dino", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    return folder


def refusal(name: str, file: str = "config.json") -> str:
    with pytest.raises(InputError) as caught:
        find_file(name, file)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600 and message.startswith(f"{name}: ")
    return message


# ---- downloads -------------------------------------------------------------------------------------------------------


def test_downloaded_then_from_the_cache(hub, monkeypatch, saved):
    pixels = torch.rand(2, 3, 48, 48)
    expected = load_image_encoder(str(saved / "clip"))(pixels)
    for offline in (False, True):
        new_process(monkeypatch, offline)
        hub.asked.clear()
        assert torch.equal(load_image_encoder(CLIP)(pixels).grid, expected.grid)
        assert not any("tokenizer" in asked for asked in hub.asked)  # what is not read is not fetched
        assert "<of its own>" in load_tokenizer(GPT2).get_vocab()
    assert hub.asked == []
    assert find_file(CLIP, "merges.txt") is None  # by the list of its files; nobody asked for this one


def test_a_hub_that_lists_no_files(hub, monkeypatch):
    """The cache remembers files that the hub lacks; files that were never requested are not taken for missing."""
    hub.faults["^/api/"] = 403, "no lists here"
    for offline in (False, True):
        new_process(monkeypatch, offline)
        assert find_file(CLIP, "preprocessor_config.json") is None
    assert "holds only part of this model, without tokenizer.json" in refusal(CLIP, "tokenizer.json")


def test_a_fault_is_not_taken_for_a_missing_file(hub):
    """Else a failed download would mean another image size."""
    hub.faults = {"preprocessor": (503, "Service Unavailable")}
    with pytest.raises(InputError, match=f"^{DINO}: .* is out of order .503 for preprocessor_config.json: Service Un"):
        load_image_encoder(DINO)


def test_revisions(hub, saved, tmp_path, monkeypatch):
    """A branch, a commit; and all files of one commit, though the branch moves while a model is downloaded."""
    hub.push(DINO, with_size(saved, tmp_path / "other", 42), "refs/pr/3")
    commit = hub.models[DINO]["refs/pr/3"]
    find_file(DINO, "config.json")
    hub.push(DINO, with_size(saved, tmp_path / "moved", 56))
    sizes = [load_image_encoder(name).image_size for name in (DINO, f"{DINO}@refs/pr/3", f"{DINO}@{commit}")]
    new_process(monkeypatch, offline=True)
    sizes.append(load_image_encoder(f"{DINO}@refs/pr/3").image_size)
    new_process(monkeypatch)
    assert [*sizes, load_image_encoder(DINO).image_size] == [28, 42, 42, 42, 56]


def test_a_trained_model(hub, tmp_path):
    (tmp_path / "made").mkdir()
    for name in ("config.json", "run.py"):
        (tmp_path / "made" / name).touch()
    hub.push("me/trained", tmp_path / "made", "v1")
    assert [path.name for path in find_model(Path("me/trained@v1")).iterdir()] == ["config.json"]
    with pytest.raises(InputError, match="^me/trained: .*/me/trained has no revision 'main'"):
        find_model(Path("me/trained"))


# ---- failures --------------------------------------------------------------------------------------------------------

# (id, faults, token, cause and remedy)
REFUSALS = [
    ("me/none", {}, None, "no such folder, and .* has no model of this name.*spelling.*hf auth login"),
    ("me/none", {}, "hf_good", "no such folder, and .* that your token may read; check the sp"),
    ("a--b", {}, None, "no such folder, and not a valid id of a model .*check the spelling"),
    (f"{CLIP}@v9", {}, None, "/me/clip has no revision 'v9'; give a branch, a tag or a whole com"),
    ("me/gated", {}, None, "is gated: accept its terms at http://.*/me/gated, then log in with `hf auth login`"),
    ("me/gated", {}, "hf_stranger", "is gated, and the account .* no access; ask for it at http"),
    (CLIP, {}, "hf_bad", "does not accept your token .Invalid cred.*hf auth login.* again, or unset HF_TOKEN"),
    (CLIP, {"config": (403, "Not you")}, None, "forbids the download of config.json .403: Not you.; t"),
    (CLIP, {"config": (429, "Slow")}, None, "too many requests from here .429: Slow.; wait some"),
    (CLIP, {"config": (500, "Oh")}, None, "out of order .500 for config.json: Oh.; try again later"),
    (CLIP, {"config": (404, "?")}, None, "does not answer as the Hugging .*404 for.*HF_ENDPOINT"),
    (CLIP, {"config": 10}, None, "download of config.json from .* broke off .peer closed.*; start again: complete"),
    ("me/empty", {}, None, "/me/empty has no config.json, so it is not a model of transformers; use"),
]


@pytest.mark.parametrize(("name", "faults", "token", "message"), REFUSALS)
def test_refused(hub, saved, tmp_path, monkeypatch, name, faults, token, message):
    hub.push("me/gated", saved / "clip")
    hub.gated.add("me/gated")
    hub.push("me/empty", tmp_path / "nothing")
    hub.faults = faults
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    assert re.search(message, problem := refusal(name)), problem
    assert not list(tmp_path.rglob("*.incomplete"))
    hub.faults = {}
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert find_file("me/gated", "model.safetensors").is_file()


def test_no_network(hub, monkeypatch):
    """The cache is enough; what it lacks is refused."""
    load_image_encoder(CLIP)
    stop(hub)
    new_process(monkeypatch)
    load_image_encoder(CLIP)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    message = f"no such folder, and {hub.address} cannot be reached .*; check the network and HTTPS_PROXY, or give"
    assert re.search(message, refusal(DINO))
    use_hub(monkeypatch, "hub.example")
    assert "does not answer as the Hugging Face hub does (Request URL is missing" in refusal(DINO)


def test_offline(hub, monkeypatch):
    new_process(monkeypatch, offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    problem = refusal(f"{CLIP}@v1")
    assert f"HF_HUB_OFFLINE is set while the cache {constants.HF_HUB_CACHE} holds no model of this name" in problem
    assert "; unset HF_HUB_OFFLINE, or run `hf download me/clip --revision v1` where" in problem
    new_process(monkeypatch)
    find_file(CLIP, "config.json")
    new_process(monkeypatch, offline=True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "holds only part of this model, without model.safetensors; unset TRANS" in refusal(CLIP, "model.safetensors")
    assert "without config.json at revision v1; unset TRANSFORMERS_OFFLINE, or" in refusal(f"{CLIP}@v1")


FULL = "no space left for config.json in the cache .*; free some, or set HF_HUB_CACHE to a folder on another disk"
CLOSED = "the cache .* cannot be written .*; check its permissions, or set HF_HUB_CACHE to another folder"


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, FULL), (errno.EDQUOT, FULL), (errno.EACCES, CLOSED)])
def test_a_cache_that_cannot_be_written(hub, monkeypatch, number, message):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    assert re.search(message, refusal(CLIP))


# ---- names and progress ----------------------------------------------------------------------------------------------


def test_ids_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("./model", "model/", "a/b/c", "../a/b", "/a/b", "~/b", "clip.pt", "a/clip.pt", "a@"):
        assert client.split_id(name) is None, name
    ids = {"gpt2": None, "me/x-1.5_b": None, "gpt2@v1": "v1", "me/x@refs/pr/3": "refs/pr/3"}
    for name, revision in ids.items():
        assert client.split_id(name) == (name.partition("@")[0], revision)
    assert refusal("./model") == "./model: no such folder; check the path"
    assert refusal("clip.pt") == "clip.pt: no such file; check the path"
    assert refusal("./file") == "./file: is a file; give the folder of a model"
    for text in ("me/x/", "./me/x"):
        path = client.folder_or_id(text)
        assert path == tmp_path / "me" / "x" and find_model(path) == path
    assert client.folder_or_id("ckpts/") == Path("ckpts")
    (tmp_path / "ckpts").mkdir()
    assert find_model(Path("ckpts/x")) == Path("ckpts/x")
    with pytest.raises(InputError, match="^ckpts/x@main: no such folder, and HF_HUB_OFFLINE is set"):
        find_model(client.folder_or_id("ckpts/x@main"))


def test_progress_without_a_terminal(hub, monkeypatch, capsys):
    """A quick download writes nothing, a slow one lines."""
    find_file(CLIP, "model.safetensors")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_line, "SECONDS_TO_FIRST_LINE", 1e-9)
    monkeypatch.setattr(huggingface_hub.file_download.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    new_process(monkeypatch)
    find_file(GPT2, "vocab.json")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and all("vocab.json" in line or "config.json" in line for line in lines)
    assert "100%" in lines[-1] and "B/s" in lines[-1]
