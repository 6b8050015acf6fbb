"""Bad and hostile input, for every script: one line that says what is wrong where, no traceback, nothing left behind.

A case spoils one thing in a small set of good files (the first tests show that these are accepted) and names what the
message must say. Cases that name a canary file carry a pickle that would make it.
"""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import artEmisX_train
from cococaption import __main__ as cococaption
from cococaption import read_annotations
from cococaption.references import prepare_references
from preprocess import (
    build_annotations,
    build_splits,
    cache_features,
    make_demo_data,
    prepare_artemis,
    resize_wikiart,
    train_text2emotion,
)
from tests.conftest import GOLDEN, REPOSITORY, TINY_GPT2, TINY_VIT
from utils import report
from utils.data.text_codec import TextCodec
from utils.errors import InputError, run_script
from utils.files import sha256

TEXTS = ("the sky is dark and wide", "a red boat lies still", "the trees lean to one side", "his eyes look at me")
SHARES = [0.25, 0.75, 0, 0, 0, 0, 0, 0, 0]
LEXICON = "sky\t0.9\t0.4\t0.5\ndark\t0.2\t0.5\t0.4\nred\t0.6\t0.8\t0.6\n"
BRACKETS = "[" * 100_000
TRAIN, VAL = "data/artEmisX_cl_train.json", "data/artEmisX_val.json"
ANNOTATIONS = "data/artEmisX_val_annot_exp.json"
NETS, MINI = "artemis/preprocess_data_nets", "artemis/preprocess_data_mini"
NETS_CSV, HISTOGRAM_CSV = f"{NETS}/artemis_preprocessed.csv", f"{MINI}/image-emotion-histogram.csv"
RELEASE_CSV = "artemis/release.csv"
MANY_BYTES = 20_000_000


class Box:
    """A folder of good files that a case spoils; the working folder of the script, so that paths are short."""

    def __init__(self, root: Path):
        self.root = root

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, content: str | bytes) -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def json(self, name: str, change: Callable[[dict], object]) -> str:
        """Change a JSON file in place: `change` alters the content, or returns another."""
        content = json.loads((self.root / name).read_text())
        changed = change(content)
        return self.write(name, json.dumps(changed if isinstance(changed, dict | list) else content))

    def replace(self, name: str, old: str, new: str) -> str:
        content = (self.root / name).read_text()
        assert old in content
        return self.write(name, content.replace(old, new, 1))

    def bomb(self, name: str) -> str:
        """A pickle that makes the file `name`."""
        return self.write(name, pickle.dumps(Bomb(), protocol=2))

    def torch_bomb(self, name: str) -> str:
        torch.save({"weights": Bomb()}, self.root / name)
        return name

    def files(self) -> dict[str, tuple]:
        """Everything that lies in the box, with size and time of change."""
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


def csv_row(style: str, painting: str, emotion: str, text: str, split: str) -> str:
    return f'{style},{painting},{emotion},{text},6,{split},"[1, 4, 5, 6, 7, 8, 2]",1\n'


def fill(root: Path) -> None:
    """The good files."""
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
    header = "art_style,painting,emotion,utterance_spelled,repetition,split,tokens_encoded,emotion_label\n"
    rows = [
        csv_row("Baroque", f"{split}{number}", emotion, text, split)
        for split in ("train", "val", "test")
        for number in range(2)
        for emotion, text in zip(("awe", "fear"), TEXTS, strict=False)
    ]
    box.write(NETS_CSV, header + "".join(rows))
    votes = ["art_style,painting,emotion_histogram\n"]
    votes += [
        f'Baroque,{split}{number},"[0.0, 1.0, 0, 0, 0, 0, 1.0, 0, 0]"\n'
        for split in ("train", "val", "test")
        for number in range(2)
    ]
    box.write(HISTOGRAM_CSV, "".join(votes))
    shutil.copy(REPOSITORY / "tests/data/artemis/preprocess_data_nets/vocabulary.pkl", root / NETS)
    release = ["art_style,painting,emotion,utterance,repetition\n"]
    release += [
        f"Baroque,p{number},{emotion},{TEXTS[number % 4]},2\n" for number in range(40) for emotion in ("awe", "fear")
    ]
    box.write(RELEASE_CSV, "".join(release))
    box.write("report.json", json.dumps({"test_set": "v1.0", "seed": 1, "scores": {"sub_acc": 0.5}}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Tokenised references and image checks of the good files, made once: no Java process for every case."""
    root, folder = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("cache")
    fill(root)
    prepare_references(list(read_annotations(root / ANNOTATIONS).values()), folder)
    return folder


@pytest.fixture
def box(tmp_path, monkeypatch, cache) -> Box:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEVLM_TEST_CACHE", str(cache))
    fill(tmp_path)
    return Box(tmp_path)


STRINGS: dict[tuple, list[str]] = {}


@pytest.fixture(autouse=True)
def strings_of_tokens_made_once(monkeypatch):
    """The strings of all tokens take half a second, and every case has GPT-2's."""
    for name in ("words", "pieces"):
        make = getattr(TextCodec, name)
        monkeypatch.setattr(TextCodec, name, lambda codec, name=name, make=make: made(codec, name, make))


def made(codec: TextCodec, name: str, make: Callable) -> list[str]:
    key = name, len(codec.tokenizer)
    if key not in STRINGS:
        STRINGS[key] = make(codec)
    return STRINGS[key]


def train_argv(*more: str) -> list[str]:
    """A short training on the box's files; flags given later win."""
    flags = ["--nle_data_train_path", TRAIN, "--nle_data_val_path", VAL, "--annFileExp", ANNOTATIONS, "--from_scratch"]
    flags += ["--clip_model", "vit", "--gpt2_model", "gpt2", "--prefix_dim", "16", "--lemmatizer", "none"]
    flags += ["--num_workers", "0", "--batch_size", "2", "--num_train_epochs", "1", "--metrics", "bleu"]
    return [*flags, "--cache_dir", os.environ["SEVLM_TEST_CACHE"], *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache) -> Path:
    """The checkpoints of a finished run on the good files: also the proof that they are good."""
    root = tmp_path_factory.mktemp("trained")
    fill(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("SEVLM_TEST_CACHE", str(cache))
        assert run_script(lambda: artEmisX_train.main(train_argv())) == 0
    return root / "ckpts"


def refusal(main: Callable, argv: list[str], capsys) -> str:
    """The message with which a script refuses its input, from the exception or, as its user sees it, from stderr."""
    capsys.readouterr()
    with pytest.raises(InputError) as caught:
        main(argv)
    return str(caught.value)


def check_refused(box: Box, main: Callable, argv: list[str], message: str, capsys) -> None:
    before = box.files()
    said = refusal(main, argv, capsys)
    assert "\n" not in said and "\r" not in said, said
    assert said.isprintable() and len(said) < 1500, said[:3000]
    assert re.search(message, said), said
    assert not (box / "canary").exists(), "a pickle was run"
    left = {name for name, kind in box.files().items() if before.get(name) != kind}
    assert left == set(), left


def case(name: str, make: Callable[[Box], list[str]], message: str):
    return pytest.param(make, message, id=name)


def spoiled(path: str, content: str | bytes) -> Callable[[Box], list[str]]:
    """Training with one file of other content."""

    def make(box: Box) -> list[str]:
        box.write(path, content)
        return train_argv()

    return make


def changed(path: str, change: Callable[[dict], object]) -> Callable[[Box], list[str]]:
    """Training with one JSON file changed."""

    def make(box: Box) -> list[str]:
        box.json(path, change)
        return train_argv()

    return make


def field(name: str, value: object) -> Callable[[Box], list[str]]:
    """Training with one field of the record 12 changed."""
    return changed(TRAIN, lambda records: records["12"].update({name: value}))


def flags(*more: str) -> Callable[[Box], list[str]]:
    return lambda box: train_argv(*more)


def without(path: str, *more: str) -> Callable[[Box], list[str]]:
    def make(box: Box) -> list[str]:
        shutil.rmtree(box / path) if (box / path).is_dir() else (box / path).unlink()
        return train_argv(*more)

    return make


def image(content: bytes) -> Callable[[Box], list[str]]:
    return spoiled("data/images/Baroque/p1.jpg", content)


def linked(link: str, target: str) -> Callable[[Box], list[str]]:
    """Training with a picture or folder replaced by a link."""

    def make(box: Box) -> list[str]:
        path = box / link
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)
        return train_argv()

    return make


def outside(box: Box) -> list[str]:
    shutil.copytree(box / "data/images/Baroque", box / "elsewhere")
    return linked("data/images/Baroque", "../../elsewhere")(box)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


JPEG = (GOLDEN / "dataset/images/Baroque/anger.png").read_bytes()
RECORD = f"{TRAIN}: record '?12'?: .*"
ANEW = ".*build_splits.py"

TRAINING = [
    # files that are not there
    case("no training file", without(TRAIN), f"{TRAIN}: no such file; make it with preprocess/build_splits"),
    case("no validation file", without(VAL), f"{VAL}: no such file; make it with preprocess/build_splits"),
    case("no annotations", without(ANNOTATIONS), "--annFileExp .*no such file; make it with preprocess/build_annot"),
    case("no image folder", without("data/images"), "no image folder found: looked for .*--image_root"),
    case("no named image folder", flags("--image_root", "gone"), "--image_root gone: no such folder; .*resize_wikiart"),
    case("no lexicon", without("data/NRC-VAD-Lexicon.txt"), "no VAD lexicon found.*--vad_lexicon.*saifmohammad.com"),
    case("no named lexicon", flags("--vad_lexicon", "gone"), "--vad_lexicon gone: no such file; .*saifmohammad.com"),
    case("lexicon is a folder", flags("--vad_lexicon", "data"), "--vad_lexicon data: .*saifmohammad.com"),
    case("no classifier", flags("--text2emotion", "gone.pt"), "gone.pt: no such file; .*train_text2emotion"),
    case("no vocabulary", flags("--vocabulary", "gone.pkl"), "gone.pkl: no such file"),
    case("checkpoints in a file", flags("--ckpt_path", "vit/config.json"), "--ckpt_path .*is a file, a folder was"),
    case("results in a file", flags("--caption_save_path", TRAIN), "--caption_save_path .*is a file, a folder was"),
    case(
        "checkpoints below a file",
        flags("--ckpt_path", "vit/config.json/ckpts"),
        "vit/config.json",
    ),
    case("cache in a file", flags("--cache_dir", TRAIN), "--cache_dir .*is a file, a folder was"),
    # records
    case("no records", spoiled(TRAIN, "{}"), f"{TRAIN}: holds no records; {ANEW}"),
    case("list of records", spoiled(TRAIN, "[1]"), f"{TRAIN}: a JSON object of image id -> record{ANEW}"),
    case("record is a number", changed(TRAIN, lambda records: records.update({"12": 3})), f"{RECORD}JSON object{ANEW}"),
    case(
        "record without field",
        changed(TRAIN, lambda records: records["12"].pop("image_name")),
        f"{RECORD}has no 'image_name'",
    ),
    case("unequal lists", field("emotions", ["awe"]), f"{RECORD}1 emotions but 2 explanations{ANEW}"),
    case("no annotations of an image", field("emotions", []), f"{RECORD}0 emotions but 2"),
    case("emotions no list", field("emotions", "awe"), f"{RECORD}must be lists{ANEW}"),
    case("unknown emotion", field("emotions", ["awe", "joy"]), f"{RECORD}unknown emotion 'joy' .*sadness{ANEW}"),
    case("emotion in capitals", field("emotions", ["awe", "Fear"]), f"{RECORD}unknown emotion 'Fear'"),
    case("emotion is a list", field("emotions", ["awe", ["fear"]]), f"{RECORD}unknown emotion"),
    case("empty explanation", field("explanations", ["a", " \n"]), f"{RECORD}explanation 1 is empty{ANEW}"),
    case("explanation is null", field("explanations", ["a", None]), f"{RECORD}explanation 1{ANEW}"),
    case("half a character", field("explanations", ["a", "b\ud800"]), f"{RECORD}explanation 1 .*half a character"),
    case("eight shares", field("origin_emotion_distribution", SHARES[:8]), f"{RECORD}not a list of 9 numbers{ANEW}"),
    case("shares sum to 2", field("origin_emotion_distribution", [0.5] * 4 + [0] * 5), f"{RECORD}sums to 2, not{ANEW}"),
    case("NaN share", field("origin_emotion_distribution", [float("nan")] + SHARES[1:]), f"{RECORD}non-finite{ANEW}"),
    case(
        "infinite share",
        spoiled(TRAIN, '{"12": ' + json.dumps(record(1)).replace("0.75", "1e999") + "}"),
        f"{RECORD}non-fin",
    ),
    case(
        "integer beyond floats",
        spoiled(TRAIN, '{"12": ' + json.dumps(record(1)).replace("0.75", "9" * 999) + "}"),
        f"{RECORD}",
    ),
    case("negative share", field("origin_emotion_distribution", [-0.5, 1.5] + [0] * 7), f"{RECORD}negative{ANEW}"),
    case("shares as text", field("origin_emotion_distribution", ["1"] + [0] * 8), f"{RECORD}not a list of 9 numbers"),
    case("shares as booleans", field("origin_emotion_distribution", [True] + [0] * 8), f"{RECORD}not a list of 9"),
    case("image name is empty", field("image_name", ""), f"{RECORD}image_name is empty{ANEW}"),
    case("image name is a number", field("image_name", 3), f"{RECORD}image_name"),
    *(
        case(
            f"image id {shown}",
            changed(TRAIN, lambda records, key=key: records.update({key: record(1)})),
            f"{TRAIN}: record .*: the image id is not a positive 63-bit integer{ANEW}",
        )
        for shown, key in {
            "of letters": "abc",
            "negative": "-12",
            "of 64 bits": str(2**63),
            "of 5000 digits": "1" * 5000,
            "in Arabic digits": "١٢",
            "empty": "",
            "zero": "0",
            "with a leading zero": "012",
            "with a newline": "12\n",
        }.items()
    ),
    case(
        "one emotion where pairs are asked for",
        field("emotions", ["awe", "awe"]),
        f"{TRAIN}: record 12.*artEmisX_cl_train.json.*--no-use_cl_loss",
    ),
    # JSON
    case("deep brackets", spoiled(TRAIN, BRACKETS), f"{TRAIN}: JSON nested too deeply.*make the file anew"),
    case("deep objects", spoiled(VAL, '{"a":' * 100_000), f"{VAL}: JSON nested too deeply"),
    case(
        "truncated JSON",
        spoiled(TRAIN, '{"12": {"emotions": ["awe"'),
        f"{TRAIN}: not valid JSON.*line 1.*make the file",
    ),
    case("empty JSON", spoiled(TRAIN, ""), f"{TRAIN}: not valid JSON"),
    case(
        "latin-1 JSON",
        spoiled(TRAIN, '{"12": "é"}'.encode("latin-1")),
        f"{TRAIN}: not UTF-8 text.*save the file as UTF-8",
    ),
    case("binary JSON", spoiled(TRAIN, bytes(range(256))), f"{TRAIN}: not "),
    case("integer of 5000 digits", spoiled(TRAIN, "1" * 5000), f"{TRAIN}: not valid JSON.*make the file anew"),
    case("JSON is a folder", flags("--nle_data_train_path", "data"), "data: "),
    # images
    case(
        "missing image",
        without("data/images/Baroque/p1.jpg"),
        f"{RECORD}no image .*p1.jpg under .*resize_wikiart.*--skip_bad",
    ),
    case(
        "truncated image",
        image((GOLDEN / "dataset/images/Baroque/anger.png").read_bytes()[:200]),
        f"{RECORD}p1.jpg: unreadable image.*--skip_bad_images",
    ),
    case("text as an image", image(b"no picture"), f"{RECORD}p1.jpg: unreadable image"),
    case("empty image", image(b""), f"{RECORD}p1.jpg: unreadable image"),
    case(
        "decompression bomb",
        image(png_header(50_000, 50_000)),
        f"{RECORD}p1.jpg: image has too many pixels.*--skip_bad",
    ),
    case("link to itself", linked("data/images/Baroque/p1.jpg", "p1.jpg"), f"{RECORD}p1.jpg"),
    case("link to nowhere", linked("data/images/Baroque/p1.jpg", "gone.jpg"), f"{RECORD}no image .*p1.jpg"),
    case(
        "picture linked out",
        linked("data/images/Baroque/p1.jpg", "../../../vit/config.json"),
        f"{RECORD}link out of .*data/images",
    ),
    case(
        "folder linked out",
        outside,
        f"{TRAIN}: record 1[123]: .*link out of data/images|{VAL}: record 21: .*link out of",
    ),
    case("image two folders up", field("image_name", "../../etc/p.jpg"), f"{RECORD}leads out of .*data/images"),
    case("image at the root", field("image_name", "/etc/p.jpg"), f"{RECORD}leads out of .*data/images"),
    case("image name with a NUL", field("image_name", "Baroque/p1.jpg\0.png"), f"{RECORD}leads out of"),
    case("image name of two lines", field("image_name", "Baroque/a\nb.jpg"), f"{RECORD}no image "),
    case(
        "image name of half a character",
        field("image_name", "Baroque/\ud800\udc80.jpg"),
        f"{RECORD}no image|{RECORD}half a char",
    ),
    case(
        "all images bad",
        lambda box: without("data/images/Baroque")(box) + ["--skip_bad_images"],
        "none of its . images can be read.*right folder",
    ),
    # lexicon
    *(
        case(f"lexicon {name}", spoiled("data/NRC-VAD-Lexicon.txt", content), f"data/NRC-VAD-Lexicon.txt: {message}")
        for name, content, message in [
            ("empty", "", "holds no line.*saifmohammad"),
            ("of a header alone", "term\tvalence\tarousal\tdominance\n", "holds no line"),
            ("separated by commas", "sky,1,0,1\n", "holds no line"),
            ("in 1..9", "sky\t7\t2\t5\n", "line 1: value outside -1..1"),
            ("with NaN", LEXICON + "sea\tnan\t0\t0\n", "line 4: value outside"),
            ("with infinity", LEXICON + "sea\tinf\t0\t0\n", "line 4: value outside"),
            ("with words for numbers", LEXICON + "sea\thigh\t0\t0\n", "line 4: .*not three numbers; correct or remove"),
            ("with a formula", LEXICON + 'sea\t=cmd|" /C calc"!A0\t0\t0\n', "line 4: .*not three numbers"),
            ("with NUL", LEXICON + "se\0a\t1\t0\t0\n", "line 4 .*overlong or binary.*saifmohammad"),
            ("of one long line", "a" * MANY_BYTES, "line 1 .*overlong or binary"),
            ("of one long value", LEXICON + "sea\t" + "1" * 9000 + "\t0\t0\n", "line 4"),
            ("in latin-1", "é\t1\t0\t0\n".encode("latin-1"), "not UTF-8 text.*saifmohammad"),
            ("in UTF-16", LEXICON.encode("utf-16"), "not UTF-8 text"),
        ]
    ),
    # annotations
    case("annotations of brackets", spoiled(ANNOTATIONS, BRACKETS), f"{ANNOTATIONS}: JSON nested too deeply"),
    case("annotations no object", spoiled(ANNOTATIONS, "[]"), f"{ANNOTATIONS}: .*build_annotations"),
    case(
        "annotation without caption",
        changed(ANNOTATIONS, lambda a: a["annotations"][1].pop("caption")),
        rf"{ANNOTATIONS}: annotations\[1\]: has no 'caption'.*build_annot",
    ),
    case(
        "annotations of another split",
        changed(
            ANNOTATIONS,
            lambda a: {**a, "images": [{"id": 9}], "annotations": [{"id": 1, "image_id": 9, "caption": "a"}]},
        ),
        f"{ANNOTATIONS}: lacks .*same split",
    ),
    # flags
    *(
        case(f"flags {' '.join(given)}"[:60], flags(*given), message)
        for given, message in [
            (["--use_VAD", "maybe"], "--use_VAD.*True or False was expected, not 'maybe'"),
            (["--no-use_VAD", "True"], "--no-use_VAD takes no value"),
            (["--use_vad"], "--use_vad.*--help"),
            (["--learning-rate", "1"], "--learning-rate.*--help"),
            (["something"], "something.*--help"),
            (["--load_from_epoch"], "--load_from_epoch.*--help"),
            (["--resume", "--load_from_epoch", "best-acc"], "--resume.*--load_from_epoch.*one of them"),
            (["--eval_only"], "--eval_only needs --load_from_epoch"),
            (["--eval_only", "--resume", "--load_from_epoch", "1"], "--resume.*give one of them"),
            (["--vad_causal", "--no-use_VAD"], "--vad_causal.*--no-use_VAD"),
            (["--feature_cache", "auto", "--fixed_encoder", "False"], "--feature_cache.*--fixed_encoder False"),
            (["--feature_cache", "gone"], "gone.*cache_features"),
            (["--append_to", "all.csv"], "--append_to.*--eval_only"),
            (["--len_prefix", "25"], "--len_prefix 25.*--max_seq_len 30"),
            (["--alpha", "0", "--no-use_cl_loss", "--no-use_VAD_loss"], "--alpha 0"),
            (
                ["--alpha", "0", "--cl_Loss_weight", "0", "--VAD_Loss_weight", "0"],
                "--alpha 0",
            ),
            (["--batch_size", "0"], "--batch_size.*0 is not between"),
            (["--batch_size", "many"], "--batch_size.*many"),
            (["--learning_rate", "nan"], "--learning_rate.*nan"),
            (["--learning_rate", "inf"], "--learning_rate.*inf"),
            (["--learning_rate", "-1"], "--learning_rate.*-1"),
            (["--dropout", "1"], "--dropout.*1 is not between"),
            (["--max_seq_len", "5"], "--max_seq_len.*5 is not between"),
            (["--max_seq_len", "50"], "--max_seq_len 50: gpt2 has only 40 positions"),
            (["--VAD_En_Heads", "2"], "--VAD_En_Heads.*2"),
            (["--seed", "-1"], "--seed.*-1"),
            (["--seed", "9" * 30], "--seed.*999"),
            (["--metrics", "wer"], "--metrics.*wer"),
            (["--lemmatizer", "porter"], "--lemmatizer.*porter"),
            (["--mixed_precision", "int8"], "--mixed_precision.*int8"),
            *(
                [
                    (
                        ["--mixed_precision", "fp16"],
                        "--mixed_precision fp16.*bf16",
                    )
                ]
                if not torch.cuda.is_available()
                else []
            ),
            (["--test_set", "v3"], "--test_set.*v3"),
            (["--prefix_dim", "17"], "--clip_model vit.*--prefix_dim 16"),
            (["--num_workers", "-1"], "--num_workers.*-1"),
            (
                ["--prompt_text", ""],
                "--prompt_text",
            ),
        ]
    ),
    # models
    case("no image encoder", flags("--clip_model", "gone"), "--clip_model gone: no such model.*hf download"),
    case(
        "no weights of the image encoder",
        flags("--from_scratch", "False"),
        "--clip_model vit: no weights found.*hf download",
    ),
    case(
        "OpenAI's name without its package",
        flags("--clip_model", "ViT-B/16", "--from_scratch", "False"),
        "ViT-B/16.*pip install git",
    ),
    case("a ResNet", flags("--clip_model", "RN50", "--from_scratch", "False"), "RN50: a ResNet.*ViT-B/16"),
    case(
        "image encoder of garbage",
        lambda box: train_argv("--from_scratch", "False", "--clip_model", box.write("clip.pt", b"junk" * 99)),
        "clip.pt: neither OpenAI's CLIP file nor",
    ),
    case(
        "image encoder of a hostile pickle",
        lambda box: train_argv("--from_scratch", "False", "--clip_model", box.torch_bomb("clip.pt")),
        "clip.pt: ",
    ),
    case("broken config of the image encoder", spoiled("vit/config.json", "{"), "--clip_model vit"),
    case("no decoder", flags("--gpt2_model", "gone"), "--gpt2_model gone: no such model"),
    case("broken config of the decoder", spoiled("gpt2/config.json", "{"), "--gpt2_model gpt2"),
    case("config of the decoder a list", spoiled("gpt2/config.json", "[]"), "--gpt2_model gpt2"),
    case(
        "empty tokenizer folder", lambda box: train_argv("--gpt2_model", box.write("bpe/vocab.json", "{}")[:3]), "bpe: "
    ),
    case(
        "broken tokenizer",
        lambda box: train_argv("--gpt2_model", box.write("bpe/tokenizer.json", BRACKETS)[:3]),
        "bpe/tokenizer.json: JSON nested too deeply",
    ),
    case(
        "nltk without its data", flags("--lemmatizer", "nltk"), "--lemmatizer nltk: NLTK's .*python -m nltk.downloader"
    ),
]


@pytest.mark.parametrize(("make", "message"), TRAINING)
def test_training(box, capsys, monkeypatch, make, message):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setitem(sys.modules, "clip", None)
    check_refused(box, artEmisX_train.main, make(box), message, capsys)


def test_good_files_are_accepted(trained):
    """Else the cases would show nothing."""
    assert (trained / "nle_model_best-acc/model.safetensors").is_file()


def test_refused_training_leaves_no_folder(box):
    box.write(TRAIN, "{}")
    before = box.files()
    with pytest.raises(InputError):
        artEmisX_train.main(train_argv())
    assert box.files() == before


# ---- checkpoints -----------------------------------------------------------------------------------------------------

MODEL, STATS = "ckpts/nle_model_best-acc", "ckpts/ckpt_stats_best-acc.tar"
LOAD = ("--load_from_epoch", "best-acc")


def kept(change: Callable[[Box], object] = lambda box: None, *more: str) -> Callable[[Box], list[str]]:
    """Continue from a checkpoint after changing its files; `more` in place of --load_from_epoch best-acc."""

    def make(box: Box) -> list[str]:
        change(box)
        return train_argv(*(more or LOAD))

    return make


def unsigned(change: Callable[[Box], object]) -> Callable[[Box], list[str]]:
    """The same for a checkpoint without our manifest, as the authors' have none."""

    def make(box: Box) -> list[str]:
        (box / MODEL / "manifest.json").unlink()
        change(box)
        return train_argv(*LOAD)

    return make


def torn(path: str) -> Callable[[Box], object]:
    return lambda box: box.write(path, (box / path).read_bytes()[:-1000])


def flipped(path: str) -> Callable[[Box], object]:
    def change(box: Box) -> None:
        content = bytearray((box / path).read_bytes())
        content[len(content) // 2] ^= 1
        box.write(path, bytes(content))

    return change


def tensors(change: Callable[[dict], object]) -> Callable[[Box], object]:
    def rewrite(box: Box) -> None:
        state = load_file(box / MODEL / "model.safetensors")
        change(state)
        save_file(state, box / MODEL / "model.safetensors")

    return rewrite


def stats(change: Callable[[dict], object]) -> Callable[[Box], object]:
    def rewrite(box: Box) -> None:
        content = torch.load(box / STATS, weights_only=True)
        changed = change(content)
        torch.save(content if changed is None else changed, box / STATS)

    return rewrite


def in_torch_format(box: Box, bomb: bool = False) -> None:
    (box / MODEL / "model.safetensors").unlink()
    box.torch_bomb(f"{MODEL}/pytorch_model.bin")


def elsewhere(box: Box) -> None:
    """The checkpoint outside --ckpt_path, and folders that a path from inside it leads through."""
    shutil.move(box / MODEL, box / "x")
    (box / "x/manifest.json").unlink()
    shutil.move(box / STATS, box / "x.tar")
    (box / MODEL).mkdir()
    (box / STATS).with_suffix("").mkdir()


def config(**fields: object) -> Callable[[Box], object]:
    return lambda box: box.json(f"{MODEL}/config.json", lambda content: content | fields)


def states(change: Callable[[Box, str], object], signed: bool = False, *more: str) -> Callable[[Box], list[str]]:
    """--resume after changing every kept state; `signed` with a manifest that fits the change."""

    def make(box: Box) -> list[str]:
        for folder in (box / "ckpts/resume").iterdir():
            path = str((folder / "state.pt").relative_to(box.root))
            change(box, path)
            if signed:
                (folder / "manifest.json").write_text(json.dumps({"sha256": {"state.pt": sha256(box / path)}}))
        return train_argv("--resume", *more)

    return make


def average_of_another_shape(box: Box, path: str) -> None:
    state = torch.load(box / path, weights_only=True)
    next(iter(state["optimizer"]["state"].values()))["exp_avg"] = SHAPE
    torch.save(state, box / path)


SHAPE = torch.zeros(2, 2)
CHECKPOINTS = [
    case(
        "an earlier run is there",
        kept(lambda box: None, "--seed", "42"),
        "ckpts: holds the states of an earlier run: give --resume",
    ),
    case(
        "no such checkpoint",
        kept(lambda box: None, "--load_from_epoch", "7"),
        "ckpts: no checkpoint '7': .*missing.*best-acc",
    ),
    case(
        "name of a checkpoint leads out",
        kept(lambda box: shutil.copytree(box / MODEL, box / "x"), "--load_from_epoch", "../../x"),
        "no checkpoint '../../x'|--load_from_epoch",
    ),
    case(
        "name of a checkpoint at the root",
        kept(lambda box: None, "--load_from_epoch", "/etc"),
        "no checkpoint '/etc'|--load_from_epoch",
    ),
    case(
        "name of a checkpoint that would be found outside",
        kept(elsewhere, "--eval_only", "--load_from_epoch", "best-acc/../../x"),
        "--load_from_epoch",
    ),
    case(
        "torn weights", kept(torn(f"{MODEL}/model.safetensors")), f"{MODEL}: torn or altered.*take another checkpoint"
    ),
    case(
        "torn weights without manifest",
        unsigned(torn(f"{MODEL}/model.safetensors")),
        "model.safetensors: torn or altered.*take another",
    ),
    case("flipped bit", kept(flipped(f"{MODEL}/model.safetensors")), f"{MODEL}: torn or altered"),
    case("torn stats", kept(torn(STATS)), f"{MODEL}: torn or altered"),
    case("torn stats without manifest", unsigned(torn(STATS)), f"{STATS}: torn, altered or unsafe.*take another"),
    case("no stats", kept(lambda box: (box / STATS).unlink()), "best-acc"),
    case(
        "manifest of brackets",
        kept(lambda box: box.write(f"{MODEL}/manifest.json", BRACKETS)),
        f"{MODEL}: torn or altered",
    ),
    case(
        "hostile stats", unsigned(lambda box: box.torch_bomb(STATS)), f"{STATS}: torn, altered or unsafe.*take another"
    ),
    case("hostile bare pickle for stats", unsigned(lambda box: box.bomb(STATS)), f"{STATS}: torn, altered or unsafe"),
    case("hostile weights", unsigned(in_torch_format), "pytorch_model.bin: torn, altered or unsafe.*take another"),
    case(
        "weights of another shape",
        unsigned(tensors(lambda state: state.update({"VAD_head.weight": SHAPE}))),
        "weights of another shape: VAD_head.weight",
    ),
    case(
        "weights missing",
        unsigned(tensors(lambda state: state.pop("VAD_head.weight"))),
        "weights missing: VAD_head.weight",
    ),
    case(
        "word table missing",
        unsigned(tensors(lambda state: state.pop("transformer.wte.weight"))),
        f"{MODEL}.*missing",
    ),
    case(
        "VAD encoder missing", unsigned(stats(lambda s: {"epoch": 0})), "holds no emo_encoder_state_dict.*--no-use_VAD"
    ),
    case(
        "VAD encoder of another shape",
        unsigned(stats(lambda s: s["emo_encoder_state_dict"].update({"norm.weight": SHAPE}))),
        "another shape: norm.weight",
    ),
    case(
        "VAD encoder is a text",
        unsigned(stats(lambda s: s.update(emo_encoder_state_dict="x"))),
        "emo_encoder_state_dict",
    ),
    case(
        "VAD encoder holds texts",
        unsigned(stats(lambda s: s["emo_encoder_state_dict"].update({"norm.weight": "x"}))),
        "norm.weight",
    ),
    case("stats are a list", unsigned(stats(lambda s: [1])), f"{STATS}: a dictionary was expected"),
    case(
        "epoch is a text",
        unsigned(stats(lambda s: s.update(epoch="last"))),
        "epoch",
    ),
    case(
        "optimiser state of garbage",
        unsigned(stats(lambda s: s.update(optimizer_state_dict={"state": 1}))),
        "optimi[sz]er",
    ),
    case(
        "config missing",
        unsigned(lambda box: (box / MODEL / "config.json").unlink()),
        f"{MODEL}/config.json: no such file",
    ),
    case(
        "config broken",
        unsigned(lambda box: box.write(f"{MODEL}/config.json", "{")),
        f"{MODEL}/config.json: not valid JSON",
    ),
    case(
        "config of brackets",
        unsigned(lambda box: box.write(f"{MODEL}/config.json", BRACKETS)),
        "config.json: JSON nested",
    ),
    case(
        "config is a list",
        unsigned(lambda box: box.write(f"{MODEL}/config.json", "[]")),
        "config.json: a JSON object was",
    ),
    case("config of another width", unsigned(config(n_embd=32)), "weights (of another shape|missing)"),
    case(
        "config of a text for a width",
        unsigned(config(n_embd="wide")),
        f"{MODEL}/config.json: .*n_embd",
    ),
    case(
        "config of a negative width",
        unsigned(config(n_embd=-16)),
        f"{MODEL}/config.json: .*n_embd",
    ),
    case(
        "config of an unknown activation",
        unsigned(config(activation_function="evil")),
        f"{MODEL}",
    ),
    case("another prefix", kept(lambda box: None, *LOAD, "--len_prefix", "2"), "was trained with --len_prefix 0"),
    case(
        "tokenizer of a checkpoint empty",
        kept(lambda box: box.write("ckpts/nle_gpt2_tokenizer_0/tokenizer.json", "{}")),
        "nle_gpt2_tokenizer_0/tokenizer.json: no byte-pair encoding",
    ),
    case("every state torn", states(lambda box, path: torn(path)(box)), "ckpts/resume: every state is torn or altered"),
    case("hostile state", states(lambda box, path: box.torch_bomb(path), True), "state.pt: torn, altered or unsafe"),
    case(
        "state of something else",
        states(lambda box, path: torch.save({"a": 1}, box / path), True),
        "state.pt|--resume",
    ),
    case(
        "state is a list",
        states(lambda box, path: torch.save([1], box / path), True),
        "state.pt|--resume",
    ),
    case(
        "state with an average of another shape",
        states(average_of_another_shape, True),
        "state.pt is not of this program.*of its weight's shape",
    ),
    case(
        "resumed with another seed",
        states(lambda box, path: None, False, "--seed", "1"),
        "--resume: seed was 42 and is 1 now; give the same",
    ),
    case(
        "resumed with another model",
        states(lambda box, path: None, False, "--use_emotion_loss"),
        "--resume: the state is of another model",
    ),
    case(
        "report to a file of another kind",
        kept(lambda box: None, *LOAD, "--eval_only", "--append_to", RELEASE_CSV),
        "release.csv: not a CSV file of test reports",
    ),
    case(
        "hostile classifier",
        kept(
            lambda box: box.torch_bomb("best_model.pt"),
            *LOAD,
            "--eval_only",
            "--text2emotion",
            "best_model.pt",
            "--vocabulary",
            f"{NETS}/vocabulary.pkl",
        ),
        "best_model.pt: refused: its pickle names (os|posix).system",
    ),
    case(
        "hostile vocabulary of a classifier",
        kept(
            lambda box: box.bomb("words.pkl"),
            *LOAD,
            "--eval_only",
            "--text2emotion",
            str(REPOSITORY / "tests/data/artemis/preprocess_data_nets/txt_to_emotion/lstm_based/best_model.pt"),
            "--vocabulary",
            "words.pkl",
        ),
        "words.pkl: refused: its pickle names (os|posix).system",
    ),
]


@pytest.mark.parametrize(("make", "message"), CHECKPOINTS)
def test_checkpoint(box, trained, capsys, make, message):
    shutil.copytree(trained, box / "ckpts")
    check_refused(box, artEmisX_train.main, make(box), message, capsys)


# ---- models' own weights ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Folders `vit` and `gpt2` with random weights, as downloads have them."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

    root = tmp_path_factory.mktemp("weights")
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(root / "vit")
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(root / "gpt2")
    return root


def downloaded(change: Callable[[Box], object]) -> Callable[[Box], list[str]]:
    def make(box: Box) -> list[str]:
        change(box)
        return train_argv("--from_scratch", "False")

    return make


def hostile_bin(folder: str) -> Callable[[Box], object]:
    def change(box: Box) -> None:
        (box / folder / "model.safetensors").unlink()
        box.torch_bomb(f"{folder}/pytorch_model.bin")

    return change


def resaved(folder: str, change: Callable[[dict], object]) -> Callable[[Box], object]:
    def rewrite(box: Box) -> None:
        state = load_file(box / folder / "model.safetensors")
        change(state)
        save_file(state, box / folder / "model.safetensors", {"format": "pt"})

    return rewrite


WEIGHTS = [
    case(f"{what} of {folder}", downloaded(change), message)
    for folder, one in (("vit", "vision_model.post_layernorm.weight"), ("gpt2", "transformer.ln_f.weight"))
    for what, change, message in (
        ("torn weights", torn(f"{folder}/model.safetensors"), f"_model {folder}: "),
        ("hostile weights", hostile_bin(folder), f"_model {folder}: "),
        (
            "a weight missing",
            resaved(folder, lambda state, one=one: state.pop(one, state.pop(one.partition(".")[2], None))),
            f"_model {folder}: lacks",
        ),
        (
            "a weight of another shape",
            resaved(
                folder, lambda state, one=one: state.update({one if one in state else one.partition(".")[2]: SHAPE})
            ),
            f"_model {folder}: ",
        ),
        (
            "config of another width",
            lambda box, folder=folder: box.json(
                f"{folder}/config.json", lambda c: c | {"n_embd": 32, "hidden_size": 32}
            ),
            f"_model {folder}: ",
        ),
    )
]


@pytest.mark.parametrize(("make", "message"), WEIGHTS)
def test_weights(box, weights, capsys, make, message):
    shutil.copytree(weights, box.root, dirs_exist_ok=True)
    check_refused(box, artEmisX_train.main, make(box), message, capsys)


# ---- the other scripts -----------------------------------------------------------------------------------------------


def script(
    main: Callable,
    name: str,
    argv: str,
    message: str,
    change: Callable[[Box], object] = lambda box: None,
):
    return pytest.param(main, change, argv.split(" "), message, id=f"{main.__module__.split('.')[-1]}: {name}"[:70])


def rows(path: str, *lines: str) -> Callable[[Box], object]:
    """Append lines to a csv file."""
    return lambda box: box.write(path, (box / path).read_text() + "".join(line + "\n" for line in lines))


def replaced(path: str, old: str, new: str) -> Callable[[Box], object]:
    return lambda box: box.replace(path, old, new)


def content(path: str, what: str | bytes) -> Callable[[Box], object]:
    return lambda box: box.write(path, what)


def gone(path: str) -> Callable[[Box], object]:
    return lambda box: shutil.rmtree(box / path) if (box / path).is_dir() else (box / path).unlink()


HEADER = "art_style,painting,emotion,utterance,repetition\n"
BAD_TABLES = {
    "of another header": ("a,b\n1,2\n", "has no column .*"),
    "empty": ("", "has no column "),
    "without rows": (HEADER, "has no rows"),
    "in latin-1": (HEADER.encode() + "Baroque,caf\xe9,awe,text,1\n".encode("latin-1"), "not UTF-8 text"),
    "in UTF-16": (HEADER.encode("utf-16"), "not UTF-8 text|not a readable csv|has no column"),
    "of ragged rows": (HEADER + "Baroque,p,awe,text,1,more,and more\n", "not a readable csv"),
    "of short rows": (HEADER + "Baroque,p,awe\n", "row 1: |not a readable csv"),
    "with an open quote": (HEADER + 'Baroque,p,awe,"text,1\n', "not a readable csv"),
    "with NUL in the header": (
        "art_style,paint\0ing,emotion,utterance,repetition\n",
        "has no column|not a readable csv",
    ),
    "of zeros": (bytes(5000), "has no column|not a readable csv"),
    "of one long line": (b"a" * MANY_BYTES, "has no column|not a readable csv"),
    "of one long cell": (
        HEADER.encode() + b"Baroque,p,awe," + b"a" * MANY_BYTES + b",x\n",
        "row 1: repetition 'x' is not an int",
    ),
    "of an unknown emotion": (HEADER + "Baroque,p,joy,text,1\n", "row 1: unknown emotion 'joy' .known: amusement"),
    "of a formula": (HEADER + "Baroque,p,\"=cmd|' /C calc'!A0\",text,1\n", "row 1: unknown emotion"),
    "of half a repetition": (HEADER + "Baroque,p,awe,text,1.5\n", "row 1: repetition '1.5' is not an integer"),
    "of a huge repetition": (HEADER + "Baroque,p,awe,text,1e30\n", "row 1: repetition '1e30' is not an integer"),
    "of more digits than a number": (HEADER + f"Baroque,p,awe,text,{'9' * 25}\n", "row 1: repetition"),
    "of an infinite repetition": (HEADER + "Baroque,p,awe,text,inf\n", "row 1: repetition 'inf'"),
}
SPLITS = "--artemis_dir artemis --out_dir out"
PREPARE = f"--release_csv {RELEASE_CSV} --out_dir out --jobs 1"
RESIZE = "--wikiart_dir data/images --out_dir out --jobs 1"
COCO = f"--annotations {ANNOTATIONS} --results results.json --metrics bleu"
T2E = f"--data_dir {NETS} --sizes 4 4 4 4 --epochs 1 --batch_size 2 --device cpu --out out/t2e.safetensors"
FEATURES = "--image_root data/images --out_dir out --clip_model vit --from_scratch --num_workers 0"
FROM_ARTEMIS = "; make the folder with preprocess/prepare_artemis.py"
SPELLED = "é"

SCRIPTS = [
    # resize_wikiart
    script(
        resize_wikiart.main, "no folder", "--wikiart_dir gone --out_dir out", "gone: no such image folder; give the one"
    ),
    script(resize_wikiart.main, "folder is a file", f"--wikiart_dir {TRAIN} --out_dir out", "no such image folder"),
    script(
        resize_wikiart.main,
        "no images",
        "--wikiart_dir artemis --out_dir out --jobs 1",
        "artemis: holds no image asked for; give",
    ),
    script(
        resize_wikiart.main,
        "in place",
        "--wikiart_dir data/images --out_dir data/images",
        "originals would be overwritten; name another",
    ),
    script(resize_wikiart.main, "quality", f"{RESIZE} --quality 50", "--quality 90 to 100"),
    script(resize_wikiart.main, "size", f"{RESIZE} --max_size 0", "--max_size"),
    script(resize_wikiart.main, "jobs", f"{RESIZE} --jobs 0", "--jobs"),
    script(resize_wikiart.main, "word for a size", f"{RESIZE} --max_size large", "--max_size.*large"),
    script(resize_wikiart.main, "unknown flag", f"{RESIZE} --sharpen", "--sharpen"),
    script(resize_wikiart.main, "no flags", "", "--wikiart_dir"),
    script(
        resize_wikiart.main,
        "output below a file",
        "--wikiart_dir data/images --jobs 1 --out_dir vit/config.json",
        "vit/config.json",
    ),
    script(resize_wikiart.main, "manifest is a folder", f"{RESIZE} --manifest data", "data: is a folder"),
    script(
        resize_wikiart.main,
        "no release",
        f"{RESIZE} --release_csv gone.csv",
        "gone.csv: no such file; give ArtEmis' release csv",
    ),
    script(
        resize_wikiart.main,
        "release leads out",
        f"{RESIZE} --release_csv {RELEASE_CSV}",
        "holds no image asked for",
        content(RELEASE_CSV, HEADER + "../..,p,awe,t,1\n"),
    ),
    # build_splits
    script(build_splits.main, "no folders", "--out_dir out", "give --artemis_dir, or both"),
    script(
        build_splits.main,
        "no histogram file",
        SPLITS,
        f"{HISTOGRAM_CSV}: no such file{FROM_ARTEMIS}",
        gone(HISTOGRAM_CSV),
    ),
    script(build_splits.main, "no annotations", SPLITS, f"{NETS_CSV}: no such file{FROM_ARTEMIS}", gone(NETS_CSV)),
    script(
        build_splits.main,
        "annotations are a folder",
        SPLITS,
        f"{NETS_CSV}: is a folder",
        lambda box: (gone(NETS_CSV)(box), (box / NETS_CSV).mkdir()),
    ),
    script(build_splits.main, "no image folder", f"{SPLITS} --image_root gone", "gone: no such image folder"),
    script(build_splits.main, "unknown data set", f"{SPLITS} --dataset v3", "--dataset.*v3"),
    script(build_splits.main, "unknown training set", f"{SPLITS} --train_set all", "--train_set.*all"),
    script(
        build_splits.main,
        "v2 called v1",
        SPLITS,
        f"{NETS_CSV}: has a column version.*--dataset v2",
        replaced(NETS_CSV, "emotion_label", "version"),
    ),
    script(build_splits.main, "v1 called v2", f"{SPLITS} --dataset v2", f"{NETS_CSV}: has no column version"),
    script(
        build_splits.main,
        "unknown split",
        SPLITS,
        f"{NETS_CSV}: unknown split 'dev' .known: rest, test",
        replaced(NETS_CSV, ",val,", ",dev,"),
    ),
    script(
        build_splits.main,
        "long unknown split",
        SPLITS,
        f"{NETS_CSV}: unknown split",
        replaced(NETS_CSV, ",val,", f",{'v' * 9999},"),
    ),
    script(
        build_splits.main,
        "artwork in two splits",
        SPLITS,
        f"{NETS_CSV}: Baroque/val0 is in several splits{FROM_ARTEMIS}",
        replaced(NETS_CSV, ",val,", ",train,"),
    ),
    script(
        build_splits.main,
        "artwork of two lines in two splits",
        SPLITS,
        f"{NETS_CSV}: Baroque/.* is in several splits",
        rows(NETS_CSV, *(f'Baroque,"a\nb",awe,text,6,{split},[],1' for split in ("train", "val"))),
    ),
    script(
        build_splits.main,
        "artwork in two splits and spellings",
        SPLITS,
        "Baroque/.* is in .* as well|several splits|Unicode spellings",
        lambda box: (
            rows(
                NETS_CSV,
                f"Baroque,caf{SPELLED},awe,{TEXTS[0]},6,train,[],1",
                f"Baroque,cafe\u0301,awe,{TEXTS[0]},6,val,[],1",
            )(box),
            rows(HISTOGRAM_CSV, f'Baroque,caf{SPELLED},"[1,0,0,0,0,0,0,0,0]"')(box),
        ),
    ),
    script(
        build_splits.main,
        "artwork without histogram",
        SPLITS,
        f"{NETS_CSV}: Baroque/new has no histogram; take both",
        rows(NETS_CSV, f"Baroque,new,awe,{TEXTS[0]},6,train,[],1"),
    ),
    script(
        build_splits.main,
        "only one emotion",
        SPLITS,
        f"{NETS_CSV}: no training images with annotations of two emotions",
        lambda box: box.write(NETS_CSV, (box / NETS_CSV).read_text().replace(",fear,", ",awe,")),
    ),
    script(
        build_splits.main,
        "no test artworks",
        SPLITS,
        f"{NETS_CSV}: no artworks for artEmisX_test",
        lambda box: box.write(NETS_CSV, (box / NETS_CSV).read_text().replace(",test,", ",val,")),
    ),
    script(
        build_splits.main,
        "hostile vocabulary",
        SPLITS,
        "vocabulary.pkl: refused: its pickle names (os|posix).system; download this file again",
        lambda box: box.bomb(f"{NETS}/vocabulary.pkl"),
    ),
    script(build_splits.main, "damaged vocabulary", SPLITS, "vocabulary.pkl: damaged", torn(f"{NETS}/vocabulary.pkl")),
    script(
        build_splits.main, "output below a file", "--artemis_dir artemis --out_dir vit/config.json", "vit/config.json"
    ),
    *(
        script(
            build_splits.main,
            f"histogram {name}",
            SPLITS,
            f"{HISTOGRAM_CSV}: row 1 .Baroque/train0.: .*9 vote counts{FROM_ARTEMIS}",
            replaced(HISTOGRAM_CSV, "[0.0, 1.0, 0, 0, 0, 0, 1.0, 0, 0]", votes),
        )
        for name, votes in {
            "of eight": "[1, 1, 0, 0, 0, 0, 0, 0]",
            "negative": "[-1, 3, 0, 0, 0, 0, 0, 0, 0]",
            "of zeros": str([0] * 9),
            "infinite": "[1e999, 1, 0, 0, 0, 0, 0, 0, 0]",
            "overflowing": str([1e308] * 9),
            "of huge integers": f"[{'9' * 400}, 1, 0, 0, 0, 0, 0, 0, 0]",
            "of code": "__import__('os').system('echo harm > canary')",
            "of brackets": "[" * 5000,
            "of texts": str(["a"] * 9),
            "of NaN": "[nan, 1, 0, 0, 0, 0, 0, 0, 0]",
            "of nothing": "",
            "a number": "3",
            "of NUL": "\0",
        }.items()
    ),
    script(
        build_splits.main,
        "histogram twice",
        SPLITS,
        f"{HISTOGRAM_CSV}: row 7 .Baroque/val0.: the artwork occurs twice",
        rows(HISTOGRAM_CSV, 'Baroque,val0,"[1,0,0,0,0,0,0,0,0]"'),
    ),
    # build_annotations
    script(build_annotations.main, "no split", "gone.json --out_dir out", "gone.json: no such file"),
    script(
        build_annotations.main,
        "same name",
        f"{VAL} other/artEmisX_val.json --out_dir out",
        "two splits of the same file name.*--out_dir",
    ),
    script(
        build_annotations.main,
        "second split bad",
        f"{VAL} bad.json --out_dir out",
        "bad.json: holds no records",
        content("bad.json", "{}"),
    ),
    script(
        build_annotations.main,
        "split of brackets",
        "bad.json --out_dir out",
        "bad.json: JSON nested too deeply",
        content("bad.json", BRACKETS),
    ),
    script(
        build_annotations.main,
        "half a character",
        f"{VAL} --out_dir out",
        f"{VAL}: record '21': .*half a character",
        lambda box: box.json(VAL, lambda r: r["21"].update(explanations=["\udc80", "a"])),
    ),
    script(build_annotations.main, "output below a file", f"{VAL} --out_dir vit/config.json", "vit/config.json"),
    script(build_annotations.main, "no flags", "", "splits"),
    # prepare_artemis
    *(
        script(
            prepare_artemis.main, f"release {name}", PREPARE, f"{RELEASE_CSV}: {message}", content(RELEASE_CSV, what)
        )
        for name, (what, message) in BAD_TABLES.items()
    ),
    script(
        prepare_artemis.main,
        "no release",
        "--release_csv gone.csv --out_dir out",
        "gone.csv: no such file; give ArtEmis' release",
    ),
    script(prepare_artemis.main, "no flags", "", "--release_csv"),
    script(prepare_artemis.main, "preprocessed release", f"--release_csv {NETS_CSV} --out_dir out", f"{NETS_CSV}: "),
    script(
        prepare_artemis.main,
        "too few artworks",
        PREPARE,
        "2 artworks are too few to be split",
        content(RELEASE_CSV, HEADER + "Baroque,a,awe,text,1\nBaroque,b,awe,text,1\n"),
    ),
    script(
        prepare_artemis.main,
        "short texts",
        PREPARE,
        f"{RELEASE_CSV}: no training text has between 5 tokens",
        lambda box: [box.write(RELEASE_CSV, (box / RELEASE_CSV).read_text().replace(text, "dull")) for text in TEXTS],
    ),
    script(
        prepare_artemis.main,
        "unknown split",
        PREPARE,
        f"{RELEASE_CSV}: unknown split 'dev'",
        content(RELEASE_CSV, HEADER[:-1] + ",split\nBaroque,a,awe,text,1,dev\n"),
    ),
    script(
        prepare_artemis.main,
        "no training rows",
        PREPARE,
        f"{RELEASE_CSV}: no row has the split train",
        content(RELEASE_CSV, HEADER[:-1] + ",split\nBaroque,a,awe,text,1,val\n"),
    ),
    script(
        prepare_artemis.main,
        "artwork in two splits",
        PREPARE,
        f"{RELEASE_CSV}: Baroque/a is in several splits",
        content(RELEASE_CSV, HEADER[:-1] + ",split\nBaroque,a,awe,text,1,val\nBaroque,a,awe,text,1,train\n"),
    ),
    script(
        prepare_artemis.main,
        "contrastive without anchors",
        f"{PREPARE} --contrastive_csv {RELEASE_CSV}",
        f"{RELEASE_CSV}: has no column anchor_painting",
    ),
    script(
        prepare_artemis.main, "no contrastive file", f"{PREPARE} --contrastive_csv gone.csv", "gone.csv: no such file"
    ),
    script(
        prepare_artemis.main,
        "jobs",
        f"--release_csv {RELEASE_CSV} --out_dir out --jobs 0",
        "--jobs: 0 is not between 1",
    ),
    script(
        prepare_artemis.main,
        "output below a file",
        f"--release_csv {RELEASE_CSV} --jobs 1 --out_dir vit/config.json",
        "vit/config.json",
    ),
    script(prepare_artemis.main, "no spelling list", f"{PREPARE} --spelling gone.json", "gone.json: no such file"),
    script(
        prepare_artemis.main,
        "spelling list of brackets",
        f"{PREPARE} --spelling s.json",
        "s.json: JSON nested too deeply",
        content("s.json", BRACKETS),
    ),
    script(
        prepare_artemis.main,
        "spelling list of numbers",
        f"{PREPARE} --spelling s.json",
        "s.json: .*a text or a list of texts",
        content("s.json", '{"teh": 3}'),
    ),
    script(
        prepare_artemis.main,
        "spelling list that acts",
        f"{PREPARE} --spelling s.py",
        "s.py: ",
        content("s.py", "a = {'b': __import__('os').system('echo harm > canary')}"),
    ),
    script(
        prepare_artemis.main,
        "spelling list of Python brackets",
        f"{PREPARE} --spelling s.py",
        "s.py: ",
        content("s.py", "a = " + BRACKETS),
    ),
    script(
        prepare_artemis.main,
        "spelling list with NUL",
        f"{PREPARE} --spelling s.py",
        "s.py: ",
        content("s.py", "a = {'a': 'b\0'}"),
    ),
    script(
        prepare_artemis.main,
        "no known words",
        f"{PREPARE} --known_words gone.txt",
        "gone.txt: no such file; give GloVe's",
    ),
    script(
        prepare_artemis.main,
        "known words in latin-1",
        f"{PREPARE} --known_words w.txt",
        "w.txt: not UTF-8 text",
        content("w.txt", b"caf\xe9 1\n"),
    ),
    script(
        prepare_artemis.main,
        "known words empty",
        f"{PREPARE} --known_words w.txt",
        "w.txt: holds no words",
        content("w.txt", "\n\n"),
    ),
    # make_demo_data
    script(make_demo_data.main, "few pictures", "--out_dir out --pictures 5", "--pictures 5: at least 30"),
    script(make_demo_data.main, "negative seed", "--out_dir out --seed -1", "--seed -1: must not be negative"),
    script(
        make_demo_data.main,
        "folder of something else",
        "--out_dir data --pictures 30",
        "data: not empty .*name another --out_dir",
    ),
    script(
        make_demo_data.main, "folder is a file", f"--out_dir {TRAIN}", f"{TRAIN}: is a file.*name another --out_dir"
    ),
    script(make_demo_data.main, "folder below a file", f"--out_dir {TRAIN}/out --pictures 30", f"{TRAIN}"),
    script(make_demo_data.main, "word for a number", "--pictures many", "--pictures.*many"),
    # train_text2emotion
    script(train_text2emotion.main, "no folder", T2E.replace(NETS, "gone"), "gone/vocabulary.pkl: no such file"),
    script(
        train_text2emotion.main,
        "hostile vocabulary",
        T2E,
        "vocabulary.pkl: refused: its pickle names (os|posix).system",
        lambda box: box.bomb(f"{NETS}/vocabulary.pkl"),
    ),
    script(
        train_text2emotion.main,
        "no annotations",
        T2E,
        f"{NETS_CSV}: no such file; make it with preprocess/prepare_artemis",
        gone(NETS_CSV),
    ),
    script(
        train_text2emotion.main,
        "annotations without columns",
        T2E,
        f"{NETS_CSV}: .*preprocess/prepare_artemis",
        content(NETS_CSV, HEADER),
    ),
    script(
        train_text2emotion.main,
        "annotations in latin-1",
        T2E,
        f"{NETS_CSV}: .*preprocess/prepare_artemis",
        content(NETS_CSV, b"split,tokens_encoded,emotion_label\n\xe9,1,1\n"),
    ),
    script(
        train_text2emotion.main,
        "no rows of test",
        T2E,
        f"{NETS_CSV}: has no rows of split 'test'",
        lambda box: box.write(NETS_CSV, (box / NETS_CSV).read_text().replace(",test,", ",val,")),
    ),
    script(
        train_text2emotion.main,
        "tokens of brackets",
        T2E,
        f"{NETS_CSV}: line 2: tokens_encoded is not",
        replaced(NETS_CSV, "[1, 4, 5, 6, 7, 8, 2]", BRACKETS),
    ),
    script(
        train_text2emotion.main,
        "tokens beyond the vocabulary",
        T2E,
        f"{NETS_CSV}: line 2: tokens_encoded is not",
        replaced(NETS_CSV, "[1, 4,", "[1, 99999,"),
    ),
    script(
        train_text2emotion.main,
        "tokens of fractions",
        T2E,
        f"{NETS_CSV}: line 2: tokens_encoded is not",
        replaced(NETS_CSV, "[1, 4,", "[1, 4.5,"),
    ),
    script(
        train_text2emotion.main,
        "label of nine",
        T2E,
        f"{NETS_CSV}: line 2: emotion_label 9",
        replaced(NETS_CSV, '",1\n', '",9\n'),
    ),
    script(
        train_text2emotion.main, "no word vectors", f"{T2E} --glove gone.txt", "gone.txt: no such file; download GloVe"
    ),
    script(
        train_text2emotion.main,
        "word vectors of words",
        f"{T2E} --glove g.txt",
        "g.txt: not a GloVe text file",
        content("g.txt", "the high low\n"),
    ),
    script(
        train_text2emotion.main,
        "word vectors in latin-1",
        f"{T2E} --glove g.txt",
        "g.txt: not a GloVe text file",
        content("g.txt", b"caf\xe9 1 2\n"),
    ),
    script(
        train_text2emotion.main,
        "word vectors of NaN",
        f"{T2E} --glove g.txt",
        "g.txt: not a GloVe text file",
        content("g.txt", "the nan 1\n"),
    ),
    script(
        train_text2emotion.main,
        "word vectors of other words",
        f"{T2E} --glove g.txt",
        "g.txt: holds no word of the vocabulary",
        content("g.txt", "zzz 1 2\n"),
    ),
    script(
        train_text2emotion.main,
        "pickled output",
        T2E.replace("t2e.safetensors", "t2e.pt"),
        "--out .*ends in .safetensors",
    ),
    script(train_text2emotion.main, "output below a file", T2E.replace("out/", "vit/config.json/"), "vit/config.json"),
    script(train_text2emotion.main, "batch of one", f"{T2E} --batch_size 1", "--batch_size 1: batch normalisation"),
    script(train_text2emotion.main, "rate", f"{T2E} --learning_rate nan", "--learning_rate nan"),
    script(train_text2emotion.main, "device", f"{T2E} --device abacus", "--device abacus: torch has no such device"),
    script(train_text2emotion.main, "huge seed", f"{T2E} --seed {'9' * 30}", "--seed"),
    script(train_text2emotion.main, "three sizes", f"--data_dir {NETS} --sizes 1 2 3", "--sizes"),
    # cache_features
    script(cache_features.main, "no split", f"gone.json {FEATURES}", "gone.json: no such file"),
    script(
        cache_features.main,
        "split of brackets",
        f"{TRAIN} {FEATURES}",
        f"{TRAIN}: JSON nested too deeply",
        content(TRAIN, BRACKETS),
    ),
    script(
        cache_features.main,
        "no image folder",
        f"{TRAIN} {FEATURES} --image_root gone",
        "--image_root gone: no such folder",
    ),
    script(
        cache_features.main, "no model", f"{TRAIN} {FEATURES} --clip_model gone", "--clip_model gone: no such model"
    ),
    script(
        cache_features.main,
        "missing image",
        f"{TRAIN} {FEATURES}",
        "no image Baroque/p1.jpg",
        gone("data/images/Baroque/p1.jpg"),
    ),
    script(
        cache_features.main,
        "decompression bomb",
        f"{TRAIN} {FEATURES}",
        "p1.jpg: image has too many pixels",
        content("data/images/Baroque/p1.jpg", png_header(50_000, 50_000)),
    ),
    script(
        cache_features.main,
        "image outside",
        f"{TRAIN} {FEATURES}",
        "leads out of",
        lambda box: box.json(TRAIN, lambda r: r["12"].update(image_name="../p.jpg")),
    ),
    script(cache_features.main, "folder is a file", f"{TRAIN} {FEATURES} --out_dir vit/config.json", "vit/config.json"),
    script(cache_features.main, "batch of none", f"{TRAIN} {FEATURES} --batch_size 0", "--batch_size"),
    script(cache_features.main, "negative check", f"{TRAIN} {FEATURES} --check -1", "--check"),
    script(cache_features.main, "workers", f"{TRAIN} {FEATURES} --num_workers -1", "--num_workers"),
    script(cache_features.main, "huge seed", f"{TRAIN} {FEATURES} --seed {'9' * 30}", "--seed"),
    # cococaption
    script(cococaption.main, "no annotations", COCO.replace(ANNOTATIONS, "gone.json"), "gone.json: no such file"),
    script(cococaption.main, "no results", COCO, "results.json: no such file", gone("results.json")),
    script(
        cococaption.main,
        "results of brackets",
        COCO,
        "results.json: JSON nested too deeply",
        content("results.json", BRACKETS),
    ),
    script(
        cococaption.main,
        "results are an object",
        COCO,
        "results.json: a JSON list.*one record per image",
        content("results.json", "{}"),
    ),
    script(
        cococaption.main,
        "result without caption",
        COCO,
        "results.json: record 0: has no 'caption'; one record",
        content("results.json", '[{"image_id": 21}]'),
    ),
    script(
        cococaption.main,
        "id as text",
        COCO,
        "results.json: record 0: image_id: '21' is not a 64-bit",
        content("results.json", '[{"image_id": "21", "caption": "a"}]'),
    ),
    script(
        cococaption.main,
        "two captions",
        COCO,
        "results.json: record 1: a second caption for image 21",
        content("results.json", json.dumps([{"image_id": 21, "caption": "a"}] * 2)),
    ),
    script(
        cococaption.main,
        "other images",
        COCO,
        f"{ANNOTATIONS}: lacks 1 of the images.*same split",
        content("results.json", '[{"image_id": 5, "caption": "a"}]'),
    ),
    script(
        cococaption.main,
        "half a character",
        COCO,
        "results.json: record 0: caption: .*half a character.*repair",
        content("results.json", '[{"image_id": 21, "caption": "\\ud800"}]'),
    ),
    script(
        cococaption.main,
        "line separator",
        COCO,
        "results.json: record 0: caption: .*U.2028; replace it by a space",
        content("results.json", '[{"image_id": 21, "caption": "a\\u2028b"}]'),
    ),
    script(cococaption.main, "output is a folder", f"{COCO} --json data", "data: is a folder; give the name of a file"),
    script(cococaption.main, "output below a file", f"{COCO} --json vit/config.json/out.json", "vit/config.json"),
    script(cococaption.main, "unknown metric", f"{COCO} wer", "--metrics.*wer"),
    script(
        cococaption.main, "no METEOR process", f"{COCO} --meteor_jvms 0", "--meteor_jvms: 0 is not between 1 and 32"
    ),
    script(cococaption.main, "unknown flag", f"{COCO} --rouge", "--rouge"),
    # utils.report
    script(report.main, "no report", "gone.json", "gone.json: no such file"),
    script(report.main, "no flags", "", "reports"),
    script(
        report.main,
        "report of brackets",
        "report.json",
        "report.json: JSON nested too deeply",
        content("report.json", BRACKETS),
    ),
    script(report.main, "no scores", f"{ANNOTATIONS}", "no test report .it has no scores.; name the report.json"),
    script(
        report.main,
        "score is a text",
        "report.json",
        "report.json: no test report",
        content("report.json", '{"scores": {"sub_acc": "high"}}'),
    ),
    script(
        report.main,
        "score is NaN",
        "report.json --json out.json",
        "report.json: no test report",
        content("report.json", '{"scores": {"sub_acc": NaN}}'),
    ),
    script(
        report.main,
        "score of 400 digits",
        "report.json --json out.json",
        "report.json: no test report",
        content("report.json", '{"scores": {"sub_acc": ' + "9" * 400 + "}}"),
    ),
    script(
        report.main,
        "seed is a list",
        "report.json report2.json",
        "report.json: no test report",
        lambda box: [
            box.write(name, '{"seed": [1], "scores": {"sub_acc": 1}}') for name in ("report.json", "report2.json")
        ],
    ),
    script(
        report.main,
        "test set is a list",
        "report.json",
        "report.json: no test report",
        content("report.json", '{"test_set": [1], "scores": {"sub_acc": 1}}'),
    ),
    script(report.main, "output is a folder", "report.json --json data", "data: is a folder"),
    script(report.main, "output below a file", "report.json --json vit/config.json/a.json", "vit/config.json"),
]


@pytest.mark.parametrize(("main", "change", "argv", "message"), SCRIPTS)
def test_script(box, capsys, main, change, argv, message):
    change(box)
    check_refused(box, main, [text for text in argv if text], message, capsys)


@pytest.mark.parametrize(
    ("main", "argv"),
    [
        (resize_wikiart.main, RESIZE),
        (build_splits.main, SPLITS),
        (build_annotations.main, f"{VAL} --out_dir out"),
        (prepare_artemis.main, PREPARE),
        (train_text2emotion.main, T2E),
        (cache_features.main, f"{TRAIN} {FEATURES}"),
        (cococaption.main, f"{COCO} --json out/scores.json"),
        (report.main, "report.json --json out/summary.json"),
    ],
    ids=lambda value: getattr(value, "__module__", ""),
)
def test_good_files_are_accepted_by(box, main, argv):
    assert run_script(lambda: main(argv.split())) == 0
    assert any((box / "out").rglob("*.*"))


# ---- as users see it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "change", "message"),
    [
        (["artEmisX_train.py", "--use_VAD", "maybe"], None, "error: .*--use_VAD.*'maybe'"),
        (
            ["preprocess/build_splits.py", *SPLITS.split()],
            gone(NETS_CSV),
            f"error: {NETS_CSV}: no such file{FROM_ARTEMIS}",
        ),
        (
            ["-m", "cococaption", *COCO.split()],
            content("results.json", BRACKETS),
            "error: results.json: JSON nested too deeply",
        ),
    ],
    ids=["artEmisX_train", "build_splits", "cococaption"],
)
def test_from_the_shell(box, argv, change, message):
    """Exit status 2, one line on stderr, nothing on stdout."""
    if change:
        change(box)
    if argv[0] != "-m":
        argv = [str(REPOSITORY / argv[0]), *argv[1:]]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    before = box.files()
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(message + "[^\n]*\n", done.stderr), done.stderr
    assert box.files() == before
