"""What the frozen first layers make of a run's images, kept from one epoch to the next.

Below all that trains, under running statistics, an image's map stays the same as long as its pixels do: in
steps where images have a number of views (`views`), in evaluations always. Then batches have maps in place of
images, and the rest of the network is called with them; images whose map is kept are not even read. A map
depends on what `FixedPrefix.digest` and `Data.pixels` hash; maps of another digest are never used.

Results are bit-identical to those without: see `neq.data.mapped`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from neq.backward import FixedPrefix, Plan, plain_prefix
from neq.backward.fusion import traced
from neq.config import Policy
from neq.data.map_format import MapFormat
from neq.data.mapped import Maps
from neq.tasks import Task
from neq.training.schedule import total_epochs
from neq.utils.cpu import cpu_model
from neq.utils.errors import UserError
from neq.utils.eval_mode import eval_mode
from neq.utils.seeds import generator

if TYPE_CHECKING:
    from neq.training.context import Training

Kind = Literal["steps", "evaluations"]
# The most bytes that `prefix_cache: auto` keeps of steps, and of evaluations.
_AUTO_BYTES = 256_000_000


@dataclass(frozen=True)
class Inputs:
    """What steps or evaluations pass through.

    Args:
        task: whose batches they are.
        network: takes them: a plan, the plain network, or the part of one of them that is not fixed.
    """

    task: Task[Any]
    network: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Cut:
    """Where the maps of a kind come from.

    Args:
        policy: that chose the neurons behind them.
        point: of the prefix.
        digest: of the prefix.
        format: of the maps; None where they cannot be kept.
        key: of the maps in the store.
    """

    policy: str
    point: str
    digest: str
    format: MapFormat | None
    key: str


class PrefixMaps:
    """The kept maps of a run, for the epoch that was entered last."""

    def __init__(self) -> None:
        self._cuts: dict[Kind, _Cut] = {}
        self._plan: Plan | None = None
        self._policy: Policy | None = None
        self._told: set[str] = set()

    def check(self, run: Training) -> None:
        """Checks that maps can be kept where the configuration asks for it.

        Raises:
            UserError: they cannot.
        """
        asked = run.config.data_provider.prefix_cache
        if not isinstance(asked, int):
            return
        why = _why_not(run)
        if why is None and traced(run.network, run.table) is None:
            why = f"{run.config.net_config.net_name} cannot be traced; take another network"
        if why is not None:
            raise UserError(f"prefix_cache {asked} is not allowed: {why}, or take prefix_cache auto")

    def of_steps(self, run: Training, plan: Plan, epoch: int) -> Inputs:
        """What the steps of an epoch pass through; evaluations that follow are of its plan's network.

        Args:
            run: that trains.
            plan: of the epoch.
            epoch: from 0.
        """
        whole, policy = Inputs(run.task, plan), run.policy(epoch)
        self._plan, self._policy = None, policy
        asked, views = run.config.data_provider.prefix_cache, run.data.views
        # Under other norm modes running statistics change, and with them all that lies behind the first norm.
        if asked == "off" or plan.norm_mode != "frozen" or _why_not(run):
            return whole
        if asked == "auto" and _moves(run, policy):
            return whole
        self._plan = plan
        left = total_epochs(run.config.run_config) - epoch
        if views is None or (asked == "auto" and left <= views):
            return whole
        maps, prefix = self._maps(run, "steps", plan.fixed_prefix, run.data.counts["train"] * views)
        if maps is None or prefix is None:
            if asked != "auto":
                self._tell(
                    run, f"nothing is kept in epoch {epoch}: its neurons leave no layer fixed below them"
                )
            return whole
        return _inputs(run, maps, None, prefix)

    def of_evaluation(self, run: Training) -> Inputs:
        """What evaluations of the plain network, as it is now, pass through."""
        whole, plan = Inputs(run.task, run.network), self._plan
        if plan is None or total_epochs(run.config.run_config) == 1:
            return whole
        images = run.data.counts["validation"] + run.data.counts["test"]
        with eval_mode(run.network):
            maps, prefix = self._maps(
                run, "evaluations", lambda at: plain_prefix(run.network, plan.parts, at), images
            )
        return whole if maps is None or prefix is None else _inputs(run, None, maps, prefix)

    def _maps(
        self, run: Training, kind: Kind, split: Callable[[str | None], FixedPrefix | None], count: int
    ) -> tuple[Maps | None, FixedPrefix | None]:
        """The maps of a kind; None where nothing is fixed, or maps cannot be kept.

        Args:
            split: returns the prefix that ends at a point, or as late as it can.
            count: maps that may be kept.
        """
        assert self._policy is not None
        former, prefix = self._cuts.get(kind), None
        if former is not None and former.policy == self._policy.name:
            # Where an epoch starts to train later than the one before, what is kept still is of use.
            prefix = split(former.point)
            prefix = None if prefix is None or prefix.digest() != former.digest else prefix
        prefix = prefix or split(None)
        if prefix is None:
            return None, None
        compute, digest = _compute(run, prefix), prefix.digest()
        if former is None or (former.point, former.digest) != (prefix.point, digest):
            shown, precision = _images(run, kind), "exact"
            if kind == "steps":
                precision = run.config.data_provider.prefix_precision
            found = _format(compute, shown, precision)
            if found is not None and not self._fits(run, kind, count * found.row_bytes):
                found = None
            key = _key(run, kind, digest, found)
            former = self._cuts[kind] = _Cut(self._policy.name, prefix.point, digest, found, key)
            if found is not None:
                run.data.map_store.use(key, count * found.row_bytes)
                size = f"{found.row_bytes / 1024:,.1f} KiB an image"
                self._tell(run, f"maps behind {prefix.layer} are kept for {kind}: {size}")
        if former.format is None:
            return None, None
        parts = run.parts if kind == "steps" else 1
        return Maps(compute, former.format, run.data.map_store, former.key, run.device, parts), prefix

    def _fits(self, run: Training, kind: Kind, size: int) -> bool:
        """Whether maps of a size are kept; more than there is room for only where that is asked for."""
        data = run.config.data_provider
        limit = run.data.map_store.limit
        if data.prefix_cache != "auto":
            if size > limit:
                room = f"{size / 2**30:.1f} GiB, of which cache_gib leaves {limit / 2**30:.1f}"
                self._tell(run, f"maps of {kind} take {room}")
            return True
        return size <= min(limit, _AUTO_BYTES)

    def _tell(self, run: Training, line: str) -> None:
        """A line for the user, once."""
        if line not in self._told:
            run.notes(line)
            self._told.add(line)


def _why_not(run: Training) -> str | None:
    """Why a run keeps no maps, and what to do; None where it may."""
    batch, parts = run.step_spec().batch_size, run.parts
    if run.processes.count > 1:
        return f"maps are kept by one process alone, here {run.processes.count}; start one"
    if run.config.memory == "tight" and run.config.data_provider.prefix_cache == "auto":
        return "memory tight keeps nothing"
    if run.config.run_config.checkpoint_segments > 1 or run.config.run_config.checkpoint_cuts:
        return "the network is cut into segments; leave checkpoint_segments and checkpoint_cuts out"
    if batch % parts:
        return f"{parts} micro-batches do not divide a batch of {batch} evenly; give another micro_batch_size"
    if run.task.on_maps(run.data) is None:
        return f"{type(run.task).__name__} needs the images themselves; leave out what it does with them"
    return None


def _moves(run: Training, policy: Policy) -> bool:
    """Whether a policy may choose other neurons in the next epoch."""
    settings = run.config.NEq_config
    return policy.chooses and (not policy.is_static or settings.choose_every is not None)


def _inputs(run: Training, steps: Maps | None, evaluations: Maps | None, prefix: FixedPrefix) -> Inputs:
    task = run.task.on_maps(run.data.mapped(steps, evaluations))
    assert task is not None
    return Inputs(task, prefix.after)


def _compute(run: Training, prefix: FixedPrefix) -> Callable[[Tensor], Tensor]:
    """What makes maps of images, in the run's precision."""
    is_bf16 = run.config.run_config.precision == "bf16"

    def compute(images: Tensor) -> Tensor:
        images = images.to(run.device, memory_format=torch.channels_last)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=is_bf16):
            return prefix.before(images)

    return compute


def _images(run: Training, kind: Kind) -> Tensor:
    """A batch of noise, of the size in which images pass through together."""
    spec, data = run.step_spec(), run.config.data_provider
    images = spec.batch_size // run.parts
    if kind == "evaluations":
        images = data.test_batch_size or data.base_batch_size
    noise = torch.randn(images, *spec.image_shape, generator=generator(0, "noise"))
    return noise.to(run.device)


def _format(compute: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> MapFormat | None:
    """The format of maps; None where one depends on its place in the batch, or on anything but its image."""
    before = torch.get_rng_state()
    first, second = compute(images), compute(images.roll(1, 0))
    if not torch.equal(before, torch.get_rng_state()) or not isinstance(first, Tensor):
        return None
    if first.dim() < 2 or len(first) != len(images) or not torch.equal(first.roll(1, 0), second):
        return None
    others = compute(torch.cat([images[:1], 1 + images[1:] / 2]))
    if not torch.equal(others[:1], first[:1]):
        return None
    return MapFormat.of(first, precision)


def _key(run: Training, kind: Kind, digest: str, kept: MapFormat | None) -> str:
    """What maps are kept by: all that their bits depend on."""
    place = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else cpu_model()
    environment = (torch.__version__, place, torch.get_num_threads(), run.config.run_config.precision)
    depends = (kind, digest, run.data.pixels(kind == "steps"), kept, environment)
    return hashlib.sha256(repr(depends).encode()).hexdigest()[:32]
