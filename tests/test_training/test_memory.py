"""Memory: freed buffers are reused, forked processes share weights, garbage collection pauses."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from utils.processes import share_weights, without_collections

FAULTS = """
import resource
from utils.processes import reuse_freed_memory
if {reuse}:
    reuse_freed_memory()
def faults():
    bytearray(200_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
print(-(faults() - faults()))
"""


def test_a_second_buffer_has_no_page_faults():
    def count(reuse: bool) -> int:
        command = [sys.executable, "-c", FAULTS.format(reuse=reuse)]
        repository = Path(__file__).resolve().parents[2]
        return int(subprocess.run(command, cwd=repository, stdout=subprocess.PIPE, check=True, text=True).stdout)

    if count(reuse=False) < 10_000:
        pytest.skip("malloc keeps large buffers here anyway, or pages are huge")
    assert count(reuse=True) < 100


def test_a_forked_process_sees_updates_of_shared_weights():
    """The two share its pages: none is copied when an update writes to it."""
    model = nn.ModuleDict({"one": nn.Linear(3, 2), "other": nn.Linear(3, 2)})
    model["other"].weight = model["one"].weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    share_weights(model)
    assert model["other"].weight is model["one"].weight
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    weight = model["one"].weight.data.numpy()
    (ready, go), (answer, reply) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(ready, 1)
        os.write(reply, b"y" if weight[0, 0] == 7 else b"n")
        os._exit(0)
    weight[0, 0] = 7
    os.write(go, b"x")
    assert os.read(answer, 1) == b"y"
    os.waitpid(child, 0)


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_collection_is_as_before_afterwards(was_on):
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(KeyError), without_collections():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
