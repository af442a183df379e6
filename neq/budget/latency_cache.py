"""Latency models and profiles of steps that were made before, kept as files: each is made once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from filelock import FileLock
from torch import Tensor, nn

import neq
from neq.backward.fusion import traced
from neq.budget.cost_model import CostModel
from neq.budget.latency import Latency, calibrate
from neq.budget.peak import StepProfile
from neq.budget.step_spec import StepSpec
from neq.budget.step_time import StepTime, calibrate_step_time
from neq.networks.neurons import NeuronTable
from neq.utils.atomic_files import write_text
from neq.utils.cpu import cpu_model

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Made = TypeVar("Made", Latency, StepTime, StepProfile)


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
    network: nn.Module,
    table: NeuronTable,
    spec: StepSpec,
    device: torch.device,
    folder: Path,
    fits: Callable[[int], bool],
) -> StepTime:
    """The time of a network's steps on a device: the one in the folder, else measured and put there.

    Args:
        network, table: whose steps they are.
        spec: of a step; its batch, image, norm mode and optimizer count.
        device: that trains.
        folder: of the files; it need not exist.
        fits: as of `calibrate_step_time`.
    """
    spec = StepSpec((spec.batch_size,), spec.image_shape, spec.norm_mode, spec.optimizer, spec.precision)
    path = folder / f"{_key(CostModel(network, table, spec), device, 'step time')}.json"

    def measured() -> StepTime:
        return calibrate_step_time(network, table, spec, device, fits)

    return _kept(path, measured, lambda state: StepTime(**state), asdict)


def kept_profile(model: CostModel, chosen: Tensor, folder: Path) -> StepProfile:
    """What `CostModel.profile` returns: from the folder, else made and put there.

    That of a network which cannot be traced is made anew: nothing names all that its forward does.

    Args:
        model: of the step; neither its batches nor its segments count.
        chosen: bool [N].
        folder: of the files; it need not exist.
    """
    selection, trace = model.table.selection(chosen), traced(model.network, model.table)
    if trace is None:
        return model.profile(selection)
    ghost = model.spec.ghost_batch
    spec = replace(
        model.spec, forwards=(1,), micro_batch=None, checkpoint_segments=1, checkpoint_cuts=(),
        ghost_batch=None if ghost is None else 1,
    )  # fmt: skip
    whole = model.with_spec(spec)
    tensors = [*model.network.parameters(), *model.network.buffers()]
    chosen_hash = hashlib.sha256(chosen.numpy().tobytes()).hexdigest()
    named = str(trace.graph), [each.dtype for each in tensors], chosen_hash
    path = folder / f"{_key(whole, tensors[0].device, 'profile 2', *named)}.json"
    stored = _stored_profile()
    found = _kept(path, lambda: whole.profile(selection), stored.validate_python, stored.dump_python)
    return replace(found, ghost_batch=ghost)


@cache
def _stored_profile() -> TypeAdapter[StepProfile]:
    """Reads and writes profiles; made on first use, which takes time."""
    from pydantic import TypeAdapter  # not loaded by `import neq`

    return TypeAdapter(StepProfile)


def _kept(
    path: Path,
    measure: Callable[[], Made],
    of_state: Callable[[dict[str, Any]], Made],
    to_state: Callable[[Made], dict[str, Any]],
) -> Made:
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
