"""Every flag has one rule for resuming, continuing and scoring, and the rules do what they say."""

import copy

import pytest

from utils.errors import InputError
from utils.opts import get_parser, parse_args
from utils.settings import (
    EQUAL,
    FACTS,
    FOUND_BY_PLACE,
    FREE,
    RULES,
    SAID,
    compare_facts,
    compare_flags,
    compare_for_resume,
    flags_of,
    recorded_argv,
)

FLAGS = sorted(action.dest for action in get_parser()._actions if action.dest != "help")
# resume, continue, score: written out, so that a rule changes only on purpose
TABLE = """
adam_eps equal said free                    | alpha equal said free               | annFileExp equal said free
append_to free free free                    | batch_size equal said free          | cache_dir free free free
caption_save_path free free free            | ckpt_path free free free            | cl_Loss_weight equal said free
clip_model equal equal equal                | image_normalization equal equal equal | compile said said free
cpu_threads said free free                  | demo free free free                 | drop_last_token equal said said
dropout equal said free                     | emo_en_LR equal said free           | emotion_loss_weight equal said free
en_LR equal said free                       | eval_batch_size free free free      | eval_only free free free
eval_steps said said free                   | feature_cache said free free        | first_text equal said free
fixed_encoder equal said equal              | from_scratch equal said equal       | gpt2_model equal free free
gradient_accumulation_steps equal said free | image_root free free free           | learning_rate equal said free
lemmatizer equal said said                  | len_prefix equal equal equal        | load_from_epoch free free free
log_steps free free free                    | masked_pooling equal said free      | max_grad_norm equal said free
max_seq_len equal said equal                | meteor_jvms free free free          | metrics equal said free
mixed_precision equal said said             | nan_policy said said free           | nle_data_train_path equal said free
nle_data_val_path equal said free           | num_train_epochs equal said free    | num_workers free free free
prefix_dim equal equal equal                | prompt_text equal equal equal       | resume free free free
save_steps free free free                   | seed equal said said                | skip_bad_images equal said free
stop_after_evals said said free             | test_set free free free             | text2emotion free free free
clip_score free free free
use_VAD equal equal equal                   | use_VAD_loss equal said free        | use_cl_loss equal said free
emotion_from equal said said                | emotion_pooling equal said equal        | label_loss_weight equal said free
use_label_loss equal said free
use_emotion_loss equal said equal           | vad_causal equal equal equal        | vad_lexicon equal said said
VAD_En_Heads equal equal equal              | VAD_En_Layers equal equal equal     | VAD_Loss_weight equal said free
vocabulary free free free                   | plain_special_tokens equal said free | num_beams equal said said
adamw equal said free
split free free free                        | report_to free free free           | gallery free free free
"""
PINNED = {cell.split()[0]: tuple(cell.split()[1:]) for cell in TABLE.replace("\n", "|").split("|") if cell.strip()}


def test_every_flag_is_in_a_group():
    assert set(RULES) == set(FLAGS)
    assert {name: tuple(rules) for name, rules in RULES.items()} == PINNED


def record():
    facts = {fact: "0" * 64 for fact in FACTS.values()} | {"precision": "no", "images": 45, "processes": 1}
    return {"flags": flags_of(parse_args([])), "facts": facts}


def changed(name: str) -> dict:
    """A record that differs from `record()` in what one flag says, or stands for."""
    other = copy.deepcopy(record())
    if name in FACTS:
        other["facts"][FACTS[name]] = "1" * 64
    else:
        other["flags"][name] = "something else"
    return other


@pytest.mark.parametrize("name", FLAGS)
def test_resume(name):
    rule = RULES[name].resume
    if rule == EQUAL:
        with pytest.raises(InputError, match=rf"^--resume: --{name} .*another training"):
            compare_for_resume(record(), changed(name))
    else:
        notes = compare_for_resume(record(), changed(name))
        assert len(notes) == (rule == SAID) and all(note.startswith(f"--resume: --{name} ") for note in notes)


def test_resume_names_both_values():
    before, after = record(), record()
    before["flags"]["learning_rate"], after["flags"]["learning_rate"] = 2e-5, 5e-5
    with pytest.raises(InputError, match=r"--learning_rate was 2e-05 and is 5e-05 now"):
        compare_for_resume(before, after)
    before, after = record(), record()
    before["flags"]["num_train_epochs"] = 36
    with pytest.raises(InputError, match="--load_from_epoch NAME continues a checkpoint for more epochs"):
        compare_for_resume(before, after)


def test_resume_facts_without_a_flag():
    other = record()
    other["facts"]["images"] = 44
    with pytest.raises(InputError, match="the training had 45 images and has 44 now"):
        compare_for_resume(record(), other)
    other = record()
    other["facts"]["processes"] = 2
    assert compare_for_resume(record(), other) == [
        "--resume: 1 processes were at work before and 2 are now: contrastive negatives differ"
    ]


def test_order_of_metrics_means_nothing():
    other = record()
    other["flags"]["metrics"] = other["flags"]["metrics"][::-1]
    assert compare_for_resume(record(), other) == []


@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("name", sorted(set(FLAGS) - set(FACTS)))
def test_flags_beside_a_checkpoint(name, score, tmp_path):
    rule = RULES[name].score if score else RULES[name].proceed
    args = parse_args([])
    setattr(args, name, "something else")
    if rule == EQUAL:
        with pytest.raises(InputError, match=rf"--{name} was .* in training and is something else now"):
            compare_flags(record(), args, score, tmp_path)
    else:
        assert len(compare_flags(record(), args, score, tmp_path)) == (rule == SAID)


@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("name", sorted(FACTS))
def test_facts_beside_a_checkpoint(name, score, tmp_path):
    rule = RULES[name].score if score else RULES[name].proceed
    facts = changed(name)["facts"]
    if rule == EQUAL:
        with pytest.raises(InputError, match=f"--{name} .*not what the model was trained with"):
            compare_facts(record(), facts, score, tmp_path)
    else:
        assert len(compare_facts(record(), facts, score, tmp_path)) == (rule == SAID)


@pytest.mark.parametrize("score", [False, True])
def test_a_checkpoint_brings_its_settings(score, tmp_path):
    """What is adopted comes back through the parser as it was recorded, spaces and lists included."""
    trained = parse_args(
        "--lemmatizer none --dropout 0.3 --metrics bleu rouge --no-use_VAD_loss --mixed_precision bf16 --seed 7".split()
        + ["--prompt_text", " i feel", "--from_scratch", "decoder"]
    )
    kept = {"flags": flags_of(trained), "facts": record()["facts"] | {"precision": "bf16"}}
    args = get_parser().parse_args(recorded_argv(kept, score, tmp_path))
    for name, rules in RULES.items():
        rule = rules.score if score else rules.proceed
        adopted = rule != FREE and name not in FOUND_BY_PLACE
        assert getattr(args, name) == getattr(trained if adopted else parse_args([]), name), name


@pytest.mark.parametrize("damaged", [[], {"flags": {}}, {"flags": [], "facts": {}}, {"flags": {}, "facts": None}])
def test_damaged_record(damaged, tmp_path):
    with pytest.raises(InputError, match="settings are damaged"):
        recorded_argv(damaged, True, tmp_path)
