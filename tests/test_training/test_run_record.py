"""Every flag has rules for resuming, continuing and scoring, and the rules do what they say."""

import copy
from types import SimpleNamespace

import pytest

from utils.command_line import parse_args
from utils.errors import InputError
from utils.opts import declared, get_parser
from utils.run_record import compare_for_resume, compare_to_checkpoint, flags_of
from utils.training.fingerprints import decoder_identity

REFUSED, WARNED, SILENT = "refused", "warned", "silent"


def test_every_flag_is_declared_with_its_rules():
    assert {action.dest for action in get_parser()._actions} - {"help"} == set(declared())


def record() -> dict:
    by_fingerprint = {flag.fingerprint: "0" * 64 for flag in declared().values() if flag.fingerprint}
    others = {"precision": "no", "images_per_step": 8, "images": 45, "processes": 1}
    return {"flags": flags_of(parse_args([])), "fingerprints": by_fingerprint | others}


def changed(name: str, value: object, part: str = "fingerprints") -> dict:
    other = copy.deepcopy(record())
    assert name in other[part]
    other[part][name] = value
    return other


def outcome(compare, *arguments) -> tuple[str, str]:
    try:
        notes = compare(*arguments)
    except InputError as error:
        return REFUSED, str(error)
    assert len(notes) <= 1
    return (WARNED, notes[0]) if notes else (SILENT, "")


# flag: its fingerprint if it is compared by one, what it is now, and what happens when resumed, continued and scored
@pytest.mark.parametrize(
    "name, fingerprint, now, expected",
    [
        ("learning_rate", None, 5e-5, (REFUSED, WARNED, SILENT)),
        ("VAD_En_Layers", None, 2, (REFUSED, REFUSED, REFUSED)),
        ("image_normalization", None, "own", (REFUSED, REFUSED, REFUSED)),
        ("fixed_encoder", None, False, (REFUSED, WARNED, REFUSED)),
        ("max_seq_len", None, 20, (REFUSED, WARNED, REFUSED)),
        ("seed", None, 7, (REFUSED, WARNED, WARNED)),
        ("emotion_from", None, "likelihood", (REFUSED, WARNED, WARNED)),
        ("use_emotion_loss", None, True, (REFUSED, WARNED, REFUSED)),
        ("nan_policy", None, "skip", (WARNED, WARNED, SILENT)),
        ("cpu_threads", None, 3, (WARNED, SILENT, SILENT)),
        ("num_workers", None, 5, (SILENT, SILENT, SILENT)),
        ("metrics", None, ["rouge"], (REFUSED, WARNED, SILENT)),
        ("clip_model", "image_encoder_sha256", "1" * 64, (REFUSED, REFUSED, REFUSED)),
        ("gpt2_model", "decoder_sha256", "1" * 64, (REFUSED, SILENT, SILENT)),
        ("vad_lexicon", "lexicon_sha256", None, (REFUSED, WARNED, WARNED)),
        ("nle_data_train_path", "training_records_sha256", "1" * 64, (REFUSED, WARNED, SILENT)),
        ("nle_data_val_path", "scored_records_sha256", "1" * 64, (REFUSED, WARNED, SILENT)),
        ("batch_size", "images_per_step", 16, (REFUSED, WARNED, SILENT)),
        ("mixed_precision", "precision", "bf16", (REFUSED, WARNED, WARNED)),
        ("load_from_epoch", None, "best-acc", (SILENT, SILENT, SILENT)),
    ],
)
def test_a_changed_flag(name, fingerprint, now, expected, tmp_path):
    before, after = record(), changed(fingerprint or name, now, "fingerprints" if fingerprint else "flags")
    resumed, text = outcome(compare_for_resume, before, after)
    continued, _ = outcome(compare_to_checkpoint, before, after, False, tmp_path)
    scored, _ = outcome(compare_to_checkpoint, before, after, True, tmp_path)
    assert (resumed, continued, scored) == expected
    assert text.startswith(f"--resume: --{name} ") == (resumed != SILENT)


def test_what_a_change_is_called_and_its_remedy(tmp_path):
    _, message = outcome(compare_for_resume, record(), changed("num_train_epochs", 36, "flags"))
    assert "--load_from_epoch NAME continues a checkpoint for more epochs" in message
    _, message = outcome(compare_for_resume, record(), changed("images", 44))
    assert "the training had 45 images and has 44 now" in message
    note = "--resume: the run had 1 processes and has 2 now: contrastive negatives differ"
    assert outcome(compare_for_resume, record(), changed("processes", 2)) == (WARNED, note)
    _, message = outcome(compare_to_checkpoint, record(), changed("vad_causal", True, "flags"), True, tmp_path)
    assert message == f"{tmp_path}: --vad_causal was False in training and is True now; leave the flag out"
    _, message = outcome(compare_to_checkpoint, record(), changed("image_encoder_sha256", "1" * 64), True, tmp_path)
    assert f"was {'0' * 12} in training and is {'1' * 12} now; give what the model was trained with" in message


def test_what_is_not_compared(tmp_path):
    """The order of metrics, and what a run has no fingerprint of."""
    metrics = record()["flags"]["metrics"]
    assert compare_for_resume(record(), changed("metrics", metrics[::-1], "flags")) == []
    now = {"flags": record()["flags"], "fingerprints": {}}
    assert compare_to_checkpoint(changed("image_encoder_sha256", "1" * 64), now, True, tmp_path) == []


def test_a_decoder_is_known_by_its_config_and_its_tokens():
    """The weights in a state do not show with which activation, epsilon or number of heads they were trained."""
    config = {"vocab_size": 9, "n_positions": 8, "n_embd": 4, "n_layer": 2, "n_head": 2, "n_inner": 6}
    config |= {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}

    def identity(tokens: str = "abc", **changes: object) -> str:
        model = SimpleNamespace(decoder=SimpleNamespace(config=SimpleNamespace(**config | changes)))
        return decoder_identity(model, SimpleNamespace(pieces=lambda: list(tokens)))

    others = [identity("acb"), *(identity(**{name: "another"}) for name in config)]
    assert identity() == identity() and len({identity(), *others}) == 1 + 1 + len(config)
