"""What names a run."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neq.config.keys import KEYS, config_model, flatten_config, nest
from neq.config.resolve import resolve
from neq.config.schema import Config, DataProvider, NEqConfig, NetConfig
from neq.runs.identity import FINGERPRINT, PATH_KEYS, default_settings, fingerprint, identity, run_folder
from neq.utils.errors import UserError

CONFIG = resolve({"NEq_config": {"ratio": 0.3}}, {}).config

OTHER = {
    "project_name": "other",
    "run_dir": "elsewhere",
    "manual_seed": 5,
    "objective": "tent",
    "resume": True,
    "device": "cpu",
    "tensorboard": True,
    "memory": "tight",
    "dataset": "image_folder",
    "root": "elsewhere",
    "corruption": "fog:2",
    "split_shares": [0.5, 0.2, 0.3],
    "split_of": "test",
    "train_part": [0, 0.5],
    "image_size": 40,
    "resize_scale": 0.5,
    "color_aug": 0.1,
    "base_batch_size": 7,
    "n_worker": 3,
    "new_num_classes": 12,
    "validation_percentage": 0.5,
    "use_validation": False,
    "use_validation_for_velocity": False,
    "velocity_images": 3,
    "mean_std": [[0.5, 0.5, 0.5], [1, 1, 1]],
    "augmentation": "square",
    "views": 4,
    "prefix_cache": 4,
    "prefix_precision": "fp16",
    "on_bad_image": "skip",
    "cache": "disk",
    "cache_gib": 7,
    "n_epochs": 3,
    "base_lr": 0.5,
    "warmup_epochs": 2,
    "warmup_lr": 0.1,
    "lr_schedule_name": "gamma_step",
    "final_lr": 0.01,
    "lr_step_size": [3],
    "lr_step_gamma": 0.5,
    "weight_decay": 0.1,
    "no_wd_keys": [],
    "optimizer_name": "adam",
    "momentum": 0.5,
    "test_batch_size": 6,
    "test_per_epochs": 2,
    "precision": "bf16",
    "checkpoint_minutes": 3.5,
    "sync_batch_norm": False,
    "grad_clip_norm": 2.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "mixup": 0.2,
    "cutmix": 1.0,
    "patience": 5,
    "sampling": "balanced",
    "ema_decay": 0.99,
    "micro_batch_size": 8,
    "ghost_batch_size": 4,
    "checkpoint_segments": 3,
    "checkpoint_cuts": ["features.3"],
    "net_name": "mbv2",
    "weights": "none",
    "weights_key": "state_dict_ema",
    "neuron_selection": "random",
    "initialization": "full",
    "scheme": "scheme_baseline",
    "ratio": 0.4,
    "budget": 5,
    "budget_unit": "bytes",
    "cost_aware": True,
    "choose_every": 2,
    "importance": "fisher",
    "importance_batches": 3,
    "initial_epochs": 2,
    "layer_share": 0.5,
    "unit": "input_channel",
    "saved_precision": "bf16",
    "velocity_mu": 0.25,
    "velocity_rule": "reference",
    "norm_mode": "frozen",
    "train_head": False,
    "n_bias_update": 3,
    "manual_weight_idx": [3],
    "weight_update_ratio": [1],
    "qas": False,
    "head": "quantized",
    "teacher": "a_teacher",
    "teacher_weights": "weights_of_it",
    "distill_weight": 0.25,
    "temperature": 2.0,
    "feature_weight": 1.0,
    "target": "usps",
    "target_root": "elsewhere",
    "transfer": "photo-sketch",
    "loss_weight": 0.5,
    "sharpness_radius": 0.02,
    "velocity_of": "target",
    "bottleneck": 64,
    "head_rate": 10.0,
    "domain_norms": "separate",
    "adapt_statistics": True,
    "select_by": "im",
}


def changed(name: str) -> Config:
    """CONFIG with another value of one leaf."""
    return config_model().model_validate(nest({**flatten_config(CONFIG), name: OTHER[name]}))


def test_every_leaf_has_another_value() -> None:
    """A new key needs a value here, and with it the question whether it belongs to the identity."""
    assert set(OTHER) == set(KEYS)


@pytest.mark.parametrize("name", sorted(OTHER))
def test_a_setting_renames_the_run_when_it_can_change_the_result(name: str) -> None:
    other = changed(name)
    assert other != CONFIG
    same = name in NO_PART
    assert (run_folder(other) == run_folder(CONFIG)) is same
    assert (identity(other) == identity(CONFIG)) is same


# Spelled out: a setting that leaves the identity renames every run that has it.
NO_PART = {
    *("project_name", "run_dir", "resume", "device", "memory", "root", "n_worker", "on_bad_image"),
    "tensorboard",
    *("cache", "cache_gib", "prefix_cache", "test_per_epochs", "checkpoint_minutes", "target_root"),
}


def test_what_is_no_part_of_the_identity_is_marked_at_its_field() -> None:
    assert {name for name, key in KEYS.items() if not key.is_identity} == NO_PART
    assert set(default_settings()) == set(KEYS) - NO_PART
    assert set(PATH_KEYS) <= set(default_settings())
    assert FINGERPRINT not in KEYS


def test_folder() -> None:
    folder = run_folder(CONFIG)
    assert isinstance(folder, PurePosixPath)
    assert folder.parts[:6] == ("digits", "mcunet-in0", "random", "velocity", "no_scheme", "0.3")
    seed, digest = folder.parts[6].split("-")
    assert seed == "0"
    assert len(digest) == 10
    assert set(digest) <= set("0123456789abcdef")


def test_this_folder_keeps_its_name() -> None:
    """Renaming runs orphans those that exist: change the identity only on purpose."""
    config = config_model()(
        data_provider=DataProvider(image_size=48, new_num_classes=10),
        NEq_config=NEqConfig(scheme="scheme_fixed_budget", budget=192311),
        net_config=NetConfig(net_name="mbv2"),
        manual_seed=42,
    )
    assert str(run_folder(config)) == ("digits/mbv2/random/velocity/scheme_fixed_budget/192311/42-aae8d73e38")


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({}, "digits/mcunet-in0/random/velocity/no_scheme/1.0/0-e1520b1c1d"),
        (
            {"manual_seed": 42, "n_epochs": 50},
            "digits/mcunet-in0/random/velocity/no_scheme/1.0/42-73e43c9e3e",
        ),
        (
            {"dataset": "cifar10", "net_name": "mbv2", "ratio": 0.3},
            "c10/mbv2/random/velocity/no_scheme/0.3/0-4b215807c1",
        ),
        (
            {"net_name": "mbv2", "scheme": "mbv2_scheme_1"},
            "digits/mbv2/random/velocity/mbv2_scheme_1/0.0878233231/0-914f496d51",
        ),
        (
            {"budget": "4MiB", "cost_aware": True, "norm_mode": "frozen"},
            "digits/mcunet-in0/random/velocity/no_scheme/4194304bytes/0-ce84d8bbe4",
        ),
        (
            {
                "neuron_selection": "full",
                "initialization": "full",
                "optimizer_name": "adamw",
                "precision": "bf16",
            },
            "digits/mcunet-in0/full/full/no_scheme/1.0/0-bf991ebc60",
        ),
        (
            {
                "cache": "disk",
                "n_worker": 3,
                "memory": "tight",
                "checkpoint_minutes": 0,
                "test_per_epochs": 5,
            },
            "digits/mcunet-in0/random/velocity/no_scheme/1.0/0-e1520b1c1d",
        ),
        (
            {"dataset": "image_folder", "root": "photos", "new_num_classes": 7, "augmentation": "square"},
            "image_folder/mcunet-in0/random/velocity/no_scheme/1.0/0-446a31587e",
        ),
    ],
)
def test_these_folders_keep_their_names_too(settings: dict[str, object], folder: str) -> None:
    assert str(run_folder(resolve({}, settings).config)) == folder


def test_a_folder_of_images_keeps_its_name() -> None:
    config = resolve({}, {"dataset": "image_folder", "root": "photos"}).config
    named = "image_folder/mcunet-in0/random/velocity/no_scheme/1.0/0-1b36b45f27"
    assert str(run_folder(config, "abc")) == named


def test_seeds_share_the_hash() -> None:
    folders = [run_folder(CONFIG.model_copy(update={"manual_seed": seed})) for seed in (0, 42)]
    assert folders[0].parent == folders[1].parent
    assert folders[0].name.split("-")[1] == folders[1].name.split("-")[1]
    assert folders[0] != folders[1]


def test_a_ratio_and_an_equal_looking_budget_differ() -> None:
    names = {
        run_folder(CONFIG.model_copy(update={"NEq_config": NEqConfig(ratio=ratio, budget=budget)})).parts[5]
        for ratio, budget in ((1.0, None), (None, 1), (0.0878233231, None), (None, 0))
    }
    assert names == {"1.0", "1", "0.0878233231", "0"}


def test_the_fingerprint_of_the_data_counts() -> None:
    assert identity(CONFIG, "abc")["data_fingerprint"] == "abc"
    assert "data_fingerprint" not in identity(CONFIG)
    assert len({run_folder(CONFIG), run_folder(CONFIG, "a"), run_folder(CONFIG, "b")}) == 3


def test_weights_count_by_their_content(tmp_path) -> None:
    def of(name: str, content: bytes) -> Config:
        (tmp_path / name).write_bytes(content)
        net = NetConfig(net_name="mbv2", weights=str(tmp_path / name))
        return CONFIG.model_copy(update={"net_config": net})

    one, moved, other = of("a.pth", b"one"), of("b.pth", b"one"), of("c.pth", b"two")
    assert identity(one) == identity(moved)
    assert run_folder(one) == run_folder(moved)
    assert run_folder(one) != run_folder(other)
    (tmp_path / "a.pth").write_bytes(b"two")
    assert identity(one) == identity(other)
    (tmp_path / "a.pth").unlink()
    with pytest.raises(UserError, match=r"weights '.*a\.pth' is not a file that can be read"):
        identity(one)


def test_defaults_are_left_out_and_path_keys_are_not() -> None:
    settings = identity(config_model()())
    assert set(settings) == set(PATH_KEYS)
    assert "n_epochs" in identity(changed("n_epochs"))
    assert json.loads(json.dumps(identity(CONFIG))) == identity(CONFIG)


@pytest.mark.slow
@given(st.text(max_size=8))
def test_parts_are_safe_folder_names(name: str) -> None:
    config = CONFIG.model_copy(update={"data_provider": DataProvider(dataset=name, image_size=8)})
    parts = run_folder(config).parts
    assert len(parts) == (7 if name else 6)
    assert all(
        set(part) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")
        for part in parts
    )
    assert not any(part.startswith(".") for part in parts)


def test_the_fingerprint_of_a_run_is_that_of_all_its_data_sets() -> None:
    assert fingerprint(["a"]) == fingerprint(["a", None]) == "a"
    assert fingerprint([None]) is fingerprint([None, None]) is None
    several = [fingerprint(sets) for sets in (["a", "b"], ["b", "a"], ["a", "c"], [None, "b"], ["b", None])]
    assert len(set(several)) == 5
