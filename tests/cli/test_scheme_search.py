"""`neq scheme-search` from the command line."""

import json
import shlex
import signal

import pytest

from neq.cli import main
from neq.config import scheme
from neq.scheme_search import proxies
from neq.selection import CRITERIA
from tests.cli.sweeping import TIMEOUT, wait_for, write_sweep
from tests.forked import NEQ, Forked, ensure_server

DIGITS = ["--net_name", "mcunet-in0", "--dataset", "digits", "--image_size", "16"]
SEARCH = [
    *("--net_name", "mcunet-in0", "--dataset", "npz:tiny.npz", "--image_size", "16", "--shares", "1"),
    *("--base_batch_size", "16", "--n_epochs", "1", "--norm_mode", "train"),
    *("--importance_batches", "1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--dataset", "digits", "--budget", "8%"], "--net_name is missing"),
        (["--net_name", "mbv2", "--budget", "8%"], "--dataset is missing"),
        (DIGITS, "--budget is missing"),
        ([*DIGITS, "--budget", "8%", "--net_name", "no-such"], "given twice"),
        (["--net_name", "no-such", "--dataset", "digits", "--budget", "8%"], "net_name 'no-such' is unknown"),
        ([*DIGITS, "--budget", "1KB"], "less than what always trains"),
        ([*DIGITS, "--budget", "much"], "budget 'much' is not allowed"),
        ([*DIGITS, "--budget", "8%", "--weights", "none.pth"], "none.pth"),
        ([*DIGITS, "--budget", "8%", "--use_validation", "0"], "compared by their validation accuracy"),
        ([*DIGITS, "--budget", "8%", "--neuron_selection", "velocity"], "scheme-search decides it"),
        ([*DIGITS, "--budget", "8%", "--scheme", "mbv2_scheme_1"], "scheme-search decides it"),
        ([*DIGITS, "--budget", "8%", "--overwrite"], "--overwrite are not allowed"),
        ([*DIGITS, "--budget", "8%", "--method", "luck"], "invalid choice: 'luck'"),
        ([*DIGITS, "--budget", "8%", "--shares", "0,1"], "shares above 0, up to 1"),
        ([*DIGITS, "--budget", "8%", "--controls", "-3"], "a whole number from 1 on"),
        ([*DIGITS, "--budget", "8%", "--method", "proxies", "--controls", "2"], "trains the head alone"),
        ([*DIGITS, "--budget", "8%", "--method", "proxies", "--importance", "luck"], "'luck' is unknown"),
        ([*DIGITS, "--budget", "8%", "--n_epoch", "3"], "n_epochs"),
        ([*DIGITS, "--budget", "8%", "--out", "no/scheme.yaml"], "the folder no does not exist"),
        (
            ["--net_name", "mcunet-in0", "--dataset", "image_folder", "--root", "nowhere", "--budget", "8%"],
            "nowhere",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, arguments, reason):
    monkeypatch.chdir(tmp_path)
    assert main(["scheme-search", *arguments]) == 2
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def search(folder, monkeypatch, *arguments):
    """Runs the command in this process; returns when each run of SU ended, by its folder."""
    monkeypatch.chdir(folder)
    ensure_server()
    assert main(["scheme-search", *SEARCH, *arguments]) == 0
    return ended(folder)


def ended(folder):
    """When each run of SU of the folder ended, by its folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/SU/**/summary.json")}


@pytest.mark.slow
def test_a_search_is_stopped_continued_repeated_and_shared(tmp_path, monkeypatch, capsys):
    write_sweep(tmp_path, "manual_seed: {values: [0]}")  # makes the images too
    asked = ["--budget", "300", "--controls", "1"]
    process = Forked(NEQ, "scheme-search", *SEARCH, *asked, cwd=tmp_path)
    wait_for(lambda: process.poll() is not None or list(tmp_path.glob("runs/**/summary.json")), "a run")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "stopped; run the same command again to continue" in error
    before = ended(tmp_path)
    assert not (tmp_path / "scheme.yaml").exists()

    first = search(tmp_path, monkeypatch, *asked)
    assert before.items() <= first.items()
    names = ("scheme.yaml", "scheme.json", "scheme.png", "scheme.svg")
    content = [(tmp_path / name).read_bytes() for name in names]
    output = capsys.readouterr().out
    assert "found" in output
    assert "random 0" in output
    assert "rank correlation of proxies with contributions: gradient_norm" in output
    found = json.loads(content[1])
    assert found["found"]["used"] <= found["limit"] == 300
    assert len(first) == found["runs"] > len(before)
    assert list(found["proxies"]) == list(found["scores"]) == [*CRITERIA, "velocity"]

    (tmp_path / "runs/sweeps.db").unlink()
    assert search(tmp_path, monkeypatch, *asked) == first
    assert [(tmp_path / name).read_bytes() for name in names] == content

    more = search(tmp_path, monkeypatch, "--budget", "400", "--out", "more.yaml", "--no-train")
    contributions = json.loads((tmp_path / "more.json").read_text())["contributions"]
    assert len(contributions) > len(found["contributions"])
    assert len(more) == len(first) + len(contributions) - len(found["contributions"])

    entry = scheme("scheme.yaml")
    assert (entry.network, entry.budget) == ("mcunet-in0", found["found"]["used"])
    train = next(line for line in content[0].decode().splitlines() if "Train it" in line)
    assert main([*shlex.split(train.partition("neq ")[2]), "--dry-run"]) == 0


@pytest.mark.slow
def test_proxies_train_the_head_alone_and_continue_after_it(tmp_path, monkeypatch, capsys):
    write_sweep(tmp_path, "manual_seed: {values: [0]}")  # makes the images too
    monkeypatch.chdir(tmp_path)
    ensure_server()
    asked = ["scheme-search", *SEARCH, "--budget", "20000", "--method", "proxies"]

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(proxies, "importance_of", stop)
        assert main(asked) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    before = ended(tmp_path)
    assert len(before) == 1
    assert not (tmp_path / "scheme.yaml").exists()

    for arguments in ([], ["--importance", "fisher", "--out", "fisher.yaml"]):
        assert main([*asked, *arguments]) == 0
        assert ended(tmp_path) == before
    assert "% of the network's fisher" in capsys.readouterr().out
    for name, criterion in (("scheme", "gradient_norm"), ("fisher", "fisher")):
        about = json.loads((tmp_path / f"{name}.json").read_text())
        assert about["found"]["used"] <= about["limit"] == 20_000
        assert (about["runs"], list(about["scores"])) == (1, [criterion])
    train = next(line for line in (tmp_path / "fisher.yaml").read_text().splitlines() if "Train it" in line)
    assert main([*shlex.split(train.partition("neq ")[2]), "--dry-run"]) == 0
