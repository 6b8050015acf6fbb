"""What happens to each flag when a run is resumed, continued from a checkpoint, or when a checkpoint is scored.

A checkpoint and a resume state carry a record of their run: {"flags": every flag's value, "facts": what some flags stand
for (hashes of files and weights, images per step, ...)}. Each flag has one rule for each of three moments:

    EQUAL   must be as recorded, else the run is refused. When a checkpoint is used, the recorded value is the default.
    SAID    may differ; one line says so. When a checkpoint is used, the recorded value is the default.
    FREE    may differ: it changes where files lie, how fast the run is or what it prints, not what it computes.

No torch here: the record of a checkpoint is read before anything heavy starts.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError

EQUAL, SAID, FREE = "equal", "said", "free"
SETTINGS_KEY = "sevlm_settings"  # of a checkpoint's config.json


class Rules(NamedTuple):
    """The rules of one flag: at --resume, at --load_from_epoch, and at --load_from_epoch with --eval_only."""

    resume: str
    proceed: str
    score: str


# What defines the function that the trained model computes.
_MODEL = Rules(EQUAL, EQUAL, EQUAL)
# What a user may want to change when a model is used; the text it gives may change with it.
_USE = Rules(EQUAL, SAID, SAID)
# What defines the training, and matters no more once it is done.
_TRAINING = Rules(EQUAL, SAID, FREE)
# What a resumed training may change at the price of other rounding or other moments of evaluation.
_LOOSE = Rules(SAID, SAID, FREE)
_FREE = Rules(FREE, FREE, FREE)

RULES: dict[str, Rules] = {
    "demo": _FREE,
    "split": _FREE,
    "load_from_epoch": _FREE,
    "resume": _FREE,
    "eval_only": _FREE,
    "seed": Rules(EQUAL, SAID, SAID),
    # files: what is in them counts, not where they lie (see FACTS)
    "nle_data_train_path": Rules(EQUAL, SAID, FREE),
    "nle_data_val_path": Rules(EQUAL, SAID, FREE),
    "annFileExp": Rules(EQUAL, SAID, FREE),
    "image_root": _FREE,
    "vad_lexicon": _USE,
    "ckpt_path": _FREE,
    "caption_save_path": _FREE,
    "cache_dir": _FREE,
    # model
    "clip_model": _MODEL,
    "gpt2_model": Rules(EQUAL, FREE, FREE),  # a checkpoint brings its decoder and tokenizer
    "from_scratch": Rules(EQUAL, SAID, EQUAL),
    "fixed_encoder": Rules(EQUAL, SAID, EQUAL),
    "prefix_dim": _MODEL,
    "len_prefix": _MODEL,
    "prompt_text": _MODEL,
    "max_seq_len": Rules(EQUAL, SAID, EQUAL),
    "use_VAD": _MODEL,
    "VAD_En_Layers": _MODEL,
    "VAD_En_Heads": _MODEL,
    "lemmatizer": _USE,
    "dropout": _TRAINING,
    # objective
    "alpha": _TRAINING,
    "use_cl_loss": _TRAINING,
    "cl_Loss_weight": _TRAINING,
    "use_VAD_loss": _TRAINING,
    "VAD_Loss_weight": _TRAINING,
    # training
    "num_train_epochs": _TRAINING,
    "batch_size": _TRAINING,
    "gradient_accumulation_steps": _TRAINING,
    "mixed_precision": _USE,
    "learning_rate": _TRAINING,
    "en_LR": _TRAINING,
    "emo_en_LR": _TRAINING,
    "adam_eps": _TRAINING,
    "adamw": _TRAINING,
    "max_grad_norm": _TRAINING,
    "nan_policy": _LOOSE,
    "first_text": _TRAINING,
    "num_workers": _FREE,
    "skip_bad_images": _TRAINING,
    "compile": _LOOSE,
    "feature_cache": Rules(SAID, FREE, FREE),  # cached features are rounded to float16
    "save_steps": _FREE,
    "log_steps": _FREE,
    "report_to": _FREE,
    "cpu_threads": Rules(SAID, FREE, FREE),
    # evaluation
    "eval_steps": _LOOSE,
    "eval_batch_size": _FREE,
    "stop_after_evals": _LOOSE,
    "metrics": Rules(EQUAL, SAID, FREE),
    "meteor_jvms": _FREE,
    "drop_last_token": _USE,
    "num_beams": _USE,
    "gallery": _FREE,
    "test_set": _FREE,
    "append_to": _FREE,
    "text2emotion": _FREE,
    "vocabulary": _FREE,
    "clip_score": _FREE,
    # beyond the paper
    "use_emotion_loss": Rules(EQUAL, SAID, EQUAL),
    "emotion_loss_weight": _TRAINING,
    "emotion_pooling": Rules(EQUAL, SAID, EQUAL),
    "use_label_loss": _TRAINING,
    "label_loss_weight": _TRAINING,
    "emotion_from": _USE,
    "vad_causal": _MODEL,
    "masked_pooling": _TRAINING,
    "image_normalization": _MODEL,
    "plain_special_tokens": _TRAINING,
}

# Flags that are compared by what they stand for: flag -> its fact in the record.
FACTS = {
    "nle_data_train_path": "training_records_sha256",
    "nle_data_val_path": "scored_records_sha256",
    "annFileExp": "references_sha256",
    "vad_lexicon": "lexicon_sha256",
    "clip_model": "image_encoder_sha256",
    "gpt2_model": "decoder_sha256",
    "batch_size": "images_per_step",
    "mixed_precision": "precision",
}
# Files that a checkpoint names by their hash only: where they lie is for this run to say.
FOUND_BY_PLACE = ("nle_data_train_path", "nle_data_val_path", "annFileExp", "vad_lexicon")
# Facts that no flag stands for. A change in the first is another training, a change in the second is said.
IMAGES, PROCESSES = "images", "processes"


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Every flag's value, as JSON holds it."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items() if name in RULES
    }


def recorded_flags(record: dict[str, Any]) -> dict[str, Any]:
    """A record's flags under today's names: older records have clip_normalization, true or false."""
    flags = record["flags"]
    if "clip_normalization" not in flags:
        return flags
    return {"image_normalization": "own" if flags["clip_normalization"] else "imagenet"} | flags


def compare_for_resume(recorded: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One line for each change that a resumed run may make and that is said.

    Args:
        recorded, now: records of the run that was stopped, and of this one.

    Raises:
        InputError: a change that makes another training; names the flag and both values.
    """
    notes = []
    for name, rules in RULES.items():
        if rules.resume == FREE:
            continue
        before, after = _value(recorded, name), _value(now, name)
        if before == after:
            continue
        if rules.resume == EQUAL:
            raise InputError(f"--resume: {_change(name, before, after)}: that is another training; {_remedy(name)}")
        notes.append(f"--resume: {_change(name, before, after)}")
    before, after = recorded["facts"].get(IMAGES), now["facts"].get(IMAGES)
    if before != after:
        raise InputError(
            f"--resume: the training had {before} images and has {after} now; give the same files as before"
        )
    before, after = recorded["facts"].get(PROCESSES), now["facts"].get(PROCESSES)
    if before != after:
        notes.append(
            f"--resume: {before} processes were at work before and {after} are now: contrastive negatives differ"
        )
    return notes


def _value(record: dict[str, Any], name: str) -> Any:
    value = record["facts"].get(FACTS[name]) if name in FACTS else recorded_flags(record).get(name)
    return sorted(value) if isinstance(value, list) else value  # the order of --metrics means nothing


def _change(name: str, before: Any, after: Any) -> str:
    what = f"--{name}" + (f" ({FACTS[name].replace('_', ' ')})" if name in FACTS else "")
    return f"{what} was {_shown(before)} and is {_shown(after)} now"


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:80]  # a hash, or anything else


def _remedy(name: str) -> str:
    if name == "num_train_epochs":
        return "--load_from_epoch NAME continues a checkpoint for more epochs, with a schedule of its own"
    if name == "batch_size":
        return "give a --batch_size that makes the same images per step with this number of processes"
    return "give the same as before, or continue a checkpoint with --load_from_epoch"


def recorded_argv(record: dict[str, Any], score: bool, source: Path) -> list[str]:
    """The flags that a checkpoint brings along as defaults, spelled as on a command line so that the parser checks them.

    Args:
        score: for --eval_only; else for continuing the training.

    Raises:
        InputError: the record is damaged.
    """
    flags = record.get("flags") if isinstance(record, dict) else None
    if not isinstance(flags, dict) or not isinstance(record.get("facts"), dict):
        raise InputError(f"{source}: its settings are damaged; take another checkpoint")
    flags, argv = recorded_flags(record), []
    for name, rules in RULES.items():
        rule = rules.score if score else rules.proceed
        value = record["facts"].get("precision") if name == "mixed_precision" else flags.get(name)
        if rule == FREE or value is None or name in FOUND_BY_PLACE:
            continue
        if isinstance(value, list):
            if any(str(part).startswith("-") for part in value):  # would be read as a flag of its own
                raise InputError(f"{source}: its settings are damaged (--{name}); take another checkpoint")
            argv += [f"--{name}", *(str(part) for part in value)]
        else:
            argv.append(f"--{name}={value}")
    return argv


def compare_flags(record: dict[str, Any], args: argparse.Namespace, score: bool, source: Path) -> list[str]:
    """What a run's flags say otherwise than a checkpoint's record: one line for each flag that may differ.

    Raises:
        InputError: a flag contradicts what the model was trained with; names it and both values.
    """
    notes = []
    flags, before = flags_of(args), recorded_flags(record)
    for name, rules in RULES.items():
        rule = rules.score if score else rules.proceed
        recorded, value = before.get(name), flags[name]
        if rule == FREE or name in FACTS or recorded == value or name not in before:  # a flag younger than the record
            continue
        change = f"{source}: --{name} was {_shown(recorded)} in training and is {_shown(value)} now"
        if rule == EQUAL:
            raise InputError(f"{change}; leave the flag out: the checkpoint brings its own")
        notes.append(change)
    return notes


def compare_facts(record: dict[str, Any], facts: dict[str, Any], score: bool, source: Path) -> list[str]:
    """As `compare_flags`, for the flags that are compared by what they stand for; `facts` may lack some."""
    notes = []
    for name, fact in FACTS.items():
        rule = RULES[name].score if score else RULES[name].proceed
        before, after = record["facts"].get(fact), facts.get(fact)
        if rule == FREE or fact not in facts or before == after:
            continue
        change = f"{source}: {_change(name, before, after)}"
        if rule == EQUAL:
            raise InputError(f"{change}: not what the model was trained with; give what it was trained with")
        notes.append(change)
    return notes
