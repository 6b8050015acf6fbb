"""What accelerate's launcher, its config file and leftover variables ask for is followed, or refused or ignored in one line."""

import os
from types import SimpleNamespace

import pytest
import torch

from utils import launcher
from utils.command_line import parse_args
from utils.errors import InputError

VARIABLES = (*launcher.SIZES, *launcher.RANKS, "MASTER_ADDR", "TORCHELASTIC_RUN_ID")
ON_CPU = SimpleNamespace(num_processes=1, device=torch.device("cpu"), mixed_precision="no")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (*VARIABLES, *(name for name in os.environ if name.startswith("ACCELERATE_"))):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", launcher.WRAPPERS)
def test_wrapped_models_are_refused(monkeypatch, variable):
    monkeypatch.setenv(variable, "true")
    with pytest.raises(
        InputError, match=f"{variable}=true .*config file.*: not supported.*torchrun.*, or unset {variable}"
    ):
        launcher.check_launch()
    monkeypatch.setenv(variable, "false")
    launcher.check_launch()


@pytest.mark.parametrize(
    ("precision", "message"),
    [("fp16", "fp16 needs a GPU; give --mixed_precision bf16 or no"), ("fp8", "not one of no, bf16, fp16")],
)
def test_unsupported_precisions(monkeypatch, precision, message):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(InputError, match=f"ACCELERATE_MIXED_PRECISION={precision} .*config file.*: {message}"):
        launcher.start_accelerator()
    with pytest.raises(InputError, match="--mixed_precision fp16: fp16 needs a GPU"):
        launcher.start_accelerator(mixed_precision="fp16")


def test_left_over_process_variables(monkeypatch):
    """Of two processes that nobody started; of one they are removed, as torch would look for its launcher."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="RANK=0, WORLD_SIZE=2: there should be 2 processes.*unset RANK WORLD_SIZE"):
        launcher.check_launch()
    monkeypatch.setenv("WORLD_SIZE", "1")
    launcher.check_launch()
    assert "WORLD_SIZE" not in os.environ and "RANK" not in os.environ


def test_launch_lines(monkeypatch):
    args = parse_args(["--batch_size", "7", "--gradient_accumulation_steps", "3"])
    (line,) = launcher.launch_lines(SimpleNamespace(**(vars(ON_CPU) | {"num_processes": 2})), args)
    assert "processes: 2, images per update: 42 (" in line and "precision: float32, device: cpu" in line
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    _, dynamo, steps = launcher.launch_lines(ON_CPU, args)
    assert dynamo.startswith("ACCELERATE_DYNAMO_BACKEND=INDUCTOR (") and "): ignored; give --compile" in dynamo
    assert steps.startswith("ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8 (")
    assert steps.endswith("): ignored; --gradient_accumulation_steps is 3")


def test_left_over_settings_change_nothing(monkeypatch):
    """Accelerate would compile, and divide each loss by the steps that its variable names."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(launcher, "cores", lambda: 7)
    accelerator = launcher.start_accelerator()
    assert accelerator.gradient_accumulation_steps == 1 and accelerator.state.dynamo_plugin.backend.value == "NO"
    if accelerator.device.type == "cpu":
        assert torch.get_num_threads() == 3


def test_a_process_that_will_wait_says_for_what(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "host0"}.items():
        monkeypatch.setenv(name, value)
    launcher.check_launch()
    waits = "RANK=1, WORLD_SIZE=3: waiting at host0 for 3 processes; if nobody has started them, unset RANK WORLD_SIZE"
    assert launcher._expected_processes() == waits
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launcher._expected_processes() is None
