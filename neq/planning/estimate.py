"""What a configuration of a run needs: memory by its step's profile, time by the device's latency model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Tensor

from neq.budget import Allocation, StepSpec
from neq.budget.latency_cache import kept_profile, kept_step_time
from neq.budget.peak import StepProfile, Work
from neq.budget.scratch import kept_scratch
from neq.budget.step_time import StepTime
from neq.config import resolve
from neq.config.paths import cache_folder
from neq.experiment.time_limit import durations
from neq.planning.configurations import Configuration, Learning, settings_of
from neq.planning.rules import Estimate
from neq.tasks import TaskInputs
from neq.tasks.classification import Classification
from neq.training import Progress, Training, choose_neurons, total_epochs
from neq.training.memory import of_one_image, predict, process_bytes

# The neurons that stand for those which a policy will choose once it has measured them: the last ones.
_STAND_IN = {"neuron_selection": "last", "initialization": "last", "cost_aware": False}

# What building, tracing and predicting a network takes beside its tensors, bytes.
_BESIDE_TENSORS = 32 * 2**20
# On predicted tensors, which are never more than this many times too low.
_MARGIN = 1.1
# How much longer a step takes under the memory setting "tight" (docs/reliability.md: 1.07 to 2.06 times).
_TIGHT_STEP = 1.4


@dataclass(frozen=True)
class _Learned:
    """What learns under one `Learning`.

    Args:
        chosen: its neurons, or those that stand for them, bool [N].
        profile: of its step.
        cut_points: where the network may be cut.
        fixed_bytes: of gradients and optimizer state.
    """

    chosen: Tensor
    profile: StepProfile
    cut_points: tuple[str, ...]
    fixed_bytes: int


class Estimator:
    """Estimates the configurations of one run; called with each.

    Args:
        run: opened, of the settings below.
        base: the file that it starts from.
        overrides: settings that are given.

    Attributes:
        limit: bytes that measuring times may add to the process.
    """

    def __init__(self, run: Training, base: Mapping[str, object], overrides: Mapping[str, object]) -> None:
        self._run, self._base, self._overrides = run, base, dict(overrides)
        self.limit: float = math.inf
        self._batch = run.step_spec().batch_size
        self._model = run.allocator(run.main_policy).model
        measured = run.main_policy.needs in ("velocity", "gradients")
        memory = predict(run) if measured else None
        self._measuring = 0 if memory is None else memory.measuring + memory.before
        # The most that a layer reads and writes for one image.
        self._passing, _, _ = of_one_image(self._model)
        self._estimate = lru_cache(maxsize=None)(self._made)
        self._learned = lru_cache(maxsize=None)(self._learn)
        self._selected = lru_cache(maxsize=None)(self._select)
        self.step_time = lru_cache(maxsize=None)(self._predict)
        self._cuts = lru_cache(maxsize=None)(self._cut)

    def __call__(self, configuration: Configuration) -> Estimate:
        """The estimate of a configuration."""
        return self._estimate(configuration)

    def _made(self, configuration: Configuration) -> Estimate:
        learned, images = self._learned(configuration.learning), configuration.micro_batch
        cuts = self._cuts(configuration.learning, images, configuration.segments)
        passes, parts = (images,) * self._run.task.forwards, -(-self._batch // images)
        time = self.step_time(configuration.learning.norm_rule.norm_mode)
        work = learned.profile.work(passes, cuts)
        step = time.seconds(parts, Work(*(parts * each for each in work)))
        image = time.seconds(1, work) * work.forward / work.macs / sum(passes)
        if configuration.memory == "tight":
            step, image = step * _TIGHT_STEP, image * _TIGHT_STEP
        total = durations(self._run, self._run.config, step, image)
        return Estimate(
            self._process_bytes(configuration, learned, passes, cuts),
            total.total(total_epochs(self._run.config.run_config)),
            cuts,
        )

    def variant(self, settings: Mapping[str, object]) -> Training:
        """The run under the settings of a plan, evaluated in its batches."""
        config, run = resolve(self._base, {**self._overrides, **settings}).config, self._run
        images = config.data_provider
        data = run.data.evaluated_by(images.test_batch_size or images.base_batch_size)
        task = Classification.of_run(TaskInputs(config, data, run.device, run.network, lambda _: data))
        return replace(run, config=config, data=data, task=task)

    def allocation(self, learning: Learning) -> Allocation:
        """The neurons that a configuration is estimated with."""
        chosen = self._learned(learning).chosen
        return Allocation(chosen, int(chosen.sum()), len(chosen), "neurons")

    def _process_bytes(
        self, configuration: Configuration, learned: _Learned, passes: tuple[int, ...], cuts: tuple[str, ...]
    ) -> int:
        """The most that training adds to the process."""
        profile, task, device = learned.profile, self._run.task, self._run.device
        extra = sum(parameter.nbytes for parameter in task.extra_parameters().values())
        channels, height, width = self._model.spec.image_shape
        held = profile.held + self._batch * len(passes) * (4 * channels * height * width + 8) + extra
        if self._run.config.run_config.base_lr == "auto":  # what a search puts back
            held += profile.gradients + sum(each.nbytes for each in self._run.network.buffers())
        scratch = kept_scratch(device, cache_folder())
        step = profile.peak(passes, cuts, configuration.micro_batch < self._batch, scratch)
        evaluation = max(passes) * self._passing
        measuring = self._measuring
        if self._run.main_policy.needs == "importance":
            measuring = evaluation + profile.kept(passes, cuts) + learned.fixed_bytes
        tensors = held + max(step, evaluation, measuring) + extra + task.extra_saved_bytes
        return self._of_process(tensors, configuration.memory)

    def _of_process(self, tensors: int, memory: str) -> int:
        """What tensors add to the process at most."""
        return process_bytes(round(_MARGIN * tensors), self._run.device, memory) + _BESIDE_TENSORS

    def settings(self, configuration: Configuration, cuts: tuple[str, ...] | None) -> dict[str, Any]:
        """The settings of the run under a configuration, its budget among them.

        Args:
            cuts: of its estimate; None: it has none, and then its settings lack cuts and budget.
        """
        settings = settings_of(configuration, self._batch, cuts or ())
        if configuration.learning.share is not None and cuts is not None:
            learned = self._learned(configuration.learning)
            passes = (configuration.micro_batch,) * self._run.task.forwards
            kept = learned.profile.kept(passes, cuts) + self._run.task.extra_saved_bytes
            settings |= {"budget": kept + learned.fixed_bytes, "budget_unit": "bytes"}
        return settings

    def _cut(self, learning: Learning, images: int, segments: int) -> tuple[str, ...]:
        if segments == 1:
            return ()
        learned = self._learned(learning)
        return learned.profile.best_cuts(images, segments, images < self._batch, points=learned.cut_points)

    def _learn(self, learning: Learning) -> _Learned:
        rule = learning.norm_rule
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
        profile = kept_profile(model, chosen, cache_folder() / "profiles")
        return _Learned(chosen, profile, model.cut_points, sum(held))

    def _select(self, share: float | None) -> tuple[Tensor, StepSpec]:
        """The neurons of a share, or of the run's own settings, bool [N], and their step."""
        policy, own = self._run.main_policy, dict[str, object](_STAND_IN)
        if share is not None:
            # In other norm modes, what always trains may exceed a small share.
            own |= {
                "ratio": share,
                "budget": None,
                "budget_unit": "macs",
                "scheme": None,
                "norm_mode": "frozen",
            }
        elif policy.may_initialize:
            own = {"initialization": policy.name}
        run = replace(self._run, config=resolve(self._base, {**self._overrides, **own}).config)
        model = run.allocator(run.policy(0)).model
        model.network = self._model.network  # one copy without values serves all
        allocation, spec = choose_neurons(run, Progress(), 0), model.spec
        return allocation.chosen, replace(spec, micro_batch=None, checkpoint_segments=1, checkpoint_cuts=())

    def _predict(self, norm_mode: str) -> StepTime:
        """The time of steps; precision and groups of norms hardly change it."""
        run = self._run
        spec = replace(run.step_spec(), norm_mode=norm_mode)

        def fits(tensors: int) -> bool:
            return self._of_process(tensors, run.config.memory) <= self.limit

        return kept_step_time(run.network, run.table, spec, run.device, cache_folder() / "latency", fits)
