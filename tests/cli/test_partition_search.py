"""`neq partition search` from the command line."""

import json

import pytest

from neq.cli import main
from neq.partition import read_model, write_model
from neq.partition.device_profile import LinkProfile
from neq.partition.search import read_trials
from tests.forked import ensure_server
from tests.partition.toys import IMAGE, ROWS, Machine, base, profile_of

BASE = base(((8, 3, 1, [16]), *ROWS[1:]))
DEVICES = Machine(1e5, 0.001), Machine(7e4, 0.001)
SEARCH = ["partition", "search", "--base", "base.json", "--profiles", "a.json", "b.json"]
SHORT = ["--n_epochs", "1", "--warmup_epochs", "0", "--base_batch_size", "256", "--device", "cpu"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a base and two profiles, the first with a link."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "base.json", BASE)
    link = LinkProfile(0.001, 1e7)
    profile_of(DEVICES[0], "one", link, BASE).write(tmp_path / "a.json")
    profile_of(DEVICES[1], "two", None, BASE).write(tmp_path / "b.json")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--task is missing"),
        (["--task", "nothing"], "dataset 'nothing' is unknown"),
        (["--task", "digits", "--net_name", "mbv2"], "--net_name is not allowed: the search decides it"),
        (["--task", "digits", "--manual_seed", "3"], "--manual_seed is not allowed: give --seed"),
        (["--task", "digits", "--dry-run"], "--dry-run and --overwrite are not allowed"),
        (["--task", "digits", "--use_validation", "0"], "compared by validation accuracy"),
        (["--task", "digits", "--search", "luck"], "invalid choice: 'luck'"),
        (["--task", "digits", "--scale", "0"], "above 0, up to 100"),
        (["--task", "digits", "--trials", "0"], "a whole number from 1 on"),
        (["--task", "digits", "--link", "1"], "milliseconds and bytes per ms, as .2,1.2e6"),
        (["--task", "digits", "--out", "no/where"], "a folder in one that exists is expected"),
        (["--task", "digits", "--classes", "7"], "has no head 20-32 at 2 x 2 with 7 classes"),
        (["--task", "digits", "--n_epoch", "3"], "n_epochs"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, capsys, arguments, reason):
    before = sorted(folder.iterdir())
    assert main([*SEARCH, *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_profiles_must_fit(folder, capsys):
    digits = ["--task", "digits"]
    profile_of(DEVICES[1], "two", None, BASE.at(32)).write(folder / "b.json")
    assert main([*SEARCH, *digits]) == 2
    assert "were measured at 16 and 32 px; measure both at one size" in capsys.readouterr().err
    profile_of(DEVICES[1], "two", None, BASE).write(folder / "b.json")
    assert main(["partition", "search", "--base", "fbnet_c", "--profiles", "a.json", "b.json", *digits]) == 2
    assert "profile 'one' (images of 16 px) has no" in capsys.readouterr().err
    profile_of(DEVICES[0], "one", None, BASE).write(folder / "a.json")
    assert main([*SEARCH, *digits]) == 2
    assert "--profiles hold no link" in capsys.readouterr().err
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    assert main([*SEARCH, *digits, "--link", "0,1e6", "--out", "out"]) == 2
    assert "holds something else" in capsys.readouterr().err


def test_a_search_is_not_continued_under_another_configuration(folder, capsys, monkeypatch):
    monkeypatch.setattr("neq.partition.search.PartitionSearch.run", lambda self: [])
    asked = [*SEARCH, "--config-file", "own.yaml", "--out", "out"]
    for base_lr, line in ((0.1, "no strategy of 0"), (0.1, "no strategy of 0"), (0.2, "another search")):
        text = f"data_provider: {{dataset: digits}}\nrun_config: {{base_lr: {base_lr}}}\n"
        (folder / "own.yaml").write_text(text)
        assert main(asked) == 2
        assert line in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_trains_continues_and_reports(folder, capsys):
    ensure_server()
    asked = [*SEARCH, "--task", "digits", *SHORT, "--out", "out"]
    assert main([*asked, "--trials", "2", "--search", "random"]) == 0
    first = read_trials(folder / "out")
    ended = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/summary.json")}
    assert len(ended) == len(first) == 2
    assert main([*asked, "--trials", "3", "--search", "random", "--proxies"]) == 0
    trials = read_trials(folder / "out")
    assert trials[:2] == first
    again = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/summary.json")}
    assert len(again) == 3
    assert again.items() >= ended.items()
    out = capsys.readouterr().out
    assert "trial 3 of 3" in out
    assert "rank correlation of synflow" in out
    found = read_model(folder / "out" / "found.json")
    about = json.loads((folder / "out" / "trials.json").read_text())
    assert about["found"] == found.name
    assert found.image_size == IMAGE
    assert (folder / "out" / "search.png").exists()
    assert (folder / "out" / "found.png").exists()
    assert main([*asked, "--trials", "2", "--scale", "0.9"]) == 2
    assert "holds another search; --force begins this one there" in capsys.readouterr().err
    capsys.readouterr()
    anew = ["--trials", "2", "--search", "random", "--scale", "0.9", "--force"]
    assert main([*asked, *anew]) == 0, capsys.readouterr().err
    others = read_trials(folder / "out")
    assert [each.name for each in others] == [each.name for each in first]
    assert {each.runs for each in others}.isdisjoint(each.runs for each in trials)
