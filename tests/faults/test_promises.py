"""README.md beside this file names tests: every one of them must exist, and be collected."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = Path(__file__).with_name("README.md")


def functions_of(path):
    """The names of a file's test functions."""
    nodes = ast.parse(path.read_text()).body
    return {
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows():
    """Promise and tests of every row of the page's tables."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(cell[0], cell[1]) for cell in cells if cell[0] != "promise"]


def test_every_promise_names_a_test_that_exists():
    assert len(rows()) >= 40
    for promise, shown_by in rows():
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown_by)
        assert named, promise
        assert len(named) == shown_by.count("`") // 2, promise
        for path, name in named:
            assert name in functions_of(ROOT / path), f"{promise}: {path}::{name}"


def test_every_test_of_a_fault_is_named_or_supports_one():
    """A file of tests that the page does not know shows a promise that nobody reads."""
    text = PAGE.read_text()
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            assert f"tests/faults/{path.name}::" in text, path.name
