"""Processes that serve one bundle have its weights and tables in memory once."""

import subprocess
import sys
from pathlib import Path

import pytest

_SERVE = """
import sys
from pathlib import Path
from serving.model_set import load_models
from serving.settings import ModelSettings

(model,) = load_models([ModelSettings(bundle=Path(sys.argv[1]))]).models
model.ranker.respond([model.ranker.example()], now_us=1)
print("ready", flush=True)
sys.stdin.readline()  # until the other one is as well
for file in sys.argv[2:]:
    kib, name = {"Rss:": 0, "Pss:": 0, "Private_Dirty:": 0}, ""
    for line in open("/proc/self/smaps"):
        words = line.split()
        if not words[0].endswith(":"):
            name = words[-1]
        elif words[0] in kib and name.endswith(file):
            kib[words[0]] += int(words[1])
    print(*kib.values(), flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="only Linux tells what is shared"
)
def test_two_processes_share_the_pages_of_a_bundle(tiny):
    files = ["bundle/network.safetensors", "bundle/users.arrow"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(tiny.bundle), *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
            for _ in files:
                rss, pss, dirty = map(int, process.stdout.readline().split())
                assert rss > 0  # it was read
                assert dirty == 0  # and never copied
                assert pss <= rss / 2  # and counts half for each of the two
    finally:
        for process in processes:
            process.communicate("\n", timeout=120)
