"""Latency models that were fitted before, kept as files: a device is measured once for each kind of step."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from filelock import FileLock
from torch import nn

import neq
from neq.budget.cost_model import CostModel
from neq.budget.latency import Latency, calibrate
from neq.budget.step_spec import StepSpec
from neq.budget.step_time import StepTime, calibrate_step_time
from neq.networks.neurons import NeuronTable
from neq.utils.atomic_files import write_text
from neq.utils.cpu import cpu_model

Fitted = TypeVar("Fitted", Latency, StepTime)


def kept_latency(model: CostModel, device: torch.device, folder: Path, *more: object) -> Latency:
    """The latency model of a step on a device: the one in the folder, else measured and put there.

    Args:
        model: of the step.
        device: that trains.
        folder: of the files; it need not exist.
        more: whatever else changes the time of a step.
    """
    # Biases that train beside hardly take time, nor does the head: one model serves every policy.
    spec = replace(model.spec, bias_layers=(), train_head=True)
    model = CostModel(model.plain_network, model.table, spec)
    path = folder / f"{_key(model, device, *more)}.json"
    return _kept(path, lambda: calibrate(model, device), Latency.of_state, Latency.state)


def kept_step_time(
    network: nn.Module, table: NeuronTable, spec: StepSpec, device: torch.device, folder: Path
) -> StepTime:
    """The time of a network's steps on a device: the one in the folder, else measured and put there.

    Args:
        network, table: whose steps they are.
        spec: of a step; its batch, image, norm mode and optimizer count.
        device: that trains.
        folder: of the files; it need not exist.
    """
    spec = StepSpec((spec.batch_size,), spec.image_shape, spec.norm_mode, spec.optimizer, spec.precision)
    path = folder / f"{_key(CostModel(network, table, spec), device, 'step time')}.json"

    def measured() -> StepTime:
        return calibrate_step_time(network, table, spec, device)

    return _kept(path, measured, lambda state: StepTime(**state), asdict)


def _kept(
    path: Path,
    measure: Callable[[], Fitted],
    of_state: Callable[[dict[str, Any]], Fitted],
    to_state: Callable[[Fitted], dict[str, Any]],
) -> Fitted:
    """What a file holds, else what is measured, which is put there."""
    with _locked(path.with_suffix(".lock")):
        # A damaged file is measured anew.
        with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):
            state = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(state, dict):
                return of_state(state)
        found = measure()
        with contextlib.suppress(OSError):  # a full or read-only disk only means measuring again
            write_text(path, json.dumps(to_state(found)))
        return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Runs of a sweep that start together wait for one that measures; where nothing can be written, none."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(path))
        yield


def _key(model: CostModel, device: torch.device, *more: object) -> str:
    """Changes with the device, torch, neq, the network, the step and `more`."""
    on_cuda = device.type == "cuda"
    parts = (
        torch.cuda.get_device_name(device) if on_cuda else cpu_model(),
        torch.version.cuda if on_cuda else torch.backends.cpu.get_cpu_capability(),
        (device.type, torch.get_num_threads(), torch.__version__, neq.__version__),
        # As text, it names every module with its sizes.
        (str(model.plain_network), [(layer.name, layer.axis) for layer in model.table.layers]),
        model.spec,
        *more,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
