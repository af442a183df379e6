import contextlib
import json
import os
import re
import shutil
import signal
import socket

import psutil
import pytest

from neq.cli import main
from neq.results import collect
from neq.runs import load_run, read_metrics, read_summary
from neq.sweeps import history
from neq.sweeps.worker_pool import cores, is_here
from tests.cli.sweeping import (
    open_queue,
    run_sweep,
    start_cold_sweep,
    start_sweep,
    states,
    wait_for,
    write_sweep,
)
from tests.forked import NEQ, run_forked
from tests.toys import drawing

CELLS = "manual_seed: {values: [0, 1, 2]}, neuron_selection: {values: [velocity, random]}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished sweep of six cells by two workers, and what the command said."""
    folder = tmp_path_factory.mktemp("sweep")
    file = write_sweep(folder, CELLS)
    with drawing():
        code, output = run_sweep(folder, file.name, "--workers", "2")
    assert code == 0, output
    return folder, output


def runs(folder):
    return sorted(path.parent for path in folder.glob("runs/**/summary.json"))


@pytest.mark.slow
def test_a_sweep_runs_every_cell_once(finished):
    folder, output = finished
    assert len(runs(folder)) == 6
    assert [state.state for state in states(folder)] == ["done"] * 6
    assert "neq: starting sweep sweep-" in output
    for cell in range(1, 7):
        assert output.count(f"cell {cell} done  valid.val/best") == 1
    assert "6 cells: 6 done" in output


@pytest.mark.slow
def test_a_cell_leaves_what_the_same_run_alone_leaves(finished, tmp_path):
    folder, _ = finished
    state = states(folder)[2]
    settings = [f"--{name}={value}" for name, value in state.trial.params.items()]
    fast = ["--dataset", "npz:tiny.npz", "--image_size", "16", "--base_batch_size", "16"]
    rest = ["--n_epochs", "2", "--warmup_epochs", "0", "--run-dir", str(tmp_path / "alone")]
    assert run_forked(NEQ, "train", *fast, *rest, *settings, cwd=folder).returncode == 0
    there, alone = folder / state.trial.user_attrs[history.FOLDER], tmp_path / "alone"
    assert (there / "identity.json").read_bytes() == (alone / "identity.json").read_bytes()
    assert (there / "config.yaml").read_bytes() == (alone / "config.yaml").read_bytes()
    assert without_times(read_metrics(there)) == without_times(read_metrics(alone))
    assert state.trial.value == read_summary(alone)["val_top1"]
    assert (there / "curves.png").exists()


def without_times(rows):
    return [{name: value for name, value in row.items() if name != "step_seconds"} for row in rows]


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/metrics.jsonl")}
    code, output = run_sweep(folder, "sweep.yaml")
    assert code == 0
    assert "neq: continuing sweep" in output
    assert "6 cells: 6 done" in output
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/metrics.jsonl")}


@pytest.mark.slow
def test_status_tells_how_far_it_is(finished, monkeypatch, capsys):
    folder, _ = finished
    monkeypatch.chdir(folder)
    assert main(["sweep", "status", "sweep.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = max(states(folder), key=lambda state: state.trial.value)
    assert lines[0] == "6 cells: 6 done"
    assert lines[1].startswith(f"best valid.val/best: {best.trial.value:.4g}, cell {best.cell} in runs/")


@pytest.mark.slow
def test_an_edited_file_is_a_new_sweep_that_trains_only_what_is_new(finished, tmp_path, monkeypatch, capsys):
    folder, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    before = runs(copy)
    write_sweep(copy, CELLS.replace("[0, 1, 2]", "[2, 3]"))
    monkeypatch.chdir(copy)
    assert main(["sweep", "status", "sweep.yaml"]) == 2
    assert "was not started, or was edited since" in capsys.readouterr().err
    times = {path: (path / "metrics.jsonl").stat().st_mtime_ns for path in before}
    code, output = run_sweep(copy, "sweep.yaml")
    assert code == 0
    assert "was edited since sweep-" in output
    assert "4 cells: 4 done" in output
    told = [state.trial.user_attrs for state in states(copy)]
    # Who trained nothing knows nothing of the memory that training takes.
    assert [history.MEMORY in said for said in told] == [False, False, True, True]
    assert all(is_here(said[history.WORKER]) for said in told)
    assert not is_here(f"another-{told[0][history.WORKER]}")
    assert len(runs(copy)) == 8
    assert times == {path: (path / "metrics.jsonl").stat().st_mtime_ns for path in before}


@pytest.mark.slow
def test_failed_cells_are_told_stay_failed_and_run_again_when_asked(tmp_path):
    # Seed 1 finds a file where its run's folder would be.
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1]}")
    assert run_sweep(tmp_path, file.name)[0] == 0
    folder = runs(tmp_path)[1]
    shutil.rmtree(folder)
    (tmp_path / "runs" / "sweeps.db").unlink()
    folder.write_text("in the way")
    code, output = run_sweep(tmp_path, file.name)
    assert code == 1
    assert "cell 2 failed: run_dir" in output
    assert "is a file; give a folder  (manual_seed 1)" in output
    assert "--retry-failed runs failed cells again" in output
    folder.unlink()
    code, output = run_sweep(tmp_path, file.name)
    assert code == 1  # not tried again without being asked
    assert "2 cells: 1 done, 1 failed" in output
    code, output = run_sweep(tmp_path, file.name, "--retry-failed")
    assert code == 0, output
    assert "1 failed cell waits again" in output
    assert "2 cells: 2 done" in output
    assert folder.is_dir()


@pytest.mark.slow
def test_a_finished_run_whose_metrics_are_damaged_fails_its_cell_alone(tmp_path):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1]}")
    assert run_sweep(tmp_path, file.name)[0] == 0
    (tmp_path / "runs" / "sweeps.db").unlink()
    (runs(tmp_path)[0] / "metrics.jsonl").write_text("5\n")
    code, output = run_sweep(tmp_path, file.name)
    assert code == 1
    assert "died" not in output
    assert re.search(r"cell 1 failed: .*metrics.jsonl is damaged", output)
    assert "2 cells: 1 done, 1 failed" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "log"])
def test_a_log_that_cannot_be_written_is_one_line(tmp_path, name):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1]}")
    with contextlib.closing(open_queue(tmp_path)) as queue:
        logs = tmp_path / "runs" / "sweeps" / queue.name
    if name:
        (logs / f"{socket.gethostname()}-0.log").mkdir(parents=True)
    else:
        logs.parent.mkdir()
        logs.write_text("")
    code, output = run_sweep(tmp_path, file.name)
    assert code == 2
    assert output.splitlines()[-1].endswith("; give another --runs-dir")
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_worker_stops_after_failures_in_a_row_and_leaves_the_rest(tmp_path):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1, 2, 3, 4, 5]}")
    os.truncate(tmp_path / "tiny.npz", 100)
    code, output = run_sweep(tmp_path, file.name, "--max-failures", "2")
    assert code == 1
    assert "worker 0 stops after 2 failures in a row" in output
    assert "6 cells: 4 waiting, 2 failed" in output
    assert "every worker has stopped" in output


@pytest.mark.slow
def test_ctrl_c_gives_the_cells_back_and_the_same_command_goes_on(tmp_path):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1]}")
    process = start_sweep(tmp_path, file.name)
    wait_for(lambda: list(tmp_path.glob("runs/**/metrics.jsonl")), "the first epoch")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopped; run the same command again to continue" in output
    assert all(state.state in ("waiting", "done") for state in states(tmp_path))
    assert not [child for child in psutil.process_iter(["cwd"]) if child.info["cwd"] == str(tmp_path)]
    code, output = run_sweep(tmp_path, file.name)
    assert code == 0, output
    assert [len(read_metrics(folder)) for folder in runs(tmp_path)] == [2, 2]


@pytest.mark.slow
def test_ctrl_c_while_workers_import_ends_at_once_and_quietly(tmp_path):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1]}")
    # In place of torch, which the server process alone imports: an import that does not end by itself.
    (tmp_path / "torch.py").write_text(
        "import os, pathlib, time\npathlib.Path('importing').write_text(str(os.getpid()))\ntime.sleep(300)\n"
    )
    process = start_cold_sweep(tmp_path, file.name)
    importing = tmp_path / "importing"
    wait_for(lambda: importing.exists() and importing.read_text(), "the import")
    assert int(importing.read_text()) != process.pid
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "stopped; run the same command again to continue" in output
    assert "Error" not in output, output
    assert "KeyboardInterrupt" not in output, output
    assert all(state.state == "waiting" for state in states(tmp_path))


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path):
    file = write_sweep(tmp_path, "manual_seed: {values: [0, 1, 2, 3]}")
    process = start_sweep(tmp_path, file.name)
    wait_for(lambda: any(state.state == "running" for state in peek(tmp_path)), "a running cell")
    process.kill()
    process.communicate(timeout=60)

    def left():
        return [child for child in psutil.process_iter(["cwd"]) if child.info["cwd"] == str(tmp_path)]

    wait_for(lambda: not left(), "the workers' end")
    assert all(state.state != "running" for state in states(tmp_path))


def peek(folder):
    """The states, or none while there is no database yet."""
    if not (folder / "runs" / "sweeps.db").exists():
        return []
    with contextlib.closing(open_queue(folder)) as queue:
        return queue.states() if queue.exists() else []


@pytest.mark.slow
def test_two_cells_that_name_one_run_train_it_once(tmp_path):
    file = write_sweep(tmp_path, "budget: {values: [10000, 0.01M]}")
    code, output = run_sweep(tmp_path, file.name, "--workers", "2")
    assert code == 0, output
    assert "2 cells: 2 done" in output
    (folder,) = runs(tmp_path)
    asked = load_run(folder).header.sweeps
    assert sorted(one.cell for one in asked) == [1, 2]
    assert len({one.sweep for one in asked}) == 1
    with contextlib.closing(open_queue(tmp_path)) as queue:
        assert len(queue.trials()) == 2


@pytest.mark.slow
def test_a_random_search_runs_its_cap(tmp_path):
    file = write_sweep(tmp_path, "base_lr: {min: 0.01, max: 0.1}", "method: random\nrun_cap: 3")
    code, output = run_sweep(tmp_path, file.name, "--workers", "auto")
    assert code == 0, output
    assert "3 cells: 3 done" in output
    assert len(runs(tmp_path)) == 3
    assert f"({cores()} cores; " in output
    identities = [json.loads((folder / "identity.json").read_text()) for folder in runs(tmp_path)]
    assert len({identity["base_lr"] for identity in identities}) == 3
    assert [run.folder for run in collect([file], tmp_path / "runs")] == runs(tmp_path)


@pytest.mark.slow
def test_a_search_whose_cap_was_lowered_ends(tmp_path):
    file = write_sweep(tmp_path, "base_lr: {min: 0.01, max: 0.1}", "method: random\nrun_cap: 2")
    assert run_sweep(tmp_path, file.name)[0] == 0
    write_sweep(tmp_path, "base_lr: {min: 0.01, max: 0.1}", "method: random\nrun_cap: 1")
    code, output = run_sweep(tmp_path, file.name)
    assert code == 0, output
    assert "neq: continuing sweep" in output
    assert "2 cells: 2 done\n" in output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing.yaml"], "nothing.yaml"),
        (
            ["sweep.yaml", "--workers", "0"],
            "'0' is not allowed: a whole number from 1 on is expected, or auto",
        ),
        (["sweep.yaml", "--max-failures", "x"], "'x' is not allowed: a whole number from 1 on is expected"),
        (["sweep.yaml", "--storage", "mysql://x/y"], "give postgresql://USER@HOST/DATABASE"),
        (["sweep.yaml", "--runs-dir", "file"], "'file' is a file; give the folder of the runs"),
        (["sweep.yaml", "--runs-dir", "file/runs"], "sweeps.db cannot be written (Not a directory)"),
        (["sweep.yaml", "--runs-dir", ""], "'' is not allowed: a folder is expected"),
        (["sweep.yaml", "--runs-dir", "~nobody-here/runs"], "'~nobody-here/runs' is not allowed"),
        (["sweep.yaml", "--wrong"], "unrecognized arguments: --wrong"),
        (["invalid.yaml"], "cell 2 of 2 (net_name: 'mvb2'): net_name 'mvb2' is unknown"),
        (["status", "sweep.yaml"], "no sweep was started; neq sweep sweep.yaml starts it"),
        ([], "the following arguments are required: FILE"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_begun(tmp_path, monkeypatch, capsys, arguments, line):
    write_sweep(tmp_path, CELLS)
    write_sweep(tmp_path, "net_name: {values: [mbv2, mvb2]}", name="invalid.yaml")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    captured = capsys.readouterr()
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_search_whose_cap_was_lowered_below_its_runs_ends(tmp_path):
    file = write_sweep(tmp_path, "base_lr: {min: 0.01, max: 0.1}", "method: random\nrun_cap: 2")
    with contextlib.closing(open_queue(tmp_path)) as queue:
        queue.begin()
        for _ in range(2):
            queue.claim("worker").done(1.0)
    file.write_text(file.read_text().replace("run_cap: 2", "run_cap: 1"))
    code, output = run_sweep(tmp_path, file.name)
    assert code == 0, output
    assert "2 cells: 2 done\n" in output


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for option in ("status", "--workers", "--storage", "--runs-dir", "--retry-failed", "--max-failures"):
        assert option in shown
