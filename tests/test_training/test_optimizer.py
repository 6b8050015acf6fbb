"""AdamW's epsilon, where it counts: gradients about as large as it; and the schedule's learning rates."""

import math

import pytest
import torch

from utils.training.optimizer import build_optimizer, linear_decay, rates_of_update, set_schedule

RATE, EPS = 1e-2, 1e-6
LEFT_OUT = 2  # of six updates
GRADIENTS = 10.0 ** torch.empty(6, 40).uniform_(-9, -4, generator=torch.Generator().manual_seed(0))


def expected(form: str) -> torch.Tensor:
    """By the formula, in float64; the update that is left out counts nowhere."""
    weight, m, v = torch.ones(40).double(), 0.0, 0.0
    for t, gradient in enumerate([g.double() for k, g in enumerate(GRADIENTS) if k != LEFT_OUT], start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        first, second = 1 - 0.9**t, math.sqrt(1 - 0.999**t)
        if form == "published":
            weight -= RATE * second / first * m / (v.sqrt() + EPS)
        else:
            weight -= RATE / first * m / (v.sqrt() / second + EPS)
    return weight


@pytest.mark.parametrize("way", ["not finite", "loss scaler"])
@pytest.mark.parametrize("form", ["published", "torch"])
def test_updates_follow_the_formula(form, way):
    """Through an update that is left out, by the check of losses and gradients or by fp16's scaler, and a resumption."""
    weight = torch.nn.Parameter(torch.ones(40))
    optimizer = build_optimizer([{"params": [weight], "lr": RATE}], EPS, form)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for k, gradient in enumerate(GRADIENTS):
        weight.grad = gradient.clone()
        if way == "not finite":
            optimizer.found_inf = torch.tensor(float(k == LEFT_OUT))
            optimizer.step()
        else:
            scaler.scale(torch.zeros(()))
            weight.grad *= scaler.get_scale()
            weight.grad[7] *= math.inf if k == LEFT_OUT else 1
            scaler.step(optimizer)
            scaler.update()
        if k == 3:
            state = optimizer.state_dict()
            optimizer = build_optimizer([{"params": [weight], "lr": RATE}], EPS, form)
            optimizer.load_state_dict(state)
    torch.testing.assert_close(weight.double(), expected(form), rtol=0, atol=5e-7)
    assert (expected("published") - expected("torch")).abs().max() > 1e-3


def test_a_schedule_that_is_continued():
    """From update 5 of 8, with other rates: 3/8 of them, then 2/8, and 1/8 in the last update. The log names them by part."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0} for _ in range(2)]
    optimizer = build_optimizer(groups, EPS, "published")
    scheduler = linear_decay(optimizer, 8)
    set_schedule(scheduler, [8.0, 80.0], 1e-4, 5)
    for left in (3, 2, 1):
        found = [(group["lr"], group["eps"]) for group in optimizer.param_groups]
        assert found == [(pytest.approx(left), 1e-4), (pytest.approx(10 * left), 1e-4)]
        optimizer.step()
        scheduler.step()
        names = [["vad_encoder.a"], ["decoder.b", "emotion_head.c"]]
        logged = rates_of_update(scheduler, names, scheduler.last_epoch)  # of the update that was just made
        assert logged == pytest.approx({"vad_encoder": left, "decoder": 10 * left})
    assert optimizer.param_groups[1]["lr"] == 0
