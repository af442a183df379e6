"""The memory of a training, predicted before it starts; and which smaller settings would fit.

The prediction is the size of all tensors at the peak of a step or of the velocity measurement. A process
needs more: Python and the libraries, what an allocator keeps, scratch space of convolutions. See
docs/reliability.md.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from neq.budget import CostModel, marginal_costs
from neq.budget.saved_tensors import kept_for_gradients
from neq.budget.scratch import kept_scratch
from neq.config.paths import cache_folder
from neq.networks.neurons import Selection
from neq.networks.parameter_slice import ParameterSlice
from neq.training.context import Progress, Training, choose_neurons, make_plan
from neq.training.importance import pass_bytes
from neq.training.profiling import peak_memory
from neq.utils.eval_mode import eval_mode

# The most a process needs for the predicted tensors: a factor, and bytes on top. On a CPU, by the setting
# `memory`, the most that was measured (docs/reliability.md).
_TAKEN = {"fast": (2.9, 0), "tight": (1.05, 10 * 2**20)}
_TAKEN_ON_CUDA = (1.5, 0)
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_FLOAT = 4


@dataclass(frozen=True)
class PredictedMemory:
    """Bytes of tensors at the peak of training.

    Args:
        weights: parameters and buffers, the task's parameters and what it holds among them.
        batch: images and labels of a step, for every forward pass.
        kept: saved by the forward passes for the backward pass.
        gradients: of all that trains.
        optimizer: its state.
        rows: copies of chosen rows that train in place of their weights.
        step: what a step allocates and frees again, at its peak: its batch, and then some of what is kept, of
            the gradients and of what its operations work on.
        before: values from before the epoch, to measure velocities or to search the learning rate; and moving
            averages of rows that other epochs train.
        measuring: of what the policy needs measured: for velocities, their images and the feature maps and
            weights of the old network; for gradients, a batch and its full backward pass; for importance,
            the most that one of its passes takes.
        evaluation: a batch of an evaluation, and what passes through a layer of it.
    """

    weights: int
    batch: int
    kept: int
    gradients: int
    optimizer: int
    rows: int
    step: int
    before: int
    measuring: int
    evaluation: int

    @property
    def peak(self) -> int:
        """The peak of the whole training."""
        held = self.weights + self.rows + self.optimizer + self.before
        return held + max(self.step, self.measuring, self.evaluation)


def predict(run: Training, batch: int | None = None) -> PredictedMemory:
    """The memory that a run's first epoch needs in one process.

    Args:
        run: that is trained, or would be.
        batch: images of a forward pass; none: those of the run, or this process' share of them.
    """
    policy = run.policy(0)
    chosen = choose_neurons(run, Progress(), 0).chosen
    selection, model = run.table.selection(chosen), run.allocator(policy).model
    spec = run.own_step(model.spec, batch)
    if spec != model.spec:
        model = CostModel(run.network, run.table, spec)
    cost = model.step(selection)
    plan = make_plan(run, policy, chosen)
    size = _FLOAT * math.prod(spec.image_shape)
    batch_bytes = spec.images * (size + 8)
    passing, maps, widest = of_one_image(model)
    tensors = dict((*run.network.named_buffers(), *run.network.named_parameters(remove_duplicate=False)))
    extra = run.task.extra_parameters()
    before = measuring = 0
    searches = run.config.run_config.base_lr == "auto"
    if searches or run.main_policy.needs == "velocity":
        before = _of_parts(plan.parts, tensors) + _bytes(list(run.network.buffers()))
        before += _bytes(extra.values()) if searches else 0
    if run.config.run_config.ema_decay is not None and _changes_rows(run):
        before += _bytes(run.network.parameters()) - _of_parts(plan.parts, tensors)
    if run.main_policy.needs == "velocity":
        partial = [tensors[name] for name, part in plan.parts.items() if not part.is_whole]
        shown = sum(data.counts["velocity"] for data in run.task.velocity_data(run.data))
        # Old and new maps of the widest layer are compared in float64, with their product.
        measuring = size * shown + maps + _bytes(partial) + passing + 6 * widest
    if run.main_policy.needs == "gradients":
        kept = kept_for_gradients(model.network, run.table, spec) + spec.extra_saved_bytes
        weights = [tensors[f"{layer.name}.weight"] for layer in run.table.layers]
        measuring = spec.images * (size + 8) + kept + _bytes(weights) + max(spec.forwards) * passing
    if run.main_policy.needs == "importance":
        measuring = pass_bytes(run.network, run.allocator(run.main_policy)) + max(spec.forwards) * passing
    return PredictedMemory(
        weights=_bytes([*run.network.parameters(), *run.network.buffers(), *extra.values()])
        + run.task.held_bytes,
        batch=batch_bytes,
        kept=cost.saved_bytes,
        gradients=cost.gradient_bytes,
        optimizer=cost.optimizer_bytes,
        rows=_of_parts({name: part for name, part in plan.parts.items() if not part.is_whole}, tensors),
        step=batch_bytes + _of_step(run, model, selection),
        before=before,
        measuring=measuring,
        evaluation=_evaluated(run, batch) * (size + 8 + passing),
    )


def _evaluated(run: Training, batch: int | None) -> int:
    """Images of a batch of evaluations in one process."""
    data = run.config.data_provider
    images = -(-(data.test_batch_size or data.base_batch_size) // run.processes.count)
    if data.test_batch_size is None and batch is not None:
        images = batch
    return min(images, max(run.data.counts["validation"], run.data.counts["test"]))


def _changes_rows(run: Training) -> bool:
    """Whether other epochs may train other rows than the first."""
    policy = run.main_policy
    chooses_once = policy.is_static or not policy.chooses
    return run.policy(0).name != policy.name or not chooses_once or bool(run.config.NEq_config.choose_every)


def _of_step(run: Training, model: CostModel, selection: Selection) -> int:
    """The most bytes of tensors that a step adds to its batch."""
    spec, scratch = model.spec, kept_scratch(run.device, cache_folder())
    peak = model.profile(selection).peak(spec.kept_together, model.cuts(selection), spec.parts > 1, scratch)
    return peak + spec.extra_bytes + spec.extra_saved_bytes


def taken(run: Training, memory: str | None = None) -> int:
    """Bytes that a process needs at most for the tensors of a run's training, at the peak.

    Args:
        run: that is trained, or would be.
        memory: "fast" or "tight"; none: the run's setting.
    """
    times, bytes_more = _taken(run, memory)
    return int(predict(run).peak * times) + bytes_more


def process_bytes(tensors: int, device: torch.device, memory: str) -> int:
    """The most bytes that a process needs for tensors.

    Args:
        tensors: bytes of them.
        device: that trains.
        memory: "fast" or "tight".
    """
    times, bytes_more = _TAKEN_ON_CUDA if device.type == "cuda" else _TAKEN[memory]
    return int(tensors * times) + bytes_more


def _taken(run: Training, memory: str | None = None) -> tuple[float, int]:
    return _TAKEN_ON_CUDA if run.device.type == "cuda" else _TAKEN[memory or run.config.memory]


def what_fits(run: Training, room: int) -> tuple[int | None, int | None]:
    """The largest batch, and the highest budget in bytes, that are predicted to fit.

    Args:
        run: that did not fit.
        room: bytes for all tensors of the training, weights among them.

    Returns:
        Images, 2 or more a process and fewer than now, or none; bytes below what a step needs now, or none.
    """
    times, bytes_more = _taken(run)
    room = int((room - bytes_more) / times)
    now = predict(run)
    batch = run.allocator(run.policy(0)).model.spec.batch_size
    images: int | None = batch // 2
    while images is not None and predict(run, -(-images // run.processes.count)).peak > room:
        images = images // 2 if images > 1 else None
    if images is not None and images < 2 * run.processes.count:
        images = None
    training = now.kept + now.gradients + now.optimizer
    budget = room - (now.peak - training)
    least = marginal_costs(run.allocator(run.policy(0)).model, "bytes").base
    return images, budget if least <= budget < training else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no more memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError):
        return False
    if "a primitive" in str(error):  # oneDNN's message for any failure
        cpu = torch.device("cpu")
        return peak_memory(cpu)[0] > 0.9 * memory_limit(cpu)
    return any(words in str(error) for words in ("not enough memory", "allocate memory", "out of memory"))


def memory_limit(device: torch.device) -> int:
    """Bytes that this process may use: of the device, or of this machine within the limits on it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    own = psutil.Process().memory_info()
    limits = [psutil.virtual_memory().available + own.rss]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft - (own.vms - own.rss))
    if sys.platform == "linux" and _CGROUP.exists() and (text := _CGROUP.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def held_now(device: torch.device) -> int:
    """Bytes that this process holds, on the device or of this machine."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    held: int = psutil.Process(os.getpid()).memory_info().rss
    return held


def of_one_image(model: CostModel) -> tuple[int, int, int]:
    """Bytes for one image: the most a module reads and writes, all layers' outputs, the widest output."""
    network, layers = model.network, {layer.name for layer in model.table.layers}
    passing, maps = [0], [0]

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            if isinstance(output, Tensor):
                read = sum(x.numel() * x.element_size() for x in inputs if isinstance(x, Tensor))
                written = output.numel() * output.element_size()
                passing.append(read + written)
                if name in layers:
                    maps.append(written)

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(listen(name)) for name, module in leaves]
    example = next(network.parameters())
    try:
        with example.fake_mode, torch.no_grad(), eval_mode(network):  # type: ignore[attr-defined]
            network(torch.empty((1, *model.spec.image_shape), dtype=example.dtype, device=example.device))
    finally:
        for handle in handles:
            handle.remove()
    return max(passing), sum(maps), max(maps)


def _of_parts(parts: dict[str, ParameterSlice], tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name, part in parts.items():
        whole = tensors[name]
        share = 1.0 if part.index is None else len(part.index) / whole.shape[part.axis]
        total += round(share * whole.numel()) * whole.element_size()
    return total


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
