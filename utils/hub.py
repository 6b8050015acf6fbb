"""Models of the Hugging Face hub: which names are ids, and downloads, whose every fault is told with its own remedy.

An id is `owner/name`, or `name` alone for a few old models; behind it may stand `@revision`: a branch, a tag or a commit.
Downloads go to the cache that all of Hugging Face's programs share. No torch here.
"""

import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError, brief

OWNED_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/name
ID = re.compile(rf"({OWNED_ID.pattern}|[A-Za-z0-9][\w-]*)(?:@([\w./-]+))?")  # a name without owner has no dot: clip.pt
CONFIG = "config.json"
ADDRESSES = ("HF_ENDPOINT", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
LOG_IN = "log in with `hf auth login` (or set HF_TOKEN)"


def split_id(name: str) -> tuple[str, str | None] | None:
    """The repository and the revision (None: the default) of a hub id; None for what is spelled as a path."""
    found = ID.fullmatch(name)
    return None if found is None or name.endswith(".pt") else (found[1], found[2])


def folder_or_id(text: str) -> Path:
    """Type of a flag: a path, where "a/b/" and "./a/b" stay paths and do not become the id that their short spelling is."""
    path = Path(text)
    return path.absolute() if split_id(text) is None and split_id(str(path)) and path.name != str(path) else path


class _Model(NamedTuple):
    """A model at one commit. files: names of all its files, None where the cache does not know them."""

    repository: str
    commit: str
    files: set[str] | None


@functools.cache
def _resolve(name: str) -> _Model:
    """Decide on the commit whose files are used, once in a process: the hub's now, or the cache's where it cannot be asked."""
    from huggingface_hub import get_cached_repo_tree, hf_hub_download, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from tqdm import tqdm

    repository, revision = _id_of(name)
    quiet = functools.partial(tqdm, disable=True)  # of downloads there is none

    def ask() -> _Model:
        commit = Path(hf_hub_download(repository, CONFIG, revision=revision, tqdm_class=_progress())).parent.name
        # lists the commit's files in the cache, so that without a network it is known what the model has not
        snapshot_download(repository, revision=commit, allow_patterns=CONFIG, tqdm_class=quiet)
        try:
            files = {file.path for file in get_cached_repo_tree(repository, revision=commit)}
        except CachedRepoTreeNotFoundError:
            files = None
        return _Model(repository, commit, files)

    return _told(name, CONFIG, ask)


def fetch_file(name: str, file: str) -> Path | None:
    """The path, in the cache, of a file of a hub id; None if the model has no such file.

    All files of an id are of one commit; config.json, which every model has, decides on it.

    Raises:
        InputError: the name is neither a folder nor an id, or the file cannot be had: the message says why.
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
            known = try_to_load_from_cache(repository, file, revision=commit) is _CACHED_NO_EXIST
            if isinstance(error, LocalEntryNotFoundError) and not known:  # the hub did not say that there is none
                raise
            return None

    return _told(name, file, download)


def fetch_folder(name: str, patterns: list[str]) -> Path:
    """The folder, in the cache, with all files of a hub id that match `patterns`, of one commit.

    Raises:
        InputError: as `fetch_file`.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _id_of(name)
    more = {"revision": revision, "allow_patterns": patterns, "tqdm_class": _progress()}
    return _told(name, None, lambda: Path(snapshot_download(repository, **more)))


def _id_of(name: str) -> tuple[str, str | None]:
    parts = split_id(name)
    if parts is None and os.path.isfile(name):
        raise InputError(f"{brief(name)}: is a file; give the folder of a model")
    if parts is None:
        raise InputError(f"{brief(name)}: no such {'file' if name.endswith('.pt') else 'folder'}; check the path")
    return parts


def _progress() -> type | None:
    """The class of download bars: the hub's own (None) in a terminal; in a log file, where these are silent, plain lines."""
    from utils.progress import PlainBar

    return None if sys.stderr.isatty() else PlainBar


def _told(name: str, file: str | None, ask: Callable):
    """What `ask` returns; an error of the hub's client, of its transport or of the disk becomes an InputError."""
    try:
        return ask()
    except Exception as error:  # every layer has its own
        raise InputError(f"{brief(name)}: {_cause(*_id_of(name), file, error)}") from None


def _cause(repository: str, revision: str | None, file: str | None, error: BaseException) -> str:
    """What went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # it says only that the cache has no such file, not why there was no download
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
        return _refusal(error, hub, page, revision, what)
    kinds, reason = {kind.__name__ for kind in type(error).__mro__}, f"({brief(error) or type(error).__name__})"
    address = " and ".join(["the network", *filter(os.environ.get, ADDRESSES)])
    folder = "or give the folder of a downloaded model"
    if isinstance(error, errors.HFValidationError):
        return f"no such folder, and no id that a model can have {reason}; check the spelling"
    if isinstance(error, errors.FileMetadataError | ValueError) or kinds & {"UnsupportedProtocol", "InvalidURL"}:
        return f"{hub} does not answer as the Hugging Face hub does {reason}; check {address}, {folder}"
    if kinds & {"ConnectError", "TimeoutException", "ProxyError"}:
        return f"no such folder, and {hub} cannot be reached {reason}; check {address}, {folder}"
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return f"no space is left for {what} in the cache {cache}; free some, or name a folder of another disk in HF_HUB_CACHE"
    if number is not None:
        return f"the cache {cache} cannot be written {reason}; check its permissions, or name another in HF_HUB_CACHE"
    return f"the download of {what} from {hub} broke off {reason}; start again: whole files are kept"


def _refusal(error, hub: str, page: str, revision: str | None, what: str) -> str:
    """`_cause` of an answer of the hub's that is an error."""
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
        return f"{page} has no {what}, so that it is no model of transformers; take another"
    if status == 401 and (token or "credentials" in message):
        return f"{hub} does not accept your token ({message}); {LOG_IN} anew, or unset HF_TOKEN"
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        whose = "that your token may read" if token else "that may be read without a token"
        return f"no such folder, and {hub} has no model of this name {whose}; check the spelling; if it is private, {LOG_IN}"
    if status == 403:
        return f"{hub} forbids the download of {what} (403: {message}); take a token that may read it, or another model"
    if status == 429:
        return f"{hub} answers too many requests of yours (429: {message}); wait some minutes, or {LOG_IN} for a higher limit"
    if status >= 500:
        return f"{hub} is out of order ({status} for {what}: {message}); try again later, or give the folder of a downloaded model"
    return f"{hub} does not answer as the Hugging Face hub does ({status} for {what}: {message}); check HF_ENDPOINT"
