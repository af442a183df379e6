"""What the fuzz tests share: damage to files, hostile words, and what an error may look like."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from neq.cli import main
from neq.utils.errors import UserError

# The same cases every time, and a new one has to be put in by hand: a red run is a fault of the change.
FUZZ = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False
)
# What ends up in names and values by mistake or by intent.
WORDS = (
    "", " ", "\t", "\n", "a\nb", "\x00", "a\x00b", "\x1b[31mred", "\ufeff", "\u202e", "é", "\U0001f4a5",
    "'", '"', "\\",
    "%s", "{0}", "${x}", "$(id)", "`id`", "; rm -rf x", "../../etc/passwd", "/etc/passwd", "/dev/zero",
    "/dev/null",
    "~", "~nobody/x", ".", "..", "/", "-", "--", "--help-me", "-1", "0", "1e999", "-1e999", "nan", ".nan",
    ".inf",
    "9" * 90, "9" * 400, "0x" + "f" * 90, "1e-400", "true", "null", "[]", "{}", "[[[[", "*a", "&a a",
    "!!int 1", "a: b",
    "!!python/object/apply:os.system [id]", "a" * 300, "a" * 5000, "=1+1", "@x", "#", "|", ">", "%",
    "12:30:45",
)  # fmt: skip


def refusal(call: Callable[..., object], *args: Any) -> str | None:
    """The line that a call refuses with, none where it takes what it was given; all else goes through."""
    try:
        call(*args)
    except UserError as error:
        line = str(error)
        assert line.isprintable(), ascii(line)
        assert line.strip()
        return line
    return None


def refused(call: Callable[..., object], *args: Any, named: str) -> str:
    """The line that a call has to refuse with, which names what was given."""
    line = refusal(call, *args)
    assert line is not None
    assert named in line, line
    return line


def run_refused(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    argv: list[str],
    named: str = "",
    codes: tuple[int, ...] = (2,),
) -> str:
    """The line that a command ends with: exit code 2, no traceback, and nothing changed in a folder."""
    before = content_of(folder)
    capsys.readouterr()
    code = main(argv)
    said = capsys.readouterr()
    assert code in codes, (argv, code, said.err)
    assert content_of(folder) == before, argv
    if code == 0:
        return ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].isprintable()
    assert lines[0].startswith("neq: ")
    assert named in lines[0]
    return lines[0]


def content_of(folder: Path) -> str:
    """A hash of every path below a folder, what it is, and what it holds."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        kind = "link" if path.is_symlink() else "file" if path.is_file() else "folder"
        digest.update(f"{path.relative_to(folder)}\0{kind}\0".encode("utf-8", "surrogateescape"))
        if kind == "file":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """A file cut off, with flipped bits, with bytes zeroed, doubled, left out, or put in, in turn.

    Args:
        content: of the whole file.
        count: of the variants.
        seed: of where it happens.
    """
    rng = random.Random(seed)
    for at in range(count):
        start = rng.randrange(len(content))
        length = rng.choice((1, 4, 64, 1000))
        part = content[start : start + length]
        if at % 6 == 0:
            yield content[:start]
        elif at % 6 == 1:
            changed = bytearray(content)
            for _ in range(rng.choice((1, 1, 8, 64))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            yield bytes(changed)
        elif at % 6 == 2:
            yield content[:start] + bytes(len(part)) + content[start + len(part) :]
        elif at % 6 == 3:
            yield content[:start] + part + content[start:]
        elif at % 6 == 4:
            yield content[:start] + content[start + len(part) :]
        else:
            yield content[:start] + rng.randbytes(length) + content[start + length :]
