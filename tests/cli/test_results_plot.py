"""`neq results plot`."""

import shutil

import pytest

from neq.cli import main
from tests.results.run_folders import configs, sweep_file, write_run


@pytest.fixture
def swept(tmp_path, tiny_run):
    """A sweep of two settings; the first has the choices of a real run, the second none."""
    path = sweep_file(
        tmp_path / "sweep.yaml", "ratio: {values: [.1, .3]}\n  neuron_selection: {value: velocity}"
    )
    first, _ = (write_run(tmp_path / "runs", config) for config in configs(path))
    shutil.copytree(tiny_run / "selection", first / "selection")
    return path


@pytest.mark.slow
def test_the_command_draws_everything_and_says_what_it_could_not(swept, tmp_path, capsys):
    arguments = [
        "results",
        "plot",
        str(swept),
        "--runs-dir",
        str(tmp_path / "runs"),
        "-o",
        str(tmp_path / "p/q"),
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "p/q").iterdir()}
    run = "mcunet-in0-digits-velocity-54318-seed0"
    stems = ("budget-digits-mcunet-in0", "cost-digits-mcunet-in0", f"chosen-{run}", f"velocity-{run}")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert all(name in out for name in names)
    assert "selection cannot be read (No such file or directory)" in out
    assert main([*arguments, "--choices", "0"]) == 0  # again, over its own pictures
    assert "cannot be read" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--choices", "-1"], "0 or more"),
        (["--runs-dir", "nowhere"], "none of the 2 runs of these sweeps is done"),
        (["-o", "{sweep}"], "cannot be written"),
        (["--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_mistakes_are_one_line_and_code_2(swept, tmp_path, capsys, more, line):
    given = [part.format(sweep=swept) for part in more]
    assert main(["results", "plot", str(swept), "--runs-dir", str(tmp_path / "runs"), *given]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert len(err.splitlines()) == 1
