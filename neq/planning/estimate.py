"""What a configuration of a run needs: memory by its step's profile, time by the device's latency model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from neq.backward.fusion import traced
from neq.budget import StepSpec
from neq.budget.latency import Times
from neq.budget.peak import StepProfile
from neq.config import Config, resolve
from neq.experiment.time_limit import durations
from neq.planning.configurations import Configuration, Learning, settings_of
from neq.planning.rules import Estimate
from neq.training import Progress, Training, choose_neurons, total_epochs
from neq.training.memory import process_bytes
from neq.training.step_times import device_latency

# The neurons that stand for those which a policy will choose once it has measured them: the last ones.
_STAND_IN = {"neuron_selection": "last", "initialization": "last", "cost_aware": False}

# What building, tracing and predicting a network takes beside its tensors, bytes.
_BESIDE_TENSORS = 32 * 2**20
# How much longer a step takes under the memory setting "tight" (docs/reliability.md: 1.07 to 2.06 times).
_TIGHT_STEP = 1.4


@dataclass(frozen=True)
class _Learned:
    """What learns under one `Learning`.

    Args:
        config: of the run, neither cut nor accumulated.
        chosen: its neurons, or those that stand for them, bool [N].
        profile: of its step.
        fixed_bytes: of gradients and optimizer state.
        step_seconds, pass_seconds: of a step of the whole batch, and of one in which the head alone trains.
    """

    config: Config
    chosen: Tensor
    profile: StepProfile
    fixed_bytes: int
    step_seconds: float
    pass_seconds: float


class Estimator:
    """Estimates the configurations of one run; called with each.

    Args:
        run: opened, of the settings below.
        base: the file that it starts from.
        overrides: settings that are given.
    """

    def __init__(self, run: Training, base: Mapping[str, object], overrides: Mapping[str, object]) -> None:
        self._run, self._base, self._overrides = run, base, dict(overrides)
        self._batch = run.step_spec().batch_size
        self._model = run.allocator(run.main_policy).model
        self._estimate = lru_cache(maxsize=None)(self._made)
        self._learned = lru_cache(maxsize=None)(self._learn)
        self._selected = lru_cache(maxsize=None)(self._select)
        self._times = lru_cache(maxsize=None)(self._predict)
        self._cuts = lru_cache(maxsize=None)(self._cut)

    def __call__(self, configuration: Configuration) -> Estimate:
        """The estimate of a configuration."""
        return self._estimate(configuration)

    def _made(self, configuration: Configuration) -> Estimate:
        learned, images = self._learned(configuration.learning), configuration.micro_batch
        cuts = self._cuts(configuration.learning, images, configuration.segments)
        profile, accumulates = learned.profile, images < self._batch
        passes = (images,) * self._run.task.forwards
        batch = sum(passes) * self._image_bytes
        peak = profile.held + batch * (self._batch // images) + profile.peak(passes, cuts, accumulates)
        work = profile.work(passes, cuts)
        step = learned.step_seconds + learned.pass_seconds * work.again / work.forward
        step *= _TIGHT_STEP if configuration.memory == "tight" else 1.0
        image = learned.pass_seconds / self._batch
        total = durations(self._run, learned.config, step, image)
        return Estimate(
            process_bytes(peak, self._run.device, configuration.memory) + _BESIDE_TENSORS,
            total.total(total_epochs(learned.config.run_config)),
            cuts,
        )

    def settings(self, configuration: Configuration, cuts: tuple[str, ...]) -> dict[str, Any]:
        """The settings of the run under a configuration, its budget among them.

        Args:
            cuts: of its estimate.
        """
        settings = settings_of(configuration, self._batch, cuts)
        if configuration.learning.share is not None:
            learned = self._learned(configuration.learning)
            passes = (configuration.micro_batch,) * self._run.task.forwards
            kept = learned.profile.kept(passes, cuts) + self._run.task.extra_saved_bytes
            settings |= {"budget": kept + learned.fixed_bytes, "budget_unit": "bytes"}
        return settings

    @property
    def _image_bytes(self) -> int:
        """Of an image in float32 and its label."""
        channels, height, width = self._run.step_spec().image_shape
        return 4 * channels * height * width + 8

    def _cut(self, learning: Learning, images: int, segments: int) -> tuple[str, ...]:
        if segments == 1:
            return ()
        learned, trace = self._learned(learning), traced(self._run.network, self._run.table)
        points = None
        if trace is not None and learning.norm_rule.norm_mode != "frozen":
            points = [name for name in trace.cut_points if name not in trace.inexact] or None
        return learned.profile.best_cuts(images, segments, images < self._batch, points=points)

    def _learn(self, learning: Learning) -> _Learned:
        rule = learning.norm_rule
        own = {
            "norm_mode": rule.norm_mode,
            "saved_precision": learning.saved_precision,
            "ghost_batch_size": rule.ghost_batch,
        }
        config = resolve(self._base, {**self._overrides, **own}).config
        chosen, spec = self._selected(learning.share)
        model = self._model.with_spec(
            replace(
                spec,
                norm_mode=rule.norm_mode,
                saved_precision=learning.saved_precision,
                ghost_batch=rule.ghost_batch,
            )
        )
        selection = model.table.selection(chosen)
        held = model.held_bytes(model.spec.trainable_slices(model.network, model.table, selection))
        times = self._times(rule.norm_mode)
        return _Learned(
            config,
            chosen,
            model.profile(selection),
            sum(held),
            times.of(chosen) / 1e9,
            times.costs.base / 1e9,
        )

    def _select(self, share: float | None) -> tuple[Tensor, StepSpec]:
        """The neurons of a share, or of the run's own settings, bool [N], and their step."""
        policy, own = self._run.main_policy, dict[str, object](_STAND_IN)
        if share is not None:
            own |= {"ratio": share, "budget": None, "budget_unit": "macs", "scheme": None}
        elif policy.may_initialize:
            own = {"initialization": policy.name}
        run = replace(self._run, config=resolve(self._base, {**self._overrides, **own}).config)
        allocation = choose_neurons(run, Progress(), 0)
        spec = run.allocator(run.policy(0)).model.spec
        return allocation.chosen, replace(spec, micro_batch=None, checkpoint_segments=1, checkpoint_cuts=())

    def _predict(self, norm_mode: str) -> Times:
        """The times of a step; precision and groups of norms hardly change them."""
        spec = replace(self._run.step_spec(), norm_mode=norm_mode, saved_precision="exact", ghost_batch=None)
        spec = replace(spec, micro_batch=None, checkpoint_segments=1, checkpoint_cuts=())
        model = self._model.with_spec(spec)
        return device_latency(model, self._run.device, "fast").times(model)
