"""The int8 ONNX file of a network that onnxruntime deploys, and what it costs in agreement.

- `dynamic`: weights of linear layers in int8 alone.
- `static`: every layer in int8, activations in uint8 or int8, whichever agrees more often with floating point
  on unlabelled images.
- `mixed`: as static where that reaches a given agreement. Else convolutions and linear layers alone are int8,
  and those of them that cost most stay in floating point too, as few as reach it. Layers are ranked by what
  each costs alone in int8: the images whose class changes and, of as many, the mean squared distance of the
  outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neq.results.best_network import BestNetwork
from neq.results.int8_onnx import STATIC, Int8Forms, int8_forms, onnx_runner
from neq.results.onnx_file import check_packages, is_as_written, onnx_content
from neq.utils.errors import UserError, unknown_name
from neq.wings.compression import AGREEMENT, FORMS

# Images that layers are ranked with are calibrated on so many, which takes a fraction of the time of all.
_RANKED = 8
_BATCH = 32


@dataclass(frozen=True)
class Deployment:
    """An int8 ONNX file.

    Args:
        content: of the file.
        form: one of FORMS.
        types: of activations and weights, one of STATIC; empty where it is dynamic.
        agreement: share of the compared images that have the class of floating point.
        compared: how many these were.
        layers: convolutions and linear layers.
        in_float: those of them that stay in floating point, by the names of their nodes.
    """

    content: bytes
    form: str
    types: str
    agreement: float
    compared: int
    layers: int
    in_float: tuple[str, ...] = ()


def deploy(best: BestNetwork, form: str, images: Tensor, least: float = AGREEMENT) -> Deployment:
    """The int8 file of a network.

    Args:
        best: the network.
        form: one of FORMS.
        images: unlabelled ones, float32 [N, 3, S, S]: every fifth calibrates, the others are compared.
        least: agreement that `mixed` reaches, above 0 and at most 1.

    Raises:
        UserError: packages are missing, or a network of codes.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    check_packages()
    if is_as_written(best):
        raise UserError(f"{best.folder} is an int8 network already; neq export writes it as ONNX")
    content, _ = onnx_content(best)
    calibrates = torch.arange(len(images)) % 5 == 0
    shown = images[~calibrates]
    expected = _outputs(content, shown)

    def agreement(made: bytes) -> float:
        return float((_outputs(made, shown).argmax(1) == expected.argmax(1)).double().mean())

    with int8_forms(content, images[calibrates]) as forms:
        layers = forms.layers()
        if form == "dynamic":
            made = forms.dynamic()
            return Deployment(made, form, "", agreement(made), len(shown), len(layers))
        tried = {types: forms.static(types) for types in STATIC}
        agreements = {types: agreement(made) for types, made in tried.items()}
        types = max(STATIC, key=lambda each: agreements[each])  # of equal ones u8s8, the faster
        found = tried[types], agreements[types]
        in_float: tuple[str, ...] = ()
        if form == "mixed" and found[1] < least:
            ranked = ranked_layers(forms, types, layers, shown, expected)

            def mixed(count: int) -> tuple[bytes, float]:
                made = forms.static(types, without=ranked[:count], layers_only=True)
                return made, agreement(made)

            count, found = fewest(mixed, len(layers), least)
            in_float = tuple(ranked[:count])
    return Deployment(found[0], form, types, found[1], len(shown), len(layers), in_float)


def ranked_layers(
    forms: Int8Forms, types: str, layers: Sequence[str], images: Tensor, expected: Tensor
) -> list[str]:
    """The layers, those first that cost most agreement when they alone are int8.

    Args:
        forms: of the file.
        types: one of STATIC.
        layers: names of nodes.
        images: float32 [N, 3, S, S].
        expected: outputs of floating point for them, [N, classes].
    """
    costs = {}
    for layer in layers:
        outputs = _outputs(forms.static(types, only=[layer], images=_RANKED), images)
        changed = int((outputs.argmax(1) != expected.argmax(1)).sum())
        costs[layer] = changed, float((outputs - expected).square().mean())
    return sorted(layers, key=lambda layer: costs[layer], reverse=True)


def fewest(
    made: Callable[[int], tuple[bytes, float]], most: int, least: float
) -> tuple[int, tuple[bytes, float]]:
    """The smallest count that reaches an agreement, if agreement never falls with the count.

    Args:
        made: returns what a count makes, and its agreement; called about 2 log2(most) times.
        most: the count that is taken where none reaches it.
        least: the agreement.
    """
    low, high = -1, 0
    found = made(high)
    while found[1] < least and high < most:
        low, high = high, min(most, max(1, 2 * high))
        found = made(high)
    while high - low > 1 and found[1] >= least:
        middle = (low + high) // 2
        candidate = made(middle)
        if candidate[1] >= least:
            high, found = middle, candidate
        else:
            low = middle
    return high, found


def _outputs(content: bytes, images: Tensor) -> Tensor:
    run = onnx_runner(content, torch.get_num_threads())
    return torch.cat([run(batch.contiguous()) for batch in images.split(_BATCH)])
