"""How a flag is declared: its help, its type, and what happens if it differs from the record of a run.

A run's record (utils/run_record.py) holds every flag's value. Each flag has one rule for each of three moments: at
`--resume`, when a checkpoint is continued (`--load_from_epoch`), and when it is scored (with `--eval_only`).

    MUST_MATCH  a different value is refused. With a checkpoint the recorded value is the default.
    WARN        a different value is reported in one line. With a checkpoint the recorded value is the default.
    IGNORE      may differ: it changes where files lie, how fast the run is or what it prints, not the results.
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
# Which parts are trained, and from what: a continued training may change them.
PARTS = Rules(MUST_MATCH, WARN, MUST_MATCH)
# What may be changed when a model is used, and may change its captions.
INFERENCE = Rules(MUST_MATCH, WARN, WARN)
# What defines the training, and does not matter once it is done.
TRAINING = Rules(MUST_MATCH, WARN, IGNORE)
# What a checkpoint contains itself.
ORIGIN = Rules(MUST_MATCH, IGNORE, IGNORE)
# What a resumed training may change, with other rounding or other times of evaluation.
LOOSE = Rules(WARN, WARN, IGNORE)
SPEED = Rules(WARN, IGNORE, IGNORE)
UNCHECKED = Rules(IGNORE, IGNORE, IGNORE)


def flag_group(parser: argparse.ArgumentParser, title: str, rules: Rules) -> Callable[..., argparse.Action]:
    """The function that declares a flag of a new group: `add_argument` with two further arguments.

    rules: of this flag, default those of the group. fingerprint: the entry of the record, such as "lexicon_sha256", by
    which a flag is compared instead of its value.
    """
    group = parser.add_argument_group(title)

    def add(name: str, rules: Rules = rules, fingerprint: str | None = None, **options: Any) -> argparse.Action:
        action = group.add_argument(name, **options)
        action.rules, action.fingerprint = rules, fingerprint
        return action

    return add


def boolean(text: str) -> bool:
    """The value in `--use_VAD False`, as the published script takes it."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"True or False was expected, not {text!r}")


class Boolean(argparse.Action):
    """A flag that takes `--flag`, `--no-flag` and `--flag False`, and `--flag WORD` for each of `words`."""

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
