"""Checkpoints, kept states and classifiers that a run cannot continue from or be scored with."""

import shutil
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.bad_input import (
    ARTEMIS,
    BRACKETS,
    RELEASE_CSV,
    Box,
    check_training_refused,
    content,
    removed,
    torn,
    unchanged,
)
from tests.conftest import REPOSITORY

MODEL, STATS = "ckpts/nle_model_best-acc", "ckpts/ckpt_stats_best-acc.tar"
WEIGHTS, CONFIG, MANIFEST = f"{MODEL}/model.safetensors", f"{MODEL}/config.json", f"{MODEL}/manifest.json"
TOKENIZER = "nle_gpt2_tokenizer_0/tokenizer.json"
LOAD = "--load_from_epoch best-acc"
SHAPE = torch.zeros(2, 2)
TORN = f"{MODEL}: truncated or modified"


@pytest.fixture
def checkpoints(box, good_checkpoints) -> Box:
    shutil.copytree(good_checkpoints, box / "ckpts")
    return box


def test_good_files_are_accepted(good_checkpoints):
    """Else the cases would show nothing."""
    assert (good_checkpoints / "nle_model_best-acc/model.safetensors").is_file()


# ---- as we keep them, with a manifest --------------------------------------------------------------------------------


def flip_a_bit(box: Box) -> None:
    weights = bytearray((box / WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    box.write(WEIGHTS, bytes(weights))


# what -> (change, message)
SIGNED = {
    "torn weights": (torn(WEIGHTS), f"{TORN}.*take another checkpoint"),
    "flipped bit": (flip_a_bit, TORN),
    "torn stats": (torn(STATS), TORN),
    "no stats": (removed(STATS), "best-acc"),
    "manifest of brackets": (content(MANIFEST, BRACKETS), TORN),
    "tokenizer empty": (
        content(f"ckpts/{TOKENIZER}", "{}"),
        f"{TORN} .*{TOKENIZER} differs from its SHA-256.*; take",
    ),
}


@pytest.mark.parametrize(("change", "message"), SIGNED.values(), ids=SIGNED)
def test_with_manifest(checkpoints, change, message):
    change(checkpoints)
    check_training_refused(checkpoints, message, LOAD)


# ---- without our manifest, as the authors' have none -----------------------------------------------------------------


def weights(change: Callable[[dict], object]) -> Callable[[Box], None]:
    def rewrite(box: Box) -> None:
        state = load_file(box / WEIGHTS)
        change(state)
        save_file(state, box / WEIGHTS)

    return rewrite


def stats(change: Callable[[dict], object]) -> Callable[[Box], None]:
    def rewrite(box: Box) -> None:
        state = torch.load(box / STATS, weights_only=True)
        changed = change(state)
        torch.save(state if changed is None else changed, box / STATS)

    return rewrite


def config(**fields: object) -> Callable[[Box], None]:
    return lambda box: box.json(CONFIG, lambda values: values | fields)


def weights_are_hostile(box: Box) -> None:
    box.remove(WEIGHTS)
    box.torch_bomb(f"{MODEL}/pytorch_model.bin")


# what -> (change, message)
UNSIGNED = {
    "torn weights": (torn(WEIGHTS), "model.safetensors: truncated, modified or unsafe.*take another"),
    "torn stats": (torn(STATS), f"{STATS}: truncated, modified or unsafe.*take another"),
    "hostile stats": (lambda box: box.torch_bomb(STATS), f"{STATS}: truncated, modified or unsafe.*take another"),
    "hostile bare pickle for stats": (lambda box: box.bomb(STATS), f"{STATS}: truncated, modified or unsafe"),
    "hostile weights": (weights_are_hostile, "pytorch_model.bin: truncated, modified or unsafe.*take another"),
    "weights of another shape": (
        weights(lambda state: state.update({"VAD_head.weight": SHAPE})),
        "weights of another shape: VAD_head.weight",
    ),
    "weights missing": (weights(lambda state: state.pop("VAD_head.weight")), "weights missing: VAD_head.weight"),
    "a NaN among the weights": (
        weights(lambda state: state["transformer.ln_f.weight"][3].fill_(torch.nan)),
        f"{MODEL}: decoder: transformer.ln_f.weight holds numbers that are not finite .*; take another checkpoint",
    ),
    "a VAD encoder beyond float32": (
        stats(
            lambda s: s["emo_encoder_state_dict"].update({"norm.weight": torch.full((3,), -1e300, dtype=torch.float64)})
        ),
        "emo_encoder_state_dict: norm.weight holds numbers that are not finite",
    ),
    "word table missing": (weights(lambda state: state.pop("transformer.wte.weight")), f"{MODEL}.*missing"),
    "VAD encoder missing": (stats(lambda s: {"epoch": 0}), "holds no emo_encoder_state_dict.*--no-use_VAD"),
    "VAD encoder of another shape": (
        stats(lambda s: s["emo_encoder_state_dict"].update({"norm.weight": SHAPE})),
        "another shape: norm.weight",
    ),
    "stats are a list": (stats(lambda s: [1]), f"{STATS}: a dictionary was expected"),
    "config missing": (removed(CONFIG), f"{CONFIG}: no such file"),
    "config broken": (content(CONFIG, "{"), f"{CONFIG}: not valid JSON"),
    "config of brackets": (content(CONFIG, BRACKETS), "config.json: JSON nested"),
    "config is a list": (content(CONFIG, "[]"), "config.json: a JSON object was"),
    "config of another width": (config(n_embd=32), "weights (of another shape|missing)"),
    "config of a text for a width": (config(n_embd="wide"), f"{CONFIG}: .*n_embd"),
    "config of a negative width": (config(n_embd=-16), f"{CONFIG}: .*-16.*; take another"),
    "config of an unknown activation": (config(activation_function="evil"), f"{CONFIG}: .*evil.*; take another"),
}


@pytest.mark.parametrize(("change", "message"), UNSIGNED.values(), ids=UNSIGNED)
def test_without_manifest(checkpoints, change, message):
    checkpoints.remove(MANIFEST)
    change(checkpoints)
    check_training_refused(checkpoints, message, LOAD)


def test_tokenizer_empty_without_manifest(checkpoints):
    checkpoints.remove(MANIFEST)
    checkpoints.write(f"ckpts/{TOKENIZER}", "{}")
    check_training_refused(checkpoints, f"{TOKENIZER}: not the files of a GPT-2 tokenizer", LOAD)


# ---- asked for what is not there, or with other flags ----------------------------------------------------------------


def elsewhere(box: Box) -> None:
    """The checkpoint outside --ckpt_path, and folders that a path from inside it leads through."""
    shutil.move(box / MODEL, box / "x")
    (box / "x/manifest.json").unlink()
    shutil.move(box / STATS, box / "x.tar")
    (box / MODEL).mkdir()
    (box / STATS).with_suffix("").mkdir()


CLASSIFIER = REPOSITORY / f"tests/data/{ARTEMIS}/txt_to_emotion/lstm_based/best_model.pt"

# what -> (change, flags, message)
REQUESTS = {
    "an earlier run is there": (unchanged, "--seed 42", "ckpts: holds the states of an earlier run: give --resume"),
    "no such checkpoint": (
        unchanged,
        "--load_from_epoch 7",
        "ckpts: no checkpoint '7': .*missing.*best-acc",
    ),
    "name leads out": (
        lambda box: shutil.copytree(box / MODEL, box / "x"),
        "--load_from_epoch ../../x",
        "no checkpoint '../../x'|--load_from_epoch",
    ),
    "name at the root": (unchanged, "--load_from_epoch /etc", "no checkpoint '/etc'|--load_from_epoch"),
    "name that would be found outside": (
        elsewhere,
        "--eval_only --load_from_epoch best-acc/../../x",
        "--load_from_epoch",
    ),
    "another prefix": (unchanged, f"{LOAD} --len_prefix 2", f"{CONFIG}: --len_prefix was 0 in training and is 2 now"),
    "report to a file of another kind": (
        unchanged,
        f"{LOAD} --eval_only --append_to {RELEASE_CSV}",
        "release.csv: not a CSV file of test reports",
    ),
    "hostile classifier": (
        lambda box: box.torch_bomb("best_model.pt"),
        f"{LOAD} --eval_only --text2emotion best_model.pt --vocabulary {ARTEMIS}/vocabulary.pkl",
        "best_model.pt: truncated, modified or unsafe .its pickle names (os|posix).system",
    ),
    "hostile vocabulary of a classifier": (
        lambda box: box.bomb("words.pkl"),
        f"{LOAD} --eval_only --text2emotion {CLASSIFIER} --vocabulary words.pkl",
        "words.pkl: truncated, modified or unsafe .its pickle names (os|posix).system",
    ),
}


@pytest.mark.parametrize(("change", "flags", "message"), REQUESTS.values(), ids=REQUESTS)
def test_request(checkpoints, change, flags, message):
    change(checkpoints)
    check_training_refused(checkpoints, message, flags)


# ---- states of --resume ----------------------------------------------------------------------------------------------


def states(box: Box) -> list[str]:
    return [str(path.relative_to(box.root)) for path in (box / "ckpts/resume").glob("*/state.pt")]


def test_every_state_torn(checkpoints):
    for name in states(checkpoints):
        checkpoints.tear(name)
    check_training_refused(checkpoints, "ckpts/resume: every state is truncated or modified", "--resume")


# flags of the second run -> message
CHANGED_FLAGS = {
    "--seed 1": "--resume: --seed was 42 and is 1 now.*; give the same",
    "--use_emotion_loss": "--resume: --use_emotion_loss was False and is True now.*; give the same",
}


@pytest.mark.parametrize(("flags", "message"), CHANGED_FLAGS.items())
def test_resumed_with_other_flags(checkpoints, flags, message):
    check_training_refused(checkpoints, message, f"--resume {flags}")
