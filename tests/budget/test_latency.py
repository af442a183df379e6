"""The latency model: what it counts, that it fits, and that no choice exceeds a budget by its prediction."""

import copy

import pytest
import torch

from neq.budget import Budget, BudgetAllocator, CostModel, Latency, StepSpec, calibrate
from neq.budget.latency import TERMS, Amounts, calibration_selections, measure
from neq.config import POLICIES
from neq.networks.neurons import neuron_table
from neq.selection import SelectionState
from neq.utils.errors import UserError
from tests.toys import SHAPE, toy

CPU = torch.device("cpu")
NANOSECONDS = {
    **{"step": 40_000.0, "dense_macs_passed": 0.2, "grouped_macs_passed": 0.5, "values_passed": 3.0},
    **{"layers_passed": 900.0, "dense_macs_chosen": 0.1, "grouped_macs_chosen": 0.4, "values_sliced": 1.5},
    **{"layers_chosen": 700.0, "inputs_chosen": 0.25, "weights_chosen": 6.0},
}


def model_of(norm_mode="frozen", unit="neuron", **settings):
    network = toy(0, torch.float32).to(memory_format=torch.channels_last)
    return CostModel(
        network, neuron_table(network, SHAPE, unit=unit), StepSpec((4,), SHAPE, norm_mode, **settings)
    )


def random_choices(model, count=12):
    stream = torch.Generator().manual_seed(0)
    draws = torch.rand(count, len(model.table), generator=stream)
    return [draw < share for draw, share in zip(draws, torch.linspace(0, 1, count), strict=True)]


def allocator_of(model, budget):
    return BudgetAllocator(model, budget, lambda: Latency(NANOSECONDS, 0.0).times(model))


def test_the_coefficients_of_exact_times_are_found():
    known = torch.tensor([NANOSECONDS[name] for name in TERMS], dtype=torch.float64)
    known[[1, 6]] = 0  # some work may take no time
    amounts = torch.rand(40, len(TERMS), dtype=torch.float64) * 10 ** torch.arange(len(TERMS))
    found = Latency.fit(amounts, (amounts @ known / 1e9).tolist())
    assert [found.nanoseconds.get(name, 0.0) for name in TERMS] == pytest.approx(known.tolist(), abs=1e-6)
    assert found.error < 1e-9
    assert Latency.of_state(found.state()) == found


@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
def test_what_is_measured_shows_every_term_apart(norm_mode):
    """Fitted to exact times of the calibration's selections alone, other selections come out too."""
    model = model_of(norm_mode)
    amounts, exact = Amounts.of_model(model), Latency(NANOSECONDS, 0.0).times(model)
    selections = calibration_selections(model.table)
    found = Latency.fit(
        torch.stack([amounts.of(each) for each in selections]),
        [exact.of(each) / 1e9 for each in selections],
    )
    assert found.error < 0.01
    times = found.times(model)
    for chosen in random_choices(model):
        assert times.of(chosen) == pytest.approx(exact.of(chosen), rel=0.02)


@pytest.mark.parametrize("unit", ["neuron", "input_channel"])
@pytest.mark.parametrize("norm_mode", ["train", "frontier", "frozen"])
def test_the_amounts_are_those_of_the_step(norm_mode, unit):
    model = model_of(norm_mode, unit)
    head, amounts = model.spec.images * model.table.head_macs, Amounts.of_model(model)
    for chosen in random_choices(model, 5):
        found = dict(zip(TERMS, amounts.of(chosen).tolist(), strict=True))
        step = model.step(model.table.selection(chosen))
        passed = found["dense_macs_passed"] + found["grouped_macs_passed"]
        assert passed + (head if chosen.any() or norm_mode == "train" else 0) == step.input_gradient_macs
        weights = found["dense_macs_chosen"] + found["grouped_macs_chosen"]
        assert weights + head == step.weight_gradient_macs
        assert found["weights_chosen"] == step.parameters
        assert found["layers_chosen"] == len(model.table.selection(chosen))


@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("norm_mode", ["train", "frozen"])
def test_no_choice_exceeds_a_budget_in_time_by_its_prediction(norm_mode, share):
    model = model_of(norm_mode)
    whole = allocator_of(model, Budget("time", ratio=1))
    least, most = whole.costs.base, whole.limit
    allocator = allocator_of(model, Budget("time", round(least + share * (most - least))))
    assert (allocator.costs.base, allocator.total) == (least, most)
    stream = torch.Generator().manual_seed(0)
    velocity = torch.rand(len(model.table), generator=stream, dtype=torch.float64)
    state = SelectionState(model.table, model.plain_network, stream, None, velocity)
    for policy, aware in (("random", False), ("velocity", True)):
        choice = allocator.choose(POLICIES[policy], state, aware)
        assert choice.unit == "time"
        assert allocator.used(choice.chosen) == choice.used <= choice.limit
        amounts = Amounts.of_model(model).of(choice.chosen)
        predicted = sum(NANOSECONDS[name] * float(each) for name, each in zip(TERMS, amounts, strict=True))
        assert 0 <= choice.used - predicted <= 1
        assert choice.used <= allocator.costs.total(choice.chosen)
    everything = allocator_of(model, Budget("time", ratio=1)).choose(POLICIES["random"], state)
    assert everything.chosen.all()


def test_a_budget_below_what_every_step_takes_is_refused_with_both_figures():
    model = model_of()
    least = allocator_of(model, Budget("time", ratio=1)).costs.base
    allocator = allocator_of(model, Budget("time", 5_000))
    with pytest.raises(UserError, match=rf"a budget of 0\.005 ms .*forward pass.* need {least / 1e6:.3f} ms"):
        assert allocator.limit


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "precision": "bf16", "saved_precision": "bf16"},
        {"optimizer": "adam", "micro_batch": 2},
        {"optimizer": "sgd", "bias_layers": ("depthwise",)},
    ],
)
def test_measuring_leaves_network_and_random_stream_as_they_were(settings):
    model = model_of(**settings)
    before, stream = copy.deepcopy(model.plain_network.state_dict()), torch.get_rng_state()
    seconds = measure(model, calibration_selections(model.table)[:3], CPU, rounds=1)
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert torch.equal(torch.get_rng_state(), stream)
    for name, value in model.plain_network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in model.plain_network.parameters())


def test_a_device_is_calibrated_by_its_own_steps(monkeypatch):
    """Whatever the machine's speed: here a clock on which every step takes a millisecond."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("neq.budget.latency._clock", lambda device: lambda: next(ticks) / 1e3)
    model = model_of("train")
    times = calibrate(model, CPU).times(model)
    for chosen in random_choices(model):
        assert times.of(chosen) == pytest.approx(10**6, rel=0.01)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"nanoseconds": [], "error": 0.0},
        {"nanoseconds": {"step": -1.0}, "error": 0.0},
        {"nanoseconds": {"step": float("nan")}, "error": 0.0},
        {"nanoseconds": {"step": 1.0, "another": 1.0}, "error": 0.0},
        {"nanoseconds": {"step": 1.0}, "error": None},
        {"nanoseconds": {"step": "1"}, "error": 0.0},
    ],
)
def test_what_is_no_latency_model_is_refused(state):
    with pytest.raises(ValueError, match="latency model"):
        Latency.of_state(state)
