"""The sheets Summary and Runs: rows of groups and of runs, among those that stand there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from openpyxl.styles import PatternFill
from openpyxl.worksheet.worksheet import Worksheet

from neq.config.keys import KEYS
from neq.results.collect import IMAGES, Group, Run, key_of
from neq.results.columns import CHECKED, LAST, RUNS_FIRST, RUNS_REST, SUMMARY_FIRST, SUMMARY_REST
from neq.results.sheet import Column, Place, Table, fit_to_width, put, restyle, write_table
from neq.results.tables import (
    AGAIN,
    COSTS,
    DIFFERENCE,
    EVALUATION,
    IN_COLUMNS,
    KEY,
    METHOD,
    STATE,
    TEST,
    Checks,
    Row,
    Value,
    add_ratios,
    best_rows,
    own_settings,
    run_rows,
    setting_value,
    settings_of_key,
    summary_rows,
    varying_settings,
)

STATES = {"unfinished": "FFF2CC", "missing": "EDEDED", "damaged": "F8D7DA"}
WRONG = "B00020"


class Merged:
    """New rows and those of a table that is there.

    Args:
        rows: the new ones.
        place: where the table stands; none: there is none.

    Attributes:
        fresh: the new ones.
        every: of both kinds; what a row there says is read from the sheet.
        new, replaced: how many of the new rows are not there yet, and are.
        there: what every row of the table said, by its key.
    """

    def __init__(self, rows: Sequence[Row], place: Place | None) -> None:
        there = {} if place is None else place.read(KEY)
        if place is not None:
            _adopt(rows, there, place)
        keys = {row.key for row in rows}
        others = []
        for key, (_, cells) in there.items():
            settings = settings_of_key(key)
            if key not in keys and settings is not None:
                others.append(Row(key, settings, dict(cells)))
        self.fresh, self.every = list(rows), [*others, *rows]
        self.replaced = sum(row.key in there for row in rows)
        self.new = len(rows) - self.replaced
        self.there = {key: cells for key, (_, cells) in there.items()}


def write_summary(
    sheet: Worksheet, groups: Iterable[Group], place: Place | None, checks: Checks | None
) -> Merged:
    """Writes the sheet Summary, a row a group; gives its rows.

    Args:
        groups: of runs.
        place: where the table stands; none: the sheet is new.
        checks: of best networks that were measured again, by `run_key`; none: none was.
    """
    rows = Merged(summary_rows(groups, checks), place)
    add_ratios(rows.every)
    settings = varying_settings(rows.every)
    if place is not None:
        settings += [name for name in _setting_columns(place) if name not in settings]
    columns = [*SUMMARY_FIRST, *_columns(settings), *SUMMARY_REST]
    if checks is not None or (place is not None and EVALUATION in place.columns):
        columns.append(CHECKED[-1])
    cells = {row.key: _cells(row, settings) for row in rows.fresh}
    for row in rows.every:
        if row.key not in cells:  # stands there already: only what depends on the other rows
            told = {name: setting_value(row.settings.get(name)) for name in settings}
            cells[row.key] = {**told, **{header: row.cells.get(header) for header in COSTS.values()}}
    _forget_checks(cells, rows, (EVALUATION,))
    new, place = place is None, write_table(sheet, Table([*columns, *LAST], cells, KEY), place)
    if new:
        fit_to_width(sheet)
    _embolden(place, best_rows(rows.every))
    return rows


def write_runs(sheet: Worksheet, runs: Sequence[Run], place: Place | None, checks: Checks | None) -> None:
    """Writes the sheet Runs, a row a run.

    Args:
        runs: those that there should be.
        place, checks: as of `write_summary`.
    """
    rows = Merged(run_rows(runs, checks), place)
    settings = list(dict.fromkeys(name for run in runs for name in run.values if name not in IN_COLUMNS))
    settings.sort(key=lambda name: list(KEYS).index(name) if name in KEYS else len(KEYS))
    if place is not None:
        settings += [name for name in _setting_columns(place) if name not in settings]
    columns = [*RUNS_FIRST, *_columns(settings), *RUNS_REST]
    if checks is not None or (place is not None and EVALUATION in place.columns):
        columns += CHECKED
    cells = {row.key: _cells(row, settings) for row in rows.fresh}
    for row in rows.every:
        if row.key not in cells:
            cells[row.key] = {name: setting_value(row.settings.get(name)) for name in settings}
    _forget_checks(cells, rows, (AGAIN, DIFFERENCE, EVALUATION))
    place = write_table(sheet, Table([*columns, *LAST], cells, KEY), place)
    _colour(place, rows.fresh)


def _adopt(rows: Iterable[Row], there: dict[str, tuple[int, dict[str, Value]]], place: Place) -> None:
    """A row that was written before its images were known is the row of the run that has them now."""
    named = [(key, settings_of_key(key)) for key in there]
    without = {key_of(said): key for key, said in named if said is not None and IMAGES not in said}
    for row in rows:
        if row.key in there or IMAGES not in row.settings:
            continue
        bare = key_of(row.settings, IMAGES)
        former = without.pop(bare, None)
        if former is not None:
            there[row.key] = there.pop(former)
            put(place.sheet.cell(there[row.key][0], place.columns[KEY]), row.key)


def _setting_columns(place: Place) -> list[str]:
    """The settings that a table has a column of already."""
    return [name for name in place.columns if name in KEYS or name == IMAGES]


def _columns(settings: Iterable[str]) -> list[Column]:
    return [Column(name, most=18) for name in settings]


def _cells(row: Row, settings: Iterable[str]) -> dict[str, Value]:
    told = {name: setting_value(row.settings.get(name)) for name in settings}
    return {**own_settings(row.settings, row.cells), **told, **row.cells, KEY: row.key}


def _forget_checks(cells: Mapping[str, dict[str, Value]], rows: Merged, headers: Sequence[str]) -> None:
    """What was measured again of another figure than the row has now is no longer said."""
    for row in rows.fresh:
        before = rows.there.get(row.key)
        if before is not None and EVALUATION not in row.cells and before.get(TEST) != row.cells.get(TEST):
            cells[row.key] |= dict.fromkeys(headers)


def _embolden(place: Place, best: set[str]) -> None:
    """The best method of every group in bold, and no other."""
    for key, (row, _) in place.read(KEY).items():
        if settings_of_key(key) is not None:
            for header in (METHOD, TEST):
                restyle(place.sheet.cell(row, place.columns[header]), b=key in best)


def _colour(place: Place, rows: Iterable[Row]) -> None:
    """A colour for a run that is not done, red for a figure that differs."""
    there = place.read(KEY)
    for row in rows:
        at = there[row.key][0]
        state = place.sheet.cell(at, place.columns[STATE])
        wanted = STATES.get(str(row.cells[STATE]))
        if wanted is not None:
            state.fill = PatternFill("solid", fgColor=wanted)
        elif state.fill.fgColor.rgb in {f"00{colour}" for colour in STATES.values()}:
            state.fill = PatternFill()
        said = row.cells.get(EVALUATION)
        if isinstance(said, str):
            cell = place.sheet.cell(at, place.columns[EVALUATION])
            restyle(cell, color=None if said == "as recorded" else WRONG)
