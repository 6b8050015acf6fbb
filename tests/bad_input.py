"""Wrong input: a folder of good files, ways to spoil it, and the check that it is refused.

A refusal is one line that says what is wrong where. It leaves nothing behind, and runs no code of a file.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
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
TOKENS = "[1, 4, 5, 6, 7, 111, 2]"  # the vocabulary has 112 words
VOTES = "[0.0, 1.0, 0, 0, 0, 0, 1.0, 0, 0]"
BRACKETS = "[" * 100_000  # JSON that exhausts the parser's stack

# ---- the good files --------------------------------------------------------------------------------------------------


class Bomb:
    """Unpickled freely, it makes a file `canary`."""

    def __reduce__(self):
        return os.system, ("echo harm > canary",)


class Box:
    """The folder, which is the working folder as well, so that paths are short."""

    def __init__(self, root: Path):
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, content: str | bytes) -> str:
        (self / name).parent.mkdir(parents=True, exist_ok=True)
        (self / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def append(self, name: str, *lines: str) -> None:
        self.write(name, (self / name).read_text() + "".join(f"{line}\n" for line in lines))

    def replace(self, name: str, old: str, new: str, times: int = 1) -> None:
        content = (self / name).read_text()
        assert old in content
        self.write(name, content.replace(old, new, times))

    def json(self, name: str, change: Callable[[dict], object]) -> None:
        """`change` alters the content, or returns another."""
        content = json.loads((self / name).read_text())
        changed = change(content)
        self.write(name, json.dumps(changed if isinstance(changed, dict | list) else content))

    def remove(self, name: str) -> None:
        shutil.rmtree(self / name) if (self / name).is_dir() else (self / name).unlink()

    def bomb(self, name: str) -> str:
        return self.write(name, pickle.dumps(Bomb(), protocol=2))

    def torch_bomb(self, name: str) -> str:
        import torch

        torch.save({"weights": Bomb()}, self / name)
        return name

    def files(self) -> dict[Path, int]:
        """Everything that lies in the folder, and the time when a file was changed."""
        return {path: path.is_file() and path.stat().st_mtime_ns for path in self.root.rglob("*")}


def record(index: int, emotions: tuple[str, ...] = ("awe", "fear")) -> dict:
    return {
        "emotions": list(emotions),
        "explanations": [TEXTS[(index + shift) % 4] for shift in range(len(emotions))],
        "image_name": f"Baroque/p{index}.jpg",
        "origin_emotion_distribution": SHARES,
    }


@pytest.fixture(scope="session")
def good_files(tmp_path_factory) -> Path:
    """What training reads, a folder of ArtEmis' files with its release, and a test report."""
    from PIL import Image

    box = Box(tmp_path_factory.mktemp("good"))
    captions = [{"id": number, "image_id": 21, "caption": text} for number, text in enumerate(TEXTS[:2])]
    for name, content in {
        TRAIN: {"11": record(0), "12": record(1), "13": record(2, ("anger", "awe", "awe"))},
        VAL: {"21": record(3)},
        ANNOTATIONS: {"images": [{"id": 21}], "annotations": captions},
        "results.json": [{"image_id": 21, "caption": TEXTS[2]}],
        "vit/config.json": TINY_VIT,
        "gpt2/config.json": TINY_GPT2,
        "report.json": {"test_set": "v1.0", "seed": 1, "scores": {"sub_acc": 0.5}},
    }.items():
        box.write(name, json.dumps(content))
    box.write("data/NRC-VAD-Lexicon.txt", LEXICON)

    table = "art_style,painting,emotion,utterance_spelled,repetition,split,tokens_encoded,emotion_label\n"
    histograms = "art_style,painting,emotion_histogram\n"
    for split in ("train", "val", "test"):
        for name in (f"{split}0", f"{split}1"):
            histograms += f'Baroque,{name},"{VOTES}"\n'
            for emotion, text in (("awe", TEXTS[0]), ("fear", TEXTS[1])):
                table += f'Baroque,{name},{emotion},{text},6,{split},"{TOKENS}",1\n'
    release = [f"Baroque,p{n},{emotion},{TEXTS[n % 4]},2.0\n" for n in range(40) for emotion in ("awe", "fear")]
    box.write(ARTEMIS_CSV, table)
    box.write(HISTOGRAM_CSV, histograms)
    box.write(RELEASE_CSV, RELEASE_HEADER + "".join(release))
    shutil.copy(REPOSITORY / "tests/data" / ARTEMIS / "vocabulary.pkl", box / ARTEMIS)

    (box / "data/images/Baroque").mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (48, 40), (60 * index, 90, 120)).save(box / f"data/images/Baroque/p{index}.jpg")
    return box.root


@pytest.fixture(scope="session")
def references_cache(good_files, tmp_path_factory) -> Path:
    """Tokenised references of the good files: no Java process for every case."""
    from cococaption import read_annotations
    from cococaption.references import prepare_references

    folder = tmp_path_factory.mktemp("references")
    prepare_references(list(read_annotations(good_files / ANNOTATIONS).values()), folder)
    return folder


TOKEN_STRINGS: dict[tuple, list[str]] = {}  # of GPT-2's tokenizer: they take half a second, and every case needs them


@pytest.fixture
def box(tmp_path, monkeypatch, good_files, references_cache) -> Box:
    from utils.data.text_codec import TextCodec

    for make in (TextCodec.words, TextCodec.pieces):

        def strings(codec: TextCodec, make=make) -> list[str]:
            key = make.__name__, len(codec.tokenizer)
            return TOKEN_STRINGS.get(key) or TOKEN_STRINGS.setdefault(key, make(codec))

        monkeypatch.setattr(TextCodec, make.__name__, strings)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEVLM_TEST_CACHE", str(references_cache))
    shutil.copytree(good_files, tmp_path, dirs_exist_ok=True)
    return Box(tmp_path)


@pytest.fixture(scope="session")
def good_checkpoints(good_files, references_cache, tmp_path_factory) -> Path:
    """The checkpoints of a finished run on the good files, which shows that they are good."""
    import artEmisX_train

    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(good_files, root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("SEVLM_TEST_CACHE", str(references_cache))
        assert run_script(lambda: artEmisX_train.main(train_argv())) == 0
    return root / "ckpts"


# ---- spoiling them ---------------------------------------------------------------------------------------------------

Change = Callable[[Box], object]


def _later(method: Callable) -> Callable[..., Change]:
    """A method of Box for tables of cases: called with its arguments first, and with the box later."""
    return lambda *arguments: lambda box: method(box, *arguments)


content, removed, replaced, appended = map(_later, (Box.write, Box.remove, Box.replace, Box.append))
torn = _later(lambda box, name: box.write(name, (box / name).read_bytes()[:-1000]))


def unchanged(box: Box) -> None:
    """For a case whose command line alone is bad."""


# ---- the refusal -----------------------------------------------------------------------------------------------------


def train_argv(flags: str = "") -> list[str]:
    """A short training on the good files; `flags` win over these."""
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
    found = str(caught.value)
    assert found.isprintable() and len(found) < 1500, found[:3000]  # a line break is not printable
    assert re.search(message, found), found
    assert not (box / "canary").exists(), "a pickle was run"
    assert box.files() == before


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
