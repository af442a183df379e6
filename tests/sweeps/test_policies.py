"""The shipped sweep files: each parses, its cells validate, its schemes fit, its header counts right."""

import re
from collections import Counter
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest
import torch

from neq.budget import CostModel, StepSpec
from neq.config import POLICIES, load, read_yaml, scheme
from neq.config.budget_rules import at_home
from neq.experiment.network import check_scheme, open_network, outline
from neq.runs import run_folder
from neq.selection import SelectionState, StaticScheme, bias_layers, listed_parameters
from neq.sweeps import cells, check_search, read_sweep
from neq.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "policies").rglob("*.yaml"))
# What W&B's own client reads the files with.
yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
RATES = {"mbv2": 0.025, "resnet18": 0.0125, "resnet50": 0.0125, "mcunet-in1": 0.05}
tables = cache(outline)


def header(path):
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("# "))
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "policies")))
def test_a_policy_holds(path):
    sweep = read_sweep(path)
    assert (sweep.metric.name, sweep.metric.goal) == ("valid.val/best", "maximize")
    # W&B's client reads YAML 1.1, we 1.2: the file must mean the same to both.
    assert yaml.safe_load(path.read_text()) == read_yaml(path)
    *study, count = header(path)
    assert len(" ".join(study)) > 30
    claimed = int(re.match(r"(\d+) (cells\.|runs, drawn at random\.)$", count).group(1))
    if sweep.method != "grid":
        check_search(sweep)
        assert sweep.run_cap == claimed
        return
    found = cells(sweep)
    assert len(found) == claimed
    assert len({run_folder(cell.config) for cell in found}) == claimed
    flags = [f"--{name}={value}" for name, value in found[-1].values.items()]
    fixed = list(sweep.command[2:-1]) if sweep.command else []
    # As an agent of W&B starts it.
    assert load([*fixed, *flags], "train")[1].config == found[-1].config
    for cell in found:
        neq, net_name = cell.config.NEq_config, cell.config.net_config.net_name
        table = tables(net_name)
        if neq.scheme is not None and at_home(scheme(neq.scheme), net_name):
            check_scheme(neq.scheme, scheme(neq.scheme), table)
        if neq.budget_unit == "parameters":
            amount = neq.budget if neq.budget is not None else neq.ratio * table.total_parameters
            assert 0 < amount <= table.total_parameters
        if "SU" in (neq.neuron_selection, neq.initialization):
            lists = StaticScheme.of_config(cell.config.backward_config)
            assert listed_parameters(table, lists) > 0
            assert neq.neuron_selection == neq.initialization


PUBLISHED = [path for path in FILES if path.parent.name not in ("policies", "digits", "int8", "adaptation")]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: str(path.relative_to(ROOT / "policies")))
def test_a_published_policy_has_the_published_settings(path):
    found = cells(read_sweep(path))
    for cell in found:
        data, run = cell.config.data_provider, cell.config.run_config
        assert data.dataset == path.parent.name
        assert (data.image_size, data.base_batch_size, data.use_validation) == (224, 32, True)
        assert (run.n_epochs, run.warmup_epochs, run.lr_schedule_name) == (120, 5, "cosine")
        assert (run.optimizer_name, run.momentum, run.weight_decay) == ("sgd", 0, 0)
        assert run.base_lr == RATES[cell.config.net_config.net_name.removeprefix("pre_trained_")]
        assert cell.config.NEq_config.norm_mode == "train"
    check_seeds(found)


def check_seeds(found):
    seeds = Counter(cell.config.manual_seed for cell in found)
    assert set(seeds) == {0, 42, 100}
    assert len(set(seeds.values())) == 1


INT8 = [path for path in FILES if path.parent.name == "int8"]


@pytest.mark.parametrize("path", INT8, ids=lambda path: path.stem)
def test_an_int8_policy_has_the_published_recipe(path):
    found = cells(read_sweep(path))
    for cell in found:
        data, run = cell.config.data_provider, cell.config.run_config
        assert cell.config.net_config.net_name.startswith("int8:")
        assert (data.dataset, data.image_size, data.base_batch_size) == ("flowers", 128, 64)
        assert (run.n_epochs, run.warmup_epochs, run.lr_schedule_name) == (50, 5, "cosine")
        assert (run.optimizer_name, run.momentum, run.weight_decay) == ("sgd", 0, 0)
        assert run.base_lr == 0.1 * data.base_batch_size / 256
    check_seeds(found)


def test_velocity_on_int8_networks_has_the_memory_of_the_scheme():
    (budget,) = {
        cell.config.NEq_config.budget for cell in cells(read_sweep(ROOT / "policies/int8/velocity.yaml"))
    }
    config = load(["--config-file", "int8", "--weights", "none"], "train")[1].config
    network, table = open_network(config, config.data_provider.new_num_classes)
    lists = StaticScheme.of_config(config.backward_config)
    biases = bias_layers(table, lists)
    model = CostModel(network, table, StepSpec.of_config(config, (64,), biases))
    scores = POLICIES["SU"].score(SelectionState(table, network, torch.Generator(), lists))
    assert model.step(table.selection(scores > -torch.inf)).training_bytes == budget


def test_there_is_a_policy_for_every_study():
    names = {str(path.relative_to(ROOT / "policies").with_suffix("")) for path in FILES}
    c10 = ["mcunet", "mcunet_su", "mcunet_baseline", "mbv2_su"]
    c10 += [f"{net}{kind}" for net in RATES if "-" not in net for kind in ("", "_baseline", "_fixed_budget")]
    others = ["mbv2", "mbv2_su", "mbv2_baseline", "resnets", "resnets_baseline"]
    sets = ["c100", "cub", "flowers", "food", "pets", "vww"]
    wanted = {f"c10/{name}" for name in c10} | {f"{folder}/{name}" for folder in sets for name in others}
    office = permutations(("amazon", "webcam", "dslr"), 2)
    pacs = permutations(("photo", "art_painting", "cartoon", "sketch"), 2)
    domains = [f"office31_{a}_{b}" for a, b in office] + [f"pacs_{a}_{b}" for a, b in pacs]
    domains += ["digits_mnist_usps", "digits_usps_mnist"]
    assert names == wanted | {f"adaptation/{name}" for name in domains} | {
        "test_policy", "digits/velocity", "digits/baseline", "digits/su", "digits/memory", "digits/rates",
        *(f"int8/{name}" for name in ("qas", "last_layers", "velocity")),
        *(f"int8/schemes_{net}" for net in ("mcunet", "mbv2", "proxyless")),
    }  # fmt: skip


def test_the_page_says_what_is_so(tmp_path):
    text = (ROOT / "docs/sweeps.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    path = tmp_path / "sweep.yaml"
    path.write_text(example)
    assert len(cells(read_sweep(path))) == 18
    path.write_text(
        "program: train_classification.py\nmethod: grid\nparameters:\n  scheme: {value: mbv2_scheme_1}\n"
        "  net_name: {values: [mbv2, resnet18]}\n  neuron_selection: {values: [velocity, SU]}\n"
    )
    with pytest.raises(UserError) as caught:
        cells(read_sweep(path))
    assert f"'sweep.yaml': {caught.value}\n" in text
    found = cells(read_sweep(ROOT / "policies/test_policy.yaml"))
    assert all(f"runs/{run_folder(cell.config)}\n" in text for cell in found)
    counts = dict(re.findall(r"^\| ([\w/]+) \|.* (\d+) \|$", text, re.M))
    assert len(counts) == 13
    for name, count in counts.items():
        files = [path for path in FILES if str(path.with_suffix("")).endswith(name.replace("DATASET", ""))]
        assert files
        assert {header(path)[-1] for path in files} == {f"{count} cells."}


def test_the_budgets_that_the_headers_tell():
    said = {}
    for cell in cells(read_sweep(ROOT / "policies/pets/resnets.yaml")):
        net_name = cell.config.net_config.net_name
        said[net_name] = round(cell.config.NEq_config.ratio * tables(net_name).total_parameters)
    assert said == {"pre_trained_resnet18": 980715, "pre_trained_resnet50": 2059888}
    ratios = {cell.config.NEq_config.ratio for cell in cells(read_sweep(ROOT / "policies/pets/mbv2.yaml"))}
    total = tables("mbv2").total_parameters
    assert sorted(round(ratio * total) for ratio in ratios) == [192312, 464640, 675540]
