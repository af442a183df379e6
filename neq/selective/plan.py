"""The plan: what training calls in place of the network, derived from network, selection and norm mode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from neq.errors import UserError
from neq.neurons import NORMS, NeuronTable, Selection
from neq.selective import layers

NORM_MODES = ("train", "frontier", "frozen")


class Plan:
    """A network of which only a selection trains, at the cost of the selection.

    The plain network keeps owning every weight: evaluate, save and export that one. Call the plan like the
    network while training, give `parameters()` to any optimizer, and call `write_back()` after each step:
    chosen rows are small leaves of their own, and it copies them into the network's weights. (Calling the
    plan writes back too, so that only the plain network can ever lag behind, by one step.)

    Args:
        network: any module; its tensors are used in place.
        table: its neurons.
        selection: layer name -> chosen channels, ascending. The head always trains.
        norm_mode: "train" (batch statistics, all affines train), "frontier" (batch statistics; affines train
            from the earliest chosen layer on, in the order of calls), or "frozen" (running statistics,
            affines frozen).
        bias_layers: layers whose bias trains whole; in norm mode "frozen", where a batch norm takes the
            layer's output, that norm's bias.

    Raises:
        UserError: unknown norm mode, layer or channel.
    """

    def __init__(
        self,
        network: nn.Module,
        table: NeuronTable,
        selection: Selection,
        norm_mode: str = "frontier",
        bias_layers: Collection[str] = (),
    ) -> None:
        if norm_mode not in NORM_MODES:
            raise UserError(f"norm_mode {norm_mode!r} is unknown; allowed: {', '.join(NORM_MODES)}")
        self.network = network
        self.table = table
        self.norm_mode = norm_mode
        self.selection = _checked(table, selection)
        self._leaves: dict[str, nn.Parameter] = {}
        self._channels: dict[str, Tensor] = {}
        self._written: dict[str, int] = {}
        self._module = layers.view(network, self._made(frozenset(bias_layers)))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.write_back()
        return self._module(*args, **kwargs)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that trains, by the name of the network's parameter that it is, or whose rows it is."""
        return iter(self._leaves.items())

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that trains: chosen rows and their biases, the norms of the norm mode, the head."""
        return iter(self._leaves.values())

    def channels(self, name: str) -> Tensor | None:
        """The rows of the network's parameter that a named parameter holds; none: all of them, in place."""
        return self._channels.get(name)

    def trained_values(self) -> dict[str, int]:
        """How many values train: chosen weights, biases of selectable layers, norms, head."""
        counts = {"weights": 0, "biases": 0, "norms": 0, "head": 0}
        for name, leaf in self._leaves.items():
            module_name, _, key = name.rpartition(".")
            if module_name == self.table.head:
                kind = "head"
            elif isinstance(self.network.get_submodule(module_name), NORMS):
                kind = "norms"
            else:
                kind = "biases" if key == "bias" else "weights"
            counts[kind] += leaf.numel()
        return counts

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies the chosen rows into the plain network, where a step has changed them."""
        for name, channels in self._channels.items():
            leaf = self._leaves[name]
            if leaf._version != self._written[name]:
                self.network.get_parameter(name).index_copy_(0, channels, leaf)
                self._written[name] = leaf._version

    def _made(self, bias_layers: frozenset[str]) -> dict[nn.Module, nn.Module]:
        """The view's own modules: selectable layers, norms and the head."""
        made: dict[nn.Module, nn.Module] = {}
        norm_biases = set()
        for layer in self.table.layers:
            module = self.network.get_submodule(layer.name)
            whole_bias = layer.name in bias_layers
            if whole_bias and self.norm_mode == "frozen" and layer.norm is not None:
                norm_biases.add(layer.norm)
            made[module] = self._selectable(layer.name, module, whole_bias)
        frontier = self._frontier()
        for name, module in self.network.named_modules():
            if isinstance(module, NORMS):
                trains = self.norm_mode == "train" or (
                    self.norm_mode == "frontier" and self.table.norm_order.get(name, -1) > frontier
                )
                made[module] = self._norm(name, module, trains, name in norm_biases)
        head = self.network.get_submodule(self.table.head)
        made[head] = layers.shadow(head, self._in_place(self.table.head, head))
        return made

    def _frontier(self) -> float:
        """The position in the order of calls of the earliest chosen layer; infinite if none is chosen."""
        order = {layer.name: layer.order for layer in self.table.layers}
        return min((order[name] for name in self.selection), default=float("inf"))

    def _selectable(self, name: str, module: nn.Module, whole_bias: bool) -> nn.Module:
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        channels = self.selection.get(name)
        if channels is not None and len(channels) == len(module.weight):
            # All rows: the network's own parameters train, through stock operations.
            return layers.shadow(module, self._in_place(name, module))
        if channels is not None:
            channels = channels.to(module.weight.device)
        rows = None if channels is None else self._rows(f"{name}.weight", module.weight, channels)
        bias = self._bias(name, module.bias, channels, whole_bias)
        if isinstance(module, nn.Conv2d):
            return layers.conv(module, rows, bias, channels)
        return layers.linear(module, rows, bias, channels)

    def _bias(
        self, name: str, bias: Tensor | None, channels: Tensor | None, whole: bool
    ) -> Callable[[], Tensor | None]:
        """Gives a layer's bias at each call, with whatever trains in it."""
        if bias is None:
            return lambda: None
        if whole:
            self._leaf(f"{name}.bias", bias)
            return lambda: bias
        if channels is None:
            return bias.detach
        rows = self._rows(f"{name}.bias", bias, channels)
        return lambda: bias.detach().index_copy(0, channels, rows)

    def _norm(self, name: str, module: nn.Module, trains: bool, bias_trains: bool) -> nn.Module:
        if self.norm_mode == "frozen" and layers.is_plain_batch_norm(module):
            bias_trains = bias_trains and module.bias is not None
            if bias_trains:
                self._leaf(f"{name}.bias", module.get_parameter("bias"))
            return layers.frozen_batch_norm(module, bias_trains)
        made = layers.shadow(module, self._in_place(name, module) if trains else ())
        if self.norm_mode == "frozen":
            made.eval()
        return made

    def _in_place(self, name: str, module: nn.Module) -> tuple[str, ...]:
        """Lets all of a module's own parameters train in place."""
        own = [(key, p) for key, p in module._parameters.items() if p is not None]
        for key, parameter in own:
            self._leaf(f"{name}.{key}", parameter)
        return tuple(key for key, _ in own)

    def _leaf(self, name: str, parameter: Tensor) -> None:
        """Lets a parameter of the plain network train in place."""
        assert isinstance(parameter, nn.Parameter)
        parameter.requires_grad_(True)
        self._leaves[name] = parameter

    def _rows(self, name: str, parameter: Tensor, channels: Tensor) -> nn.Parameter:
        """A small leaf with the chosen rows of a parameter."""
        leaf = nn.Parameter(parameter.detach().index_select(0, channels))
        self._leaves[name] = leaf
        self._channels[name] = channels
        self._written[name] = leaf._version
        return leaf


def _checked(table: NeuronTable, selection: Selection) -> dict[str, Tensor]:
    """The selection with empty layers left out, checked against the table."""
    neurons = {layer.name: layer.neurons for layer in table.layers}
    for name, channels in selection.items():
        if name not in neurons:
            raise UserError(f"layer {name!r} is not selectable; selectable are {', '.join(neurons)}")
        if len(channels) and not (int(channels.min()) >= 0 and int(channels.max()) < neurons[name]):
            raise UserError(
                f"layer {name!r} has the channels 0 .. {neurons[name] - 1}, not {channels.tolist()}"
            )
        if not torch.equal(channels, channels.unique()):
            raise UserError(f"the channels of layer {name!r} must be ascending, each once")
    return {name: channels for name, channels in selection.items() if len(channels)}
