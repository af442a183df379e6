"""Commands by name; the module of one is imported when it is called, since torch takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from neq.utils.errors import unknown_name

# Command -> its module, whose `command(arguments)` gives the exit code; and what it does.
Commands = Mapping[str, tuple[str, str]]


def dispatch(arguments: list[str], commands: Commands, usage: str, key: str) -> int:
    """Calls one of several commands, or lists them; returns the exit code.

    Args:
        arguments: the name of one and its arguments; none or --help: they are listed.
        commands: all of them.
        usage: how one is called (`neq COMMAND`).
        key: what an error calls the name.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {usage} ...\n")
        for name, (_, what) in commands.items():
            print(f"  {name:<14} {what}")
        return 0
    if arguments[0] not in commands:
        raise unknown_name(key, arguments[0], commands)
    module, _ = commands[arguments[0]]
    code: int = import_module(module).command(arguments)
    return code
