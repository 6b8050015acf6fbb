"""Bad and hostile input, in every room's test_bad_*.py: a folder of good files, ways to spoil it, and the refusal.

A case spoils one thing and names what the message must say. A refusal is one line that says what is wrong where; it
leaves nothing behind. A pickle that would run code makes a file `canary`. That the good files are accepted is tested too.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TINY_GPT2, TINY_VIT
from utils.errors import InputError, run_script

TEXTS = ("the sky is dark and wide", "a red boat lies still", "the trees lean to one side", "his eyes look at me")
SHARES = [0.25, 0.75, 0, 0, 0, 0, 0, 0, 0]
TRAIN, VAL = "data/artEmisX_cl_train.json", "data/artEmisX_val.json"
ANNOTATIONS = "data/artEmisX_val_annot_exp.json"
LEXICON = "sky\t0.9\t0.4\t0.5\ndark\t0.2\t0.5\t0.4\nred\t0.6\t0.8\t0.6\n"
ARTEMIS = "artemis/preprocess_data_nets"
ARTEMIS_CSV = f"{ARTEMIS}/artemis_preprocessed.csv"
HISTOGRAM_CSV = "artemis/preprocess_data_mini/image-emotion-histogram.csv"
RELEASE_CSV, RELEASE_HEADER = "artemis/release.csv", "art_style,painting,emotion,utterance,repetition\n"
TOKENS = "[1, 4, 5, 6, 7, 8, 2]"
VOTES = "[0.0, 1.0, 0, 0, 0, 0, 1.0, 0, 0]"
BRACKETS = "[" * 100_000  # JSON that exhausts the parser's stack

Change = Callable[["Box"], object]


# ---- the good files --------------------------------------------------------------------------------------------------


class Box:
    """A folder of good files that a case spoils. It is the working folder of the script, so that paths are short."""

    def __init__(self, root: Path):
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, content: str | bytes) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def append(self, name: str, *lines: str) -> None:
        self.write(name, (self / name).read_text() + "".join(f"{line}\n" for line in lines))

    def json(self, name: str, change: Callable[[dict], object]) -> None:
        """Change a JSON file: `change` alters the content, or returns another."""
        content = json.loads((self / name).read_text())
        changed = change(content)
        self.write(name, json.dumps(changed if isinstance(changed, dict | list) else content))

    def replace(self, name: str, old: str, new: str, times: int = 1) -> None:
        content = (self / name).read_text()
        assert old in content
        self.write(name, content.replace(old, new, times))

    def remove(self, name: str) -> None:
        shutil.rmtree(self / name) if (self / name).is_dir() else (self / name).unlink()

    def tear(self, name: str) -> None:
        self.write(name, (self / name).read_bytes()[:-1000])

    def bomb(self, name: str) -> str:
        """A pickle that makes the file `canary`."""
        return self.write(name, pickle.dumps(Bomb(), protocol=2))

    def torch_bomb(self, name: str) -> str:
        import torch

        torch.save({"weights": Bomb()}, self / name)
        return name

    def files(self) -> dict[str, tuple]:
        """Everything that lies in the box, with kind, size and time of change."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            found[str(path.relative_to(self.root))] = (
                status.st_mode,
                path.is_dir() or (status.st_size, status.st_mtime_ns),
            )
        return found


class Bomb:
    def __reduce__(self):
        return os.system, ("echo harm > canary",)


def record(index: int, emotions: tuple[str, ...] = ("awe", "fear")) -> dict:
    return {
        "emotions": list(emotions),
        "explanations": [TEXTS[(index + shift) % 4] for shift in range(len(emotions))],
        "image_name": f"Baroque/p{index}.jpg",
        "origin_emotion_distribution": SHARES,
    }


def fill(root: Path) -> None:
    """Write the good files: what training reads, a folder of ArtEmis' files with its release, a test report."""
    from PIL import Image

    box = Box(root)
    for index in range(4):
        (root / "data/images/Baroque").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 40), (60 * index, 90, 120)).save(root / f"data/images/Baroque/p{index}.jpg")
    box.write(TRAIN, json.dumps({"11": record(0), "12": record(1), "13": record(2, ("anger", "awe", "awe"))}))
    box.write(VAL, json.dumps({"21": record(3)}))
    captions = [{"id": number, "image_id": 21, "caption": text} for number, text in enumerate(TEXTS[:2])]
    annotations = {"info": {}, "licenses": [], "type": "captions", "images": [{"id": 21}], "annotations": captions}
    box.write(ANNOTATIONS, json.dumps(annotations))
    box.write("results.json", json.dumps([{"image_id": 21, "caption": TEXTS[2]}]))
    box.write("data/NRC-VAD-Lexicon.txt", LEXICON)
    box.write("vit/config.json", json.dumps(TINY_VIT))
    box.write("gpt2/config.json", json.dumps(TINY_GPT2))
    box.write("report.json", json.dumps({"test_set": "v1.0", "seed": 1, "scores": {"sub_acc": 0.5}}))

    header = "art_style,painting,emotion,utterance_spelled,repetition,split,tokens_encoded,emotion_label"
    artworks = [(split, f"{split}{number}") for split in ("train", "val", "test") for number in range(2)]
    rows = [
        f'Baroque,{name},{emotion},{text},6,{split},"{TOKENS}",1'
        for split, name in artworks
        for emotion, text in (("awe", TEXTS[0]), ("fear", TEXTS[1]))
    ]
    histograms = [f'Baroque,{name},"{VOTES}"' for _, name in artworks]
    release = [f"Baroque,p{n},{emotion},{TEXTS[n % 4]},2" for n in range(40) for emotion in ("awe", "fear")]
    box.write(ARTEMIS_CSV, "\n".join([header, *rows, ""]))
    box.write(HISTOGRAM_CSV, "\n".join(["art_style,painting,emotion_histogram", *histograms, ""]))
    box.write(RELEASE_CSV, RELEASE_HEADER + "\n".join([*release, ""]))
    shutil.copy(REPOSITORY / "tests/data" / ARTEMIS / "vocabulary.pkl", root / ARTEMIS)


@pytest.fixture(scope="session")
def references_cache(tmp_path_factory) -> Path:
    """Tokenised references of the good files, made once: no Java process for every case."""
    from cococaption import read_annotations
    from cococaption.references import prepare_references

    root, folder = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("references")
    fill(root)
    prepare_references(list(read_annotations(root / ANNOTATIONS).values()), folder)
    return folder


@pytest.fixture
def box(tmp_path, monkeypatch, references_cache, token_strings_made_once) -> Box:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEVLM_TEST_CACHE", str(references_cache))
    fill(tmp_path)
    return Box(tmp_path)


TOKEN_STRINGS: dict[tuple, list[str]] = {}


@pytest.fixture
def token_strings_made_once(monkeypatch):
    """The strings of all tokens take half a second, and every case has GPT-2's."""
    from utils.data.text_codec import TextCodec

    def remember(name: str) -> None:
        make = getattr(TextCodec, name)

        def made_once(codec: TextCodec) -> list[str]:
            key = name, len(codec.tokenizer)
            if key not in TOKEN_STRINGS:
                TOKEN_STRINGS[key] = make(codec)
            return TOKEN_STRINGS[key]

        monkeypatch.setattr(TextCodec, name, made_once)

    remember("words")
    remember("pieces")


@pytest.fixture(scope="session")
def good_checkpoints(tmp_path_factory, references_cache) -> Path:
    """The checkpoints of a finished run on the good files: also the proof that they are good."""
    import artEmisX_train

    root = tmp_path_factory.mktemp("trained")
    fill(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("SEVLM_TEST_CACHE", str(references_cache))
        assert run_script(lambda: artEmisX_train.main(train_argv())) == 0
    return root / "ckpts"


# ---- spoiling them ---------------------------------------------------------------------------------------------------


def unchanged(box: Box) -> None:
    """For a case whose command line alone is bad."""


def content(name: str, what: str | bytes) -> Change:
    return lambda box: box.write(name, what)


def removed(name: str) -> Change:
    return lambda box: box.remove(name)


def replaced(name: str, old: str, new: str, times: int = 1) -> Change:
    return lambda box: box.replace(name, old, new, times)


def appended(name: str, *lines: str) -> Change:
    return lambda box: box.append(name, *lines)


def torn(name: str) -> Change:
    return lambda box: box.tear(name)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


# ---- the refusal -----------------------------------------------------------------------------------------------------


def train_argv(flags: str = "") -> list[str]:
    """A short training on the box's files; `flags` win over these."""
    return shlex.split(
        f"--nle_data_train_path {TRAIN} --nle_data_val_path {VAL} --annFileExp {ANNOTATIONS} --from_scratch "
        "--clip_model vit --gpt2_model gpt2 --prefix_dim 16 --lemmatizer none --num_workers 0 --batch_size 2 "
        f"--num_train_epochs 1 --metrics bleu --cpu_threads 1 --cache_dir {os.environ['SEVLM_TEST_CACHE']} {flags}"
    )


def check_training_refused(box: Box, message: str, flags: str = "") -> None:
    import artEmisX_train

    check_refused(box, artEmisX_train.main, train_argv(flags), message)


def check_refused(box: Box, main: Callable, argv: str | list[str], message: str) -> None:
    """One printable line that the regular expression `message` is found in; no file is made or changed, no code run."""
    before = box.files()
    with pytest.raises(InputError) as caught:
        main(shlex.split(argv) if isinstance(argv, str) else argv)
    said = str(caught.value)
    assert said.isprintable() and len(said) < 1500, said[:3000]  # a line break is not printable
    assert re.search(message, said), said
    assert not (box / "canary").exists(), "a pickle was run"
    after = box.files()
    assert after == before, {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def check_refused_in_shell(box: Box, command: str, message: str) -> None:
    """Exit status 2, one line on stderr, nothing on stdout; `command` is relative to the repository."""
    words = shlex.split(command)
    if words[0] != "-m":
        words[0] = str(REPOSITORY / words[0])
    before, environment = box.files(), os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(message + "[^\n]*\n", done.stderr), done.stderr
    assert box.files() == before


def check_accepted(box: Box, main: Callable, argv: str) -> None:
    """The good files are good: else the cases would show nothing."""
    assert run_script(lambda: main(shlex.split(argv))) == 0
    assert any((box / "out").rglob("*.*"))
