"""AdamW as the paper uses it: parameter groups, epsilon, learning rates, and the check that an update is finite."""

import argparse
import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from models.sevlm import SEVLM


def parameter_groups(args: argparse.Namespace, model: SEVLM) -> tuple[list[dict], list[list[str]]]:
    """AdamW's groups, in the published order: VAD encoder, decoder with heads, trained image encoder; weights, then biases.

    Weight decay is 0 throughout, as in the paper; weights and biases are separate so that optimiser states have their
    published form.

    Returns:
        the groups, and the names of each group's parameters.
    """
    groups, names = [], []
    for parts, rate in (
        (("vad_encoder",), args.emo_en_LR),
        (("decoder", "emotion_head"), args.learning_rate),
        (("image_encoder",), args.en_LR),
    ):
        modules = [(part, getattr(model, part)) for part in parts if getattr(model, part) is not None]
        parameters = [named for part, module in modules for named in module.named_parameters(prefix=part)]
        for biases in (False, True):
            chosen = [
                (name, parameter)
                for name, parameter in parameters
                if parameter.requires_grad and name.endswith("bias") == biases
            ]
            if chosen:
                groups.append({"params": [parameter for _, parameter in chosen], "lr": rate})
                names.append([name for name, _ in chosen])
    return groups, names


def build_optimizer(groups: list[dict], eps: float, form: str = "published") -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.999, no weight decay.

    Args:
        form: "published": epsilon is added as in the authors' `transformers.AdamW`, see `PublishedEpsilon`; or "torch".
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=eps, weight_decay=0.0, fused=True)
    if form == "published":
        epsilon = PublishedEpsilon()
        optimizer.register_step_pre_hook(epsilon.before)
        optimizer.register_step_post_hook(epsilon.after)
    return optimizer


class PublishedEpsilon:
    """Makes PyTorch's AdamW the published one. With m, v the running means, that one's update t = 1, 2, ... is

        w -= rate * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps).

    PyTorch adds epsilon to sqrt(v / (1 - beta2^t)), so that its epsilon has to be eps / sqrt(1 - beta2^t) for that update.
    t - 1 is the optimiser's own count, without the updates that it skipped (found_inf). It lies on the device: a GPU's
    is copied after each update and read before the next one, while the GPU is busy with a whole backward pass.
    """

    def __init__(self) -> None:
        self.eps: list[float] = []
        self.count: torch.Tensor | None = None
        self.copied: torch.cuda.Event | None = None

    def before(self, optimizer: torch.optim.Optimizer, *_) -> None:
        if self.copied is not None:
            self.copied.synchronize()
        count = self._count(optimizer) if self.count is None else self.count
        self.eps = [group["eps"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["eps"] /= math.sqrt(1 - group["betas"][1] ** (int(count) + 1))

    def after(self, optimizer: torch.optim.Optimizer, *_) -> None:
        for group, eps in zip(optimizer.param_groups, self.eps, strict=True):
            group["eps"] = eps
        count = self._count(optimizer)
        if count.is_cuda:
            self.count, self.copied = count.to("cpu", non_blocking=True), torch.cuda.Event()
            self.copied.record()

    @staticmethod
    def _count(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """Updates made so far, the same for all parameters."""
        return next((averages["step"] for averages in optimizer.state.values()), torch.zeros(()))


def linear_decay(optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rates fall linearly to 0 over all updates, no warm-up: the rate of update k = 0, 1, ... is lr (1 - k / updates)."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: max(0.0, 1 - update / updates))


def set_schedule(scheduler: torch.optim.lr_scheduler.LambdaLR, rates: list[float], eps: float, updates: int) -> None:
    """Put AdamW and its schedule at update `updates` with these rates (one for each parameter group) and this epsilon."""
    scheduler.base_lrs, scheduler.last_epoch = list(rates), updates
    for group, rate, decay in zip(scheduler.optimizer.param_groups, rates, scheduler.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"], group["eps"] = rate, rate * decay(updates), eps
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def rates_of_update(
    scheduler: torch.optim.lr_scheduler.LambdaLR, names: list[list[str]], update: int
) -> dict[str, float]:
    """Learning rates of update 1, 2, ... by part of the model, from the names of each group's parameters."""
    groups = zip(names, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    return {group_names[0].partition(".")[0]: rate * decay(update - 1) for group_names, rate, decay in groups}


def count_parameters(module: nn.Module | None) -> int:
    """The number of trained parameters; 0 for a part that the model does not have."""
    if module is None:
        return 0
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


# ---- whether an update was finite, without making the GPU wait for the answer ----------------------------------------


@dataclass
class UpdateCheck:
    """Whether one update's losses and gradients are finite.

    finite: bool scalar on the device, whether the update may be made; like `flags` the same on all processes.
    flags: bool [1 + losses] on the host: `finite`, then whether each loss of `names` is; from a GPU they are complete once
    `copied` has happened. place: epoch and step. image_ids: of this process's batches. processes: their number.
    """

    finite: Tensor
    flags: Tensor
    names: list[str]
    place: tuple[int, int]
    image_ids: Tensor
    processes: int
    copied: torch.cuda.Event | None

    @classmethod
    def of(
        cls,
        finite: Tensor,
        losses: dict[str, Tensor],
        place: tuple[int, int],
        image_ids: Tensor,
        accelerator: Accelerator,
    ) -> "UpdateCheck":
        """Combine what the processes found, and start copying it to the host. finite: of this process's update."""
        names = [name for name in losses if name != "loss"]
        flags = torch.stack([finite, *(torch.isfinite(losses[name]) for name in names)])
        if accelerator.num_processes > 1:
            flags = accelerator.reduce(flags.float(), "mean") > 0.999
        finite = flags[0]
        copied = None
        if flags.is_cuda:
            flags = flags.to("cpu", non_blocking=True)  # into pinned memory
            copied = torch.cuda.Event()
            copied.record()
        return cls(finite, flags, names, place, image_ids, accelerator.num_processes, copied)

    def problem(self) -> str | None:
        """What is not finite, and where; None for a finite update. Waits for the copy."""
        if self.copied is not None:
            self.copied.synchronize()
        finite, *losses_finite = self.flags.tolist()
        if finite:
            return None
        parts = [name for name, is_finite in zip(self.names, losses_finite, strict=True) if not is_finite]
        epoch, step = self.place
        where = f"epoch {epoch}, step {step}, images {self.image_ids.tolist()}"
        if self.processes > 1:
            where += " of process 0, or those of the other processes"
        return f"{' and '.join(parts) or 'a gradient'} is not finite at {where}"
