import itertools
import re

import pytest

from neq.sweeps import Choice, EarlyTerminate, cells, read_sweep
from neq.utils.errors import UserError

# Shapes of the published code's sweep files, values of our own; the program line is already ours.
PUBLISHED = """\
program: train_classification.py
method: grid
project: on-device
name: c10-velocity
metric:
  goal: maximize
  name: valid.val/best
command:
  - python3
  - ${program}
parameters:
  dataset:
    distribution: categorical
    values: [c10]
  net_name:
    values: ["pre_trained_mbv2"]
  scheme:
    values:
      - scheme_fixed_budget
  budget:
    values: [192311]
  neuron_selection:
    distribution: categorical
    values:
      - velocity
      - random
  initialization: {values: [random]}
  image_size: {value: 224}
  base_batch_size: {values: [32]}
  n_epochs: {values: [120]}
  base_lr: {values: [0.025]}
  lr_schedule_name: {values: [cosine]}
  optimizer_name: {values: [sgd]}
  use_validation: {values: [1]}
  manual_seed: {values: [0, 42, 100]}
"""
SMALL = "program: train_classification.py\nmethod: grid\nparameters: {n_epochs: {values: [1, 2]}}\n"


def sweep_of(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return read_sweep(path)


def test_a_published_file_reads(tmp_path):
    sweep = sweep_of(tmp_path, PUBLISHED)
    assert (sweep.method, sweep.project, sweep.name) == ("grid", "on-device", "c10-velocity")
    assert sweep.metric is not None
    assert (sweep.metric.name, sweep.metric.goal) == ("valid.val/best", "maximize")
    assert sweep.parameters["manual_seed"] == Choice((0, 42, 100))
    found = cells(sweep)
    assert len(found) == 6
    config = found[0].config
    assert config.NEq_config.budget == 192311
    assert config.NEq_config.scheme == "scheme_fixed_budget"
    assert config.run_config.base_lr == 0.025


def test_its_own_program_line_is_told_how_to_change(tmp_path):
    text = PUBLISHED.replace("program: train_", "program: ./NEq/train_")
    with pytest.raises(UserError, match=r"program './NEq/train_classification.py' is not allowed: write pro"):
        sweep_of(tmp_path, text)
    assert sweep_of(tmp_path, PUBLISHED.replace("program: ", "program: ./"))


@pytest.mark.parametrize(
    "command", ["[python3, '${program}', '${args}']", "['${env}', '${interpreter}', '${program}', '${args}']"]
)
def test_commands_with_arguments(tmp_path, command):
    sweep = sweep_of(tmp_path, f"{SMALL}command: {command}\n")
    assert sweep.command is not None
    assert sweep.flags == ()


def test_flags_of_the_command_count_for_every_run(tmp_path):
    command = "command: [python3, '${program}', --config-file, published, --momentum, '.5', '${args}']\n"
    sweep = sweep_of(tmp_path, SMALL + command)
    assert sweep.flags == ("--config-file", "published", "--momentum", ".5")
    assert [cell.config.run_config.momentum for cell in cells(sweep)] == [0.5, 0.5]
    assert cells(sweep)[0].config.run_config.warmup_epochs == 5


@pytest.mark.parametrize(
    "macro",
    ["args_no_equals", "args_no_hyphens", "args_no_boolean_flags", "args_json", "args_json_file"],
)
def test_the_other_macros_of_an_agent_pass_the_same_values(tmp_path, macro):
    command = f"command: ['${{env}}', python3, '${{program}}', --n_worker, 1, '${{{macro}}}']\n"
    sweep = sweep_of(tmp_path, SMALL + command)
    assert sweep.flags == ("--n_worker", "1")


def test_environment_variables_in_a_command(tmp_path, monkeypatch):
    command = "command: [python3, '${program}', '--root=${envvar:NEQ_PHOTOS}/a', '${args}']\n"
    monkeypatch.setenv("NEQ_PHOTOS", "/photos")
    assert sweep_of(tmp_path, SMALL + command).flags == ("--root=/photos/a",)
    monkeypatch.delenv("NEQ_PHOTOS")
    with pytest.raises(UserError, match="environment variable 'NEQ_PHOTOS' is not set; set it"):
        sweep_of(tmp_path, SMALL + command)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"s": 2, "min_iter": 7, "max_iter": 19}, [2, 6]),
        ({"s": 2, "max_iter": 19}, [2, 6]),
        ({"s": 5, "max_iter": 19}, [2, 6]),
        ({"s": 2, "max_iter": 27}, [3, 9]),
        ({"s": 2, "max_iter": 26}, [2, 8]),
        ({"s": 1, "max_iter": 2}, []),
        ({"min_iter": 2, "eta": 1.5}, [2, 3, 4, 6, 10]),
    ],
)
def test_bands_are_those_that_wandb_computes(given, expected):
    bands = EarlyTerminate(type="hyperband", **given).bands()
    assert list(itertools.islice(bands, 5)) == expected


SECTIONS = """\
program: train_classification.py
method: grid
parameters:
  run_config:
    %s
  manual_seed: {values: [0, 1]}
"""


@pytest.mark.parametrize(
    ("given", "epochs"),
    [
        ("value: {n_epochs: 1, warmup_epochs: 0}", [1, 1]),
        ("values: [{n_epochs: 1, base_lr: 0.1}, {n_epochs: 2, base_lr: 0.05}]", [1, 2, 1, 2]),
        ("parameters: {n_epochs: {values: [1, 2]}}", [1, 2, 1, 2]),
    ],
)
def test_a_section_as_a_value(tmp_path, given, epochs):
    found = cells(sweep_of(tmp_path, SECTIONS % given))
    assert [cell.config.run_config.n_epochs for cell in found] == epochs


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("value: {n_epoch: 1}", "key of run_config 'n_epoch' is unknown; did you mean 'n_epochs'"),
        ("value: 3", "run_config 3 is not allowed: keys with values are expected"),
    ],
)
def test_a_section_that_is_none(tmp_path, given, line):
    with pytest.raises(UserError, match=re.escape(line)):
        cells(sweep_of(tmp_path, SECTIONS % given))


def test_a_file_by_the_published_codes_name(tmp_path):
    folder = tmp_path / "c10"
    folder.mkdir()
    (folder / "mbv2.yaml").write_text(SMALL)
    assert read_sweep(folder / "c10_mbv2.yaml") == read_sweep(folder / "mbv2.yaml")
    with pytest.raises(UserError, match=r"c10_resnet9\.yaml' does not exist"):
        read_sweep(folder / "c10_resnet9.yaml")


def test_the_configuration_that_cells_start_from(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SMALL)
    assert read_sweep(path).experiment().base == "transfer"
    assert read_sweep(path, "published").experiment().base == "published"
    path.write_text(SMALL + "command: [python3, '${program}', --config_file=transfer]\n")
    assert read_sweep(path, "published").experiment().base == "transfer"


def test_a_search_with_everything(tmp_path):
    text = """\
program: train_classification.py
method: bayes
run_cap: 20
entity: me
description: ''
metric: {name: valid.val/best, goal: maximize, target: 99, impute: best}
early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 3, strict: false}
parameters:
  run_config: {parameters: {base_lr: {distribution: log_uniform_values, min: 0.001, max: 1}}}
"""
    sweep = sweep_of(tmp_path, text)
    assert sweep.run_cap == 20
    assert sweep.early_terminate is not None
    assert (sweep.early_terminate.max_iter, sweep.early_terminate.s) == (27, 2)
    assert sweep.metric is not None
    assert sweep.metric.target == 99


BAYES = SMALL.replace("grid", "bayes")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "program is missing"),
        ("program: train_classification.py\nmethod: grid\n", "parameters is missing"),
        (
            SMALL.replace("grid", "gird"),
            "method 'gird' is not allowed: it must be 'grid', 'random' or 'bayes'",
        ),
        (SMALL + "run_caps: 3\n", "key 'run_caps' is unknown; did you mean 'run_cap'?"),
        (SMALL + "run_cap: 0\n", "run_cap 0 is not allowed: it must be greater than or equal to 1"),
        (SMALL + "run_cap: many\n", "run_cap 'many' is not allowed: an integer is expected"),
        (SMALL + "metric: {goal: maximize}\n", "metric: name is missing"),
        (SMALL + "metric: {name: a, gaol: maximize}\n", "metric: key 'gaol' is unknown"),
        (
            SMALL + "metric: {name: a, goal: max}\n",
            "metric.goal 'max' is not allowed: it must be 'minimize' or",
        ),
        (SMALL + "metric: valid.val/best\n", "metric 'valid.val/best' is not allowed: keys with values are"),
        (
            BAYES.replace("bayes", "random") + "metric: {name: val/best}\n",
            "metric.name 'val/best' is unknown; did you mean 'valid.val/best'",
        ),
        (BAYES, "method bayes needs a metric, as metric: {name: valid.val/best, goal: maximize}"),
        (
            BAYES + "metric: {name: val/best}\n",
            "metric.name 'val/best' is unknown; did you mean 'valid.val/best'",
        ),
        (SMALL + "early_terminate: {type: hyperband}\n", "give min_iter, or max_iter and s"),
        (SMALL + "early_terminate: {type: hyperband, min_iter: 1}\n", "early_terminate needs a metric"),
        (
            SMALL + "early_terminate: {type: median}\n",
            "early_terminate.type 'median' is not allowed: it must be",
        ),
        (
            SMALL + "command: [python3]\n",
            "command ['python3'] has no ${program}; write [python3, ${program}]",
        ),
        (SMALL + "command: python3 x\n", "command 'python3 x' is not allowed: a list is expected"),
        (
            SMALL + "command: [a, '${program}', '${arguments}']\n",
            "command '${arguments}' is not allowed; macros",
        ),
        (SMALL + "command: [a, '${program}', --n_epoch, '3']\n", "flag '--n_epoch' is unknown"),
        (
            SMALL + "command: [a, '${program}', --n_epochs, '3']\n",
            "n_epochs stands in command and in parameters",
        ),
        (SMALL + "command: [a, '${program}', --run-dir, x]\n", "run_dir is not allowed in a sweep"),
        (SMALL.replace("n_epochs", "resume"), "resume is not allowed in a sweep"),
        ("- a\n", "line 1: keys with values are expected"),
    ],
)
def test_mistakes_are_one_line_with_the_file(tmp_path, text, line):
    with pytest.raises(UserError) as caught:
        sweep_of(tmp_path, text)
    said = str(caught.value)
    assert line in said
    assert said.startswith("file '")
    assert "sweep.yaml'" in said
    assert len(said.splitlines()) == 1


def test_a_sweep_is_frozen(tmp_path):
    sweep = sweep_of(tmp_path, SMALL)
    with pytest.raises(ValueError, match="frozen"):
        sweep.run_cap = 3
