"""Start accelerate. What a launcher, its config file or other work left in the environment is refused or ignored, in one line.

Neither torch nor accelerate is imported before `start_accelerator`, so that `check_launch` answers at once.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import InputError, brief
from utils.processes import PROCESS_GROUP_TIMEOUT, cores, reuse_freed_memory

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("no", "bf16", "fp16")
# Variables that make accelerate take the model apart or wrap it, so that states and checkpoints would have another layout,
# and the entry of its config file for which `accelerate launch` sets them.
WRAPPERS = {
    "ACCELERATE_USE_DEEPSPEED": ("distributed_type", "DEEPSPEED"),
    "ACCELERATE_USE_FSDP": ("distributed_type", "FSDP"),
    "ACCELERATE_USE_MEGATRON_LM": ("distributed_type", "MEGATRON_LM"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("parallelism_config", ""),
    "ACCELERATE_USE_SAGEMAKER": ("compute_environment", "AMAZON_SAGEMAKER"),
}
# How many processes there are and which of them this is, as torchrun, Slurm's srun and MPI's launchers tell it.
SIZES = ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def check_launch() -> None:
    """Reject launcher settings with which accelerate would crash, or wait for processes that were never started.

    Raises:
        InputError: names the entry of accelerate's config file, or the variable, and the remedy.
        FileNotFoundError: no folder takes temporary files, which importing torch's compiler needs.
    """
    tempfile.gettempdir()
    for variable, (key, value) in WRAPPERS.items():
        if os.environ.get(variable, "").lower() == "true":
            change = f"unset {variable}"
            if launcher_options() is not None:
                change = "start with torchrun or python instead of `accelerate launch`, or change it with `accelerate config`"
            raise InputError(
                f"{origin(variable, key, value)}: not supported, as every process holds the whole model here; {change}"
            )
    _waits_for()


def _waits_for() -> str | None:
    """A line that says for which processes this one will wait, if variables other than torchrun's name several.

    Variables of a single process are removed: they would make torch look for a MASTER_ADDR.

    Raises:
        InputError: the variables are not numbers, or do not say where the processes meet.
    """
    there = {name: os.environ[name] for name in (*RANKS, *SIZES) if name in os.environ}
    if not there or "TORCHELASTIC_RUN_ID" in os.environ:
        return None
    named = ", ".join(f"{name}={value}" for name, value in there.items())
    if not all(value.isdecimal() for value in there.values()):
        raise InputError(f"{named}: not all of them are numbers; unset {' '.join(there)}")
    processes = max(int(there.get(name, 1)) for name in SIZES)
    if processes == 1:
        for name in there:
            del os.environ[name]
        return None
    if "MASTER_ADDR" not in os.environ:
        raise InputError(
            f"{named}: says that there are {processes} processes, but no MASTER_ADDR says where they meet: unset "
            f"{' '.join(there)}, or start them with torchrun --nproc_per_node {processes}"
        )
    return (
        f"{named}: waiting at {os.environ['MASTER_ADDR']} for {processes} processes; if nobody has started them, unset "
        f"{' '.join(there)}"
    )


def start_accelerator(threads: int = 0, mixed_precision: str | None = None, **options) -> "Accelerator":
    """Meet the other processes; on a CPU share the cores with them.

    Args:
        threads: on a CPU; 0: this process's part of all cores.
        mixed_precision: None: as the launcher has it.
        options: further arguments of Accelerator.

    Raises:
        InputError: the launcher, its config file or variables ask for what cannot be had here.
    """
    check_launch()
    wanted = mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    source = origin("ACCELERATE_MIXED_PRECISION", "mixed_precision", wanted)
    if mixed_precision:
        source = f"--mixed_precision {mixed_precision}"
    if wanted not in PRECISIONS:
        raise InputError(f"{source}: --mixed_precision must be one of {', '.join(PRECISIONS)}")

    import torch
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, is_torch_xla_available

    if is_torch_xla_available():
        raise InputError(
            "torch_xla is installed, but TPUs are not supported: set USE_TORCH_XLA=0 to use GPUs or the CPU"
        )
    if waits := _waits_for():
        print(waits, file=sys.stderr, flush=True)
    try:
        accelerator = Accelerator(
            mixed_precision=wanted,
            cpu=not torch.accelerator.is_available(),  # else accelerate does not see torchrun's processes on a CPU
            dynamo_backend="no",  # only --compile compiles
            # else accelerate divides each loss by ACCELERATE_GRADIENT_ACCUMULATION_STEPS
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)],
            **options,
        )
        torch.empty(0, device=accelerator.device)
    except (ValueError, ImportError, AssertionError, RuntimeError) as error:
        given = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "MASTER_"))]
        # other RuntimeErrors are those of the other processes, or of a driver
        if not given or (isinstance(error, RuntimeError) and "ACCELERATE_TORCH_DEVICE" not in os.environ):
            raise
        raise InputError(
            f"accelerate cannot start ({brief(error)}); it was told {', '.join(sorted(given))}: correct or unset what is wrong"
        ) from None
    if accelerator.device.type == "cpu":
        if wanted == "fp16":
            raise InputError(f"{source}: fp16 needs a GPU; pass --mixed_precision bf16 or no")
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(threads or max(cores() // local, 1))
        reuse_freed_memory()
    return accelerator


def launch_lines(accelerator: "Accelerator", args: argparse.Namespace) -> list[str]:
    """What a run is made of, in one line; and a line for each thing that the launcher asked for and does not get."""
    import torch

    count, device = accelerator.num_processes, accelerator.device
    made_of = [f"processes: {count}"]
    if not args.eval_only:
        steps = args.gradient_accumulation_steps
        factors = f"--batch_size {args.batch_size} x processes {count} x --gradient_accumulation_steps {steps}"
        made_of.append(f"images per update: {args.batch_size * count * steps} ({factors})")
    made_of.append(f"precision: {'float32' if accelerator.mixed_precision == 'no' else accelerator.mixed_precision}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    made_of.append(f"device: {device} {name}".rstrip())
    if device.type == "cpu":
        made_of.append(f"threads per process: {torch.get_num_threads()}")
    lines = [", ".join(made_of)]
    multiplies_bf16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if device.type == "cpu" and accelerator.mixed_precision == "bf16" and not multiplies_bf16:
        lines.append(
            "bf16: this processor does not multiply bf16, so that float32 is faster; pass --mixed_precision no"
        )

    if device.type == "cpu" and torch.accelerator.is_available():
        variable = "ACCELERATE_TORCH_DEVICE" if "ACCELERATE_TORCH_DEVICE" in os.environ else "ACCELERATE_USE_CPU"
        lines.append(f"{origin(variable, 'use_cpu', 'true')}: the GPU that is there is not used")
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() != "no" and not args.compile:
        lines.append(
            f"{origin('ACCELERATE_DYNAMO_BACKEND', 'dynamo_backend', backend)}: ignored; pass --compile to compile"
        )
    variable, steps = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", args.gradient_accumulation_steps
    if os.environ.get(variable, str(steps)) != str(steps):
        lines.append(f"{variable}={os.environ[variable]}: ignored; --gradient_accumulation_steps is {steps}")
    asked = asked_processes()
    if asked > count:
        if device.type == "cpu":
            still_cpu = "ACCELERATE_USE_CPU=1 " if torch.accelerator.is_available() else ""
            way = f"on CPUs start them with {still_cpu}torchrun --nproc_per_node {asked} artEmisX_train.py"
        else:
            way = f"GPUs that it sees: {torch.accelerator.device_count()}; look at CUDA_VISIBLE_DEVICES"
        lines.append(f"accelerate launch was asked for {asked} processes and has started {count}: {way}")
    return lines


# ---- accelerate's launcher -------------------------------------------------------------------------------------------


def launcher_options() -> argparse.Namespace | None:
    """The options of `accelerate launch` that matter here; None where this process's parent is something else."""
    import psutil

    try:
        words = psutil.Process(os.getppid()).cmdline()
    except psutil.Error:
        return None
    if not any("accelerate" in Path(word).name for word in words[:4]):
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--config_file", "--config-file")
    parser.add_argument("--num_processes", "--num-processes")
    parser.add_argument("--cpu", action="store_true")
    try:
        return parser.parse_known_args(words)[0]
    except argparse.ArgumentError:
        return None


def config_line(key: str, value: str = "") -> tuple[Path, str] | None:
    """The config file that `accelerate launch` has read, and its line with `key` and `value`, if there is one."""
    options = launcher_options()
    if options is None or (options.cpu and not options.config_file):
        return None
    caches = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = Path(os.environ.get("HF_HOME", os.path.join(caches, "huggingface"))).expanduser()
    path = Path(options.config_file or folder / "accelerate" / "default_config.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(rf"^[^#\n]*\b{key}\b.*{re.escape(value)}.*$", text, re.MULTILINE | re.IGNORECASE)
    return (path, found[0].strip()) if found else None


def origin(variable: str, key: str, value: str) -> str:
    """Where a setting comes from: the line of accelerate's config file, or else the variable."""
    found = config_line(key, value)
    return f"{variable}={os.environ.get(variable)}" if found is None else f"{found[0]}: {found[1]}"


def asked_processes() -> int:
    """How many processes `accelerate launch` was asked for, by its flag or its config file; 1 where that is not known."""
    options = launcher_options()
    found = config_line("num_processes")
    text = options and options.num_processes or found and found[1] or ""
    number = re.search(r"\d+", text)
    return int(number[0]) if number else 1
