"""How much disk a run takes for what it can be continued from, known before its first step."""

import shutil
from pathlib import Path

from models.sevlm import SEVLM
from utils.errors import InputError
from utils.training.optimizer import count_parameters
from utils.training.resume_states import FOLDER, KEPT_STATES

BEST = ("best-acc", "best-res")
ADAMW_BYTES = 2 * 4  # two averages in float32 for each trained parameter


def disk_needed(model: SEVLM) -> tuple[int, int, int]:
    """Bytes of a state, of a named checkpoint, and of all that a run keeps at a time.

    A state holds the weights, without those of a fixed image encoder, and AdamW's averages; a named checkpoint the same.
    Kept are two states and two named checkpoints, and for a moment one more, which is written before it replaces another.
    """
    fixed = model.image_encoder is not None and model.image_encoder.fixed
    kept = [tensor for name, tensor in model.state_dict().items() if not (fixed and name.startswith("image_encoder."))]
    once = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in kept
    }  # files hold what is shared once
    weights = sum(once.values())
    averages = ADAMW_BYTES * count_parameters(model)
    state = checkpoint = weights + averages
    return state, checkpoint, (KEPT_STATES + 1) * state + len(BEST) * checkpoint


def check_disk(model: SEVLM, ckpt_path: Path, resume: bool) -> str:
    """A line on the disk that a run will need.

    Args:
        resume: the states of the run before are this run's own, and are replaced; else they stay.

    Raises:
        InputError: the disk does not hold that much.
    """
    state, checkpoint, needed = disk_needed(model)
    there = [ckpt_path / path for name in BEST for path in (f"nle_model_{name}", f"ckpt_stats_{name}.tar")]
    more = max(needed - sum(map(_size, there + [ckpt_path / FOLDER] * resume)), 0)
    free = shutil.disk_usage(
        next(folder for folder in (ckpt_path, *ckpt_path.absolute().parents) if folder.exists())
    ).free
    facts = f"{KEPT_STATES} states of {shown(state)} and {len(BEST)} checkpoints of {shown(checkpoint)}, and one being written"
    if more > free:
        raise InputError(
            f"{ckpt_path}: the run needs {shown(more)} of disk there ({facts}) and {shown(free)} are free; free some space, or "
            "give another --ckpt_path"
        )
    return f"disk: up to {shown(more)} in {ckpt_path} ({facts}); {shown(free)} are free"


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(_size(inside) for inside in path.iterdir())
    return path.stat().st_size if path.is_file() else 0


def shown(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
