"""What `pip install .` gives: the command, and the configs beside the package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_brings_configs_and_the_command(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-q", "-w", str(tmp_path)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    shipped = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {f"neq/configs/{name}" for name in shipped} <= set(names)
    assert {"neq/results/serving.html", "neq/results/report/templates/report.html"} <= set(names)
    assert not any(name.startswith(("tests/", "runs/", ".venv/")) for name in names)
    (entry_points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "neq = neq.cli:main" in entry_points.read_text()
    code = "import sys, neq.cli; sys.exit(neq.cli.main(['train', '--dry-run']))"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "6,832 selectable neurons" in done.stdout
    assert not list(elsewhere.iterdir())
