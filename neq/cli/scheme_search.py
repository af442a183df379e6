"""`neq scheme-search`: which layers to train within a budget, as a scheme file."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from neq.cli.parsing import Parser, count
from neq.config import Options, find_config, parse_flags, read_yaml, resolve
from neq.config.writing import flow_value
from neq.utils.console import figures_table, short
from neq.utils.errors import UserError

if TYPE_CHECKING:
    from neq.scheme_search import Measured, Search
    from neq.selection import StaticScheme

RECIPE = "scheme_search"
# What the search decides itself.
REFUSED = (
    *("neuron_selection", "initialization", "scheme", "run_dir", "resume"),
    *("n_bias_update", "manual_weight_idx", "weight_update_ratio"),
)
# What runs do not share with the search.
OF_SEARCH = ("budget", "ratio", "budget_unit", "manual_seed", "importance", "importance_batches")


def command(arguments: list[str]) -> int:
    """Searches a scheme and writes it; returns the exit code.

    Args:
        arguments: "scheme-search", then options, and flags as of `neq train`.
    """
    own, run = _options(arguments[1:])
    out, overrides = own.out, {**run.overrides, "neuron_selection": "random", "initialization": "random"}
    resolved = resolve(read_yaml(find_config(run.config_file)), overrides)
    config = resolved.config
    if not config.data_provider.use_validation:
        raise UserError("use_validation 0 is not allowed: schemes are compared by their validation accuracy")
    from neq.cli.sweep import following
    from neq.experiment.run import open_run, open_run_data
    from neq.results.pictures import save_picture
    from neq.runs.identity import plain_identity
    from neq.scheme_search import SchemeCosts, ShortRuns, all_proxies, proxy_scores, search
    from neq.scheme_search.picture import search_picture
    from neq.scheme_search.scheme_file import check_out, write_search
    from neq.utils.console import Console

    console, seeds = Console(highlight=False), [config.manual_seed + number for number in range(own.seeds)]
    for line in resolved.notes:
        console.note(line)
    asked = {name: getattr(own, name) for name in ("method", "shares", "controls", "train")}
    provenance = {**asked, "seeds": seeds, "run": plain_identity(config)}
    check_out(out, provenance, own.force)
    settings = {name: value for name, value in run.overrides.items() if name not in OF_SEARCH}
    texts = {name: value if isinstance(value, str) else flow_value(value) for name, value in settings.items()}
    flags = [f"--{name}={text}" for name, text in texts.items()]
    policy = ("--neuron_selection", "SU", "--initialization", "SU", "--scheme", str(out))
    train = shlex.join(["neq", "train", "--config-file", run.config_file, *flags, *policy])
    with open_run(config, own.runs_dir, console.note, open_run_data) as (training, _):
        costs = SchemeCosts(training)
        score = partial(proxy_scores, costs)
        if own.method != "proxies":
            score = partial(all_proxies, costs, runs=own.runs_dir, notes=console.note)
        with following(console) as follow:
            place = (own.runs_dir, out.with_suffix(""), own.storage, own.workers)
            runs = ShortRuns(run.config_file, settings, seeds, *place, follow)

            def measure(name: str, schemes: Sequence[StaticScheme]) -> Mapping[StaticScheme, Measured]:
                asked_for = f"{len(schemes)} schemes, seeds {seeds}, {config.run_config.n_epochs} epochs each"
                console.note(f"{name}: {asked_for}; runs that exist are not trained again")
                return runs(name, schemes)

            found = search(costs, measure, **asked, score=score)
        write_search(out, found, provenance, train)
        save_picture(search_picture(found), out.with_suffix(""))
    console.print(_trained(found))
    if found.rank_correlation is not None:
        console.lines(f"rank correlation of predicted and measured gains: {found.rank_correlation:.2f}")
    if compared := found.proxy_correlations:
        ranks = (f"{name} {'-' if rank is None else f'{rank:.2f}'}" for name, rank in compared.items())
        console.lines(f"rank correlation of proxies with contributions: {', '.join(ranks)}")
    console.lines("", *out.read_text(encoding="utf-8").splitlines(), "", f"{out}")
    return 0


def _options(arguments: Sequence[str]) -> tuple[argparse.Namespace, Options]:
    """The search's own options, and those of its runs."""
    parser = _parser()
    names = {option.replace("-", "_"): option for option in parser._option_string_actions}
    parts = (word.partition("=") for word in arguments)
    words = [names.get(name.replace("-", "_"), name) + equals + text for name, equals, text in parts]
    own, rest = parser.parse_known_args(words)
    run = parse_flags(rest, "neq scheme-search", RECIPE)
    given = run.overrides.keys()
    for name in REFUSED:
        if name in given:
            raise UserError(f"--{name} is not allowed: scheme-search decides it; leave it out")
    if run.dry_run or run.overwrite:
        raise UserError("--dry-run and --overwrite are not allowed: runs that exist are not trained again")
    if own.method == "proxies" and own.controls:
        raise UserError("--controls is not allowed with --method proxies, which trains the head alone")
    missing = [name for name in ("net_name", "dataset") if run.config_file == RECIPE and name not in given]
    if missing or not given & {"budget", "ratio"}:
        raise UserError(
            f"--{[*missing, 'budget'][0]} is missing; "
            "as in --net_name pre_trained_mbv2 --dataset flowers --budget 5MiB"
        )
    return own, run


def _parser() -> Parser:
    parser = Parser(
        prog="neq scheme-search",
        usage="neq scheme-search --net_name NAME --dataset NAME --budget 100KB|8.8%%|20MMACs [options]",
        description="Search the layers and shares to train within a budget: short runs measure what each "
        "contributes, and the best sum is chosen. Run the same command again to continue. Further flags are "
        f"those of neq train and hold for the short runs; their defaults: configuration {RECIPE!r}.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("scheme.yaml"), metavar="FILE",
        help="the scheme; .json, .png and .svg are written beside it (default: scheme.yaml)")  # fmt: skip
    add("--force", action="store_true", help="replace the files of another search")
    add("--method", choices=("contributions", "evolution", "proxies"), default="contributions",
        help="choose by integer programming (default: contributions) or by evolutionary search; proxies: by "
        "the importance of neurons (--importance) after a run of the head, without other runs")  # fmt: skip
    add("--shares", type=_shares, default=[0.125, 0.25, 0.5, 1.0], metavar="LIST",
        help="of a conv's neurons that may train (default: .125,.25,.5,1)")  # fmt: skip
    add("--seeds", type=count, default=1, metavar="N", help="runs of each scheme, from manual_seed on")
    add("--controls", type=lambda text: 0 if text == "0" else count(text), default=0, metavar="N",
        help="train N random schemes too, and published ones that fit, to test the sums")  # fmt: skip
    add("--no-train", dest="train", action="store_false", help="do not train the scheme found")
    parser.add_workers()
    parser.add_storage()
    parser.add_runs_dir()
    return parser


def _shares(text: str) -> list[float]:
    try:
        shares = sorted({float(word) for word in text.split(",")})
    except ValueError:
        shares = [0.0]
    if not 0 < shares[0] <= shares[-1] <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: shares above 0, up to 1, as .25,1")
    return shares


def _trained(found: Search) -> Table:
    """Predicted and measured gains of the schemes that were trained."""
    headings = ("used", "predicted gain", "gain", "validation top-1", "test top-1")
    table = figures_table("scheme", headings, "gains in validation top-1 over the head alone, in points")
    for each in found.trained:
        gains = ("" if gain is None else f"{gain:+.2f}" for gain in (each.predicted, each.gain))
        top1 = ("diverged", "") if each.result is None else _top1(each.result)
        table.add_row(each.name, short(each.used), *gains, *top1)
    table.add_row("head", short(int(found.costs.base(0))), "", "", *_top1(found.head))
    return table


def _top1(result: Measured) -> tuple[str, str]:
    return f"{result.val_top1:.2f}", f"{result.test_top1:.2f}"
