"""`neq partition search`: where two branches synchronize, and how wide they are, for two measured devices."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from neq.cli.parsing import Parser, count
from neq.config import Config, Options, find_config, parse_flags, read_yaml, resolve
from neq.utils.console import Console, figures_table
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.partition.device_profile import DeviceProfile, LinkProfile
    from neq.partition.model import Model
    from neq.partition.search import Trial
    from neq.partition.sizing import Sizing

SEARCHES = ("tree", "published", "tpe", "random", "exhaustive")
REFUSED = ("net_name", "weights", "run_dir", "resume", "manual_seed")
# Of the trials, where nothing else is asked for: all of a network that starts at random trains.
_DEFAULTS = {"neuron_selection": "full", "initialization": "full", "norm_mode": "train"}
# Momentum of batch norms with which a short run's statistics mean something, and the least that is kept.
_MOMENTUM, _LEAST_MOMENTUM = 0.1, 0.01
ASKED = "search.json"


def command(arguments: list[str]) -> int:
    """Searches a branched network; returns the exit code.

    Args:
        arguments: "search", then options, and flags as of `neq train` for the trials.
    """
    own, run = _options(arguments[1:])
    from neq.cli.partition_show import named_model
    from neq.partition import write_model
    from neq.partition.picture import network_picture, search_picture
    from neq.partition.search import PartitionSearch, best_trial
    from neq.partition.searches import SEARCHES as MADE
    from neq.partition.strategies import strategies
    from neq.partition.trial_runs import TrialRuns
    from neq.runs.identity import plain_identity

    profiles, link = _devices(own)
    base = named_model(own.base).at(profiles[0].image_size)
    notes = []
    if base.bn_momentum < _LEAST_MOMENTUM:
        notes.append(f"batch norms get momentum {_MOMENTUM} in place of {base.bn_momentum}: runs are short")
        base = replace(base, bn_momentum=_MOMENTUM)
    sizing = _sizing(base, profiles, link, own)
    settings = {**_DEFAULTS, **run.overrides}
    resolved = resolve(read_yaml(find_config(run.config_file)), {**settings, "net_name": "mbv2"})
    config = resolved.config
    if not config.data_provider.use_validation:
        raise UserError("use_validation 0 is not allowed: strategies are compared by validation accuracy")
    settings.setdefault("image_size", base.image_size)
    seeds = [own.seed + number for number in range(own.seeds)]
    out: Path = own.out
    asked = {**_asked(own, base, profiles, link, settings, seeds), "config": plain_identity(config)}
    _begin(out, asked, own.force)
    console = Console(highlight=False)
    for line in notes:
        console.note(line)
    classes = config.data_provider.new_num_classes or own.classes
    from neq.cli.sweep import following

    with following(console) as follow:
        place = (own.runs_dir, out / "sweeps", own.storage, own.workers)
        runs = TrialRuns(run.config_file, settings, seeds, *place, follow)
        (out / "sweeps").mkdir(exist_ok=True)
        total = min(own.trials, len(strategies()))
        search = MADE[own.search](own.seed)
        flight = own.workers or 1
        trials = PartitionSearch(sizing, search, runs, out, total, flight, classes, console.note).run()
    best = best_trial(trials)
    if best is None:
        raise UserError(f"no strategy of {len(trials)} was trained; allow more latency with --scale")
    from neq.results.pictures import save_picture

    found = sizing.size(best.sync)
    assert found is not None, "it was trained"
    write_model(out / "found.json", found.model)
    save_picture(search_picture(trials, f"{base.name}, {own.search}, scale {own.scale:g}"), out / "search")
    save_picture(network_picture(found.model), out / "found")
    ranks = _proxies(trials, sizing, config, settings, own.seed) if own.proxies else {}
    _write_table(out, trials, sizing, ranks)
    console.print(_table(trials))
    for name, rank in ranks.items():
        console.lines(f"rank correlation of {name}: {'-' if rank is None else f'{rank:.2f}'}")
    console.lines(
        f"base {sizing.base_latency.total:.3f} ms on {profiles[0].name}; found {found.latency.total:.3f} ms "
        f"on two devices, by the latency model",
        f"train it: neq train --net_name branched:{out / 'found.json'} and flags",
        f"{out / 'found.json'}",
    )
    return 0


def _devices(own: argparse.Namespace) -> tuple[list[DeviceProfile], LinkProfile]:
    """The two profiles, and the slower of their links or the one that is given."""
    from neq.partition.device_profile import DeviceProfile, LinkProfile

    profiles = [DeviceProfile.read(path) for path in own.profiles]
    sizes = {profile.image_size for profile in profiles}
    if len(sizes) > 1:
        raise UserError(
            f"--profiles were measured at {min(sizes)} and {max(sizes)} px; measure both at one size"
        )
    if own.link is not None:
        return profiles, LinkProfile(*own.link)
    links = [profile.link for profile in profiles if profile.link is not None]
    if not links:
        raise UserError(
            "--profiles hold no link between the devices; measure one, or give it as --link MS,BYTES_PER_MS"
        )
    return profiles, max(links, key=lambda each: each.transfer_ms(10**5))


def _sizing(
    base: Model, profiles: Sequence[DeviceProfile], link: LinkProfile, own: argparse.Namespace
) -> Sizing:
    """What sizes strategies; a table that lacks a block is found before anything is trained."""
    from neq.partition.sizing import Sizing
    from neq.partition.strategies import strategy_of

    sizing = Sizing(base, profiles, link, own.scale, own.classes)
    for name in ("sync1_6_a", "sync7_0123456_ccccccc"):
        sizing.size(strategy_of(name))
    return sizing


def _asked(
    own: argparse.Namespace,
    base: Model,
    profiles: Sequence[DeviceProfile],
    link: LinkProfile,
    settings: Mapping[str, object],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """What makes two searches the same: not how many trials they have, nor how many run at a time."""
    from neq.partition.model_file import mapping_of

    devices = [asdict(profile) for profile in profiles]
    asked = {
        "base": mapping_of(base),
        "devices": [{key: each[key] for key in ("name", "blocks", "stems", "heads")} for each in devices],
        "link": [link.alpha_ms, link.bytes_per_ms],
        **{name: getattr(own, name) for name in ("scale", "search", "seed", "classes")},
        "seeds": list(seeds),
        "settings": dict(settings),
    }
    plain: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return plain


def _begin(out: Path, asked: Mapping[str, Any], force: bool) -> None:
    """Makes the folder of a search, or checks that it holds this one."""
    from neq.partition.search import TRIALS
    from neq.runs.stored_run import read_object
    from neq.utils.atomic_files import write_text

    if out.is_file() or not out.parent.is_dir():
        raise UserError(f"--out {out} is not allowed: a folder in one that exists is expected")
    about = out / ASKED
    if out.is_dir() and any(out.iterdir()) and not force:
        if not about.exists():
            raise UserError(f"--out {out} holds something else; give another folder, or --force")
        if read_object(about) != asked:
            raise UserError(f"--out {out} holds another search; --force begins this one there")
    elif force:
        (out / TRIALS).unlink(missing_ok=True)
    out.mkdir(exist_ok=True)
    write_text(about, json.dumps(asked, indent=1) + "\n")


def _proxies(
    trials: Sequence[Trial], sizing: Sizing, config: Config, settings: Mapping[str, object], seed: int
) -> dict[str, float | None]:
    """Spearman's correlation of each zero-cost score and the accuracies of the trials."""
    import torch

    from neq.config import dataset
    from neq.data import open_data
    from neq.partition.proxies import scores
    from neq.partition.search import spearman

    size = int(str(settings["image_size"]))
    provider = config.data_provider.model_copy(update={"image_size": size})
    found: list[tuple[dict[str, float], float]] = []
    with open_data(provider, dataset(provider.dataset), seed, torch.device("cpu")) as data:
        batch = next(iter(data.train_batches(0)))
        images, labels = batch[0], batch[1]
        for trial in trials:
            sized = sizing.size(trial.sync)
            if sized is not None and trial.val_top1 is not None:
                model = sized.model.at(size)
                found.append((scores(model, images, labels, len(data.classes), seed), trial.val_top1))
    names = found[0][0] if found else {}
    return {name: spearman([(each[name], top1) for each, top1 in found]) for name in names}


def _write_table(
    out: Path, trials: Sequence[Trial], sizing: Sizing, ranks: Mapping[str, float | None]
) -> None:
    from neq.partition.search import best_trial
    from neq.utils.atomic_files import write_text

    best = best_trial(trials)
    about = {
        "found": None if best is None else best.name,
        "base_latency_ms": sizing.base_latency.total,
        "limit_ms": sizing.limit,
        "rank_correlations": dict(ranks),
        "trials": [asdict(trial) for trial in trials],
    }
    write_text(out / "trials.json", json.dumps(about, indent=1) + "\n")


def _table(trials: Sequence[Trial]) -> Table:
    """The ten best trials."""
    headings = ("validation top-1", "test top-1", "ms", "parameters", "MMACs")
    table = figures_table("strategy", headings, f"the best of {len(trials)} trials")
    scored = [trial for trial in trials if trial.val_top1 is not None]
    for trial in sorted(scored, key=lambda each: -(each.val_top1 or 0.0))[:10]:
        table.add_row(
            trial.name,
            f"{trial.val_top1:.2f}",
            f"{trial.test_top1:.2f}",
            f"{trial.latency_ms:.3f}",
            f"{trial.parameters:,d}",
            f"{(trial.macs or 0) / 1e6:.3f}",
        )
    return table


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, Options]:
    """The search's own options, and those of its runs."""
    own, rest = _parser().parse_known_args(arguments)
    run = parse_flags([*rest, *(() if own.task is None else ("--dataset", own.task))], "neq partition search")
    for name in REFUSED:
        if name in run.overrides:
            hint = "give --seed" if name == "manual_seed" else "the search decides it; leave it out"
            raise UserError(f"--{name} is not allowed: {hint}")
    if run.dry_run or run.overwrite:
        raise UserError("--dry-run and --overwrite are not allowed: runs that exist are not trained again")
    if "dataset" not in run.overrides and not run.names_config:
        raise UserError("--task is missing, the data set that trials learn; as in --task flowers")
    return own, run


def _parser() -> Parser:
    parser = Parser(
        prog="neq partition search",
        usage="neq partition search --base NAME|FILE.json --profiles A.json B.json --task DATASET [options]",
        description="Search where two branches synchronize: each strategy gets the widths that the latency "
        "of the base allows on the two devices, and a short training. The same command continues. "
        "Further flags are those of neq train and hold for the trials.",
    )
    add = parser.add_argument
    add(
        "--base",
        required=True,
        metavar="NAME|FILE",
        help="the plain network: mobilenet_v2, mnasnet_b1, fbnet_c",
    )
    add("--profiles", type=Path, nargs=2, required=True, metavar=("A", "B"),
        help="of the devices of branches 0 and 1, by neq partition profile")  # fmt: skip
    add("--link", type=_link, metavar="MS,BYTES_PER_MS", help="of the link, where the profiles have none")
    add("--scale", type=_scale, default=1.0, metavar="X", help="share of the base's latency (default: 1)")
    add("--task", metavar="DATASET", help="data set that trials learn, as of --dataset")
    add("--search", choices=SEARCHES, default="tree", help="(default: tree, stage by stage)")
    add("--trials", type=count, default=30, metavar="N", help="strategies to try in all (default: 30)")
    add("--seed", type=lambda text: 0 if text == "0" else count(text), default=0, metavar="N",
        help="of the search and its first run (default: 0)")  # fmt: skip
    add("--seeds", type=count, default=1, metavar="N", help="runs of each strategy (default: 1)")
    add(
        "--classes",
        type=count,
        default=1000,
        metavar="N",
        help="of the head that was measured (default: 1000)",
    )
    add("--proxies", action="store_true", help="compare zero-cost scores with the accuracies of the trials")
    add("--out", type=Path, default=Path("partition-search"), metavar="DIR",
        help="record, models, pictures, found.json (default: partition-search)")  # fmt: skip
    add("--force", action="store_true", help="begin anew in the folder of another search")
    parser.add_workers()
    parser.add_storage()
    parser.add_runs_dir()
    return parser


def _scale(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: above 0, up to 100")
    return value


def _link(text: str) -> tuple[float, float]:
    try:
        alpha, beta = map(float, text.split(","))
    except ValueError:
        alpha, beta = -1.0, 0.0
    if not (0 <= alpha < float("inf") and 0 < beta < float("inf")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed: milliseconds and bytes per ms, as .2,1.2e6"
        )
    return alpha, beta
