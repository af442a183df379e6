"""`neq results` itself: its subcommands and what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from neq.cli import main
from neq.cli.results import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("arguments", [["results"], ["results", "--help"]])
def test_help_lists_the_subcommands(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(name in out and what in out for name, (_, what) in COMMANDS.items())


@pytest.mark.parametrize("name", ["best", "plot", "compare", "table"])
def test_each_subcommand_has_help_and_needs_a_sweep_file(capsys, name):
    with pytest.raises(SystemExit) as end:
        main(["results", name, "--help"])
    assert end.value.code == 0
    assert f"usage: neq results {name}" in capsys.readouterr().out
    assert main(["results", name]) == 2
    assert f"neq: neq results {name}: the following arguments are required: FILE" in capsys.readouterr().err


def test_an_unknown_subcommand_is_one_line(capsys):
    assert main(["results", "plots"]) == 2
    assert "did you mean 'plot'?" in capsys.readouterr().err


def test_torch_is_not_imported_to_name_and_to_compare():
    code = (
        "import sys, neq.cli; "
        "neq.cli.main(['results', 'compare', 'policies/c10/mbv2.yaml', '--runs-dir', 'nowhere']); "
        "neq.cli.main(['results', 'best', 'policies/c10/mbv2.yaml', '--runs-dir', 'nowhere']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
