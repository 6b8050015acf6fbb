"""What accelerate's launcher, its config file and variables left over ask for: followed, refused in one line, or ignored with one."""

import argparse
import os
from types import SimpleNamespace

import pytest
import torch

from utils import launcher
from utils.command_line import parse_args
from utils.errors import InputError

VARIABLES = (*launcher.WRAPPERS, *launcher.SIZES, *launcher.RANKS, "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
LAUNCHER_OPTIONS = launcher.launcher_options
LEFT_OVER = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8"}
ON_CPU = SimpleNamespace(num_processes=1, device=torch.device("cpu"), mixed_precision="no")


@pytest.fixture(autouse=True)
def launched(monkeypatch, tmp_path):
    """Nothing left over in the environment; gives a function that lets `accelerate launch` have read a config file."""
    for name in (*VARIABLES, *(name for name in os.environ if name.startswith("ACCELERATE_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launcher, "launcher_options", lambda: None)

    def with_config(text: str, **options):
        path = tmp_path / "default_config.yaml"
        path.write_text(text)
        given = argparse.Namespace(**({"config_file": str(path), "num_processes": None, "cpu": False} | options))
        monkeypatch.setattr(launcher, "launcher_options", lambda: given)
        return path

    return with_config


def set_variables(monkeypatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_wrapped_models_are_refused(monkeypatch, launched, variable):
    """By the variable, or by the line of the config file that it comes from."""
    monkeypatch.setenv(variable, "false")
    launcher.check_launch()
    monkeypatch.setenv(variable, "true")
    with pytest.raises(InputError, match=f"{variable}=true: not supported.*; unset {variable}"):
        launcher.check_launch()
    path = launched("distributed_type: FSDP\n")
    line = f"{path}: distributed_type: FSDP" if "FSDP" in variable else f"{variable}=true"
    with pytest.raises(InputError, match=f"{line}: not supported.*torchrun or python"):
        launcher.check_launch()


@pytest.mark.parametrize(
    ("precision", "message"),
    [("fp16", "fp16 needs a GPU; pass --mixed_precision bf16 or no"), ("fp8", "must be one of no, bf16, fp16")],
)
def test_precisions_that_cannot_be_had(monkeypatch, launched, precision, message):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    path = launched(f"mixed_precision: {precision}\n")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(InputError, match=f"{path}: mixed_precision: {precision}: .*{message}"):
        launcher.start_accelerator()
    with pytest.raises(InputError, match="--mixed_precision fp16: fp16 needs a GPU"):
        launcher.start_accelerator(mixed_precision="fp16")


def test_left_over_process_variables(monkeypatch):
    """Of two processes that nobody started; of one they are removed, as torch would look for its launcher."""
    monkeypatch.setenv("RANK", "0")
    for size, message in {"2": "says that there are 2 processes", "two": "not all of them are numbers"}.items():
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(InputError, match=f"RANK=0, WORLD_SIZE={size}: {message}.*unset RANK WORLD_SIZE"):
            launcher.check_launch()
    monkeypatch.setenv("WORLD_SIZE", "1")
    launcher.check_launch()
    assert "WORLD_SIZE" not in os.environ and "RANK" not in os.environ


def test_a_run_says_what_it_is_made_of(monkeypatch, launched):
    args = parse_args(["--batch_size", "7", "--gradient_accumulation_steps", "3"])
    (line,) = launcher.launch_lines(SimpleNamespace(**(vars(ON_CPU) | {"num_processes": 2})), args)
    assert "processes: 2, images per update: 42 (" in line and "precision: float32, device: cpu" in line
    bf16 = SimpleNamespace(**(vars(ON_CPU) | {"mixed_precision": "bf16"}))
    for supported, told in ((True, []), (False, ["bf16"])):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda answer=supported: answer)
        assert [line.partition(":")[0] for line in launcher.launch_lines(bf16, args)[1:]] == told
    path = launched("num_processes: 4\ndynamo_config:\n  dynamo_backend: INDUCTOR\n")
    set_variables(monkeypatch, **LEFT_OVER)
    _, dynamo, steps, processes = launcher.launch_lines(ON_CPU, args)
    assert dynamo == f"{path}: dynamo_backend: INDUCTOR: ignored; pass --compile to compile"
    assert steps == "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8: ignored; --gradient_accumulation_steps is 3"
    assert processes.startswith("accelerate launch was asked for 4 processes and has started 1: on CPUs start them")


def test_left_over_settings_change_nothing(monkeypatch):
    """Accelerate would compile, and divide each loss by the steps that its variable names."""
    set_variables(monkeypatch, **LEFT_OVER, TORCHELASTIC_RUN_ID="none", LOCAL_WORLD_SIZE="2")
    monkeypatch.setattr(launcher, "cores", lambda: 7)
    accelerator = launcher.start_accelerator()
    assert accelerator.gradient_accumulation_steps == 1 and accelerator.state.dynamo_plugin.backend.value == "NO"
    if accelerator.device.type == "cpu":
        assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("variable", "value"), [("ACCELERATE_USE_CPU", "maybe"), ("ACCELERATE_TORCH_DEVICE", "gpu")])
def test_what_accelerate_cannot_follow_is_one_line(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=f"accelerate cannot start .*it was told {variable}={value}: correct or unset"):
        launcher.start_accelerator()


def test_a_process_that_will_wait_says_for_what(monkeypatch):
    set_variables(monkeypatch, RANK="1", WORLD_SIZE="3", MASTER_ADDR="host0")
    launcher.check_launch()
    waits = "RANK=1, WORLD_SIZE=3: waiting at host0 for 3 processes; if nobody has started them, unset RANK WORLD_SIZE"
    assert launcher._waits_for() == waits
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launcher._waits_for() is None


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("python /bin/accelerate launch --num_processes 5 --cpu artEmisX_train.py --demo", 5),
        ("python -m accelerate.commands.launch --num-processes=3 artEmisX_train.py --num_workers 8", 3),
        ("python /bin/accelerate launch artEmisX_train.py --demo", 1),
        ("bash job.sh --num_processes 4", 1),
    ],
)
def test_the_launchers_command_line_is_read(monkeypatch, tmp_path, words, asked):
    monkeypatch.setattr(launcher, "launcher_options", LAUNCHER_OPTIONS)
    monkeypatch.setenv("HF_HOME", str(tmp_path))  # without a config file
    monkeypatch.setattr("psutil.Process", lambda _: SimpleNamespace(cmdline=words.split))
    assert launcher.asked_processes() == asked
    assert (launcher.launcher_options() is None) == words.startswith("bash")
