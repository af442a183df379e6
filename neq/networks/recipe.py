"""A network's recipe: how to build it again, without its weights, after it was changed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from neq.networks.build import build_network
from neq.networks.heads import head_name
from neq.utils.atomic_files import write_text
from neq.utils.errors import UserError, first_line, shown

RECIPE = "recipe.json"
FORMAT = 1
MOST_CLASSES = 10**6
MOST_TRANSFORMS = 100
_OWN_MODULE = re.compile(r"neq(\.[a-z][a-z0-9_]*)+")

# Changes a network (in place, or by returning another), given plain values of JSON as keyword arguments.
TransformFunction = Callable[..., nn.Module]
_transforms: dict[str, TransformFunction] = {}


@dataclass(frozen=True)
class Transform:
    """One change of a network, as a recipe records it.

    Args:
        name: that it is registered by.
        arguments: plain values of JSON.
        module: that registers it; one of neq's own is imported when the transform is needed.
    """

    name: str
    arguments: Mapping[str, Any]
    module: str = ""


@dataclass(frozen=True)
class Recipe:
    """How to build a network again.

    Args:
        net_name: as for `build_network`.
        classes: outputs of its head.
        head: name of the classifier head after all transforms.
        transforms: that changed the named network, in order.
    """

    net_name: str
    classes: int
    head: str
    transforms: tuple[Transform, ...] = ()

    def build(self) -> nn.Module:
        """The network with random weights, each transform applied.

        Raises:
            UserError: an unknown network or transform, or a transform that fails.
        """
        network = build_network(self.net_name, self.classes, weights="none")
        for transform in self.transforms:
            network = _applied(network, transform)
        return network


def named_recipe(net_name: str, network: nn.Module, classes: int) -> Recipe:
    """The recipe of a network as `build_network` returned it.

    Args:
        net_name: that it was built by.
        network: the network. Where its name does not describe it, since it was built from a file, it has an
            attribute `neq_recipe`, a function of it and of classes.
        classes: outputs of its head.
    """
    own: Callable[[nn.Module, int], Recipe] | None = getattr(network, "neq_recipe", None)
    return Recipe(net_name, classes, head_name(network)) if own is None else own(network, classes)


def register_transform(name: str) -> Callable[[TransformFunction], TransformFunction]:
    """Decorator that registers a transform: `network, **arguments -> network`.

    The result may depend on the arguments and on the network's architecture alone, not on its weights:
    building by recipe applies it to random ones.

    Raises:
        ValueError: another transform of that name is registered.
    """

    def register(function: TransformFunction) -> TransformFunction:
        if _transforms.setdefault(name, function) is not function:
            raise ValueError(f"transform {name!r} is registered already; give the new one another name")
        return function

    return register


def apply_transform(
    network: nn.Module, recipe: Recipe, name: str, *, head: str | None = None, **arguments: Any
) -> tuple[nn.Module, Recipe]:
    """Changes a network, and returns it with its new recipe.

    Args:
        network: that the recipe builds; it may be changed in place.
        recipe: of the network.
        name: of a registered transform.
        head: name of the classifier head afterwards; None: as before.
        arguments: of the transform, plain values of JSON.

    Raises:
        UserError: an unknown transform, or one that fails.
        TypeError, ValueError: arguments that JSON cannot hold.
    """
    # As they are read back: a tuple becomes a list.
    plain = json.loads(json.dumps(arguments, allow_nan=False))
    module = _transforms[name].__module__ if name in _transforms else ""
    transform = Transform(name, plain, module)
    changed = _applied(network, transform)
    new = Recipe(recipe.net_name, recipe.classes, head or recipe.head, (*recipe.transforms, transform))
    return changed, new


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Writes a recipe beside the network's weights, as recipe.json."""
    content = {"format": FORMAT, **asdict(recipe)}
    write_text(folder / RECIPE, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe in a folder; None where there is none.

    Raises:
        UserError: it is damaged, or in a format that this version does not know.
    """
    path = folder / RECIPE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); put it back") from None
    try:
        return _recipe(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); put it back") from None


def _recipe(content: Any) -> Recipe:
    match content:
        case {"format": int(number)} if number != FORMAT:
            raise ValueError(f"format {number}, this version of neq reads {FORMAT}")
        case {
            "net_name": str(net_name),
            "classes": int(classes),
            "head": str(head),
            "transforms": list(transforms),
        } if 1 <= classes <= MOST_CLASSES and len(transforms) <= MOST_TRANSFORMS:
            return Recipe(net_name, classes, head, tuple(map(_transform, transforms)))
    raise ValueError(f"net_name, classes, head and at most {MOST_TRANSFORMS} transforms are expected")


def _transform(content: Any) -> Transform:
    match content:
        case {"name": str(name), "arguments": dict(arguments), "module": str(module)}:
            return Transform(name, arguments, module)
    raise ValueError(f"a transform has name, arguments and module, not {shown(content)}")


def _applied(network: nn.Module, transform: Transform) -> nn.Module:
    if transform.name not in _transforms and _OWN_MODULE.fullmatch(transform.module):
        with contextlib.suppress(ImportError):
            import_module(transform.module)
    function = _transforms.get(transform.name)
    if function is None:
        raise UserError(
            f"transform {shown(transform.name)} is unknown; registered are: "
            f"{', '.join(sorted(_transforms)) or 'none'}. Import the module that registers it, "
            f"{shown(transform.module)}"
        )
    try:
        return function(network, **transform.arguments)
    except UserError:
        raise
    except Exception as error:  # arguments from a file can make a transform fail in any way
        raise UserError(
            f"transform {shown(transform.name)} with {shown(transform.arguments)} fails ({first_line(error)})"
        ) from error
