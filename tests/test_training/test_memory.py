"""Memory: freed buffers are reused, forked processes share weights, garbage collection pauses."""

import gc
import os
import subprocess
import sys

import pytest
from torch import nn

from tests.conftest import REPOSITORY
from utils.processes import share_weights, without_collections

FAULTS = """
import resource
from utils.processes import reuse_freed_memory
def faults():
    bytearray(200_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for prepare in (int, reuse_freed_memory):
    prepare()
    faults()
    print(-(faults() - faults()))
"""


def test_a_second_buffer_has_no_page_faults():
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True)
    before, after = map(int, done.stdout.split())
    if before < 10_000:
        pytest.skip("malloc keeps large buffers here anyway, or pages are huge")
    assert after < 100


def test_forked_processes_share_weights():
    """Neither copies the pages that the other writes to."""
    model = nn.ModuleDict({"one": nn.Linear(3, 2), "other": nn.Linear(3, 2)})
    model["other"].weight = model["one"].weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    share_weights(model)
    assert model["other"].weight is model["one"].weight
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    weight = model["one"].weight.data.numpy()
    child = os.fork()
    if child == 0:
        weight[0, 0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert weight[0, 0] == 7


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
