"""The command line: published flags and defaults, booleans, and --help."""

from pathlib import Path

import pytest

from utils.command_line import DEMO_DEFAULTS, check_flags, parse_args
from utils.errors import InputError
from utils.opts import get_parser

# The published script's flags and their defaults, but for eval_steps 0 (every epoch) and the four paths.
PUBLISHED = {
    "fixed_encoder": True,
    "load_from_epoch": None,
    "eval_steps": 0,
    "stop_after_evals": 10,
    "len_prefix": 0,
    "prompt_text": " the emotion is",
    "max_seq_len": 30,
    "prefix_dim": None,  # the encoder's width: 768 for ViT-B/16
    "use_VAD": True,
    "use_cl_loss": True,
    "use_VAD_loss": True,
    "num_train_epochs": 35,
    "alpha": 1.0,
    "cl_Loss_weight": 1.0,
    "VAD_Loss_weight": 1.0,
    "learning_rate": 2e-5,
    "en_LR": 2e-5,
    "emo_en_LR": 4e-5,
    "batch_size": 32,
    "VAD_En_Layers": 3,
    "VAD_En_Heads": 1,
    "annFileExp": Path("cococaption/annotations/artEmisX_val_annot_exp.json"),
    "ckpt_path": Path("ckpts"),
    "caption_save_path": Path("results"),
    "nle_data_train_path": Path("data/artEmis/artEmisX_cl_train.json"),
    "nle_data_val_path": Path("data/artEmis/artEmisX_val.json"),
}


@pytest.mark.parametrize(("name", "default"), PUBLISHED.items())
def test_published_flag(name, default):
    assert getattr(parse_args([]), name) == default
    given = {"load_from_epoch": "best-acc", "VAD_En_Heads": "3", "prefix_dim": "768"}.get(name, default)
    value = getattr(parse_args([f"--{name}", str(given)]), name)
    assert str(value) == str(given) and (default is None or type(value) is type(default))


def test_published_command_line():
    args = parse_args(
        "--ckpt_path /x/ckpts/ --caption_save_path /x/results/ --nle_data_train_path /x/artEmisX_cl_train.json "
        "--nle_data_val_path /x/artEmisX_val.json --use_VAD True --fixed_encoder False --use_cl_loss=False".split()
    )
    assert (args.use_VAD, args.fixed_encoder, args.use_cl_loss) == (True, False, False)
    assert args.ckpt_path == Path("/x/ckpts")


@pytest.mark.parametrize("name", ["use_VAD", "from_scratch"])
def test_boolean_three_ways(name):
    def value(*argv: str) -> bool:
        return getattr(parse_args(list(argv)), name)

    assert value(f"--{name}") is True
    assert value(f"--no-{name}") is False
    for text, expected in (("True", True), ("true", True), ("1", True), ("False", False), ("0", False)):
        assert value(f"--{name}", text) is expected
        assert value(f"--{name}={text}") is expected
    assert value(f"--{name}", f"--no-{name}") is False  # the last one wins
    with pytest.raises(InputError, match=f"{name}.*maybe"):
        value(f"--{name}", "maybe")
    with pytest.raises(InputError, match=f"no-{name}"):
        value(f"--no-{name}", "True")


def test_every_boolean_takes_the_three_ways():
    """`--flag False` must not be true."""
    for action in get_parser()._actions:
        if isinstance(action.default, bool) and action.dest != "demo":
            assert f"--no-{action.dest}" in action.option_strings, action.dest


def test_every_flag_is_explained():
    for action in get_parser()._actions:
        assert action.help and len(action.help) > 5, action.dest
    names = [action.dest for action in get_parser()._actions]
    assert len(names) == len(set(names)) and set(PUBLISHED) <= set(names)


def test_demo_changes_existing_flags():
    known = {action.dest: action for action in get_parser()._actions}
    assert set(DEMO_DEFAULTS) <= set(known)
    demo, plain = parse_args(["--demo"]), parse_args([])
    assert {name for name in known if name != "help" and getattr(demo, name) != getattr(plain, name)} <= {
        *DEMO_DEFAULTS,
        "demo",
    }
    for name, value in DEMO_DEFAULTS.items():
        assert getattr(demo, name) == value
        assert type(value) in (type(known[name].default), str, type(Path())) or known[name].default is None, name


def test_flags_win_over_demo():
    args = parse_args(["--batch_size", "4", "--demo", "--lemmatizer", "none"])
    assert (args.batch_size, args.lemmatizer, args.from_scratch) == (4, "none", True)


def test_no_false_contradictions():
    check_flags(parse_args(["--eval_only", "--load_from_epoch", "best-res", "--no-use_VAD", "--no-use_cl_loss"]))
    check_flags(parse_args(["--resume", "--no-use_VAD_loss", "--alpha", "0"]))


def test_help_names_each_default_once():
    parser = get_parser()
    formatter = parser._get_formatter()
    for action in parser._actions:
        text = formatter._expand_help(action)
        assert text.count("default") <= 1, text
        if action.default not in (None, "==SUPPRESS==") and action.nargs != 0:
            assert f"(default: {action.default})" in text, text
