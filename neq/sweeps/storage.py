"""Where a sweep keeps who does which cell: a database file beside the runs, or a server for many machines."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from filelock import FileLock

from neq.utils.errors import UserError, first_line

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

T = TypeVar("T")
FILE = "sweeps.db"
# A worker says this often that it is alive, and is taken for dead after that much silence; seconds.
HEARTBEAT, SILENCE = 10, 60
# How long a worker waits for a database that is away before its run counts as failed; seconds.
PATIENCE = 600.0
# What SQLite says of a file that was taken away or overwritten.
LOST = ("readonly database", "malformed", "not a database", "no such table")
SERVERS = ("postgresql",)


def open_storage(place: str | None, runs: Path, reading: bool = False) -> BaseStorage:
    """Opens the storage of sweeps, made where it is missing; trials that have ended are read once.

    Args:
        place: `postgresql://USER@HOST/DATABASE`; none: a file in the folder of the runs.
        runs: folder of all runs.
        reading: nothing will be written: a file may lie where nothing can be.

    Raises:
        UserError: the place is no database that is known here, or cannot be reached or written.
    """
    # Under one cache, which every study would else have of its own and fill anew.
    if place is not None:
        return optuna.storages.get_storage(_open_server(place))
    is_there = reading and (runs / FILE).exists() and not _can_be_written(runs)
    return optuna.storages.get_storage(_open_file(runs / FILE, is_there))


def close_storage(storage: BaseStorage) -> None:
    """Closes what `open_storage` opened."""
    cache: Any = storage  # which has no way to close what is below it
    cache._backend.engine.dispose()


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
    except database_errors(ArgumentError, ValueError) as error:
        line = _line(error)
        for secret in _secrets(place):
            line = line.replace(secret, "***")
        raise UserError(f"storage {_without_password(place)!r} cannot be used ({line})") from None


def _can_be_written(runs: Path) -> bool:
    """Whether the folder and the file in it can be; an archive, or another's runs, cannot."""
    return os.access(runs, os.W_OK) and os.access(runs / FILE, os.W_OK)


def _open_file(path: Path, reading: bool) -> RDBStorage:
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = nullcontext() if reading else FileLock(path.with_name(f".{path.name}.lock"), timeout=60)
        with lock:
            # The address says the kind alone: in one, a folder called `a?b` would be another folder.
            storage = _open(f"sqlite:///{FILE}", {"creator": connect})
    except OSError as error:
        why = error.strerror or "another process keeps it locked"
        raise UserError(f"{path} cannot be written ({why}); give another --runs-dir") from None
    except database_errors() as error:
        line = _line(error)
        if "locked" in line:
            raise UserError(f"{path} is in use by another process ({line}); wait for it to end") from None
        raise UserError(
            f"{path} cannot be used ({line}); give another --runs-dir, or move the file away: "
            "finished runs are found without it"
        ) from None

    if reading:
        return storage

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
    """What a call to the storage gives, tried again while the database is away; a line says that it is.

    Args:
        call: what to do; nothing is half done when it fails.
        patience: seconds after which the fault is raised.
        clock: gives seconds.

    Raises:
        UserError: the database's file is gone or damaged, which no waiting mends.
    """
    start, pause = clock(), 0.5
    while True:
        try:
            return call()
        except database_errors() as error:
            line = _line(error)
            if any(said in line for said in LOST):
                raise lost(line) from None
            if clock() - start > patience:
                raise
            if pause == 0.5:
                told = f"neq: the database is away ({line}); tried again for {patience:.0f} s"
                print(told, file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def lost(line: str) -> UserError:
    """What is said where the database of a sweep is no longer what it was.

    Args:
        line: what was met.
    """
    return UserError(
        f"the database of the sweep was moved, deleted or damaged while it ran ({line}); move "
        "what is left of it away: the same command begins anew, and finished runs are found"
    )


def _line(error: BaseException) -> str:
    """What the database itself said, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def database_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
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
