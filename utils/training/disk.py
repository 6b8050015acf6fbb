"""How much disk a run takes for what it can be continued from, known before its first step."""

import shutil
from pathlib import Path

from models.sevlm import SEVLM
from utils.errors import InputError
from utils.training.optimizer import count_parameters
from utils.training.resume import FOLDER, KEPT_STATES

BEST = ("best-acc", "best-res")
ADAMW_BYTES = 2 * 4  # two averages in float32 for each trained parameter


def state_size(model: SEVLM) -> int:
    """Bytes of a state: the weights, but for those of a fixed image encoder, and AdamW's averages. A named checkpoint has as many."""
    fixed = model.image_encoder is not None and model.image_encoder.fixed
    kept = [tensor for name, tensor in model.state_dict().items() if not (fixed and name.startswith("image_encoder."))]
    once = {tensor.data_ptr(): tensor.nbytes for tensor in kept}  # files hold what is shared once
    return sum(once.values()) + ADAMW_BYTES * count_parameters(model)


def check_disk(model: SEVLM, ckpt_path: Path, resume: bool) -> str:
    """A line on the disk that a run will need: two states, two named checkpoints, and one more while it replaces another.

    Args:
        resume: the states of the run before are this run's own, and are replaced; else they stay.

    Raises:
        InputError: the disk does not hold that much.
    """
    state = state_size(model)
    replaced = [ckpt_path / path for name in BEST for path in (f"nle_model_{name}", f"ckpt_stats_{name}.tar")]
    replaced += [ckpt_path / FOLDER] * resume
    there = sum(file.stat().st_size for path in replaced for file in (path, *path.rglob("*")) if file.is_file())
    needed = max((KEPT_STATES + len(BEST) + 1) * state - there, 0)
    free = shutil.disk_usage(ckpt_path).free
    reason = f"{KEPT_STATES} states and {len(BEST)} checkpoints of {shown(state)}, and one being written"
    if needed > free:
        raise InputError(
            f"{ckpt_path}: the run needs {shown(needed)} of disk there ({reason}) and {shown(free)} are free; free some "
            "space, or give another --ckpt_path"
        )
    return f"disk: up to {shown(needed)} in {ckpt_path} ({reason}); {shown(free)} are free"


def shown(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
