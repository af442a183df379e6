"""Files of sequences."""

from pathlib import Path
from typing import Any

import pytest

import tests.planning.toy_network  # noqa: F401  (registers toy:NAME)
from neq.config.writing import flow_value
from neq.planning.sequence import TaskSequence, find_sequence, read_sequence
from neq.utils.errors import UserError

COMMON = {"dataset": "digits", "net_name": "toy:net", "ratio": 0.5, "n_epochs": 7, "base_lr": 0.3}
TASKS = [{"corruption": "fog:2"}, {"name": "noise", "corruption": "gaussian_noise:5"}]
SHIPPED = ("cifar10_corrupted", "digits_corrupted", "pacs")


@pytest.fixture
def write(tmp_path: Path):
    def read(flags: dict[str, Any] | None = None, **keys: Any) -> TaskSequence:
        path = tmp_path / "shifts.yaml"
        given = {"common": COMMON, "tasks": TASKS, **keys}
        path.write_text("\n".join(f"{key}: {flow_value(value)}" for key, value in given.items()))
        return read_sequence(path, flags)

    return read


def test_stages_in_order_with_one_split_of_photos(write) -> None:
    sequence = write(source={"n_epochs": 2})
    assert sequence.name == "shifts"
    assert [stage.name for stage in sequence.stages] == ["00_source", "01_fog-2", "02_noise"]
    assert [stage.task for stage in sequence.stages] == ["source", "fog-2", "noise"]
    configs = [sequence.config(stage).config for stage in sequence.stages]
    assert [each.data_provider.corruption for each in configs] == [None, "fog:2", "gaussian_noise:5"]
    assert [each.run_config.n_epochs for each in configs] == [2, 7, 7]
    assert {each.data_provider.split_shares for each in configs} == {(0.3, 0.2, 0.5)}
    assert all(each.net_config.weights == "default" for each in configs)
    carried = sequence.config(sequence.stages[1], Path("before.safetensors")).config
    assert carried.net_config.weights == "before.safetensors"


def test_splits_of_the_data_themselves(write) -> None:
    sequence = write(common={**COMMON, "split_shares": None})
    assert sequence.config(sequence.stages[1]).config.data_provider.split_shares is None


def test_a_labelled_share_comes_before_the_rest_without_labels(write) -> None:
    sequence = write(tasks=[{"corruption": "fog:2", "labelled": 0.3, "n_epochs": 4}])
    assert [stage.name for stage in sequence.stages] == ["00_source", "01_fog-2", "02_fog-2_unlabelled"]
    first, rest = (sequence.config(stage).config for stage in sequence.stages[1:])
    assert (first.objective, rest.objective) == ("classification", "tent")
    assert first.data_provider.train_part == (0, 0.3)
    assert rest.data_provider.train_part == (0.3, 1)
    assert (first.run_config.n_epochs, first.run_config.base_lr) == (4, 0.3)
    # What the objective brings goes before what is common and what is of the task.
    assert (rest.run_config.n_epochs, rest.run_config.base_lr, rest.run_config.optimizer_name) == (
        *(1, 0.001, "adam"),
    )
    assert rest.data_provider.corruption == "fog:2"
    own = write(tasks=[{"corruption": "fog:2", "labelled": 0.3, "unlabelled": {"base_lr": 0.01}}])
    assert own.config(own.stages[2]).config.run_config.base_lr == 0.01


def test_data_are_evaluated_alike_whatever_trains_on_them(write) -> None:
    sequence = write(tasks=[{"corruption": "fog:2", "objective": "tent"}])
    stage = sequence.stages[1]
    assert sequence.config(stage).config.data_provider.augmentation == "none"
    assert sequence.data(stage).data_provider.augmentation is None
    assert sequence.data(stage).data_provider.corruption == "fog:2"


def test_precedence(write) -> None:
    """Flags, task, common, file."""
    tasks = [{"corruption": "fog:2", "n_epochs": 5, "base_batch_size": 16}]
    sequence = write({"n_epochs": 1}, tasks=tasks)
    config = sequence.config(sequence.stages[1]).config
    assert config.run_config.n_epochs == 1
    assert config.data_provider.base_batch_size == 16
    assert config.run_config.base_lr == 0.3
    assert config.run_config.momentum == 0.9  # of configs/transfer.yaml
    assert write(tasks=tasks).config(sequence.stages[1]).config.run_config.n_epochs == 5


def test_names_of_tasks(write) -> None:
    tasks = [
        {"dataset": "usps"},
        {"dataset": "npz:a/b.npz"},
        {"dataset": "image_folder", "root": "pacs/sketch"},
    ]
    sequence = write(tasks=tasks)
    assert [stage.task for stage in sequence.stages[1:]] == ["usps", "b", "sketch"]


MISTAKES: dict[str, dict[str, Any]] = {
    "key 'task' is unknown; did you mean 'tasks'": {"task": []},
    "tasks [] is not allowed: a list of at least one": {"tasks": []},
    "tasks 'fog' is not allowed": {"tasks": "fog"},
    "task 1 'fog:2' is not allowed: keys with values": {"tasks": ["fog:2"]},
    "task 1: key 'corruptoin' is unknown; did you mean 'corruption'": {"tasks": [{"corruptoin": "fog:2"}]},
    "fog-7: corruption 'fog:7' is not allowed: a name and a severity": {"tasks": [{"corruption": "fog:7"}]},
    "x: dataset 'digit' is unknown": {"tasks": [{"name": "x", "dataset": "digit"}]},
    "two tasks are called 'fog-2'": {"tasks": [TASKS[0], TASKS[0]]},
    "two tasks are called 'a_unlabelled'": {
        "tasks": [{"name": "a", "labelled": 0.5}, {"name": "a_unlabelled", "corruption": "fog:1"}]
    },
    "name 'a/b' of task 1 is not allowed": {"tasks": [{"name": "a/b"}]},
    "name '../a' is not allowed: letters, digits": {"name": "../a"},
    "name 'source' of task 1 is not allowed": {"tasks": [{"name": "source"}]},
    "task 1: labelled 1 is not allowed: a share above 0 and below 1": {"tasks": [{"labelled": 1}]},
    "task 1: labelled True is not allowed": {"tasks": [{"labelled": True}]},
    "unlabelled needs labelled": {"tasks": [{"unlabelled": {"base_lr": 0.1}}]},
    "labelled and objective contradict": {"tasks": [{"labelled": 0.5, "objective": "tent"}]},
    "unlabelled: corruption is the same": {
        "tasks": [{"labelled": 0.5, "unlabelled": {"corruption": "fog:1"}}]
    },
    "task 1: split_shares is the same for all tasks": {"tasks": [{"split_shares": [0.1, 0.1, 0.8]}]},
    "task 1: manual_seed is the same": {"tasks": [{"manual_seed": 3}]},
    "source: net_name is the same": {"source": {"net_name": "toy:net"}},
    "common: run_dir is not allowed: the sequence decides": {"common": {"run_dir": "x"}},
    "source.train 1 is not allowed: true or false": {"source": {"train": 1}},
    "mcunet-in0 starts at random": {"source": {"train": False}, "common": {"dataset": "digits"}},
    "store_rate 0 is not allowed: a share above 0 and up to 1": {"store_rate": 0},
    "config_file 'nowhere' is unknown": {"config_file": "nowhere"},
    "plan 256 is not allowed: {memory: 256MiB": {"plan": 256},
    "a plan with policy velocity needs a budget in bytes": {"plan": {"memory": "1GiB"}},
    "fog-2: test_batch_size is not allowed with a plan": {
        "plan": {"memory": "1GiB"},
        "tasks": [{"corruption": "fog:2", "test_batch_size": 8}],
    },
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes(text: str, write) -> None:
    with pytest.raises(UserError) as caught:
        write(**MISTAKES[text])
    line = str(caught.value)
    assert text in line
    assert line.startswith("file ")
    assert len(line.splitlines()) == 1


def test_tasks_are_planned_and_the_source_and_other_objectives_are_not(write) -> None:
    common = {name: value for name, value in COMMON.items() if name != "ratio"}
    tasks = [{"corruption": "fog:2", "labelled": 0.3}]
    sequence = write(common=common, tasks=tasks, plan={"memory": "1GiB", "deadline": "9s"})
    assert [sequence.is_limited(stage) for stage in sequence.stages] == [False, True, True]
    assert [sequence.is_planned(stage) for stage in sequence.stages] == [False, True, False]
    stage = sequence.stages[1]
    assert sequence.planned_settings(stage)["neuron_selection"] == "auto"
    assert sequence.given(stage) >= {"net_name", "corruption"}
    assert "neuron_selection" not in sequence.given(stage)
    named = write(common=common, tasks=tasks, plan={"memory": "1GiB"}, config_file="photos")
    assert "neuron_selection" in named.given(stage)
    assert not any(write(common=common).is_limited(each) for each in sequence.stages)


def test_flags_that_would_make_one_task_of_several(write) -> None:
    with pytest.raises(UserError, match="--corruption would replace that of single tasks"):
        write({"corruption": "fog:1"})
    with pytest.raises(UserError, match="--resume is not allowed: the sequence decides it"):
        write({"resume": True})
    assert write({"dataset": "mnist"}).config(write().stages[1]).config.data_provider.dataset == "mnist"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sequences_are_read(name: str) -> None:
    file = find_sequence(name)
    flags = {"weights": str(file)} if name == "cifar10_corrupted" else {}  # any file stands for trained ones
    sequence = read_sequence(file, flags)
    assert sequence.name == name
    assert len(sequence.stages) >= 4
    assert {path.stem for path in file.parent.iterdir()} == set(SHIPPED)


def test_a_sequence_that_is_not_shipped() -> None:
    with pytest.raises(
        UserError, match="sequence 'digit_corrupted' is unknown; did you mean 'digits_corrupted'"
    ):
        find_sequence("digit_corrupted")
    assert find_sequence("elsewhere/mine.yaml") == Path("elsewhere/mine.yaml")
