"""Runs every block of README.md, in order, in one temporary folder.

``bash`` and ``python`` blocks are run; what an earlier block made, a later one finds. A
block under a line ``<!-- not run: why -->`` is only checked for its syntax. Blocks of
other languages must be in ``NOT_CODE``, so that none is passed over unseen.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from recsys_mtl.config.recipe import Recipe

README = Path(__file__).parents[1] / "README.md"
NOT_CODE = ("text", "yaml", "json", "mermaid")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)[^\n]*$")
MARK = re.compile(r"^<!-- not run(?:: (?P<why>.+\S))? -->$")
TIMEOUT_S = 300


@dataclass(frozen=True)
class Block:
    line: int
    language: str
    text: str
    mark: re.Match | None

    def __str__(self):
        return f"line_{self.line}_{self.language}"


def blocks_of(markdown):
    """All fenced blocks, with the line before each as its mark."""
    blocks, lines = [], markdown.splitlines()
    opened, previous = None, ""
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened = (number, fence, MARK.match(previous.strip()))
        elif opened is not None and line.strip() == "```":
            start, fence, mark = opened
            indent = len(fence["indent"])
            text = "\n".join(row[indent:] for row in lines[start : number - 1])
            blocks.append(Block(start, fence["language"], text + "\n", mark))
            opened = None
        if opened is None and line.strip():
            previous = line
    assert opened is None, f"the block of line {opened[0]} is never closed"
    return blocks


BLOCKS = blocks_of(README.read_text()) if README.exists() else []
CODE = [block for block in BLOCKS if block.language not in NOT_CODE]


def command_of(block, folder, *, check_only):
    if block.language == "python":
        path = folder / f"line_{block.line}.py"
        path.write_text(block.text)
        return [sys.executable, *(["-m", "py_compile"] if check_only else []), path]
    if block.language in ("bash", "sh", "console"):
        path = folder / f"line_{block.line}.sh"
        path.write_text("set -euo pipefail\n" + block.text)
        return ["bash", *(["-n"] if check_only else []), path]
    raise AssertionError(
        f"README.md line {block.line} opens a block of language {block.language!r}; "
        f"it must be bash, python or one of {', '.join(NOT_CODE)}"
    )


def run(command, folder):
    """Run a block; nothing that it started outlives it."""
    programs = Path(sys.executable).parent
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


@pytest.mark.parametrize("block", CODE, ids=str)
def test_a_block_of_the_readme_works_as_printed(block, folder):
    if block.mark is not None:
        assert block.mark["why"], (
            f"line {block.line - 1}: say why: <!-- not run: ... -->"
        )
    command = command_of(block, folder, check_only=block.mark is not None)
    code, said = run(command, folder)
    assert code == 0, f"README.md line {block.line}:\n{block.text}\n{said}"


def test_the_readme_has_blocks_that_are_run():
    assert [block for block in CODE if block.mark is None] != []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b not in CODE], ids=str)
def test_a_block_of_data_can_be_read(block):
    if block.language == "json":
        json.loads(block.text)
    if block.language == "yaml":
        content = yaml.safe_load(block.text)
        if "tasks" in content:
            Recipe.model_validate(content)
    assert block.text.strip()


def test_files_and_pages_that_the_readme_links_to_exist():
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", README.read_text())
    assert [link for link in links if not (README.parent / link).exists()] == []


def test_blocks_are_found_with_language_mark_and_indent():
    found = blocks_of(
        "a\n\n```bash\necho 1\n```\n<!-- not run: needs a GPU -->\n```python\n"
        "x = 1\n```\n\n  ```yaml\n  a: 1\n  ```\n"
    )
    assert [(b.line, b.language, b.text) for b in found] == [
        (3, "bash", "echo 1\n"),
        (7, "python", "x = 1\n"),
        (11, "yaml", "a: 1\n"),
    ]
    assert [b.mark and b.mark["why"] for b in found] == [None, "needs a GPU", None]


def test_a_block_that_fails_midway_is_seen(tmp_path):
    block = Block(1, "bash", "false\necho on\n", None)
    code, said = run(command_of(block, tmp_path, check_only=False), tmp_path)
    assert (code, said) == (1, "")


def test_a_block_of_an_unknown_language_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="language ''"):
        command_of(Block(1, "", "x", None), tmp_path, check_only=False)
