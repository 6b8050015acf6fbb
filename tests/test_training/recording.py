"""What a run does, written down step by step: for tests that ask which rate, gradient or dropout an update really had."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from models.sevlm import SEVLM


@dataclass
class Step:
    """One call of SEVLM.forward in training: what came in and out, and what dropout's masks were to be drawn from."""

    batch: dict[str, torch.Tensor]
    output: dict[str, torch.Tensor]
    random_state: str
    training: dict[str, bool]  # module -> its mode


@dataclass
class Update:
    """One step of the optimiser that is made, per parameter group, just before it is."""

    rates: list[float]
    names: list[list[str]]
    norm: float  # of all gradients together


@dataclass
class Recording:
    steps: list[Step] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    model: SEVLM | None = None
    optimizer: torch.optim.Optimizer | None = None

    def rates(self, group: int) -> list[float]:
        return [update.rates[group] for update in self.updates]


@contextlib.contextmanager
def recording(monkeypatch) -> Iterator[Recording]:
    """Record every training step and update while the block runs."""
    made = Recording()
    forward = SEVLM.forward

    def recorded(self: SEVLM, **batch) -> dict[str, torch.Tensor]:
        state = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
        modes = {name: module.training for name, module in self.named_modules()}
        output = forward(self, **batch)
        made.model = self
        made.steps.append(Step(batch, output, state, modes))
        return output

    def before_update(optimizer: torch.optim.Optimizer, *_) -> None:
        if getattr(optimizer, "found_inf", None):
            return
        names = {parameter: name for name, parameter in made.model.named_parameters()}
        groups = optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        made.optimizer = optimizer
        made.updates.append(
            Update(
                [group["lr"] for group in groups],
                [[names[parameter] for parameter in group["params"]] for group in groups],
                float(torch.stack([gradient.norm() for gradient in gradients]).norm()),
            )
        )

    hook = register_optimizer_step_pre_hook(before_update)
    monkeypatch.setattr(SEVLM, "forward", recorded)
    try:
        yield made
    finally:
        hook.remove()
        monkeypatch.setattr(SEVLM, "forward", forward)
