"""What results know of policies: their order, their own settings, which of them are static.

Until selection has a registry of policy objects: the only place in results that lists policies by name.
"""

from __future__ import annotations

# In tables, legends and colours; further policies follow by name.
ORDER = ("SU", "velocity", "random", "full")
# Settings that matter under one policy only.
SETTINGS = {
    "SU": ("n_bias_update", "manual_weight_idx", "weight_update_ratio"),
    "velocity": ("velocity_mu", "velocity_rule", "velocity_images", "use_validation_for_velocity"),
}
# Their first choice stays for the whole run, so that they are published as their own initialization.
STATIC = ("SU", "full")


def rank(name: str) -> tuple[int, str]:
    """Where a policy stands among others: those of ORDER first, then by name."""
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def settings_of_others(name: str) -> set[str]:
    """The settings that do not matter under a policy."""
    return {setting for policy, own in SETTINGS.items() if policy != name for setting in own}
