"""A network and its recipe while a compression changes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neq.networks.recipe import Recipe, apply_transform
from neq.utils.errors import UserError
from neq.utils.seeds import seed_for


@dataclass(frozen=True)
class Compressed:
    """A network and how to build it again.

    Args:
        network: in eval mode, on the CPU.
        recipe: that builds it, but for its weights.
    """

    network: nn.Module
    recipe: Recipe

    @property
    def head(self) -> nn.Module:
        """The classifier head."""
        return self.network.get_submodule(self.recipe.head)

    def by(
        self, name: str, values: Mapping[str, Tensor], head: str | None = None, **arguments: Any
    ) -> Compressed:
        """The network after a transform, with given weights; this one stays as it is.

        Args:
            name: of a registered transform.
            values: state_dict of the result, or the part of it that the transform does not keep.
            head: name of the classifier head afterwards; none: as before.
            arguments: of the transform.

        Raises:
            UserError: the transform fails, or makes a network that the weights do not fit.
        """
        with torch.random.fork_rng(devices=[]):  # the same start values each time
            torch.default_generator.manual_seed(seed_for(0, name))
            changed, recipe = apply_transform(
                copy.deepcopy(self.network), self.recipe, name, head=head, **arguments
            )
        try:
            unexpected = changed.load_state_dict(dict(values), strict=False).unexpected_keys
        except RuntimeError:
            unexpected = ["shapes"]
        if unexpected:
            raise UserError(f"{recipe.net_name} has tensors that {name} cannot change; take another network")
        return Compressed(changed.eval(), recipe)
