"""Where a sweep keeps who does which cell: a database file beside the runs, or a server for many machines."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from filelock import FileLock

from neq.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

T = TypeVar("T")
FILE = "sweeps.db"
# A worker says this often that it is alive, and is taken for dead after that much silence; seconds.
HEARTBEAT, SILENCE = 10, 60
# How long a worker waits for a database that is away before its run counts as failed; seconds.
PATIENCE = 600.0
SERVERS = ("postgresql",)


def open_storage(place: str | None, runs: Path) -> BaseStorage:
    """Opens the storage of sweeps, made where it is missing; trials that have ended are read once.

    Args:
        place: `postgresql://USER@HOST/DATABASE`; none: a file in the folder of the runs.
        runs: folder of all runs.

    Raises:
        UserError: the place is no database that is known here, or cannot be reached or written.
    """
    return optuna.storages.get_storage(_open_file(runs / FILE) if place is None else _open_server(place))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings of what it may still change: heartbeats, and TPE for several workers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _open_server(place: str) -> RDBStorage:
    scheme, found, rest = place.partition("://")
    if not found or scheme.partition("+")[0] not in SERVERS:
        raise UserError(
            f"storage {_without_password(place)!r} is not allowed: give postgresql://USER@HOST/DATABASE, "
            "or none for a file beside the runs"
        )
    from sqlalchemy.exc import ArgumentError

    url = f"postgresql+psycopg://{rest}" if scheme == "postgresql" else place
    try:
        # A connection that the server has dropped meanwhile is replaced.
        return _open(url, {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}})
    except ImportError:
        raise UserError("storage postgresql:// needs psycopg: pip install 'neq[postgresql]'") from None
    except _database_errors(ArgumentError, ValueError) as error:
        line = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        for secret in _secrets(place):
            line = line.replace(secret, "***")
        raise UserError(f"storage {_without_password(place)!r} cannot be used ({line})") from None


def _open_file(path: Path) -> RDBStorage:
    import sqlalchemy

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=60):
            storage = _open(f"sqlite:///{path}", {"connect_args": {"timeout": 60}})
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); give another --runs-dir") from None
    except _database_errors() as error:
        line = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"{path} cannot be used ({line}); give another --runs-dir, or move the file away: "
            "finished runs are found without it"
        ) from None

    # Python's sqlite3 opens a transaction at its first change only: two workers could both read that a cell
    # waits before either of them takes it.
    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def _leave_transactions_to_us(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        # A commit is safe against the end of the process; the last ones may be lost with the power.
        connection.execute("PRAGMA synchronous = NORMAL")

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def _take_the_lock_first(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made so far know nothing of this
    return storage


def _open(url: str, options: dict[str, Any]) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with quiet():
        return optuna.storages.RDBStorage(
            url, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=SILENCE
        )


def patiently(
    call: Callable[[], T], patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
) -> T:
    """What a call to the storage gives, tried again while the database is away.

    Args:
        call: what to do; nothing is half done when it fails.
        patience: seconds after which the fault is raised.
        clock: gives seconds.
    """
    start, pause = clock(), 0.5
    while True:
        try:
            return call()
        except _database_errors():
            if clock() - start > patience:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def _database_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import DBAPIError

    return (DBAPIError, optuna.exceptions.StorageInternalError, *others)


def _without_password(place: str) -> str:
    """A storage as it may be shown: options behind a question mark, a password among them, are left out."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(place).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return place.rpartition("@")[2].partition("?")[0]


def _secrets(place: str) -> set[str]:
    """What of a storage's address may be secret."""
    from urllib.parse import parse_qs, unquote

    address, _, options = place.partition("?")
    password = address.rpartition("@")[0].rpartition(":")[2]
    found = {
        password,
        unquote(password),
        *(value for values in parse_qs(options).values() for value in values),
    }
    return found - {""}
