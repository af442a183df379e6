"""`neq partition`: networks of two branches for two devices."""

from __future__ import annotations

from neq.cli.dispatch import Commands, dispatch

COMMANDS: Commands = {
    "show": ("neq.cli.partition_show", "print what a network costs, its branches and where they synchronize"),
    "profile": ("neq.cli.partition_profile", "measure the blocks of networks on this device, and a link"),
    "search": ("neq.cli.partition_search", "search where two branches synchronize, for two measured devices"),
    "split": ("neq.cli.partition_split", "write a network as a file for each of two devices"),
    "run": ("neq.cli.partition_run", "run a network on two devices, this one's branch here"),
}


def command(arguments: list[str]) -> int:
    """Runs one of COMMANDS.

    Args:
        arguments: "partition", then the name of one and its arguments.

    Returns:
        Its exit code.
    """
    return dispatch(arguments[1:], COMMANDS, "neq partition WHAT", "neq partition")
