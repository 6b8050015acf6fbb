"""Checkpoints and states that a run cannot be continued from or scored with: one line, and no code is run."""

import json
import shutil
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.bad_input import (
    ARTEMIS,
    RELEASE_CSV,
    Box,
    check_training_refused,
    content,
    removed,
    replaced,
    torn,
    unchanged,
)
from tests.conftest import REPOSITORY

MODEL, STATS = "ckpts/nle_model_best-acc", "ckpts/ckpt_stats_best-acc.tar"
WEIGHTS, CONFIG, MANIFEST = f"{MODEL}/model.safetensors", f"{MODEL}/config.json", f"{MODEL}/manifest.json"
TOKENIZER = "nle_gpt2_tokenizer_0/tokenizer.json"
LOAD = "--load_from_epoch best-acc"
CLASSIFIER = REPOSITORY / f"tests/data/{ARTEMIS}/txt_to_emotion/lstm_based/best_model.pt"


@pytest.fixture
def checkpoints(box, good_checkpoints) -> Box:
    shutil.copytree(good_checkpoints, box / "ckpts")
    return box


def flip_a_bit(box: Box) -> None:
    weights = bytearray((box / WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    box.write(WEIGHTS, bytes(weights))


def weights(change: Callable[[dict], object]) -> Callable[[Box], None]:
    def rewrite(box: Box) -> None:
        state = load_file(box / WEIGHTS)
        change(state)
        save_file(state, box / WEIGHTS)

    return rewrite


def without_vad_encoder(box: Box) -> None:
    state = torch.load(box / STATS, weights_only=True)
    del state["emo_encoder_state_dict"]
    torch.save(state, box / STATS)


def tear_every_state(box: Box) -> None:
    for path in (box / "ckpts/resume").glob("*/state.pt"):
        torn(str(path.relative_to(box.root)))(box)


def exchange_two_words(box: Box) -> None:
    vocabulary = json.loads((box / "ckpts" / TOKENIZER).read_text())["model"]["vocab"]
    replaced(f"ckpts/{TOKENIZER}", f'"Ġred": {vocabulary["Ġred"]}', f'"Ġred": {vocabulary["Ġblue"]}')(box)
    box.remove("ckpts/resume")


# what -> (change, message)
WITH_MANIFEST = {
    "flipped bit": (flip_a_bit, f"{MODEL}: truncated or modified.*use another checkpoint"),
    "truncated stats": (torn(STATS), f"{MODEL}: truncated or modified"),
    "no stats": (removed(STATS), "best-acc"),
    "tokenizer empty": (content(f"ckpts/{TOKENIZER}", "{}"), f"{TOKENIZER} differs from its SHA-256.*; use"),
}
# the authors' checkpoints have none
WITHOUT_MANIFEST = {
    "truncated weights": (torn(WEIGHTS), "model.safetensors: truncated, modified or unsafe.*use another"),
    "hostile stats": (lambda box: box.torch_bomb(STATS), f"{STATS}: truncated, modified or unsafe.*use another"),
    "weights missing": (weights(lambda state: state.pop("VAD_head.weight")), "weights missing: VAD_head.weight"),
    "a NaN among the weights": (
        weights(lambda state: state["transformer.ln_f.weight"][3].fill_(torch.nan)),
        f"{MODEL}: decoder: transformer.ln_f.weight holds numbers that are not finite .*; use another checkpoint",
    ),
    "no VAD encoder": (without_vad_encoder, "holds no emo_encoder_state_dict.*--no-use_VAD"),
    "config broken": (content(CONFIG, "{"), f"{CONFIG}: not valid JSON"),
    "config of another width": (
        lambda box: box.json(CONFIG, lambda values: values | {"n_embd": 32}),
        "weights (of another shape|missing)",
    ),
}
DAMAGED = [(True, *case) for case in WITH_MANIFEST.values()] + [(False, *case) for case in WITHOUT_MANIFEST.values()]


@pytest.mark.parametrize(("manifest", "change", "message"), DAMAGED, ids=[*WITH_MANIFEST, *WITHOUT_MANIFEST])
def test_damaged_checkpoints(checkpoints, manifest, change, message):
    if not manifest:
        checkpoints.remove(MANIFEST)
    change(checkpoints)
    check_training_refused(checkpoints, message, LOAD)


# what -> (change, flags, message)
REQUESTS = {
    "an earlier run is there": (unchanged, "--seed 42", "ckpts: holds the states of an earlier run: pass --resume"),
    "no state": (
        removed("ckpts/resume"),
        "--resume",
        "ckpts: holds checkpoints .best-acc, best-res. and no state .*--load_from_epoch",
    ),
    "every state truncated": (tear_every_state, "--resume", "ckpts/resume: every state is truncated or modified"),
    "no such checkpoint": (unchanged, "--load_from_epoch 7", "ckpts: no checkpoint '7': .*missing.*best-acc"),
    "report to a file of another kind": (
        unchanged,
        f"{LOAD} --eval_only --append_to {RELEASE_CSV}",
        "release.csv: not a CSV file of test reports",
    ),
    "hostile vocabulary of a classifier": (
        lambda box: box.bomb("words.pkl"),
        f"{LOAD} --eval_only --text2emotion {CLASSIFIER} --vocabulary words.pkl",
        "words.pkl: truncated, modified or unsafe .its pickle names (os|posix).system",
    ),
    "another run's tokenizer": (exchange_two_words, "", "nle_gpt2_tokenizer_0: is not the tokenizer of --gpt2_model"),
}


@pytest.mark.parametrize(("change", "flags", "message"), REQUESTS.values(), ids=REQUESTS)
def test_refused_requests(checkpoints, change, flags, message):
    change(checkpoints)
    check_training_refused(checkpoints, message, flags)
