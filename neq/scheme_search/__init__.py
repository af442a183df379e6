"""The search of a scheme: which layers to train within a budget, by short runs or proxies of them."""

from neq.scheme_search.contributions import Measured
from neq.scheme_search.costs import SchemeCosts
from neq.scheme_search.proxies import all_proxies, proxy_scores
from neq.scheme_search.search import Search, search
from neq.scheme_search.short_runs import ShortRuns

__all__ = ["Measured", "SchemeCosts", "Search", "ShortRuns", "all_proxies", "proxy_scores", "search"]
