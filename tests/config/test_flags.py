"""The command line of a run."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neq.config.flags import Options, build_parser, load, parse_flags
from neq.config.keys import KEYS
from neq.config.policies import POLICIES
from neq.utils.errors import UserError

SURFACE = """
--adapt_statistics --augmentation --base_batch_size --base_lr --bottleneck --budget --budget_unit --cache
--cache_gib --checkpoint_cuts --checkpoint_minutes --checkpoint_segments --choose_every --class_weights
--color_aug --config-file --corruption --cost_aware --cutmix --dataset --debug --device --distill_weight
--domain_norms --dry-run --ema_decay --feature_weight --final_lr --fine_tuning --ghost_batch_size
--glob_num_params --grad_clip_norm --head --head_rate --help --image_size --importance --importance_batches
--initial_epochs --initialization --label_smoothing --layer_share --loss_weight --lr_schedule_name
--lr_step_gamma --lr_step_size --manual_seed --manual_weight_idx --mean_std --memory --micro_batch_size
--mixup --momentum --n_bias_update --n_epochs --n_worker --net_name --neuron_selection --new_num_classes
--no_wd_keys --norm_mode --objective --on_bad_image --optimizer_name --overwrite --patience --precision
--prefix_cache --prefix_precision --project_name --qas --ratio --resize_scale --resume --root --run_dir
--sampling --saved_precision --scheme --select_by --sharpness_radius --split_of --split_shares
--sync_batch_norm --target --target_root --teacher --teacher_weights --temperature --tensorboard
--test_batch_size --test_per_epochs --total_num_params --train_head --train_part --transfer --unit
--use_validation --use_validation_for_velocity --validation_percentage --velocity_images --velocity_mu
--velocity_of --velocity_rule --views --wandb_sweep --warmup_epochs --warmup_lr --weight_decay
--weight_update_ratio --weights --weights_key -h
"""


def options(*argv: str) -> Options:
    return parse_flags(argv, "neq train")


def refusal(*argv: str) -> str:
    """The one-line error of a command line."""
    text = outcome(list(argv))
    assert len(text.splitlines()) == 1
    return text


def outcome(argv: list[str]) -> str:
    """The error of a command line, empty when there is none."""
    try:
        load(argv, "neq train")
    except UserError as error:
        return str(error)
    return ""


def test_surface() -> None:
    assert sorted(build_parser("neq train", {})._option_string_actions) == SURFACE.split()


def test_nothing_given() -> None:
    assert options() == Options("transfer", {}, dry_run=False, overwrite=False, debug=False)


@pytest.mark.parametrize("given", ["features.3,features.7", "[features.3, features.7]", "features.3"])
def test_names_are_a_list(given: str) -> None:
    config = load(["--checkpoint_cuts", given], "neq train")[1].config
    assert config.run_config.checkpoint_cuts == ("features.3", "features.7")[: given.count(",") + 1]


def test_switches_and_file() -> None:
    given = options("--dry-run", "--overwrite", "--debug", "--config-file", "my.yaml")
    assert given == Options("my.yaml", {}, dry_run=True, overwrite=True, debug=True, names_config=True)
    assert options("--dry_run", "--config_file=my.yaml").config_file == "my.yaml"


PHOTOS = ("--dataset", "image_folder", "--root", "photos")


@pytest.mark.parametrize(
    ("argv", "config"),
    [
        ([], "transfer"),
        ([*PHOTOS], "photos"),
        ([*PHOTOS, "--net_name", "pre_trained_resnet18"], "photos"),
        ([*PHOTOS, "--net_name", "resnet18", "--weights", "my.pth"], "photos"),
        ([*PHOTOS, "--net_name", "resnet18"], "transfer"),
        ([*PHOTOS, "--weights", "none"], "transfer"),
        ([*PHOTOS, "--config-file", "transfer"], "transfer"),
        (["--net_name", "pre_trained_resnet18"], "transfer"),
    ],
)
def test_a_pretrained_network_on_images_of_ones_own_starts_from_the_recipe_of_photos(
    argv: list[str], config: str
) -> None:
    chosen, resolved = load(argv, "neq train")
    assert chosen.config_file == config
    assert (resolved.config.run_config.base_lr == "auto") == (config == "photos")


def test_the_values_of_a_sweep_start_from_transfer() -> None:
    given = {"dataset": "image_folder", "root": "photos", "resume": True}
    assert load([], "neq train", given)[0].config_file == "transfer"


@pytest.mark.parametrize(
    "argv",
    [
        ["--n_epochs", "5"],
        ["--n_epochs=5"],
        ["--n-epochs", "5"],
        ["--run_config.n_epochs", "5"],
        ["--run-config.n-epochs=5"],
        ["--n_epochs", "5", "--n-epochs", "5.0"],
        ["--n_epochs", "5", "--run_config.n_epochs=5"],
    ],
)
def test_spellings_of_a_name(argv: list[str]) -> None:
    assert options(*argv).overrides == {"n_epochs": 5}


@pytest.mark.parametrize(
    ("argv", "overrides"),
    [
        (["--base_lr", ".5"], {"base_lr": 0.5}),
        (["--base_lr", "1e-3"], {"base_lr": 0.001}),
        (["--base_lr", "-1e-3"], {"base_lr": -0.001}),
        (["--base_lr", "-.5"], {"base_lr": -0.5}),
        (["--n_epochs", "-3"], {"n_epochs": -3}),
        (["--lr_step_size", "[30, 60]"], {"lr_step_size": [30, 60]}),
        (["--manual_weight_idx", "36-39-40"], {"manual_weight_idx": "36-39-40"}),
        (["--weight_update_ratio", "1-.5-0"], {"weight_update_ratio": "1-.5-0"}),
        (["--use_validation", "0"], {"use_validation": 0}),
        (["--use_validation", "no"], {"use_validation": "no"}),
        (["--resume"], {"resume": True}),
        (["--resume", "--n_epochs", "3"], {"resume": True, "n_epochs": 3}),
        (["--resume=1"], {"resume": 1}),
        (["--resume", "0"], {"resume": 0}),
        (["--scheme", "null"], {"scheme": None}),
        (["--scheme=null"], {"scheme": None}),
        (["--budget", "null"], {"budget": None}),
        (["--eval_per_epochs", "3"], {"test_per_epochs": 3}),
        (["--project_name", "007"], {"project_name": "007"}),
        (["--run_dir", "runs/[1]: a=b #c"], {"run_dir": "runs/[1]: a=b #c"}),
        (["--root=--odd"], {"root": "--odd"}),
        (["--root", "-odd"], {"root": "-odd"}),
        (["--root", "1" * 200], {"root": "1" * 200}),
        (["--mean_std", "[[.5, .5, .5], [1, 1, 1]]"], {"mean_std": [[0.5, 0.5, 0.5], [1, 1, 1]]}),
        (["--device", "cpu"], {"device": "cpu"}),
    ],
)
def test_values(argv: list[str], overrides: dict[str, Any]) -> None:
    assert options(*argv).overrides == overrides


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--n_epoch", "3"], "flag '--n_epoch' is unknown; did you mean '--n_epochs'? See --help."),
        (["--net_config.base_lr", "3"], "'--net_config.base_lr' is no flag; write --base_lr"),
        (["--n_epo=3"], "did you mean '--n_epochs'"),
        (["--dry", "--n_epochs=3"], "flag '--dry' is unknown"),
        (["transfer"], "argument 'transfer' is not allowed"),
        (["--dry-run", "transfer"], "argument 'transfer' is not allowed"),
        (["--n_epochs", "3", "4"], "argument '4' is not allowed"),
        (["--", "a"], "is not allowed"),
        (["-x"], "flag '-x' is unknown"),
        (["--n_epochs"], "--n_epochs: expected one argument"),
        (["--n_epochs", "--resume"], "--n_epochs: expected one argument"),
        (["--dry-run=1"], "--dry-run"),
        (["--n_epochs", "[1"], "n_epochs '[1' is not a YAML value"),
        (["--n_epochs", "1", "--n-epochs", "2"], "n_epochs is given twice, as 1 and as 2"),
        (["--n_epochs", "1", "--run_config.n_epochs", "2"], "n_epochs is given twice, as 1 and as 2"),
        (["--config-file", "a", "--config-file", "b"], "--config-file is given twice, as 'a' and as 'b'"),
        (["--resume", "x"], "resume 'x' is not allowed"),
        (["--config-file", "trasfer"], "did you mean 'transfer'"),
        (["--n_epochs", "true"], "n_epochs True is not allowed"),
        (["--config-file"], "expected one argument"),
        (["a\nb"], "is not allowed"),
        (["--a\nb.base_lr=1"], "is no flag"),
    ],
)
def test_mistakes(argv: list[str], problem: str) -> None:
    assert problem in refusal(*argv)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options(flag)
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, leaf in KEYS.items():
        assert f"--{name} " in text
        assert str(leaf.field.description).split()[0] in text
    assert "{" + ",".join(POLICIES) + "}" in text
    assert "--run_config.n_epochs" not in text


def test_load() -> None:
    given, resolved = load(["--n_epochs", "3", "--resume"], "neq train")
    assert given.overrides == {"n_epochs": 3, "resume": True}
    assert resolved.config.run_config.n_epochs == 3
    assert resolved.config.run_config.base_lr == 0.05
    assert resolved.config.resume is True
    assert resolved.notes == ()


NAMES = st.sampled_from([f"--{name}" for name in KEYS])
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@FUZZ
@given(argv=st.lists(st.tuples(NAMES, st.text(max_size=12)).map("=".join) | st.text(max_size=12), max_size=4))
def test_no_command_line_raises_anything_else(argv: list[str]) -> None:
    words = [word for word in argv if not word.startswith(("-h", "--h"))]
    assert len(outcome(words).splitlines()) <= 1


YAML_LIKE = st.text(alphabet="abc:-[]{}&*!|>'\"#%@,? \n\t.e10~", max_size=60)
SECTIONED = st.tuples(st.sampled_from(sorted(KEYS)), YAML_LIKE).map(
    lambda pair: f"{KEYS[pair[0]].path}: {pair[1]}".replace(".", ":\n  ", 1)
)


@pytest.mark.slow
@FUZZ
@given(
    raw=st.binary(max_size=60)
    | (YAML_LIKE | SECTIONED | st.text(max_size=60)).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_no_file_raises_anything_else(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(raw)
    assert len(outcome(["--config-file", str(path)]).splitlines()) <= 1
