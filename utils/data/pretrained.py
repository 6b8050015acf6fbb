"""Configs and weights that others made: one line where they are damaged, hostile, or do not fit each other."""

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.utils import logging

from utils.errors import InputError, brief

MOST_PARAMETERS = 3 * 10**9  # the largest GPT-2 with cross-attention has 2.0e9
MOST_LAYERS = 200
MOST_OTHERWISE = 10**6  # of any other size


def check_model_type(config: dict[str, Any], known: tuple[str, ...], source: str) -> None:
    """Refuse the config.json of another kind of model by name; one that names no kind is taken at its sizes (InputError)."""
    kind = config.get("model_type", known[0])
    if kind not in known:
        raise InputError(f"{source}: is of a {str(kind)[:40]} model; only {' or '.join(known)} is supported here")


def check_sizes(config: PretrainedConfig, fixed: tuple[str, ...], source: str) -> None:
    """Refuse a config that no model can be built of, or only one that would take all memory.

    Args:
        config: of a GPT-2 or a CLIP vision transformer. fixed: its fields that must be positive integers.

    Raises:
        InputError: naming `source` and the field.
    """
    for name in fixed:
        value, most = getattr(config, name), MOST_LAYERS if "layer" in name else MOST_OTHERWISE
        if not isinstance(value, int) or not 1 <= value <= most:
            raise InputError(f"{source}: {name} {str(value)[:40]!r} is not an integer from 1 to {most}")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{source}: width {config.hidden_size} cannot be divided among {config.num_attention_heads} heads"
        )
    inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    if inner < 1:
        raise InputError(f"{source}: n_inner {inner} is no width")
    if hasattr(config, "patch_size"):
        if config.patch_size > config.image_size:
            raise InputError(f"{source}: patch_size {config.patch_size} is larger than image_size {config.image_size}")
        table, attentions = (
            config.num_channels * config.patch_size**2 + (config.image_size // config.patch_size) ** 2,
            1,
        )
    else:
        table, attentions = config.vocab_size + config.n_positions, 2
    layer = 4 * attentions * config.hidden_size**2 + 2 * inner * config.hidden_size
    parameters = config.num_hidden_layers * layer + table * config.hidden_size
    if parameters > MOST_PARAMETERS:
        raise InputError(f"{source}: sizes for {parameters:.1e} parameters; at most {MOST_PARAMETERS:.0e} are taken")
    activation = config.hidden_act if hasattr(config, "hidden_act") else config.activation_function
    if activation not in ACT2FN:
        raise InputError(f"{source}: unknown activation {str(activation)[:40]!r}")


def load_pretrained(
    kind: type[PreTrainedModel], name: str, config: PretrainedConfig, source: str, remedy: str
) -> tuple[Any, set[str]]:
    """A model with the weights of a folder or an id, and the names of those it has none for.

    Raises:
        InputError: no weights, torn or hostile ones, or some of another shape.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would warn of each new weight; the caller checks what is new
    try:
        model, report = kind.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and refused below
            weights_only=True,
        )
    except OSError as error:
        raise InputError(f"{source}: no weights found ({brief(error)}); {remedy}") from None
    except Exception as error:  # a different one for every way in which a file can be wrong
        raise InputError(f"{source}: weights torn, altered or unsafe ({brief(error)}); {remedy}") from None
    finally:
        logging.set_verbosity(verbosity)
    if report["mismatched_keys"]:
        weight, shape, expected = sorted(report["mismatched_keys"])[0]
        shapes = f"{tuple(shape)} in the file, {tuple(expected)} by config.json"
        raise InputError(f"{source}: weights of another shape: {weight} ({shapes}); {remedy}")
    return model, set(report["missing_keys"])
