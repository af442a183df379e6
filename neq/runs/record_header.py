"""record.json of a run: the format of its record, its environments, and the sweeps that asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from neq.runs.environment import Environment, differences
from neq.runs.layout import FORMAT, RECORD
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError


@dataclass(frozen=True)
class Stretch:
    """The part of a run that one environment computed: from an epoch and step to the next stretch or the end.

    Args:
        environment: that computed it.
        epoch: in which it begins, from 0.
        step: of that epoch, from 0.
        settings: by key, those under which its steps are taken in place of the run's own.
    """

    environment: Environment
    epoch: int = 0
    step: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def begin(self) -> tuple[int, int]:
        """Epoch and step, to compare."""
        return self.epoch, self.step

    def is_like(self, other: Stretch) -> bool:
        """Whether both have the same environment and settings."""
        return (self.environment, self.settings) == (other.environment, other.settings)


@dataclass(frozen=True)
class SweepCell:
    """The cell of a sweep that asked for a run.

    Args:
        sweep: its name, as in the storage of `neq sweep`; of a sweep of W&B, ENTITY/PROJECT/SWEEP.
        cell: its number, from 1; of a sweep of W&B, the id of the run there.
    """

    sweep: str
    cell: int | str


@dataclass(frozen=True)
class RecordHeader:
    """What record.json holds.

    Args:
        format: of the record; 1 has no record.json.
        stretches: in the order of their epochs. Where the first does not begin with epoch 0, or there is
            none, the environment before it is not known.
        sweeps: every cell that asked for the run.
    """

    format: int = FORMAT
    stretches: tuple[Stretch, ...] = ()
    sweeps: tuple[SweepCell, ...] = ()

    @property
    def environments(self) -> tuple[Environment, ...]:
        """The environments of all stretches."""
        return tuple(stretch.environment for stretch in self.stretches)

    def resumed(self, stretch: Stretch) -> RecordHeader:
        """The header of a run that continues in an environment; unchanged where it already ran in it.

        Args:
            stretch: that begins; what earlier ones computed from there on is dropped and computed again.
        """
        kept = tuple(former for former in self.stretches if former.begin < stretch.begin)
        if not kept or not kept[-1].is_like(stretch):
            kept += (stretch,)
        return replace(self, stretches=kept)

    def asked_by(self, cell: SweepCell) -> RecordHeader:
        """The header with one more cell that asked for the run."""
        return self if cell in self.sweeps else replace(self, sweeps=(*self.sweeps, cell))

    def change_at(self, stretch: Stretch) -> str:
        """How the environment of a stretch differs from the one before, as `threads 1 -> 2`; else empty."""
        if stretch not in self.stretches[1:]:
            return ""
        at = self.stretches.index(stretch)
        changed = differences(self.environments[at - 1 : at + 1])
        return ", ".join(f"{name} {before} -> {now}" for name, (before, now) in changed.items())

    def write(self, folder: Path) -> None:
        """Writes record.json, in the format of this version."""
        content = {
            "format": FORMAT,
            "environments": [
                {
                    "epoch": one.epoch,
                    "step": one.step,
                    **one.environment.to_json(),
                    **({"settings": one.settings} if one.settings else {}),
                }
                for one in self.stretches
            ],
            "sweeps": [{"sweep": one.sweep, "cell": one.cell} for one in self.sweeps],
        }
        write_text(folder / RECORD, json.dumps(content, indent=2) + "\n")


FRESH, UNKNOWN = RecordHeader(), RecordHeader(format=1)


def read_header(folder: Path) -> RecordHeader:
    """The header of the run in a folder; format 1 where it has no record.json.

    Raises:
        UserError: the format is newer than this version reads, or record.json is damaged.
    """
    path = folder / RECORD
    try:
        values = json.loads(path.read_bytes())
        written = values["format"]
        if not isinstance(written, int) or isinstance(written, bool) or written < 1:
            raise ValueError("its format is no number")
        if written > FORMAT:  # before anything else of it is looked at, which may have another form
            raise UserError(
                f"{folder} holds a run of format {written}, and this version of neq reads formats up to "
                f"{FORMAT}; update neq"
            )
        return RecordHeader(
            written,
            tuple(_stretch(one) for one in values["environments"]),
            tuple(SweepCell(str(one["sweep"]), one["cell"]) for one in values["sweeps"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return UNKNOWN
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise UserError(f"{path} is damaged ({reason}); put it back, or remove it") from None


def _stretch(values: Mapping[str, Any]) -> Stretch:
    environment, settings = Environment.from_json(values), dict(values.get("settings", {}))
    return Stretch(environment, int(values["epoch"]), int(values["step"]), settings)
