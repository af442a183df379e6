"""`neq` itself: the line that a stopped command ends with."""

import subprocess
import sys
from pathlib import Path

import pytest

from neq import cli

ROOT = Path(__file__).resolve().parents[2]
LATE = "import atexit, sys; atexit.register(print, 'late'); from neq.cli import main; print('first'); "


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train"], "run the same command again with --resume to continue from the last checkpoint"),
        (["train", "--dry-run"], "neq: stopped\n"),
        (["train", "--dry_run"], "neq: stopped\n"),
        (["cost"], "neq: stopped\n"),
        (["cells", "x.yaml"], "neq: stopped\n"),
        (["sweep", "x.yaml"], "neq: stopped; run the same command again to continue\n"),
    ],
)
def test_a_checkpoint_is_named_only_where_one_was_saved(monkeypatch, capsys, arguments, line):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", stop)
    assert cli.main(arguments) == 130
    assert line in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "output", "code"),
    [("export gone --onnx gone.onnx", "first\n", 2), ("cells gone.yaml", "first\nlate\n", 2)],
)
def test_a_command_that_exports_ends_when_it_has_printed(command, output, code):
    """What torch's exporter imports takes seconds to be torn down: 24 s were seen after the last line."""
    program = [sys.executable, "-c", f"{LATE} sys.exit(main())", *command.split()]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (output, code)
    assert done.stderr.startswith("neq: ")
