"""`neq plan` and `neq train --plan`."""

import json
import re
import time
from pathlib import Path

import pytest

from neq.budget.step_time import StepTime
from neq.cli import main
from neq.planning.device_plan import DevicePlan
from tests.forked import NEQ, run_forked

ROOT = Path(__file__).resolve().parents[2]
RUN = ["--net_name=mcunet-in0", "--dataset=digits", "--image_size=16", "--base_batch_size=16"]
SHORT = [*RUN, "--n_epochs=1", "--warmup_epochs=0", "--base_lr=.05", "--device=cpu"]

FULL = ["--neuron_selection=full", "--initialization=full", "--norm_mode=train"]
EXACT = ["--checkpoint_segments=1", "--saved_precision=exact"]


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    """An empty folder, and times that are not measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neq.planning.estimate.kept_step_time", lambda *_: StepTime(1e-3, 1e-10, 1e-10, 0.1))


def plan(*flags, memory="1GiB"):
    return main(["plan", f"--memory={memory}", *SHORT, *flags])


@pytest.mark.slow
def test_the_table_and_the_file_of_a_plan(capsys):
    assert plan("--norm_mode=frontier", "--saved_precision=exact", "--out=plan.json") == 0
    out = capsys.readouterr().out
    assert "plans within 1,024.0 MiB" in out
    assert " runs" in out
    assert "neq train --plan plan.json --net_name=mcunet-in0" in out
    found = DevicePlan.read(Path("plan.json"))
    assert found.chosen.share == 1.0
    assert found.chosen.settings["budget_unit"] == "bytes"
    assert all(row.reason[:2] in ("", "R1", "R3", "R4") for row in found.rows)
    assert f"{len(found.rows)} configurations, {len(found.order)} of which survive" in out
    # Micro-batches need no more than whole batches, and a smaller share no more than a larger one.
    peaks = {
        (row.share, row.settings.get("micro_batch_size", 16)): row.peak
        for row in found.rows
        if row.settings["memory"] == "fast" and "checkpoint_cuts" not in row.settings
    }
    assert peaks[1.0, 16] >= peaks[0.25, 16] >= peaks[0.03, 16]
    assert plan("--out=plan.json") == 2  # it exists
    assert "plan.json exists; --force replaces it" in capsys.readouterr().err


@pytest.mark.slow
def test_every_share_is_planned_where_all_norms_train():
    assert (
        plan("--norm_mode=train", "--saved_precision=exact", "--ghost_batch_size=8", "--out=plan.json") == 0
    )
    rows = DevicePlan.read(Path("plan.json")).rows
    assert {row.share for row in rows if row.peak} == {0.03, 0.1, 0.25, 0.5, 1.0}


@pytest.mark.slow
def test_the_default_network_is_that_of_the_file_and_starts_at_random(capsys):
    flags = ["--dataset=digits", "--image_size=16", "--saved_precision=exact", "--ghost_batch_size=8"]
    assert main(["plan", "--memory=1GiB", *flags, "--out=plan.json"]) == 0
    plan = DevicePlan.read(Path("plan.json"))
    assert plan.run["net_name"] == "mcunet-in0"
    assert {row.settings["norm_mode"] for row in plan.rows} == {"frontier"}


@pytest.mark.slow
def test_probes_put_what_gains_most_in_front(capsys):
    flags = ["--norm_mode=frontier", "--saved_precision=exact", "--ghost_batch_size=8", "--out=plan.json"]
    assert plan(*flags, "--probe", "--deadline=40s") == 0
    out = capsys.readouterr().out
    found = DevicePlan.read(Path("plan.json"))
    probed = [int(number) for number in re.findall(r"probe of row (\d+): ", out)]
    assert sorted({found.rows[number].share for number in probed}) == [0.03, 0.1, 0.25, 0.5, 1.0]
    assert found.number in probed
    assert sorted(found.order) == [number for number, row in enumerate(found.rows) if not row.reason]


@pytest.mark.slow
def test_given_settings_stay(capsys):
    fixed = [*FULL, "--checkpoint_segments=1", "--micro_batch_size=4", "--saved_precision=bf16"]
    assert plan(*fixed, "--out=plan.json") == 0
    rows = DevicePlan.read(Path("plan.json")).rows
    assert {row.settings["micro_batch_size"] for row in rows} == {4}
    assert {row.settings["norm_mode"] for row in rows} == {"train"}
    assert {row.settings["saved_precision"] for row in rows} == {"bf16"}
    assert {row.share for row in rows} == {None}
    assert not any("budget" in row.settings or "checkpoint_cuts" in row.settings for row in rows)


@pytest.mark.slow
def test_limits_that_nothing_meets_name_the_least(capsys):
    flags = ["--norm_mode=frontier", "--saved_precision=exact", "--ghost_batch_size=8"]
    assert plan(*flags, memory="1MiB") == 2
    assert "a memory limit of 1.0 MiB is less than the " in capsys.readouterr().err
    assert plan(*flags, "--deadline=.01s") == 2
    error = capsys.readouterr().err
    assert "a deadline of 0 s is less than the " in error
    assert "take fewer --n_epochs" in error


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "the following arguments are required: --memory"),
        (["--memory=0MiB"], "'0MiB' is not allowed: a size is expected, as 256MiB"),
        (["--memory=256"], "'256' is not allowed: a size is expected"),
        (["--memory=1GiB", "--deadline=0"], "'0' is not allowed: a time is expected"),
        (["--memory=1GiB", "--probe"], "--probe takes a share of the deadline; give --deadline TIME"),
        (["--memory=1GiB", "--neuron_selection=auto", "--ratio=.3"], "policy auto needs a budget in bytes"),
        (["--memory=1GiB", "--objective=tent", "--norm_mode=train"], "objective 'tent' cannot be planned"),
        (["--memory=1GiB", "--run_dir=x"], "--run_dir is not allowed: the plan decides it"),
        (["--memory=1GiB", "--dry-run"], "--dry-run and --overwrite are not allowed with a plan"),
        (["--memory=1GiB", "--out=no/plan.json"], "the folder no does not exist"),
        (["--memory=1GiB", "--net_nam=mbv2"], "flag '--net_nam' is unknown"),
    ],
)
def test_wrong_input_of_a_plan(flags, error, capsys):
    assert main(["plan", *flags]) == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--plan=auto"], "--plan auto needs the limit that it is for; give --memory SIZE"),
        (["--plan=none.json"], "none.json"),
        (["--plan=none.json", "--memory=1GiB"], "--memory and --deadline are those of none.json"),
        (["--plan=none.json", "--overwrite"], "are not allowed with a plan"),
        (["--plan"], "expected one argument"),
    ],
)
def test_wrong_input_of_a_planned_run(flags, error, capsys):
    assert main(["train", *flags]) == 2
    assert error in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_plan_is_for_one_process(monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "--plan=plan.json"]) == 2
    assert "--plan is for one process" in capsys.readouterr().err


def small_plan(limit):
    """The plan of a short run with two rows, as neq plan writes it."""
    assert plan(*FULL, *EXACT, "--out=plan.json") == 0
    content = json.loads(Path("plan.json").read_text())
    content["limits"]["memory"] = limit
    first, second = content["rows"][:2]
    content["rows"] = [first, {**second, "peak": first["peak"] // 2, "reason": ""}]
    content["order"] = [0, 1]
    Path("plan.json").write_text(json.dumps(content))


def train(*flags):
    return run_forked(NEQ, "train", "--plan", "plan.json", *SHORT, *flags, *FULL, *EXACT)


@pytest.mark.slow
def test_a_run_under_a_plan(tmp_path):
    small_plan(2**33)
    done = train()
    assert done.returncode == 0, done.stderr
    assert "plan 0, " in done.stdout
    assert "of 8,192.0 MiB" in done.stdout
    (summary,) = tmp_path.glob("runs/**/summary.json")
    before = summary.read_bytes()
    assert train().returncode == 0  # finished: nothing is trained
    assert summary.read_bytes() == before
    given = train("--micro_batch_size=16")
    assert "is the plan of another run (micro_batch_size differ)" in given.stderr
    other = train("--weight_decay=.1")
    assert other.returncode == 2
    assert "is the plan of another run (weight_decay differ)" in other.stderr


@pytest.mark.slow
def test_a_run_above_the_limit_takes_the_next_plan_once(tmp_path):
    small_plan(1)
    done = train()
    assert done.returncode == 2
    assert "plan 0, " in done.stdout
    assert "plan 1, " in done.stdout
    assert "2 plans have exceeded the limit, by up to " in done.stderr
    again = train()
    assert again.returncode == 2
    assert "make a plan for a higher --memory" in again.stderr
    hits = json.loads(Path("plan.json").read_text())["hits"]
    assert [hit["row"] for hit in hits] == [0, 1]
    assert all(hit["used"] > 1 for hit in hits)


def test_planning_takes_its_part_of_the_deadline(monkeypatch):
    class Replaced(BaseException):
        pass

    def execv(program, arguments):
        raise Replaced(*arguments)

    monkeypatch.setattr("neq.cli.next_process.os.execv", execv)
    monkeypatch.setattr("neq.cli.planned_train._made", lambda *_: Path("plan.json"))
    before = time.time()
    with pytest.raises(Replaced) as error:
        main(["train", "--plan=auto", "--memory=1GiB", "--deadline=10min", *SHORT])
    (until,) = (each for each in error.value.args if each.startswith("--until="))
    assert before + 600 <= float(until.partition("=")[2]) <= time.time() + 600
    with pytest.raises(Replaced) as error:
        main(["train", "--plan=auto", "--memory=1GiB", *SHORT])
    assert not any(each.startswith("--until") for each in error.value.args)


def test_the_help_of_train_names_plans(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "neq train --plan auto --memory SIZE" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["train", "--plan=auto", "--help"])
    assert "--deadline TIME" in capsys.readouterr().out
