"""From files and flags to what runs."""

from pathlib import Path
from typing import Any

import pytest

from neq.config import catalog
from neq.config.catalog import DatasetEntry
from neq.config.compat import SECTION_OF
from neq.config.keys import flatten_config
from neq.config.policies import POLICIES
from neq.config.reading import configs_folder, read_yaml
from neq.config.resolve import resolve
from neq.config.schema import Config, MeanStd
from neq.config.writing import to_mapping
from neq.utils.errors import UserError

# A file of the published code's shape: every section and key of it, values of our own.
PUBLISHED = """\
project_name: on-device
run_dir: runs/published
manual_seed: 42
resume: 0
wandb_sweep: 1

data_provider:
  dataset: image_folder
  root: /data/flowers
  resize_scale: .25
  color_aug: .3
  base_batch_size: 16
  n_worker: 4
  image_size: 128
  new_num_classes: 102
  validation_percentage: .1
  use_validation: 1
  use_validation_for_velocity: 0
  mean_std: [[.485, .456, .406], [.229, .224, .225]]

run_config:
  n_epochs: 50
  base_lr: 0.0125
  warmup_epochs: 3
  warmup_lr: 1e-4
  lr_schedule_name: multi_step
  final_lr: 1e-5
  lr_step_size: [20, 40]
  lr_step_gamma: .2
  weight_decay: 5e-4
  no_wd_keys: [norm, bias]
  optimizer_name: adam
  momentum: .9
  eval_per_epochs: 5

net_config:
  net_name: pre_trained_mbv2
  fine_tuning: 1

NEq_config:
  total_num_params: 2189760
  ratio: .0878233231
  budget:
  glob_num_params: 192311
  velocity_mu: .25
  neuron_selection: SU
  initialization: SU

backward_config:
  n_bias_update: 16
  weight_update_ratio: 1-1-0-.25-.125-.125-.125-.125
  manual_weight_idx: 36-39-40-41-42-45-48-49
"""

PUBLISHED_LEAVES = {
    "project_name": "on-device",
    "run_dir": "runs/published",
    "manual_seed": 42,
    "resume": False,
    "device": "auto",
    "dataset": "image_folder",
    "root": "/data/flowers",
    "image_size": 128,
    "resize_scale": 0.25,
    "color_aug": 0.3,
    "base_batch_size": 16,
    "n_worker": 4,
    "new_num_classes": 102,
    "validation_percentage": 0.1,
    "use_validation": True,
    "use_validation_for_velocity": False,
    "velocity_images": 10,
    "mean_std": MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "n_epochs": 50,
    "base_lr": 0.0125,
    "warmup_epochs": 3,
    "warmup_lr": 0.0001,
    "lr_schedule_name": "multi_step",
    "final_lr": 0.00001,
    "lr_step_size": (20, 40),
    "lr_step_gamma": 0.2,
    "weight_decay": 0.0005,
    "no_wd_keys": ("norm", "bias"),
    "optimizer_name": "adam",
    "momentum": 0.9,
    "test_per_epochs": 5,
    "precision": "fp32",
    "net_name": "pre_trained_mbv2",
    "neuron_selection": "SU",
    "initialization": "SU",
    "scheme": None,
    "ratio": 0.0878233231,
    "budget": None,
    "velocity_mu": 0.25,
    "velocity_rule": "published",
    "norm_mode": "frontier",
    "n_bias_update": 16,
    "manual_weight_idx": (36, 39, 40, 41, 42, 45, 48, 49),
    "weight_update_ratio": (1.0, 1.0, 0.0, 0.25, 0.125, 0.125, 0.125, 0.125),
}


def refusal(file: dict[str, Any], flags: dict[str, Any]) -> str:
    """The one-line error of a configuration."""
    with pytest.raises(UserError) as caught:
        resolve(file, flags)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


def test_a_published_file_loads_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "transfer.yaml"
    path.write_text(PUBLISHED)
    resolved = resolve(read_yaml(path), {})
    flat = flatten_config(resolved.config)
    known = {name: flat[name] for name in PUBLISHED_LEAVES}
    assert known == PUBLISHED_LEAVES
    assert resolved.notes == ()
    assert resolve(to_mapping(resolved.config), {}).config == resolved.config


def test_nothing_given_is_the_defaults_with_the_catalog() -> None:
    resolved = resolve({}, {})
    data, expected = resolved.config.data_provider, catalog.dataset("digits")
    assert (data.image_size, data.new_num_classes, data.mean_std) == (48, 10, expected.mean_std)
    assert resolved.config.NEq_config.ratio == 1
    assert resolved.config.run_config == Config().run_config
    assert resolve({"run_config": None, "data_provider": {}, "device": None}, {}) == resolved


def test_shipped_files_resolve() -> None:
    resolved = resolve(read_yaml(configs_folder() / "transfer.yaml"), {})
    assert resolved.notes == ()
    assert resolved.config.NEq_config.ratio == 0.3
    assert resolved.config.run_config.n_epochs == 15


def test_overrides_win_over_the_file() -> None:
    file = {"run_config": {"n_epochs": 3, "base_lr": 0.1}, "manual_seed": 1}
    run = resolve(file, {"n_epochs": 7, "run_config.base_lr": "1e-2"}).config
    assert (run.run_config.n_epochs, run.run_config.base_lr, run.manual_seed) == (7, 0.01, 1)
    assert resolve(file, {"n_epochs": None}).config.run_config.n_epochs == 200
    assert resolve({"run_config": {"test_per_epochs": 2}}, {"eval_per_epochs": 5}).config == (
        resolve({"run_config": {"eval_per_epochs": 5}}, {}).config
    )


@pytest.mark.parametrize("value", [0, "no", "off", False])
def test_truth_values(value: Any) -> None:
    assert (
        resolve({"data_provider": {"use_validation": value}}, {}).config.data_provider.use_validation is False
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (
            {"n_epochs": "abc"},
            "n_epochs 'abc' is not allowed: an integer is expected "
            "(run_config.n_epochs: epochs after warm-up)",
        ),
        (
            {"n_epochs": "abc", "base_lr": -1, "momentum": []},
            "n_epochs 'abc' is not allowed: an integer is expected "
            "(run_config.n_epochs: epochs after warm-up); 2 more keys are wrong",
        ),
        (
            {"neuron_selection": "velocty"},
            "neuron_selection 'velocty' is unknown; did you mean 'velocity'? "
            f"Allowed: {', '.join(sorted(POLICIES))}.",
        ),
        (
            {"lr_step_size": "x"},
            "lr_step_size 'x' is not allowed: an integer is expected (run_config.lr_step_size: "
            "gamma_step: epochs between steps; multi_step: the epochs of the steps)",
        ),
        (
            {"manual_seed": -1},
            "manual_seed -1 is not allowed: it must be greater than or equal to 0 "
            "(manual_seed: seed of every random stream)",
        ),
    ],
)
def test_wrong_values(flags: dict[str, Any], text: str) -> None:
    assert refusal({}, flags) == text


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ({"n_epochs": True}, "n_epochs True is not allowed"),
        ({"no_wd_keys": ["nrm"]}, "no_wd_keys 'nrm' is unknown; did you mean 'norm'"),
        ({"optimizer_name": None, "lr_schedule_name": 5}, "lr_schedule_name '5' is unknown"),
        ({"net_name": "mbv3"}, "See neq networks."),
        ({"dataset": "digit"}, "See neq datasets."),
        ({"scheme": "mbv2_scheme"}, "did you mean 'mbv2_scheme_"),
        ({"dataset": "image_folder"}, "--root FOLDER"),
        ({"dataset": "image_folder", "root": ""}, "--root FOLDER"),
        ({"dataset": "npz"}, "--dataset npz:FILE"),
        ({"dataset": "npz:"}, "--dataset npz:FILE"),
        ({"dataset": "npz:a.npz", "root": "b.npz"}, "name two files"),
        ({"dataset": "nzp:a.npz"}, "dataset 'nzp:a.npz' is unknown"),
        ({"lr_schedule_name": "multi_step"}, "lr_step_size 30 is not allowed"),
        ({"lr_schedule_name": "gamma_step", "lr_step_size": [1]}, "lr_step_size [1] is not allowed"),
        (
            {"weights_key": "ema"},
            "weights_key 'ema' needs a checkpoint; give it with --weights FILE, here 'default'",
        ),
        ({"new_num_classes": 5}, "digits has 10 classes"),
        ({"base_lr": float("nan")}, "a finite number is expected"),
        ({"project_name": "a", "root": 5}, "text is expected"),
    ],
)
def test_mistakes(flags: dict[str, Any], part: str) -> None:
    assert part in refusal({}, flags)


def test_a_schedule_that_does_not_step_takes_either_kind() -> None:
    for value in (30, [30, 60]):
        assert resolve({}, {"lr_schedule_name": "cosine", "lr_step_size": value})


def test_classes_come_from_the_catalog() -> None:
    resolved = resolve({"data_provider": {"new_num_classes": 102}}, {"ratio": 1})
    assert resolved.config.data_provider.new_num_classes == 10
    assert resolved.notes == ("ignoring new_num_classes=102: digits has 10 classes",)
    assert resolve({"data_provider": {"new_num_classes": 10}}, {"ratio": 1}).notes == ()
    assert resolve({}, {"new_num_classes": 10}).config.data_provider.new_num_classes == 10
    folder = {"dataset": "image_folder", "root": "x"}
    assert resolve({}, {**folder, "new_num_classes": 5}).config.data_provider.new_num_classes == 5
    assert resolve({}, folder).config.data_provider.new_num_classes is None


def test_a_numpy_archive_is_the_root_of_npz() -> None:
    for values, flags in (
        ({}, {"dataset": "npz:some/a.npz"}),
        ({}, {"dataset": "npz", "root": "some/a.npz"}),
        ({}, {"dataset": "npz:some/a.npz", "root": "some/a.npz"}),
        ({"data_provider": {"root": "of/another"}}, {"dataset": "npz:some/a.npz"}),
    ):
        config = resolve(values, {"ratio": 1, **flags}).config
        assert (config.data_provider.dataset, config.data_provider.root) == ("npz", "some/a.npz")
        assert resolve(to_mapping(config), {}).config == config


def test_aliases_become_the_canonical_name(monkeypatch: pytest.MonkeyPatch) -> None:
    mean_std = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))
    entry = DatasetEntry(
        classes=7,
        augmentation="photo",
        mean_std=mean_std,
        aliases=("c7",),
        opener="neq.data.digits:open_digits",
    )
    monkeypatch.setattr(catalog, "datasets", lambda: {"seven": entry})
    data = resolve({}, {"dataset": "c7"}).config.data_provider
    assert (data.dataset, data.new_num_classes, data.mean_std) == ("seven", 7, mean_std)


@pytest.mark.parametrize(("net", "size"), [("mbv2", 224), ("mcunet-in3", 176)])
def test_image_size(net: str, size: int) -> None:
    assert resolve({}, {"net_name": net}).config.data_provider.image_size == size
    assert resolve({}, {"net_name": net, "image_size": 64}).config.data_provider.image_size == 64
    file = {"data_provider": {"image_size": 32}}
    assert resolve(file, {"net_name": net}).config.data_provider.image_size == 32


def test_mean_std_that_is_given_stays() -> None:
    given = {"mean_std": [[0.5, 0.5, 0.5], [0.2, 0.2, 0.2]]}
    mean_std = MeanStd(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert resolve({"data_provider": given}, {}).config.data_provider.mean_std == mean_std
    assert resolve({}, given).config.data_provider.mean_std == mean_std


@pytest.mark.parametrize(
    ("file", "note"),
    [
        ({"total_num_params": 2189760, "ratio": 0.0878233231, "glob_num_params": 192311}, None),
        ({"total_num_params": 2189760, "ratio": 0.0878233231, "glob_num_params": 192312}, None),
        ({"total_num_params": 5, "ratio": 1}, "ignoring total_num_params=5: mbv2 has 2,189,760"),
        ({"ratio": 0.5, "glob_num_params": 5}, "ignoring glob_num_params=5: the budget is 1,094,880"),
        ({"budget": 8, "glob_num_params": 5}, "ignoring glob_num_params=5: the budget is 8"),
    ],
)
def test_redundant_totals(file: dict[str, Any], note: str | None) -> None:
    resolved = resolve({"NEq_config": file}, {"net_name": "mbv2"})
    assert resolved.notes == ((note,) if note else ())
    assert not SECTION_OF.keys() & flatten_config(resolved.config).keys()


def test_the_head_is_always_replaced() -> None:
    resolved = resolve({"net_config": {"fine_tuning": 0}}, {"ratio": 1})
    assert not hasattr(resolved.config.net_config, "fine_tuning")
    assert resolved.notes == ("ignoring fine_tuning=false: the head is always replaced",)


@pytest.mark.parametrize(
    ("net", "is_pretrained"),
    [
        ({"net_name": "mcunet-in1"}, False),
        ({"net_name": "pre_trained_mcunet-in1"}, True),
        ({"net_name": "pre_trained_mcunet-in1", "weights": "none"}, False),
        ({"net_name": "mcunet-in1", "weights": "my.pth"}, True),
    ],
)
def test_frozen_norms_of_a_random_start_are_noted(net: dict[str, object], is_pretrained: bool) -> None:
    notes = resolve({}, {**net, "neuron_selection": "auto", "ratio": 0.1}).notes
    assert [f"{net['net_name']} starts at random" in note for note in notes] == [True] * (not is_pretrained)
    assert resolve({}, {**net, "norm_mode": "frontier", "ratio": 0.1}).notes == ()
