"""Where two branches synchronize: strategies and their names.

A strategy states `n`, `a` or `c` behind each stage, and is never `n` behind the last one: 2 * 3^6 = 1458. Its
name, sync{count}_{stages}_{kinds}, has its number of syncs, and their stages and kinds in rising order:
`sync3_046_aca`.

Source: Kang et al., "SyncNAS", LCTES 2023.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from neq.partition.model import STAGES, SYNCS
from neq.utils.errors import UserError, shown

Sync = tuple[str, ...]
_NAME = re.compile(r"sync([1-7])_([0-6]{1,7})_([ac]{1,7})")


def strategies() -> list[Sync]:
    """All of them, in the order of `n`, `a`, `c` stage by stage."""
    return [sync for sync in product(SYNCS, repeat=STAGES) if sync[-1] != "n"]


def strategy_name(sync: Sequence[str]) -> str:
    """The name of a strategy."""
    at = [(stage, kind) for stage, kind in enumerate(sync) if kind != "n"]
    return f"sync{len(at)}_{''.join(str(stage) for stage, _ in at)}_{''.join(kind for _, kind in at)}"


def strategy_of(name: str) -> Sync:
    """The strategy of a name.

    Raises:
        UserError: no strategy has it.
    """
    found = _NAME.fullmatch(name)
    if found is not None:
        sync = ["n"] * STAGES
        for stage, kind in zip(found[2], found[3], strict=False):
            sync[int(stage)] = kind
        if sync[-1] != "n" and strategy_name(sync) == name:
            return tuple(sync)
    raise UserError(
        f"strategy {shown(name)} is unknown; sync3_046_aca has 3 syncs, behind stages 0, 4 and 6 (which has "
        "one always), each a or c"
    )
