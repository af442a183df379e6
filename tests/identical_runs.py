"""Bit-identity of a refactoring: the same runs trained by two revisions, compared file by file.

    python tests/identical_runs.py --against 8f37235
    python tests/identical_runs.py --against HEAD~1 --only su --only sweep

Trains a fixed set of runs with this working tree and with another revision, side by side, and compares each
run's identity, metrics, chosen neurons and best network. Times, memory of the process and the record of the
environment are left out; a metric that only the working tree has is listed but counts as no difference. Exit
code 0: identical; 1: something differs; 2: a revision or a run failed.

Only the command line and the files of a run's folder are used, so modules may move between the revisions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]
REVISION = "8f37235"
# Parts of a metric's name that stand for the machine and not for the training.
UNCOMPARED = frozenset({"step_seconds", "peak_memory_bytes", "peak_memory_kind", "device", "environment"})
Settings = dict[str, str | int | float]
ONE_EPOCH: Settings = {"n_epochs": 1, "warmup_epochs": 0, "image_size": 24}


class RunFailed(Exception):
    """A revision cannot be read, or one of its runs failed."""


@dataclass(frozen=True)
class Tree:
    """A checkout that trains.

    Args:
        code: the checkout's root.
        runs: folder that its runs are written below; made where it is missing.
        threads: value of OMP_NUM_THREADS.
        seed: `manual_seed` of every run.
    """

    code: Path
    runs: Path
    threads: int = 1
    seed: int = 0

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """A Python process in the checkout, with the interpreter that runs this script."""
        self.runs.mkdir(parents=True, exist_ok=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WANDB_"))
        }
        env = {
            **kept,
            "OMP_NUM_THREADS": str(self.threads),
            "WANDB_MODE": "disabled",
            "NEQ_CACHE": str(self.runs / "cache"),
        }
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=self.code, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start_training(self, name: str, settings: Settings, *flags: str) -> subprocess.Popen[str]:
        """`train_classification.py` with the run's folder below `runs`."""
        settings = settings | {"manual_seed": self.seed, "device": "cpu"}
        given = [f"--{key}={value}" for key, value in settings.items()]
        return self.start("train_classification.py", *given, *flags, "--run-dir", self.runs / name)


def end(process: subprocess.Popen[str], code: int = 0) -> None:
    """Waits for a process.

    Raises:
        RunFailed: it ends with another exit code.
    """
    output, _ = process.communicate()
    if process.returncode != code:
        command = " ".join(map(str, process.args))  # type: ignore[arg-type]
        raise RunFailed(f"exit code {process.returncode}, expected {code}: {command}\n{output}")


# The fixed set. Each trains one or more runs below `tree.runs / name`.


def train_run(tree: Tree, name: str, settings: Settings) -> None:
    """A run that ends by itself."""
    end(tree.start_training(name, settings))


def train_resumed(tree: Tree, name: str, settings: Settings) -> None:
    """A run that SIGTERM stops after its first checkpoint, and that is resumed."""
    process = tree.start_training(name, settings)
    checkpoint = tree.runs / name / "checkpoint" / "last.pt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    end(process, 128 + signal.SIGTERM)
    end(tree.start_training(name, settings, "--resume"))


def train_sweep(tree: Tree, name: str, settings: Settings) -> None:
    """`neq sweep` of a shipped sweep file, cut down to two cells."""
    yaml = YAML(typ="safe")
    sweep = yaml.load((tree.code / "policies" / "digits" / "velocity.yaml").read_text(encoding="utf-8"))
    parameters = sweep["parameters"]
    for key, value in (settings | {"manual_seed": tree.seed}).items():
        parameters[key] = {"value": value}
    assert parameters["neuron_selection"] == {"values": ["velocity", "random"]}
    tree.runs.mkdir(parents=True, exist_ok=True)
    file = tree.runs / "sweep.yaml"
    with file.open("w", encoding="utf-8") as stream:
        yaml.dump(sweep, stream)
    end(tree.start("-m", "neq", "sweep", file, "--runs-dir", tree.runs / name))


# How each is trained, and its settings.
RUNS: dict[str, tuple[Callable[[Tree, str, Settings], None], Settings]] = {
    "default": (train_run, {"n_epochs": 2}),
    "su": (train_run, ONE_EPOCH | {
        "net_name": "mcunet-in1", "image_size": 48, "scheme": "mcunet-in1_scheme_1", "neuron_selection": "SU",
        "initialization": "SU", "norm_mode": "frozen",
    }),
    # Two epochs: random neurons are selected in the first.
    "velocity": (train_run, ONE_EPOCH | {
        "n_epochs": 2, "velocity_rule": "reference", "budget": "6MiB", "cost_aware": 1,
    }),
    "random": (train_run, ONE_EPOCH | {
        "neuron_selection": "random", "norm_mode": "train", "augmentation": "photo",
    }),
    "full": (train_run, ONE_EPOCH | {
        "neuron_selection": "full", "initialization": "full", "scheme": "scheme_baseline",
        "optimizer_name": "adam", "base_lr": 0.005,
    }),
    "channels": (train_run, ONE_EPOCH | {
        "neuron_selection": "random", "unit": "input_channel", "saved_precision": "bf16",
    }),
    "resumed": (train_resumed, ONE_EPOCH | {"n_epochs": 2, "checkpoint_minutes": 0.00001}),
    "sweep": (train_sweep, ONE_EPOCH | {"n_epochs": 2, "ratio": 0.1}),
}  # fmt: skip


# The comparison.


def runs_below(folder: Path) -> list[Path]:
    """Folders of runs below a folder, relative to it."""
    return sorted(path.parent.relative_to(folder) for path in folder.rglob("identity.json"))


def metrics_of(folder: Path) -> dict[str, Any]:
    """Every metric of a run, by file, line and key path, without the `UNCOMPARED` ones."""
    found: dict[str, Any] = {}
    for number, line in enumerate((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        found |= _leaves(f"epoch {number}", json.loads(line))
    return found | _leaves("summary", json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    kept = {key: inner for key, inner in value.items() if key not in UNCOMPARED}
    return {key: leaf for inner in kept for key, leaf in _leaves(f"{name}: {inner}", kept[inner]).items()}


def compare_runs(here: Path, there: Path) -> tuple[list[str], list[str]]:
    """Compares two folders of runs.

    Args:
        here: of the working tree.
        there: of the revision.

    Returns:
        What differs, and metrics that only the working tree's run has.
    """
    missing = [f"no {name}" for folder in (here, there)
               for name in ("identity.json", "metrics.jsonl", "summary.json", "checkpoint/best.safetensors")
               if not (folder / name).exists()]  # fmt: skip
    if missing:
        return missing, []
    identities = [
        json.loads((folder / "identity.json").read_text(encoding="utf-8")) for folder in (here, there)
    ]
    differences = [] if identities[0] == identities[1] else ["identity"]
    mine, theirs = metrics_of(here), metrics_of(there)
    for key, value in theirs.items():
        if key not in mine:
            differences.append(f"{key} is missing")
        elif mine[key] != value:
            differences.append(f"{key}: {mine[key]} instead of {value}")
    differences += _different_arrays(here, there)
    # Tensors, not bytes: what the metadata hold beside them differs between revisions.
    best, other = (load_file(folder / "checkpoint" / "best.safetensors") for folder in (here, there))
    if best.keys() != other.keys() or any(_bits(best[name]) != _bits(other[name]) for name in best):
        differences.append("best.safetensors")
    return differences, sorted(mine.keys() - theirs.keys())


def _different_arrays(here: Path, there: Path) -> Iterator[str]:
    """Chosen neurons and velocities that differ, by the file of their epoch."""
    names = [{path.name for path in (folder / "selection").glob("*.npz")} for folder in (here, there)]
    for name in sorted(names[0] | names[1]):
        if name not in names[0] & names[1]:
            yield f"selection/{name} is missing"
            continue
        with np.load(here / "selection" / name) as mine, np.load(there / "selection" / name) as theirs:
            for key in sorted({*mine.files, *theirs.files}):
                if key not in mine or key not in theirs or _bits(mine[key]) != _bits(theirs[key]):
                    yield f"selection/{name}: {key}"


def _bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()


def sha256(folder: Path) -> str:
    """SHA-256 of a run's best network, in hex."""
    return hashlib.sha256((folder / "checkpoint" / "best.safetensors").read_bytes()).hexdigest()


# The command.


def check_out(revision: str, folder: Path) -> Path:
    """The root of a revision's files: a folder that is named itself, or the revision unpacked into `folder`.

    Raises:
        RunFailed: git does not know the revision.
    """
    if (Path(revision) / "neq").is_dir():
        return Path(revision).resolve()
    archive = folder / "revision.tar"
    command = ["git", "archive", "--format=tar", "-o", str(archive), revision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"revision {revision!r} cannot be checked out: {done.stderr.strip()}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "revision", filter="data")
    archive.unlink()
    return folder / "revision"


def compare_trees(here: Tree, there: Tree, names: Sequence[str], *, full: bool = False) -> int:
    """Trains the named runs in both trees and prints a line for each; the number of runs that differ."""
    different = 0
    print(f"{'run':<66} {'epochs':>6} {'sha256 of best.safetensors':<26} result")
    for name in names:
        train, settings = RUNS[name]
        if full and name == "default":
            settings = {}
        with ThreadPoolExecutor(2) as pool:
            for ended in [pool.submit(train, tree, name, settings) for tree in (here, there)]:
                ended.result()
        folders = sorted({*runs_below(here.runs / name), *runs_below(there.runs / name)})
        for folder in folders:
            pair = here.runs / name / folder, there.runs / name / folder
            differences, new = compare_runs(*pair)
            different += bool(differences)
            print(_row(" ".join((name, *folder.parts)), pair[0], differences), flush=True)
            for line in differences[:10]:
                print(f"    {line}")
            if len(differences) > 10:
                print(f"    and {len(differences) - 10} more")
            if new:
                print(f"    new: {', '.join(new[:3])}{', ...' * (len(new) > 3)}")
    return different


def _row(name: str, folder: Path, differences: list[str]) -> str:
    whole = (folder / "summary.json").exists()
    epochs = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["epochs"] if whole else "-"
    result = f"{len(differences)} differences" if differences else "identical"
    return f"{name:<66} {epochs:>6} {sha256(folder)[:24] if whole else '-':<26} {result}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--against", default=REVISION, metavar="REV", help="revision, or folder of a checkout"
    )
    parser.add_argument("--only", action="append", choices=RUNS, help="train this run alone; repeatable")
    parser.add_argument("--full", action="store_true", help="the default run with all of its epochs")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="OMP_NUM_THREADS (default: 1)")
    parser.add_argument(
        "--other-seed", action="store_true",
        help="train the revision's runs from another seed: everything must differ (checks this script)",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs in this folder, new or empty")
    options = parser.parse_args(argv)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="neq-identical-"))
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"--keep {folder} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    try:
        here = Tree(ROOT, folder / "here", options.threads)
        other = check_out(options.against, folder)
        there = Tree(other, folder / "there", options.threads, seed=int(options.other_seed))
        different = compare_trees(here, there, options.only or list(RUNS), full=options.full)
    except RunFailed as error:
        print(f"identical_runs: {error}", file=sys.stderr)
        return 2
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{different} runs differ" if different else "all runs are identical")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
