import pytest
import torch

from neq.compression import deployment
from neq.compression.deployment import Deployment, deploy, fewest
from neq.results.best_network import load_best
from neq.results.int8_onnx import int8_forms, onnx_runner
from neq.results.onnx_file import onnx_content
from neq.utils.errors import UserError


@pytest.mark.parametrize("needed", [0, 1, 2, 3, 6, 7, 13, 20])
def test_the_fewest_that_reach_an_agreement_are_found(needed):
    calls = []

    def made(count):
        calls.append(count)
        return b"", 1.0 if count >= needed else 0.5

    assert fewest(made, 20, 0.9) == (needed, (b"", 1.0))
    assert len(calls) == len(set(calls)) <= 10


def test_where_none_reaches_it_all_are_taken():
    assert fewest(lambda count: (b"", 0.1), 5, 0.9) == (5, (b"", 0.1))


@pytest.fixture(scope="module")
def content(tiny_run):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    return onnx_content(load_best(tiny_run))[0]


@pytest.mark.slow
def test_layers_are_kept_in_floating_point_by_what_they_cost(tiny_run, content, monkeypatch):
    best = load_best(tiny_run)
    images = torch.randn(40, 3, best.image_size, best.image_size)
    monkeypatch.setattr(deployment, "onnx_content", lambda best: (content, None))
    with int8_forms(content, images[:8]) as forms:
        layers = forms.layers()
        whole, part = forms.static("u8s8"), forms.static("u8s8", only=layers[2:3])
        all_but = forms.static("u8s8", without=layers[:2])
        none = forms.static("u8s8", without=layers, layers_only=True)
    expected = onnx_runner(content, 1)(images)
    errors = [
        float((onnx_runner(each, 1)(images) - expected).square().mean()) for each in (whole, all_but, part)
    ]
    assert errors[0] > errors[2] > 0
    torch.testing.assert_close(onnx_runner(none, 1)(images), expected)  # so any agreement can be reached
    assert errors[0] != errors[1]
    assert len({whole, all_but, part}) == 3

    monkeypatch.setattr(deployment, "ranked_layers", lambda forms, types, layers, *_: list(layers))
    tried = []

    def taken(made, most, least):
        tried.append((most, least))
        return 2, (made(2)[0], 0.97)

    monkeypatch.setattr(deployment, "fewest", taken)
    static = deploy(best, "static", images, 1.0)
    assert isinstance(static, Deployment)
    assert static.types in ("u8s8", "s8s8")
    assert (static.in_float, static.compared, static.layers) == ((), 32, len(layers))
    enough = deploy(best, "mixed", images, 1e-9)
    assert (enough.in_float, enough.agreement, tried) == ((), static.agreement, [])
    monkeypatch.setattr(deployment, "STATIC", ("u8s8",))
    monkeypatch.setattr(deployment, "_outputs", lambda content, images: torch.randn(len(images), 4))
    mixed = deploy(best, "mixed", images, 0.96)
    assert (mixed.in_float, mixed.agreement, tried) == (tuple(layers[:2]), 0.97, [(len(layers), 0.96)])


@pytest.mark.slow
def test_the_layer_that_costs_most_comes_first(tiny_run, content):
    best = load_best(tiny_run)
    images = torch.randn(12, 3, best.image_size, best.image_size)
    with int8_forms(content, images) as forms:
        layers = forms.layers()[:3]
        expected = onnx_runner(content, 1)(images)
        ranked = deployment.ranked_layers(forms, "u8s8", layers, images, expected)
        costs = {}
        for layer in layers:
            outputs = onnx_runner(forms.static("u8s8", only=[layer], images=8), 1)(images)
            changed = int((outputs.argmax(1) != expected.argmax(1)).sum())
            costs[layer] = (changed, float((outputs - expected).square().mean()))
    assert ranked == sorted(layers, key=costs.__getitem__, reverse=True)


def test_an_unknown_form_and_missing_packages_are_refused(tiny_run, monkeypatch):
    best = load_best(tiny_run)
    with pytest.raises(UserError, match="'int4' is unknown"):
        deploy(best, "int4", torch.zeros(5, 3, 24, 24), 0.9)
    monkeypatch.setattr("neq.results.onnx_file.missing_packages", lambda: ["onnx"])
    with pytest.raises(UserError, match="ONNX files need onnx"):
        deploy(best, "static", torch.zeros(5, 3, 24, 24), 0.9)
