"""The search of a scheme: which layers to train within a budget, by what each contributes in short runs."""

from neq.scheme_search.contributions import Contributions, Measured
from neq.scheme_search.costs import SchemeCosts
from neq.scheme_search.search import SHARES, Search, search
from neq.scheme_search.short_runs import ShortRuns

__all__ = ["SHARES", "Contributions", "Measured", "SchemeCosts", "Search", "ShortRuns", "search"]
