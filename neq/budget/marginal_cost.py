"""Marginal costs: what each neuron and each layer adds to the cost of a step.

In bytes they come from one step's forward passes over fake tensors with a gradient that flows through the
whole network, so they are exact where layers follow one another, and a little too high or too low where they
share an input or lie on parallel branches. `BudgetAllocator` compares every choice with the exact cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neq.backward.recompute import was_recomputable
from neq.budget.cost_model import CostModel, input_gradient_macs
from neq.budget.knapsack import MarginalCosts
from neq.budget.step_spec import StepSpec
from neq.networks.neurons import NORMS, Layer
from neq.networks.parameter_slice import ParameterSlice


def marginal_costs(model: CostModel, unit: str) -> MarginalCosts:
    """What neurons, layers and depth add to the cost of a step.

    Args:
        model: of the step.
        unit: "parameters", "bytes" of a step's training memory, or "macs" of a step's backward pass for one
            image of its batch.
    """
    table = model.table
    if unit == "parameters":
        return MarginalCosts.per_neuron(table.parameters)
    sizes = torch.tensor([layer.neurons for layer in table.layers])
    layer = torch.arange(len(sizes)).repeat_interleave(sizes)
    if unit == "macs":
        base = _passed_on(model, None)
        depth = [_passed_on(model, chosen) - base for chosen in table.layers]
        # Passes for each image of the batch; rounded up, so that a budget is never exceeded.
        passes = -(-model.spec.images // model.spec.batch_size)
        return MarginalCosts(
            table.macs * passes,
            layer,
            torch.zeros_like(sizes),
            torch.tensor(depth).clamp(min=0) * passes,
            (base + model.head_gradient_macs) * passes,
        )
    assert unit == "bytes", unit
    return _byte_costs(model, layer, sizes)


def _parts(model: CostModel, chosen: Layer | None) -> dict[str, ParameterSlice]:
    """What trains if one neuron of a layer, or none at all, is chosen."""
    selection = {} if chosen is None else {chosen.name: torch.tensor([0])}
    return model.spec.trainable_slices(model.network, model.table, selection)


def _passed_on(model: CostModel, chosen: Layer | None) -> int:
    """MACs of the input gradients, for one image, if a layer is the earliest chosen one."""
    return sum(input_gradient_macs(model.table, _parts(model, chosen)).values())


def _byte_costs(model: CostModel, layer_of: Tensor, sizes: Tensor) -> MarginalCosts:
    """Of training memory; L layers have `sizes` neurons each, int64 [L]."""
    table, spec = model.table, model.spec
    none, norms = model.step({}), _norm_bytes(model, None)
    is_cut = spec.checkpoint_segments > 1 or spec.checkpoint_cuts
    none_kept = model.kept({}).bytes if is_cut else none.saved_bytes - spec.extra_saved_bytes
    first = min(table.layers, key=lambda layer: layer.order)
    kept = model.kept({first.name: torch.tensor([0])})
    neuron, opening, depth = [], [], []
    for layer in table.layers:
        module = model.network.get_submodule(layer.name)
        own = layer.parameters * model.bytes_per_value(f"{layer.name}.weight")
        if module._parameters.get("bias") is not None and layer.axis == 0:
            own += model.bytes_per_value(f"{layer.name}.bias")
        position, inputs = kept.inputs[layer.name]
        x = inputs[0]
        width = layer.kind.widths(module).saved_input or _element_size(x, spec)
        size = sum(each.numel() for each in inputs) * width
        # Parts of the input that are kept one by one: the channels of a group, or each chosen channel.
        parts = layer.neurons if layer.axis == 1 else layer.kind.groups(module)
        if parts > 1:
            shares = was_recomputable(x, by_channel=layer.kind.is_conv)
            neuron.append(own if shares else own + size // parts)
            opening.append(0)
        else:
            as_it_is = spec.saved_precision == "exact" and x.element_size() == width
            shares = was_recomputable(x) or (as_it_is and kept.keeps(x))
            neuron.append(own)
            opening.append(0 if shares else size)
        behind = kept.bytes_from(position) - none_kept + _norm_bytes(model, layer) - norms
        if spec.norm_mode != "train" and parts == 1:
            behind += size - opening[-1]  # nothing before it keeps its input
        depth.append(0 if spec.norm_mode == "train" else max(0, behind))
    return MarginalCosts(
        torch.tensor(neuron).repeat_interleave(sizes),
        layer_of,
        torch.tensor(opening),
        torch.tensor(depth),
        none.training_bytes,
    )


def _norm_bytes(model: CostModel, chosen: Layer | None) -> int:
    """Of gradients and state of the norms that train if a layer is the earliest chosen one."""
    parts = _parts(model, chosen)
    return sum(model.held_bytes({name: parts[name] for name in parts if _is_of_a_norm(name, model)}))


def _is_of_a_norm(name: str, model: CostModel) -> bool:
    return isinstance(model.network.get_submodule(name.rpartition(".")[0]), NORMS)


def _element_size(x: Tensor, spec: StepSpec) -> int:
    is_half = "bf16" in (spec.precision, spec.saved_precision)
    return min(2, x.element_size()) if is_half else x.element_size()
