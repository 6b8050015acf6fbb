"""How a flag is declared: its help, its type, and what happens when it differs from the record of a run.

A run's record (utils/run_record.py) holds every flag's value. Each flag has one rule for each of three moments: at
`--resume`, when a checkpoint is continued (`--load_from_epoch`), and when it is scored (with `--eval_only`).

    MUST_MATCH  must be as recorded, else the run is refused. When a checkpoint is used, the recorded value is the default.
    WARN        may differ; one line says so. When a checkpoint is used, the recorded value is the default.
    IGNORE      may differ: it changes where files lie, how fast the run is or what it prints, not what it computes.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

MUST_MATCH, WARN, IGNORE = "must match", "warn", "ignore"


class Rules(NamedTuple):
    """The rules of one flag: at --resume, at --load_from_epoch, and at --load_from_epoch with --eval_only."""

    resume: str
    continue_from: str
    score: str


# What defines the function that the trained model computes.
MODEL = Rules(MUST_MATCH, MUST_MATCH, MUST_MATCH)
# Which parts are trained, and from what: a training that goes on may change them, a scored checkpoint has its own.
PARTS = Rules(MUST_MATCH, WARN, MUST_MATCH)
# What a user may want to change when a model is used; the text it gives may change with it.
USE = Rules(MUST_MATCH, WARN, WARN)
# What defines the training, and matters no more once it is done.
TRAINING = Rules(MUST_MATCH, WARN, IGNORE)
# What a checkpoint brings itself.
ORIGIN = Rules(MUST_MATCH, IGNORE, IGNORE)
# What a resumed training may change at the price of other rounding or other moments of evaluation.
LOOSE = Rules(WARN, WARN, IGNORE)
SPEED = Rules(WARN, IGNORE, IGNORE)
FREE = Rules(IGNORE, IGNORE, IGNORE)


def flag_group(parser: argparse.ArgumentParser, title: str, rules: Rules) -> Callable[..., argparse.Action]:
    """A group of flags, and the function that declares one: `add_argument` with two further arguments.

    Args:
        rules: of the group's flags; `rules=` gives a flag others.

    A flag that is compared by what it stands for, and not by its value, names the fingerprint of the record that says it:
    `fingerprint="lexicon_sha256"`.
    """
    group = parser.add_argument_group(title)

    def add(name: str, rules: Rules = rules, fingerprint: str | None = None, **options: Any) -> argparse.Action:
        action = group.add_argument(name, **options)
        action.rules, action.fingerprint = rules, fingerprint
        return action

    return add


def boolean(text: str) -> bool:
    """`--use_VAD False` as the published command line has it."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"True or False was expected, not {text!r}")


class Boolean(argparse.Action):
    """A flag that takes `--flag`, `--no-flag` and `--flag False`, and perhaps one of some words: `--flag word`."""

    def __init__(self, option_strings, dest, words: tuple[str, ...] = (), **options):
        negative = [f"--no-{option[2:]}" for option in option_strings]

        def convert(text: str) -> bool | str:
            return text if text in words else boolean(text)

        metavar = "|".join(("True", "False", *words))
        super().__init__([*option_strings, *negative], dest, nargs="?", type=convert, metavar=metavar, **options)

    def __call__(self, parser, namespace, value, option_string=None):
        negative = option_string.startswith("--no-")
        if negative and value is not None:
            parser.error(f"{option_string} takes no value")
        setattr(namespace, self.dest, not negative if value is None else value)
