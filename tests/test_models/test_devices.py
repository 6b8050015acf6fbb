"""A training step whose tensors are all on one device. No GPU is needed: the meta device computes shapes only.

PyTorch takes CPU tensors silently in a few operations (embedding, indexing, linear) of other devices' tensors, and refuses
them in most, but only on a machine that has such a device.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.test_models.test_reference import IMAGES, build, collate, random_items


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices. Single numbers may stay on the CPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() or tensor.device.type != "cpu"}
        moved = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        assert len(devices) < 2 or moved, f"{function} on {devices}"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def step():
    """A model with every part, its batch and its optimiser on the meta device: a function that makes a step."""
    torch.manual_seed(0)
    model, _ = build(
        0, use_emotion_loss=True, emotion_pooling="prototypes", label_tokens=list(range(9)), label_position=3
    )
    batch = collate(random_items(0, IMAGES, 0), 0)
    batch["emotion_distribution"] = torch.full((IMAGES, 9), 1 / 9)
    model.train().to("meta")
    batch = tree_map(lambda tensor: tensor.to("meta"), batch)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad])

    def make(**changed) -> None:
        with OneDevice():
            model(**batch | changed)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return make


def test_a_training_step_leaves_no_tensor_behind(step):
    step()
    step()  # the optimiser's state exists now


@pytest.mark.parametrize("name", ["input_ids", "lm_positions", "visual_negatives"])
def test_a_tensor_left_on_the_cpu_is_noticed(step, name):
    left = collate(random_items(0, IMAGES, 0), 0)[name]
    with pytest.raises((AssertionError, RuntimeError)):
        step(**{name: left})
