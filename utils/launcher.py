"""Start accelerate; refuse or ignore, in one line, what a launcher, its config file or other work left in the environment.

Neither torch nor accelerate is imported before `start_accelerator`, so that `check_launch` answers at once.
"""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from utils.errors import InputError
from utils.memory import reuse_freed_memory
from utils.processes import PROCESS_GROUP_TIMEOUT, cores

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("no", "bf16", "fp16")
# Variables that make accelerate split or wrap the model, so that states and checkpoints would have other contents.
WRAPPERS = (
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)
# The number of processes and the number of this one, as torchrun, Slurm's srun and MPI's launchers set them.
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def variable(name: str) -> str:
    """A variable of accelerate with its value, and what may have set it."""
    return f"{name}={os.environ.get(name)} (set by you, or by `accelerate launch` from its flags or config file: `accelerate env`)"


def check_launch() -> None:
    """Refuse what would end in a traceback of accelerate or torch, or in waiting for processes that nobody started.

    Raises:
        InputError: names the variable and the remedy.
    """
    for name in WRAPPERS:
        if os.environ.get(name, "").lower() == "true":
            raise InputError(
                f"{variable(name)}: not supported, as every process holds the whole model here; start with torchrun or "
                f"python, change the config file with `accelerate config`, or unset {name}"
            )
    _expected_processes()


def _expected_processes() -> str | None:
    """A line if this process, not started by torchrun, is going to wait for others; unsets variables of a single process."""
    left = {name: os.environ[name] for name in (*RANKS, *SIZES) if name in os.environ}
    if not left or "TORCHELASTIC_RUN_ID" in os.environ:
        return None
    named = ", ".join(f"{name}={value}" for name, value in left.items())
    processes = max(int(left[name]) if left.get(name, "").isdecimal() else 1 for name in SIZES)
    if processes == 1:
        for name in left:
            del os.environ[name]
        return None
    if "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"{named}: there should be {processes} processes, but MASTER_ADDR, where they meet, is not set: unset "
            f"{' '.join(left)}, or start them with torchrun --nproc_per_node {processes}"
        )
    return (
        f"{named}: waiting at {os.environ['MASTER_ADDR']} for {processes} processes; if nobody has started them, unset "
        f"{' '.join(left)}"
    )


def start_accelerator(threads: int = 0, mixed_precision: str | None = None, **options) -> "Accelerator":
    """Connect to the other processes; on a CPU divide the cores among them.

    Args:
        threads: on a CPU; 0: this process's part of all cores.
        mixed_precision: None: as the launcher sets it.
        options: further arguments of Accelerator.

    Raises:
        InputError: the launcher, its config file or variables ask for something that is not supported here.
    """
    check_launch()
    precision = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    source = f"--mixed_precision {precision}" if mixed_precision else variable("ACCELERATE_MIXED_PRECISION")
    if precision not in PRECISIONS:
        raise InputError(f"{source}: not one of {', '.join(PRECISIONS)}; give --mixed_precision")

    import torch
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, is_torch_xla_available

    if is_torch_xla_available():
        raise InputError(
            "torch_xla is installed, but TPUs are not supported: set USE_TORCH_XLA=0 to use GPUs or the CPU"
        )
    if line := _expected_processes():
        print(line, file=sys.stderr, flush=True)
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.accelerator.is_available(),  # else accelerate does not see torchrun's processes on a CPU
        dynamo_backend="no",  # only --compile compiles
        # else accelerate divides each loss by ACCELERATE_GRADIENT_ACCUMULATION_STEPS
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)],
        **options,
    )
    if accelerator.device.type == "cpu":
        if precision == "fp16":
            raise InputError(f"{source}: fp16 needs a GPU; give --mixed_precision bf16 or no")
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(threads or max(cores() // local, 1))
        reuse_freed_memory()
    return accelerator


def launch_lines(accelerator: "Accelerator", args: argparse.Namespace) -> list[str]:
    """A line with processes, images per update, precision and device; and one for each ignored setting of the launcher."""
    import torch

    count, device = accelerator.num_processes, accelerator.device
    parts = [f"processes: {count}"]
    if not args.eval_only:
        steps = args.gradient_accumulation_steps
        factors = f"--batch_size {args.batch_size} x processes {count} x --gradient_accumulation_steps {steps}"
        parts.append(f"images per update: {args.batch_size * count * steps} ({factors})")
    parts.append(f"precision: {'float32' if accelerator.mixed_precision == 'no' else accelerator.mixed_precision}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    parts.append(f"device: {device} {name}".rstrip())
    if device.type == "cpu":
        parts.append(f"threads per process: {torch.get_num_threads()}")
    lines = [", ".join(parts)]

    if device.type == "cpu" and torch.accelerator.is_available():
        name = "ACCELERATE_TORCH_DEVICE" if "ACCELERATE_TORCH_DEVICE" in os.environ else "ACCELERATE_USE_CPU"
        lines.append(f"{variable(name)}: the GPU is not used")
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no" and not args.compile:
        lines.append(f"{variable('ACCELERATE_DYNAMO_BACKEND')}: ignored; give --compile to compile")
    name, steps = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", args.gradient_accumulation_steps
    if os.environ.get(name, str(steps)) != str(steps):
        lines.append(f"{variable(name)}: ignored; --gradient_accumulation_steps is {steps}")
    return lines
