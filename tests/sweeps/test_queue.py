import threading
from collections import Counter

import optuna
import pytest

from neq.cli.sweep_table import silences
from neq.sweeps import history, read_sweep
from neq.sweeps import queue as queues
from neq.sweeps.queue import CellQueue, sweep_name
from neq.sweeps.storage import open_storage, quiet
from neq.utils.errors import UserError

GRID = """method: grid
parameters: {manual_seed: {values: [0, 1, 2]}, neuron_selection: {values: [velocity, random]}}"""
RANDOM = "method: random\nrun_cap: 4\nparameters: {base_lr: {min: 0.1, max: 0.2}, dataset: {value: digits}}"


def sweep_of(tmp_path, text):
    file = tmp_path / "sweep.yaml"
    content = f"program: train_classification.py\n{text}\n"
    if not file.exists() or file.read_text() != content:  # another thread may be reading it
        file.write_text(content)
    return read_sweep(file)


@pytest.fixture
def make(tmp_path):
    """Opens the queue of a sweep, every time as another process would."""

    sweeps = {text: sweep_of(tmp_path, text) for text in (GRID, RANDOM)}

    def opened(text=GRID):
        sweep = sweeps.get(text) or sweep_of(tmp_path, text)
        return CellQueue(open_storage(None, tmp_path), sweep_name(sweep, "sweep", {}), sweep)

    return opened


def states(queue):
    return [state.state for state in queue.states()]


def test_every_cell_is_claimed_once_in_order_and_done(make):
    queue = make()
    queue.begin()
    assert states(queue) == ["waiting"] * 6
    claims = []
    while claim := queue.claim("worker"):
        claims.append(claim)
    assert [claim.cell for claim in claims] == [1, 2, 3, 4, 5, 6]
    assert claims[0].values == {"manual_seed": 0, "neuron_selection": "velocity"}
    assert claims[5].values == {"manual_seed": 2, "neuron_selection": "random"}
    assert all(claim.done(50.0 + claim.cell) for claim in claims)
    assert states(queue) == ["done"] * 6
    assert queue.states()[5].trial.value == 56
    assert queue.states()[5].trial.params == claims[5].values


def test_a_cell_whose_machine_was_killed_reports_how_long_it_is_silent(make):
    queue = make()
    queue.begin()
    dead, alive = queue.claim("dead"), queue.claim("alive")
    storage = queue._storage._backend
    trial_id = storage.get_trial_id_from_study_id_trial_number(1, 0)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-75 seconds') WHERE trial_id = ?",
            (trial_id,),
        )
    silence = queue.silence()
    assert silence.keys() == {0, 1}
    assert 75 <= silence[0] < 75 + 60
    assert 0 <= silence[1] < 60
    (line,) = silences(queue.states(), silence)
    assert line.startswith(f"cell {dead.cell}: no heartbeat for {silence[0]:.0f} s, waits for a worker")
    assert alive.done(1.0)
    assert queue.silence().keys() == {0}


def test_a_second_start_puts_up_nothing_twice(make):
    make().begin()
    again = make()
    again.begin()
    assert len(again.trials()) == 6


def test_two_that_start_at_once_do_no_cell_twice(make):
    first, second = make(), make()
    # Both see an empty sweep before either puts up its cells.
    queues.optuna.create_study(storage=first._storage, study_name=first.name)
    owed = first.states()
    for queue in (first, second):
        for state in owed:
            queue._trials.enqueue(queue._params(state), {history.CELL: state.cell})
    claimed = []
    while claim := first.claim("one") or second.claim("two"):
        claimed.append(claim.cell)
        claim.done(1.0)
    assert claimed == [1, 2, 3, 4, 5, 6]
    assert states(second) == ["done"] * 6


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # filters are no thread's own
def test_of_many_threads_each_gets_cells_of_its_own(tmp_path, make):
    make().begin()
    claimed, failures = [], []

    def take(worker):
        try:
            queue = make()
            while claim := queue.claim(worker):
                claimed.append(claim.cell)
                claim.done(1.0)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=take, args=(f"worker-{at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert Counter(claimed) == Counter(range(1, 7))


def test_a_cell_given_back_or_released_goes_to_the_next(make):
    queue = make()
    queue.begin()
    assert queue.claim("one").give_back()
    second = queue.claim("two")
    assert second.cell == 2
    queue.release("two")
    assert not second.done(1.0)  # it is not this worker's any more
    rest = [queue.claim("three").cell for _ in range(6)]
    assert sorted(rest) == [1, 2, 3, 4, 5, 6]


def test_a_worker_that_falls_silent_loses_its_cell(make, monkeypatch):
    queue = make()
    queue.begin()
    queue.claim("silent")
    storage = queue._storage._backend
    monkeypatch.setattr(storage, "grace_period", -1)  # any silence is too long
    assert queue.enqueue() == 1
    monkeypatch.undo()
    assert 1 in [queue.claim("other").cell for _ in range(6)]


def test_a_worker_that_dies_between_its_steps_leaves_a_heartbeat(make):
    queue = make()
    queue.begin()
    taken = queue._take

    def die_half_way(*arguments):
        queue._trials.take(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_half_way()
    queue._storage._backend.grace_period = -1
    with quiet():
        assert queue.enqueue() == 1
    assert taken(6, "next") is not None


def test_a_worker_that_lost_its_cell_is_told_so_at_the_end(make):
    queue = make()
    queue.begin()
    claim = queue.claim("silent")
    queue.release("silent")
    claim.note(history.SECONDS, 1.0)
    assert not claim.report(1, 90.0)
    assert not claim.done(90.0)
    assert history.SECONDS not in queue.states()[0].trial.user_attrs


def test_failed_cells_wait_again_only_when_asked(make):
    queue = make()
    queue.begin()
    assert queue.claim("worker").failed("does not fit")
    assert queue.enqueue() == 0
    assert (queue.states()[0].state, queue.states()[0].reason) == ("failed", "does not fit")
    assert queue.enqueue(failed=True) == 1
    assert queue.states()[0].state == "waiting"
    claims = [queue.claim("worker") for _ in range(6)]
    assert sorted(claim.cell for claim in claims) == [1, 2, 3, 4, 5, 6]
    assert queue.claim("worker") is None


def test_a_random_search_has_its_cap_and_the_same_draws_for_any_workers(tmp_path, make):
    drawn = []
    for folder in ("one", "two"):
        sweep = sweep_of(tmp_path, RANDOM)
        queue = CellQueue(open_storage(None, tmp_path / folder), "same-name", sweep)
        queue.begin()
        claims = []
        while claim := queue.claim("worker"):
            claims.append(claim)
            if folder == "two":
                claim.done(1.0)
        drawn.append([claim.values for claim in claims])
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4
    assert all(0.1 <= values["base_lr"] <= 0.2 and values["dataset"] == "digits" for values in drawn[0])
    assert len({values["base_lr"] for values in drawn[0]}) == 4


def test_a_draw_whose_worker_died_is_drawn_again_as_it_was(make):
    queue = make(RANDOM)
    queue.begin()
    first = queue.claim("dies")
    queue.release("dies")
    again = queue.claim("lives")
    assert (again.cell, again.values) == (first.cell, first.values)
    count = 1
    while queue.claim("lives"):
        count += 1
    assert count == 4


def test_no_more_runs_than_the_cap_when_two_put_up_the_last(make):
    one, two = make(RANDOM), make(RANDOM)
    one.begin()
    for _ in range(5):
        one._trials.enqueue({}, {})  # as if five workers had seen room for one
    claims = []
    while claim := one.claim("one") or two.claim("two"):
        claims.append(claim)
    assert len(claims) == 4
    assert len(one.states()) == 4


@pytest.mark.slow
def test_a_bayes_search_goes_by_its_metric(make):
    text = "method: bayes\nrun_cap: 25\nmetric: {name: valid.val/best, goal: maximize}\n"
    queue = make(text + "parameters: {base_lr: {min: 0.0, max: 1.0}}")
    queue.begin()
    drawn = []
    while claim := queue.claim("worker"):
        drawn.append(claim.values["base_lr"])
        claim.done(100 * (1 - abs(drawn[-1] - 0.3)))
    assert len(drawn) == 25
    assert sum(abs(value - 0.3) < 0.15 for value in drawn[-10:]) >= 6


def test_a_metric_below_is_the_better_one_where_the_file_minimizes(make):
    queue = make(GRID + "\nmetric: {name: valid.val/loss}")
    queue.begin()
    assert (queue.metric, queue.maximize) == ("valid.val/loss", False)
    assert optuna.load_study(study_name=queue.name, storage=queue._storage).direction.name == "MINIMIZE"
    claim = queue.claim("worker")
    assert claim.done(None)  # no figure is the worst figure
    assert queue.states()[0].trial.value == float("inf")


def test_an_edited_file_is_another_sweep_and_a_higher_cap_is_not(tmp_path):
    def named(text, base=None):
        return sweep_name(sweep_of(tmp_path, text), "sweep", base or {})

    assert named(GRID) == named(GRID + "\nrun_cap: 3\ndescription: a study")
    assert named(GRID) != named(GRID.replace("[0, 1, 2]", "[0, 1, 3]"))
    assert named(GRID) != named(GRID, {"run_config": {"n_epochs": 3}})
    assert named(GRID).startswith("sweep-")
    assert named(GRID + "\nname: study").startswith("study-")


@pytest.mark.parametrize("name", ["../../outside", "..", "a/b", "x" * 300, "☃" * 300, "two\nlines", "b\\c"])
def test_the_name_of_a_sweep_is_one_folder_whatever_the_file_calls_it(tmp_path, name):
    sweep = sweep_of(tmp_path, GRID).model_copy(update={"name": name})
    folder = tmp_path / "sweeps" / sweep_name(sweep, "sweep", {})
    folder.mkdir(parents=True)
    assert folder.resolve().parent == tmp_path / "sweeps"
    assert folder.name.isprintable()


def test_run_cap_cuts_a_grid(make):
    queue = make(GRID + "\nrun_cap: 2")
    queue.begin()
    assert states(queue) == ["waiting"] * 2
    assert queue.size == 2


def drain(queue):
    """The values of the cells that a worker gets, each done at once."""
    values = []
    while claim := queue.claim("worker"):
        values.append(claim.values)
        claim.done(1.0)
    return values


@pytest.mark.parametrize("text", [GRID, RANDOM.replace("run_cap: 4\n", "")])
def test_a_run_cap_that_is_raised_or_lowered_leaves_the_sweep_as_it_is(make, text):
    first = make(text + "\nrun_cap: 3")
    first.begin()
    done = drain(first)
    assert len(done) == 3
    higher = make(text + "\nrun_cap: 6")
    assert higher.name == first.name
    higher.begin()
    done.append(higher.claim("worker").values)
    lower = make(text + "\nrun_cap: 2")
    lower.begin()
    assert drain(lower) == []  # what waits for the higher cap is not wanted
    done += drain(higher)
    assert len(done) == 6
    assert len({str(values) for values in done}) == 6


def test_early_stopping_needs_a_metric_of_an_epoch(make):
    text = (
        GRID
        + "\nmetric: {name: valid.val/best, goal: maximize}\nearly_terminate: {type: hyperband, min_iter: 1}"
    )
    queue = make(text)
    queue.begin()
    good, bad = queue.claim("worker"), queue.claim("worker")
    assert not good.report(1, 90.0)
    assert good.done(90.0)
    assert not bad.report(1, None)
    assert bad.report(1, 10.0)
    assert bad.done(10.0, stopped=True)
    assert states(queue)[:2] == ["done", "stopped"]


def test_a_database_that_was_made_anew_meanwhile_is_told(make, tmp_path):
    make().begin()
    (tmp_path / "sweeps.db").unlink()
    fresh = make()  # as a worker that starts makes it
    for call in (fresh.states, fresh.enqueue, lambda: fresh.claim("worker")):
        with pytest.raises(UserError, match=r"while it ran .it no longer contains the sweep"):
            call()
