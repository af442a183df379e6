"""The storage of sweeps: a database file beside the runs, or a server that many machines share."""

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
# Heartbeat interval and timeout of a worker, in seconds.
HEARTBEAT, SILENCE = 10, 60
# Seconds for which a worker retries an unreachable database before its run counts as failed.
PATIENCE = 600.0
# SQLite's errors of a file that was moved or overwritten.
LOST = ("readonly database", "malformed", "not a database", "no such table")
SERVERS = ("postgresql",)


def open_storage(place: str | None, runs: Path, reading: bool = False) -> BaseStorage:
    """Opens the storage of sweeps, creating it where it is missing; trials that have ended are read once.

    Args:
        place: `postgresql://USER@HOST/DATABASE`; None is a file in the folder of the runs.
        runs: folder of all runs.
        reading: nothing will be written, so that the file may be read-only.

    Raises:
        UserError: the database is of an unsupported kind, unreachable, or not writable.
    """
    # One cache for all studies, each of which would otherwise fill its own.
    if place is not None:
        return optuna.storages.get_storage(_open_server(place))
    is_there = reading and (runs / FILE).exists() and not _can_be_written(runs)
    return optuna.storages.get_storage(_open_file(runs / FILE, is_there))


def close_storage(storage: BaseStorage) -> None:
    """Closes what `open_storage` opened."""
    cache: Any = storage  # Optuna has no public way to close the engine below its cache
    cache._backend.engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppresses Optuna's warnings about experimental features: heartbeats, and TPE for several workers."""
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
        # Replaces connections that the server has dropped.
        return _open(url, {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}})
    except ImportError:
        raise UserError("storage postgresql:// needs psycopg: pip install 'neq[postgresql]'") from None
    except database_errors(ArgumentError, ValueError) as error:
        line = _line(error)
        for secret in _secrets(place):
            line = line.replace(secret, "***")
        raise UserError(f"storage {_without_password(place)!r} cannot be used ({line})") from None


def _can_be_written(runs: Path) -> bool:
    """Whether the folder and the database in it are writable."""
    return os.access(runs, os.W_OK) and os.access(runs / FILE, os.W_OK)


def _open_file(path: Path, reading: bool) -> RDBStorage:
    import sqlalchemy

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=60, check_same_thread=False)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = nullcontext() if reading else FileLock(path.with_name(f".{path.name}.lock"), timeout=60)
        with lock:
            # The URL names the kind alone: in a URL a folder called `a?b` would mean another folder.
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

    # Python's sqlite3 opens a transaction at its first write only: two workers could both read that a cell
    # waits before either of them takes it.
    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def _leave_transactions_to_us(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        # A commit survives the end of the process; a power cut may lose the last ones.
        connection.execute("PRAGMA synchronous = NORMAL")

    @sqlalchemy.event.listens_for(storage.engine, "begin")
    def _take_the_lock_first(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections made so far do not have these hooks
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
    """Calls the storage, and retries with a note to stderr while the database is unreachable.

    Args:
        call: the call; one that fails changes nothing.
        patience: seconds after which the error is raised.
        clock: returns seconds.

    Raises:
        UserError: the database's file is gone or damaged, so that a retry cannot succeed.
    """
    start, pause = clock(), 0.5
    while True:
        try:
            return call()
        except database_errors() as error:
            line = _line(error)
            if any(message in line for message in LOST):
                raise lost(line) from None
            if clock() - start > patience:
                raise
            if pause == 0.5:
                note = f"neq: database unreachable ({line}); retrying for up to {patience:.0f} s"
                print(note, file=sys.stderr, flush=True)
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


@contextmanager
def unreachable_refused() -> Iterator[None]:
    """Reports a database that is unreachable at once: for who only reads, nothing is worth the wait."""
    try:
        yield
    except database_errors() as error:
        raise UserError(
            f"the database of the sweep is unreachable ({_line(error)}); try again later"
        ) from None


def lost(line: str) -> UserError:
    """The error for a database that was moved, deleted or damaged under a sweep.

    Args:
        line: the cause.
    """
    return UserError(
        f"the database of the sweep was moved, deleted or damaged while it ran ({line}); move what is left "
        "of it away and run the same command again: it starts a new database, and finds finished runs"
    )


def _line(error: BaseException) -> str:
    """The message of the database itself, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def database_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    from sqlalchemy.exc import DBAPIError

    return (DBAPIError, optuna.exceptions.StorageInternalError, *others)


def _without_password(place: str) -> str:
    """A storage URL that is safe to print: without its password and its query, which may hold one."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(place).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return place.rpartition("@")[2].partition("?")[0]


def _secrets(place: str) -> set[str]:
    """The parts of a storage URL that may be secret."""
    from urllib.parse import parse_qs, unquote

    address, _, options = place.partition("?")
    password = address.rpartition("@")[0].rpartition(":")[2]
    found = {
        password,
        unquote(password),
        *(value for values in parse_qs(options).values() for value in values),
    }
    return found - {""}
