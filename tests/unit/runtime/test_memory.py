from __future__ import annotations

import subprocess
import sys
from ctypes import CDLL

import pytest

pytestmark = pytest.mark.skipif(not hasattr(CDLL(None), "malloc_trim"), reason="needs the GNU C library")

PROGRAM = """
import resource
from pathlib import Path
from minhos_mesh.runtime.memory import give_back, keep_freed_memory

def held_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

assert keep_freed_memory(16_000_000)
first = [bytes([number]) * 1_000_000 for number in range(8)]
del first
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(100):
    message = bytes([number]) * 1_000_000
    del message
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
held = held_pages()
give_back()
print(held - held_pages())
"""


def test_memory_of_large_messages_is_used_again_until_it_is_given_back() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    cleared, given_back = map(int, ran.stdout.split())
    assert cleared < 1_000, "pages that the kernel cleared for 24,400 of messages"
    assert given_back > 1_000, "pages that were kept for the next messages"
