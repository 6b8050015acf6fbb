"""What a run does, written down step by step: for tests that ask which rate, gradient or mode an update really had."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from models.sevlm import SEVLM


@dataclass
class Step:
    """One call of SEVLM.forward in training."""

    batch: dict[str, torch.Tensor]
    output: dict[str, torch.Tensor]
    training: bool  # every module is in training mode
    without_gradients: bool  # no earlier step has left any


@dataclass
class Update:
    """One step of the optimiser that is made, just before it is."""

    rates: list[float]  # of each parameter group
    norm: float  # of all gradients together


@dataclass
class Recording:
    steps: list[Step] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    model: SEVLM | None = None
    initial: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None

    def rates(self, group: int) -> list[float]:
        return [update.rates[group] for update in self.updates]


@contextlib.contextmanager
def recording(monkeypatch) -> Iterator[Recording]:
    """Record every training step and update while the block runs."""
    made = Recording()
    forward = SEVLM.forward

    def recorded(model: SEVLM, **batch) -> dict[str, torch.Tensor]:
        if made.model is None:
            made.model, made.initial = model, {name: p.detach().clone() for name, p in model.named_parameters()}
        training = all(module.training for module in model.modules())
        without_gradients = not any(p.grad is not None and p.grad.any() for p in model.parameters())
        output = forward(model, **batch)
        made.steps.append(Step(batch, output, training, without_gradients))
        return output

    def before_update(optimizer: torch.optim.Optimizer, *_) -> None:
        made.optimizer = optimizer
        if getattr(optimizer, "found_inf", None):
            return
        groups = optimizer.param_groups
        norms = [p.grad.norm() for group in groups for p in group["params"] if p.grad is not None]
        made.updates.append(Update([group["lr"] for group in groups], float(torch.stack(norms).norm())))

    hook = register_optimizer_step_pre_hook(before_update)
    with monkeypatch.context() as patch:
        patch.setattr(SEVLM, "forward", recorded)
        yield made
    hook.remove()
