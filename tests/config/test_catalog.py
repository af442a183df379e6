"""The catalogs of networks, data sets and schemes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from neq.config import catalog
from neq.config.catalog import (
    DatasetEntry,
    NetworkEntry,
    SchemeEntry,
    check_lists,
    dataset,
    dataset_name,
    datasets,
    is_pretrained,
    network,
    networks,
    read_entries,
    scheme,
    schemes,
)
from neq.config.schema import MeanStd, Section
from neq.utils.errors import UserError


def test_networks() -> None:
    assert network("mbv2") == NetworkEntry(
        input_size=224, convs=52, conv_weights=2189760, torchvision="mobilenet_v2"
    )
    assert network("pre_trained_mbv2") == network("mbv2").model_copy(update={"pretrained": True})
    with pytest.raises(UserError, match="'mcunet-in1_folded' has no weights to download"):
        network("pre_trained_mcunet-in1_folded")
    tiny = network("mcunet-in0")
    assert tiny.first == 24
    assert tiny.rows[:2] == ((1, 16, 1, 3), (4, 16, 2, 5))
    assert len(tiny.rows) == 15


def test_a_family_says_what_starts_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_families", {})
    monkeypatch.setattr(catalog, "_starts_trained", {})
    catalog.register_family("always", lambda name: {"input_size": 8, "builder": "module:build"})
    catalog.register_family(
        "asked",
        lambda name: {"input_size": 8, "builder": "module:build"},
        lambda name, weights: (name, weights) == ("one", "default"),
    )
    assert is_pretrained("always:one", "default")
    assert not is_pretrained("always:one", "none")
    assert is_pretrained("asked:one", "default")
    assert not is_pretrained("asked:two", "default")
    assert not is_pretrained("asked:one", "file.json")
    with pytest.raises(ValueError, match="asked:NAME are registered already"):
        catalog.register_family("asked", lambda name: {})


FIELD_NAMES = [
    *("mbv2", "resnet18", "resnet50", "pre_trained_mbv2", "pre_trained_resnet18", "pre_trained_resnet50"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "resnext50", "pre_trained_mobilenet_v3_small"),
    *("pre_trained_mobilenet_v3_large", "pre_trained_resnext50", "mcunet-in0", "mcunet-in1", "mcunet-in2"),
    *("mcunet-in3", "mcunet-in4", "proxyless-w0.3", "mbv2-w0.35"),
]


def test_the_networks_of_the_field_are_there_and_state_their_totals() -> None:
    assert set(FIELD_NAMES) <= networks().keys()
    for entry in networks().values():
        assert entry.convs is not None
        assert entry.total_weights is not None


def test_networks_of_the_libraries() -> None:
    assert network("torchvision:inception_v3") == NetworkEntry(input_size=299, torchvision="inception_v3")
    assert network("torchvision:vit_b_16").total_weights is None
    assert network("pre_trained_timm:convnext_atto").pretrained
    with pytest.raises(UserError, match="'tv:resnet18' is unknown"):
        network("tv:resnet18")


def test_pretrained_weights_bring_the_input_that_they_expect() -> None:
    plain = MeanStd(mean=(0, 0, 0), std=(1, 1, 1))
    assert network("pre_trained_timm:mobilevit_xxs").mean_std == plain
    assert network("timm:mobilevit_xxs").mean_std is None
    assert network("pre_trained_timm:resnet18").mean_std is None
    half = MeanStd(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert network("mcunet-in1_folded").mean_std == half


def test_datasets() -> None:
    assert dataset("digits").classes == 10
    assert dataset("image_folder").classes is None
    assert dataset_name("digits") == "digits"
    assert dataset_name("cifar10") == "c10"
    published = {"c10": 10, "c100": 100, "vww": 2, "flowers": 102, "food": 101, "pets": 37, "cub": 200}
    assert {name: datasets()[name].classes for name in published} == published
    for entry in datasets().values():
        assert bool(entry.needs) == (entry.kind in ("download", "manual"))
    names = [name for key, entry in datasets().items() for name in (key, *entry.aliases)]
    assert len(names) == len(set(names))


def test_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = DatasetEntry(
        classes=10,
        augmentation="photo",
        mean_std=MeanStd(mean=(0, 0, 0), std=(1, 1, 1)),
        aliases=("c10",),
        opener="neq.data.digits:open_digits",
    )
    monkeypatch.setattr(catalog, "datasets", lambda: {"cifar10": entry})
    assert dataset_name("c10") == dataset_name("cifar10") == "cifar10"
    assert dataset("c10") is entry


def test_schemes() -> None:
    entry = scheme("mbv2_scheme_1")
    assert entry.network == "mbv2"
    assert entry.ratio == 0.0878233231
    assert entry.n_bias_update == 16
    assert entry.manual_weight_idx == (36, 39, 40, 41, 42, 45, 48, 49)
    assert entry.weight_update_ratio == (1, 1, 0, 0.25, 0.125, 0.125, 0.125, 0.125)
    assert scheme("scheme_fixed_budget") == SchemeEntry()


def test_every_scheme_belongs_to_a_known_network_and_has_a_budget() -> None:
    for name, entry in schemes().items():
        if name != "scheme_fixed_budget":
            assert (entry.ratio is None) != (entry.budget is None)
        if entry.network is not None:
            assert network(entry.network)


@pytest.mark.parametrize(
    ("name", "truncated"),
    [
        ("mbv2_scheme_1", 192311),
        ("mbv2_scheme_2", 330239),
        ("mbv2_scheme_3", 464639),
        ("mbv2_scheme_4", 599039),
    ],
)
def test_both_spellings_of_a_published_budget(name: str, truncated: int) -> None:
    ratio = scheme(name).ratio
    assert ratio is not None
    exact = ratio * 2189760
    assert int(exact) in (truncated, truncated + 1)
    assert round(exact) == truncated + 1


@pytest.mark.parametrize(
    ("call", "given", "near"),
    [(network, "mbv3", "mbv2"), (dataset, "digit", "digits"), (scheme, "mbv2_scheme1", "mbv2_scheme_1")],
)
def test_unknown_names(call: Callable[[str], object], given: str, near: str) -> None:
    with pytest.raises(UserError, match=f"'{given}' is unknown; did you mean '{near}'"):
        call(given)


def test_lists_of_an_su_scheme() -> None:
    check_lists((), ())
    check_lists((1, 5), (0, 1))
    with pytest.raises(ValueError, match="2 values, weight_update_ratio 1"):
        check_lists((1, 2), (1,))
    with pytest.raises(ValueError, match="has 1 after 2"):
        check_lists((2, 1), (1, 1))
    with pytest.raises(ValueError, match="has 2 after 2"):
        check_lists((2, 2), (1, 1))


@pytest.mark.parametrize(
    ("text", "kind", "problem"),
    [
        ("a: {manual_weight_idx: 1-2, weight_update_ratio: 1}", SchemeEntry, "has 2 values"),
        ("a: {ratio: 1, budget: 1}", SchemeEntry, "not both"),
        ("a: {ratoi: 1}", SchemeEntry, "'ratoi' is unknown"),
        ("a: {manual_weight_idx: 1, weight_update_ratio: 1, ratio: 1}", SchemeEntry, "states the network"),
        ("a: {torchvision: resnet18}", NetworkEntry, "input_size is missing"),
        ("a: {input_size: 32, first: 8, rows: '1,2,3'}", NetworkEntry, "a value is missing"),
        ("a: {input_size: 32}", NetworkEntry, "is built from torchvision, from timm, from cifar_blocks"),
        ("a: {input_size: 32, first: 8}", NetworkEntry, "first and rows"),
        ("a: {input_size: 32, timm: x, torchvision: y}", NetworkEntry, "from torchvision, from timm"),
        ("a: 3", DatasetEntry, "keys with values"),
    ],
)
def test_faulty_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Section], problem: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    monkeypatch.setattr(catalog, "configs_folder", lambda: tmp_path)
    with pytest.raises(UserError) as caught:
        read_entries("x.yaml", kind)
    assert problem in str(caught.value)
    assert "x.yaml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
