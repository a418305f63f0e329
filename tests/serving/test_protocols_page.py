"""Every block of docs/protocols.md, run against a server."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "protocols.md"
BLOCKS = re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
COMMANDS = {
    "bash": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
}


@pytest.mark.parametrize(
    ("language", "code"), BLOCKS, ids=[f"{i}-{b[0]}" for i, b in enumerate(BLOCKS)]
)
def test_every_example_of_the_page_is_answered(url, language, code):
    address = "127.0.0.1:8000"
    assert address in code
    here = code.replace(address, url.removeprefix("http://"))
    run = subprocess.run(
        [*COMMANDS[language], here],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "error" not in run.stdout
    assert run.stdout.strip()


def test_the_page_has_examples_of_every_way():
    text = "".join(code for _, code in BLOCKS)
    assert all(word in text for word in ("curl", "pyarrow", "tritonclient"))
