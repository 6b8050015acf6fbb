"""Large buffers that are freed are used again."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
from utils.allocator import reuse_freed_memory
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
