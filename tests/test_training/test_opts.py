"""The command line: published flags and defaults, booleans, --demo, --help; whose value wins, and what a rule promises."""

import json
import shlex
import shutil
from argparse import Action, Namespace
from itertools import product
from pathlib import Path

import pytest
import torch

import artEmisX_train
from tests.test_training.conftest import NOT_DEFAULT
from utils.command_line import DEMO_DEFAULTS, check_paths, needs_lexicon, parse_args
from utils.constants import EXPORT_TYPE
from utils.errors import InputError
from utils.flags import IGNORE, Boolean
from utils.opts import declared, get_parser
from utils.run_record import RECORD_KEY, flags_of
from utils.training.resume import load_state, state_folders

# The published script's flags with their defaults, but for eval_steps 0 (every epoch), the paths, and prefix_dim, which is
# the encoder's width: 768 for ViT-B/16. Behind them what the published code does without a flag.
PUBLISHED = """
    --fixed_encoder True --eval_steps 0 --stop_after_evals 10 --len_prefix 0 --max_seq_len 30 --use_VAD True
    --use_cl_loss True --use_VAD_loss True --num_train_epochs 35 --alpha 1.0 --cl_Loss_weight 1.0 --VAD_Loss_weight 1.0
    --learning_rate 2e-5 --en_LR 2e-5 --emo_en_LR 4e-5 --batch_size 32 --VAD_En_Layers 3 --VAD_En_Heads 1
    --prompt_text " the emotion is"

    --lemmatizer nltk --dropout 0.1 --adam_eps 1e-6 --adamw published --max_grad_norm 0 --gradient_accumulation_steps 1
    --num_beams 1 --emotion_from text --first_text rotate --image_normalization imagenet --no-use_emotion_loss
    --no-use_label_loss --no-vad_causal --no-masked_pooling --no-plain_special_tokens
"""


def test_published_flags_and_defaults():
    assert parse_args(shlex.split(PUBLISHED)) == parse_args([])
    args = parse_args(
        "--ckpt_path /x/ckpts/ --caption_save_path /x/results/ --nle_data_train_path /x/artEmisX_cl_train.json "
        "--nle_data_val_path /x/artEmisX_val.json --annFileExp /x/annot.json --load_from_epoch best-acc --prefix_dim 768 "
        "--VAD_En_Heads 3".split()
    )
    assert (args.ckpt_path, args.prefix_dim, args.VAD_En_Heads) == (Path("/x/ckpts"), 768, 3)


@pytest.mark.parametrize("name", ["use_VAD", "from_scratch"])
def test_boolean_three_ways(name):
    """`--flag False` must not be true."""

    def value(*argv: str) -> bool:
        return getattr(get_parser().parse_args(argv), name)

    assert value(f"--{name}") is True and value(f"--no-{name}") is False
    for text, expected in (("True", True), ("true", True), ("1", True), ("False", False), ("0", False)):
        assert value(f"--{name}", text) is value(f"--{name}={text}") is expected
    assert value(f"--{name}", f"--no-{name}") is False  # the last one wins
    for wrong in ((f"--{name}", "maybe"), (f"--no-{name}", "True")):
        with pytest.raises(InputError, match=name):
            value(*wrong)


def test_help_explains_every_flag_and_names_each_default_once():
    parser = get_parser()
    formatter = parser._get_formatter()
    for action in parser._actions:
        text = formatter._expand_help(action)
        assert len(text) > 5 and text.count("default") <= 1, action.dest
        assert not isinstance(action.default, bool) or isinstance(action, Boolean) or action.dest in ("demo", "tiny")
        if action.default not in (None, "==SUPPRESS==") and action.nargs != 0:
            assert f"(default: {action.default})" in text, text


def test_demo_changes_existing_flags_and_others_win_over_it():
    demo, plain = vars(parse_args(["--demo"])), vars(parse_args([]))
    assert {name: value for name, value in demo.items() if value != plain[name]} == DEMO_DEFAULTS | {"demo": True}
    args = parse_args(["--batch_size", "4", "--demo", "--lemmatizer", "none"])
    assert (args.batch_size, args.lemmatizer, args.from_scratch) == (4, "none", True)


def test_no_false_contradictions():
    parse_args("--resume --no-use_VAD_loss --alpha 0".split())
    parse_args("--alpha 0 --no-use_cl_loss --no-use_VAD_loss --use_label_loss --len_prefix 22".split())


TRAINED = shlex.split(
    "--num_beams 3 --lemmatizer none --VAD_En_Layers 2 --metrics rouge cider --seed 5 --dropout 0.3 --prompt_text ' it seems'"
)


def recorded(folder: Path, **config) -> Path:
    """A checkpoint best-res, of which there is no more than its record, or an exported model."""
    record = {"flags": flags_of(parse_args(TRAINED)), "fingerprints": {"precision": "bf16"}}
    path = folder / ("config.json" if config else "nle_model_best-res/config.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({RECORD_KEY: record} | config))
    return folder


def test_a_checkpoints_values_are_the_defaults_and_the_command_line_wins(tmp_path):
    ckpts = f"--load_from_epoch best-res --ckpt_path {recorded(tmp_path / 'ckpts')}"

    def values(argv: str) -> tuple:
        args = parse_args(argv.split())
        return args.num_beams, args.lemmatizer, args.prompt_text, args.metrics, args.dropout

    default = parse_args([])
    assert values(f"--eval_only {ckpts}") == (3, "none", " it seems", default.metrics, default.dropout)
    assert values(ckpts) == (3, "none", " it seems", ["rouge", "cider"], 0.3)
    assert parse_args(f"--eval_only {ckpts}".split()).mixed_precision == "bf16"  # as it was, not as the flag had it
    given = "--num_beams 5 --lemmatizer simplemma --metrics bleu"
    assert values(f"--eval_only {ckpts} {given}")[:4] == (5, "simplemma", " it seems", ["bleu"])
    assert values(f"--demo {ckpts}")[:2] == (3, "none")  # also over what --demo changes
    rerank = "--rerank likelihood --num_samples 4"  # in place of the beams that the training was scored with
    assert values(f"--eval_only {ckpts} {rerank}")[0] == 1
    with pytest.raises(InputError, match="--num_beams searches for one: give one of them"):
        values(f"--eval_only {ckpts} {rerank} --num_beams 2")
    # a resumed run has its own states, whose record is compared once they are read
    assert values(f"--resume --ckpt_path {tmp_path / 'ckpts'}")[0] == 1
    exported = recorded(tmp_path / "model", model_type=EXPORT_TYPE)
    args = parse_args(["--eval_only", "--ckpt_path", str(exported), "--seed", "6"])
    assert (args.num_beams, args.VAD_En_Layers, args.seed) == (3, 2, 6)


def test_what_contradicts_a_checkpoint_is_refused_and_so_is_a_damaged_record(tmp_path):
    ckpts = ["--load_from_epoch", "best-res", "--ckpt_path", str(recorded(tmp_path / "ckpts"))]
    with pytest.raises(InputError, match="--VAD_En_Layers was 2 in training and is 4 now; leave the flag out"):
        parse_args([*ckpts, "--VAD_En_Layers", "4"])
    with pytest.raises(InputError, match="--fixed_encoder was True in training and is False now"):
        parse_args([*ckpts, "--eval_only", "--no-fixed_encoder"])
    assert parse_args([*ckpts, "--no-fixed_encoder"]).fixed_encoder is False  # a continued training may train it
    config = tmp_path / "ckpts/nle_model_best-res/config.json"
    config.write_text(config.read_text().replace('"num_beams": 3', '"num_beams": "many"'))
    with pytest.raises(InputError, match=f"{config}: its settings are damaged .*--num_beams.*; use another"):
        parse_args(ckpts)


def another(flag: Action) -> list[str]:
    """A flag with a value that it does not have in a run of the workspace; nothing for paths, and what asks for other work."""
    if isinstance(flag, Boolean):
        return [f"--{flag.dest}={not flag.default}"]
    if flag.choices and flag.nargs is None:
        return [f"--{flag.dest}", next(choice for choice in flag.choices if choice != flag.default)]
    if getattr(flag.type, "__name__", "") in ("int", "float"):
        return [f"--{flag.dest}", str({"num_workers": 1}.get(flag.dest, flag.default + 3))]
    return []


def results(out: Path) -> tuple[dict[str, torch.Tensor], list, dict[str, float]]:
    """Weights, captions and scores at the end of two epochs."""
    captions, scores = (f"{kind}_1_5_step.json" for kind in ("unf_captions_full", "scores_exp"))
    weights = load_state(out / "ckpts")[0].state["model"]
    return weights, *(json.loads((out / "results" / name).read_text()) for name in (captions, scores))


@pytest.mark.slow
def test_what_a_resumed_run_may_change_freely_changes_no_result(workspace, finished, tmp_path):
    other_work = {"resume", "eval_only", "split"} | {"num_samples", "rerank", "temperature", "top_p"}  # of --eval_only
    free = [flag for name, flag in declared().items() if flag.rules.resume == IGNORE and name not in other_work]
    changes = [word for flag in free for word in another(flag)]
    assert {"--num_workers", "--eval_batch_size", "--save_steps", "--log_steps", "--gallery"} <= set(changes)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(state_folders(tmp_path / "ckpts")[0])
    for path in (tmp_path / "results").glob("*_1_5_step.json"):
        path.unlink()
    assert artEmisX_train.main(workspace.argv(tmp_path, *NOT_DEFAULT, "--resume", *changes)) == 0
    weights, captions, scores = results(finished)
    weights_now, captions_now, scores_now = results(tmp_path)
    assert [name for name in weights if not torch.equal(weights[name], weights_now[name])] == []
    assert captions_now == captions and scores_now == scores_now | scores  # a gallery has scores of its own


def test_who_needs_the_images(workspace, tmp_path):
    """Cached features replace them, except for what a whole CLIP model looks at."""
    val = shutil.copy(workspace.data / "artEmisX_val.json", tmp_path)
    argv = ["--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(tmp_path / "none"), "--feature_cache"]
    argv = [*(f"--{name}={val}" for name in ("nle_data_val_path", "annFileExp", "vad_lexicon")), *argv]
    check_paths(parse_args([*argv, "cache"]))
    for needed in (["auto"], ["cache", "--clip_score", "m"], ["cache", "--rerank", "clip", "--num_samples", "2"]):
        with pytest.raises(InputError, match="no image folder"):
            check_paths(parse_args([*argv, *needed]))


def test_who_needs_a_lexicon():
    """The fusion, always; the VAD loss only in training."""
    needs = {
        (fusion, loss, eval_only): needs_lexicon(Namespace(use_VAD=fusion, use_VAD_loss=loss, eval_only=eval_only))
        for fusion, loss, eval_only in product((True, False), repeat=3)
    }
    assert [case for case, needed in needs.items() if not needed] == [
        (False, True, True),
        (False, False, True),
        (False, False, False),
    ]
