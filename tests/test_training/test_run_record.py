"""Every flag has one rule for resuming, continuing and scoring, and the rules do what they say."""

import copy

import pytest

from utils.command_line import parse_args
from utils.errors import InputError
from utils.flags import IGNORE, MUST_MATCH, WARN
from utils.opts import declared, get_parser
from utils.run_record import compare_for_resume, compare_to_checkpoint, flags_of, found_by_path, recorded_argv

FLAGS = sorted(declared())
BY_VALUE = [name for name in FLAGS if declared()[name].fingerprint is None]
BY_FINGERPRINT = sorted(set(FLAGS) - set(BY_VALUE))


def test_every_flag_is_declared_with_its_rules():
    assert {action.dest for action in get_parser()._actions} - {"help"} == set(FLAGS)


@pytest.mark.parametrize(
    "name, rules",
    [
        ("learning_rate", (MUST_MATCH, WARN, IGNORE)),
        ("vad_causal", (MUST_MATCH, MUST_MATCH, MUST_MATCH)),
        ("lemmatizer", (MUST_MATCH, WARN, WARN)),
        ("fixed_encoder", (MUST_MATCH, WARN, MUST_MATCH)),
        ("gpt2_model", (MUST_MATCH, IGNORE, IGNORE)),
        ("nan_policy", (WARN, WARN, IGNORE)),
        ("cpu_threads", (WARN, IGNORE, IGNORE)),
        ("num_workers", (IGNORE, IGNORE, IGNORE)),
    ],
)
def test_one_flag_of_each_kind(name, rules):
    assert declared()[name].rules == rules


def record():
    fingerprints = {declared()[name].fingerprint: "0" * 64 for name in BY_FINGERPRINT} | {
        "precision": "no",
        "images": 45,
        "processes": 1,
    }
    return {"flags": flags_of(parse_args([])), "fingerprints": fingerprints}


def changed(name: str) -> dict:
    """A record that differs from `record()` in the value or the fingerprint of one flag."""
    other = copy.deepcopy(record())
    if name in BY_FINGERPRINT:
        other["fingerprints"][declared()[name].fingerprint] = "1" * 64
    else:
        other["flags"][name] = "something else"
    return other


@pytest.mark.parametrize("name", FLAGS)
def test_resume(name):
    rule = declared()[name].rules.resume
    if rule == MUST_MATCH:
        with pytest.raises(InputError, match=rf"^--resume: --{name} .*another training"):
            compare_for_resume(record(), changed(name))
    else:
        notes = compare_for_resume(record(), changed(name))
        assert len(notes) == (rule == WARN) and all(note.startswith(f"--resume: --{name} ") for note in notes)


def test_resume_names_both_values():
    before, after = record(), record()
    before["flags"]["learning_rate"], after["flags"]["learning_rate"] = 2e-5, 5e-5
    with pytest.raises(InputError, match=r"--learning_rate was 2e-05 and is 5e-05 now"):
        compare_for_resume(before, after)
    before, after = record(), record()
    before["flags"]["num_train_epochs"] = 36
    with pytest.raises(InputError, match="--load_from_epoch NAME continues a checkpoint for more epochs"):
        compare_for_resume(before, after)


def test_resume_fingerprints_without_a_flag():
    other = record()
    other["fingerprints"]["images"] = 44
    with pytest.raises(InputError, match="the training had 45 images and has 44 now"):
        compare_for_resume(record(), other)
    other = record()
    other["fingerprints"]["processes"] = 2
    assert compare_for_resume(record(), other) == [
        "--resume: the run had 1 processes and has 2 now: contrastive negatives differ"
    ]


def test_order_of_metrics_means_nothing():
    other = record()
    other["flags"]["metrics"] = other["flags"]["metrics"][::-1]
    assert compare_for_resume(record(), other) == []


@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("name", FLAGS)
def test_with_a_checkpoint(name, score, tmp_path):
    rules = declared()[name].rules
    rule = rules.score if score else rules.continue_from
    if rule == MUST_MATCH:
        with pytest.raises(InputError, match=rf"^{tmp_path}: --{name} .* in training and is .* now; (leave|give) "):
            compare_to_checkpoint(record(), changed(name), score, tmp_path)
    else:
        assert len(compare_to_checkpoint(record(), changed(name), score, tmp_path)) == (rule == WARN)


def test_what_a_run_lacks_is_not_compared(tmp_path):
    before = record()
    before["flags"]["vad_causal"] = before["fingerprints"]["lexicon_sha256"] = "something else"
    for part in ("flags", "fingerprints"):
        now = {part: record()[part]}
        now[part].pop("vad_causal" if part == "flags" else "lexicon_sha256")
        assert compare_to_checkpoint(before, now, True, tmp_path) == []


@pytest.mark.parametrize("score", [False, True])
def test_a_checkpoint_sets_the_defaults(score, tmp_path):
    """The parser reads them as they were recorded, spaces and lists included."""
    trained = parse_args(
        "--lemmatizer none --dropout 0.3 --metrics bleu rouge --no-use_VAD_loss --mixed_precision bf16 --seed 7".split()
        + ["--prompt_text", " i feel", "--from_scratch", "decoder"]
    )
    recorded = {"flags": flags_of(trained), "fingerprints": record()["fingerprints"] | {"precision": "bf16"}}
    args = get_parser().parse_args(recorded_argv(recorded, score, tmp_path))
    for name, flag in declared().items():
        rule = flag.rules.score if score else flag.rules.continue_from
        adopted = rule != IGNORE and not found_by_path(flag)
        assert getattr(args, name) == getattr(trained if adopted else parse_args([]), name), name


@pytest.mark.parametrize(
    "damaged", [[], {"flags": {}}, {"flags": [], "fingerprints": {}}, {"flags": {}, "fingerprints": None}]
)
def test_damaged_record(damaged, tmp_path):
    with pytest.raises(InputError, match="settings are damaged"):
        recorded_argv(damaged, True, tmp_path)
