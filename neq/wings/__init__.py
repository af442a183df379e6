"""What each wing registers with the core, a module a wing; the configuration imports all of them.

They import `neq.config` alone, and name what is loaded on use as MODULE:FUNCTION.
"""

from importlib import import_module
from pkgutil import iter_modules

for _found in iter_modules(__path__):
    import_module(f"{__name__}.{_found.name}")
