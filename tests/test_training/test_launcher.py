"""What accelerate's launcher, its config file and variables left over ask for: followed, refused in one line, or ignored with one."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from utils import launcher
from utils.command_line import parse_args
from utils.errors import InputError

VARIABLES = (*launcher.WRAPPERS, *launcher.SIZES, *launcher.RANKS, "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
LEFT_OVER = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "8"}
LAUNCH = "python /bin/accelerate launch artEmisX_train.py"
ON_CPU = {"num_processes": 1, "device": torch.device("cpu"), "mixed_precision": "no"}


@pytest.fixture(autouse=True)
def started_by(monkeypatch, tmp_path):
    """Nothing left over in the environment; a function that sets the command which started this process, and accelerate's
    config file, whose path it returns."""
    for name in (*VARIABLES, *(name for name in os.environ if name.startswith("ACCELERATE_"))):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    path = tmp_path / "accelerate" / "default_config.yaml"
    path.parent.mkdir()

    def set_command(command: str, config: str = "") -> Path:
        monkeypatch.setattr("psutil.Process", lambda _: SimpleNamespace(cmdline=command.split))
        path.write_text(config)
        return path

    set_command("bash job.sh")
    return set_command


def set_variables(monkeypatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_wrapped_models_are_refused(monkeypatch, started_by):
    """By the variable, or by the line of the config file that it comes from."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    launcher.check_launch()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="ACCELERATE_USE_FSDP=true: not supported.*; unset ACCELERATE_USE_FSDP"):
        launcher.check_launch()
    path = started_by(LAUNCH, "distributed_type: FSDP\n")
    with pytest.raises(InputError, match=f"{path}: distributed_type: FSDP: not supported.*torchrun or python"):
        launcher.check_launch()


@pytest.mark.parametrize(
    ("precision", "message"),
    [("fp16", "fp16 needs a GPU; pass --mixed_precision bf16 or no"), ("fp8", "must be one of no, bf16, fp16")],
)
def test_precisions_that_cannot_be_had(monkeypatch, started_by, precision, message):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    path = started_by(LAUNCH, f"mixed_precision: {precision}\n")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
    with pytest.raises(InputError, match=f"{path}: mixed_precision: {precision}: .*{message}"):
        launcher.start_accelerator()
    with pytest.raises(InputError, match="--mixed_precision fp16: fp16 needs a GPU"):
        launcher.start_accelerator(mixed_precision="fp16")


def test_left_over_process_variables(monkeypatch):
    """Of one process they are removed, as torch would look for its launcher; of several that will wait for each other it is
    said where."""
    set_variables(monkeypatch, RANK="0", WORLD_SIZE="1")
    launcher.check_launch()
    assert "WORLD_SIZE" not in os.environ and "RANK" not in os.environ
    monkeypatch.setenv("RANK", "1")
    for size, message in {"two": "not all of them are numbers", "3": "says that there are 3 processes"}.items():
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(InputError, match=f"RANK=1, WORLD_SIZE={size}: {message}.*unset RANK WORLD_SIZE"):
            launcher.check_launch()
    monkeypatch.setenv("MASTER_ADDR", "host0")
    waits = "RANK=1, WORLD_SIZE=3: waiting at host0 for 3 processes; if nobody has started them, unset RANK WORLD_SIZE"
    assert launcher._waits_for() == waits
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert launcher._waits_for() is None


def test_a_run_says_what_it_is_made_of(monkeypatch, started_by):
    def lines(**changed) -> list[str]:
        return launcher.launch_lines(SimpleNamespace(**ON_CPU | changed), args)

    args = parse_args(["--batch_size", "7", "--gradient_accumulation_steps", "3"])
    (line,) = lines(num_processes=2)
    assert "processes: 2, images per update: 42 (" in line and "precision: float32, device: cpu" in line
    for supported, told in ((True, []), (False, ["bf16"])):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda answer=supported: answer)
        assert [line.partition(":")[0] for line in lines(mixed_precision="bf16")[1:]] == told
    path = started_by(LAUNCH, "num_processes: 4\ndynamo_config:\n  dynamo_backend: INDUCTOR\n")
    set_variables(monkeypatch, **LEFT_OVER)
    _, dynamo, steps, processes = lines()
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


def test_what_accelerate_cannot_follow_is_one_line(monkeypatch):
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "gpu")
    with pytest.raises(
        InputError, match="accelerate cannot start .*told ACCELERATE_TORCH_DEVICE=gpu: correct or unset"
    ):
        launcher.start_accelerator()


def test_the_launchers_command_line_is_read(started_by):
    for command, asked in {
        "python /bin/accelerate launch --num_processes 5 --cpu artEmisX_train.py --demo": 5,
        "python -m accelerate.commands.launch --num-processes=3 artEmisX_train.py --num_workers 8": 3,
        LAUNCH: 1,
        "bash job.sh --num_processes 4": 1,
    }.items():
        started_by(command)
        assert launcher.asked_processes() == asked, command
