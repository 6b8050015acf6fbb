"""Whether an update was finite, without making the GPU wait for the answer."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class UpdateCheck:
    """What is known of one update's losses and gradients.

    flags: bool [1 + losses] on the host: the whole update, then each loss of `names`. On a GPU they are still being copied
    until `copied`. place: epoch and step. image_ids: of its batches.
    """

    flags: Tensor
    names: list[str]
    place: tuple[int, int]
    image_ids: Tensor
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, finite: Tensor, losses: dict[str, Tensor], place: tuple[int, int], image_ids: Tensor) -> "UpdateCheck":
        """Start the copy of `finite`, whether the update may be made, and of which losses are finite."""
        names = [name for name in losses if name != "loss"]
        flags = torch.stack([finite, *(torch.isfinite(losses[name]) for name in names)])
        copied = None
        if flags.is_cuda:
            flags = flags.to("cpu", non_blocking=True)  # into pinned memory
            copied = torch.cuda.Event()
            copied.record()
        return cls(flags, names, place, image_ids, copied)

    def problem(self) -> str | None:
        """What is not finite, and where; None for a finite update. Waits until the answer is there."""
        if self.copied is not None:
            self.copied.synchronize()
        finite, *of_losses = self.flags.tolist()
        if finite:
            return None
        parts = [name for name, is_finite in zip(self.names, of_losses, strict=True) if not is_finite]
        epoch, step = self.place
        where = f"epoch {epoch}, step {step}, images {self.image_ids.tolist()}"
        return f"{' and '.join(parts) or 'a gradient'} is not finite at {where}"
