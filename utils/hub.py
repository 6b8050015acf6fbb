"""Models of the Hugging Face hub: which names are ids, and downloads; every failure gets a message with its own remedy.

An id is `owner/name`, or `name` alone for a few old models, and may end with `@revision`: a branch, a tag or a commit.
Downloads go to the cache that all of Hugging Face's programs share. No torch here.
"""

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from utils.errors import InputError, brief

OWNED_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/name
ID = re.compile(rf"({OWNED_ID.pattern}|[A-Za-z0-9][\w-]*)(?:@([\w./-]+))?")  # a name without owner has no dot: clip.pt
CONFIG = "config.json"
ADDRESSES = ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
LOG_IN = "log in with `hf auth login` (or set HF_TOKEN)"

Answer = TypeVar("Answer")


def split_id(name: str) -> tuple[str, str | None] | None:
    """The repository and the revision (None: the default) of a hub id; None for a path."""
    found = ID.fullmatch(name)
    return None if found is None or name.endswith(".pt") else (found[1], found[2])


def folder_or_id(text: str) -> Path:
    """Type of a flag: "a/b/" and "./a/b" become absolute paths, as pathlib would shorten them to the id "a/b"."""
    path = Path(text)
    return path.absolute() if split_id(text) is None and split_id(str(path)) and path.name != str(path) else path


@functools.cache
def _resolve(name: str) -> tuple[str, str, set[str] | None]:
    """The repository, the commit whose files are used, and the names of its files (None if the cache lacks them).

    Decided once in a process: by the hub, or by the cache if the hub cannot be reached.
    """
    from huggingface_hub import get_cached_repo_tree, hf_hub_download, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from tqdm import tqdm

    repository, revision = _id_of(name)
    silent = functools.partial(tqdm, disable=True)  # nothing is left to download

    def ask() -> tuple[str, str, set[str] | None]:
        commit = Path(hf_hub_download(repository, CONFIG, revision=revision, tqdm_class=_progress())).parent.name
        # caches the list of the commit's files: without a network it tells which files the model does not have
        snapshot_download(repository, revision=commit, allow_patterns=CONFIG, tqdm_class=silent)
        try:
            return repository, commit, {file.path for file in get_cached_repo_tree(repository, revision=commit)}
        except CachedRepoTreeNotFoundError:
            return repository, commit, None

    return _explained(name, CONFIG, ask)


def fetch_file(name: str, file: str) -> Path | None:
    """The path, in the cache, of a file of a hub id; None if the model has no such file.

    All files of an id are of one commit, that of its config.json, which every model has.

    Raises:
        InputError: the name is neither a folder nor an id, or the download fails.
    """
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, commit, files = _resolve(name)
    if files is not None and file not in files:
        return None

    def download() -> Path | None:
        try:
            return Path(hf_hub_download(repository, file, revision=commit, tqdm_class=_progress()))
        except EntryNotFoundError as error:
            absent = try_to_load_from_cache(repository, file, revision=commit) is _CACHED_NO_EXIST
            if isinstance(error, LocalEntryNotFoundError) and not absent:  # the hub did not say that there is none
                raise
            return None

    return _explained(name, file, download)


def fetch_folder(name: str, patterns: list[str]) -> Path:
    """The folder, in the cache, with all files of a hub id that match `patterns`; InputError as `fetch_file`."""
    from huggingface_hub import snapshot_download

    repository, revision = _id_of(name)
    options = {"revision": revision, "allow_patterns": patterns, "tqdm_class": _progress()}
    return _explained(name, None, lambda: Path(snapshot_download(repository, **options)))


def _id_of(name: str) -> tuple[str, str | None]:
    parts = split_id(name)
    if parts is None and os.path.isfile(name):
        raise InputError(f"{brief(name)}: is a file; give the folder of a model")
    if parts is None:
        raise InputError(f"{brief(name)}: no such {'file' if name.endswith('.pt') else 'folder'}; check the path")
    return parts


def _progress() -> type | None:
    """The class of download bars: the hub's own (None) in a terminal; plain lines in a log file, where those are silent."""
    from utils.progress import PlainBar

    return None if sys.stderr.isatty() else PlainBar


def _explained(name: str, file: str | None, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns; an error of the hub's client, of its transport or of the disk becomes an InputError."""
    try:
        return ask()
    except Exception as error:  # every layer has its own
        raise InputError(f"{brief(name)}: {_cause(*_id_of(name), file, error)}") from None


def _cause(repository: str, revision: str | None, file: str | None, error: BaseException) -> str:
    """What went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # why there was no download; the error itself only says that the cache has no such file
    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    page, what = f"{hub}/{repository}", file or "the model"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
        version = f" --revision {revision}" * (revision is not None)
        remedy = f"unset {variable}, or run `hf download {repository}{version}` where there is a network"
        if (Path(cache) / f"models--{repository.replace('/', '--')}").is_dir():
            part = f"without {file}" if file else "without some of its files"
            part += f" at revision {revision}" * (revision is not None)
            return f"{variable} is set, and the cache {cache} holds only part of this model, {part}; {remedy}"
        return f"no such folder, and {variable} is set while the cache {cache} holds no model of this name; {remedy}"
    if isinstance(error, errors.HfHubHTTPError):
        return _http_cause(error, hub, page, revision, what)
    classes, reason = {cls.__name__ for cls in type(error).__mro__}, f"({brief(error) or type(error).__name__})"
    address = " and ".join(["the network", *filter(os.environ.get, ADDRESSES)])
    folder = "or give the folder of a downloaded model"
    if isinstance(error, errors.HFValidationError):
        return f"no such folder, and not a valid id of a model {reason}; check the spelling"
    if isinstance(error, errors.FileMetadataError | ValueError) or classes & {"UnsupportedProtocol", "InvalidURL"}:
        return f"{hub} does not answer as the Hugging Face hub does {reason}; check {address}, {folder}"
    if classes & {"ConnectError", "TimeoutException", "ProxyError"}:
        return f"no such folder, and {hub} cannot be reached {reason}; check {address}, {folder}"
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return (
            f"no space left for {what} in the cache {cache}; free some, or set HF_HUB_CACHE to a folder on another disk"
        )
    if number is not None:
        return f"the cache {cache} cannot be written {reason}; check its permissions, or set HF_HUB_CACHE to another folder"
    return f"the download of {what} from {hub} broke off {reason}; start again: complete files are kept"


def _http_cause(error, hub: str, page: str, revision: str | None, what: str) -> str:
    """As `_cause`, for an HTTP error of the hub."""
    from huggingface_hub import errors

    status, message = error.response.status_code, brief(error.server_message or error.response.reason_phrase)
    token = "authorization" in error.response.request.headers
    if isinstance(error, errors.GatedRepoError):
        if token:
            return f"is gated, and the account of your token has no access; ask for it at {page}, or log in as another user"
        return f"is gated: accept its terms at {page}, then {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no revision {revision or 'main'!r}; give a branch, a tag or a whole commit behind the @"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} has no {what}, so it is not a model of transformers; use another model"
    if status == 401 and (token or "credentials" in message):
        return f"{hub} does not accept your token ({message}); {LOG_IN} again, or unset HF_TOKEN"
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        access = "that your token may read" if token else "that may be read without a token"
        return f"no such folder, and {hub} has no model of this name {access}; check the spelling; if it is private, {LOG_IN}"
    if status == 403:
        return f"{hub} forbids the download of {what} (403: {message}); take a token that may read it, or another model"
    if status == 429:
        return f"{hub} has had too many requests from here (429: {message}); wait some minutes, or {LOG_IN} for a higher limit"
    if status >= 500:
        return f"{hub} is out of order ({status} for {what}: {message}); try again later, or give the folder of a downloaded model"
    return f"{hub} does not answer as the Hugging Face hub does ({status} for {what}: {message}); check HF_ENDPOINT"
