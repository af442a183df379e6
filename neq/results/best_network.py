"""The best network of a run, as its folder holds it: weights, classes, and what its images go through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from neq.config import Config, DatasetEntry, MeanStd, dataset
from neq.config.paths import data_folder
from neq.data import run_source
from neq.data.splits import split
from neq.data.transforms import eval_transform, normalization
from neq.networks.build import build_network
from neq.networks.heads import head_name, replace_head
from neq.networks.recipe import RECIPE, read_recipe
from neq.networks.weights import load_weights, read_weights
from neq.runs import StoredRun, load_run
from neq.runs.layout import BEST_WEIGHTS, CHECKPOINTS, CLASSES
from neq.utils.errors import UserError


@dataclass(frozen=True)
class BestNetwork:
    """The network after the best epoch of a run, the plain module in eval mode on the CPU.

    Args:
        folder: of the run.
        config: of the run, resolved.
        network: images [B, 3, S, S], normalized, -> outputs [B, classes].
        classes: their names in the order of the outputs; numbers where the run's folder does not name them.
        head: name of the classifier head.
    """

    folder: Path
    config: Config
    network: nn.Module
    classes: tuple[str, ...]
    head: str

    @property
    def image_size(self) -> int:
        """Pixels a side of the images that it was trained on."""
        size = self.config.data_provider.image_size
        assert size is not None, "a run's record is resolved"
        return size

    @property
    def mean_std(self) -> MeanStd:
        """Normalization of the input."""
        found = self.config.data_provider.mean_std
        assert found is not None, "a run's record is resolved"
        return found

    def prepare(self, image: Tensor) -> Tensor:
        """An image as the network takes it: uint8 [3, H, W] -> float32 [3, S, S]."""
        prepared: Tensor = normalization(self.mean_std)(self.resizing()(image))
        return prepared

    def resizing(self, image_size: int | None = None) -> v2.Transform:
        """What an evaluated image goes through before it is normalized: uint8 [3, H, W] -> uint8 [3, S, S].

        Args:
            image_size: S; none: that of the run.
        """
        settings = self.config.data_provider
        augmentation = settings.augmentation or dataset(settings.dataset).augmentation
        return eval_transform(image_size or self.image_size, augmentation)


def network_folder(given: Path) -> Path:
    """The folder that a network is loaded from, where its file of weights is given in place of it."""
    if given.name != BEST_WEIGHTS or given.is_dir():
        return given
    return given.parent.parent if given.parent.name == CHECKPOINTS else given.parent


def load_best(folder: Path) -> BestNetwork:
    """Reads the best network of a run, finished or not: by its recipe, or where there is none by its name.

    Args:
        folder: of the run, or a copy of its network (`neq results best --copy`).

    Raises:
        UserError: the folder holds no run, no epoch was finished, or a file is damaged.
    """
    run = load_run(folder)
    weights, config, recipe = run.best_weights, run.config, read_recipe(folder)
    if recipe is not None:
        try:
            network = recipe.build()
        except UserError as error:
            raise UserError(f"{folder / RECIPE}: {error}") from None
        load_weights(network, None, str(weights))
        return BestNetwork(folder, config, network.eval(), class_names(run, recipe.classes), recipe.head)
    net = config.net_config.net_name
    network = build_network(net, 2, config.manual_seed, weights="none")
    head = head_name(network)
    found = read_weights(str(weights)).get(f"{head}.weight")
    if found is None:
        raise UserError(f"{weights} is not of {net}: {head}, its head, is missing; train the run again")
    replace_head(network, len(found))
    load_weights(network, head, str(weights))
    return BestNetwork(folder, config, network.eval(), class_names(run, len(found)), head)


def class_names(run: StoredRun, count: int) -> tuple[str, ...]:
    """The names of a run's classes; their numbers where it recorded none.

    Raises:
        UserError: the run recorded another number of names.
    """
    names = tuple(map(str, range(count))) if run.classes is None else run.classes
    if len(names) != count:
        path = run.folder / CLASSES
        raise UserError(f"{path} does not hold the {count} names of the network's classes; put it back")
    return names


def sample_images(best: BestNetwork, count: int, image_size: int | None = None) -> Tensor | None:
    """Some images of the run's test split, spread over it, as the network takes them; see `samples`."""
    found = samples(best, count, image_size)
    return None if found is None else found[0]


def samples(best: BestNetwork, count: int, image_size: int | None = None) -> tuple[Tensor, Tensor] | None:
    """Some images of the test split of the run's data set, spread over it, and their labels.

    Args:
        best: the network.
        count: images at most.
        image_size: S; none: that of the run.

    Returns:
        float32 [n, 3, S, S] as the network takes them, and int64 [n]; none where the data set is not at hand:
        nothing is downloaded.
    """
    settings = best.config.data_provider
    if not _at_hand(settings.dataset, settings.root, dataset(settings.dataset)):
        return None
    resizing, normalize = best.resizing(image_size), normalization(best.mean_std)
    try:
        source = run_source(settings)
        numbers = split(source, settings, best.config.manual_seed)["test"]
        chosen = numbers[:: max(1, len(numbers) // count)][:count]
        images = [resizing(source.image(int(number))) for number in chosen]
        return torch.Tensor(normalize(torch.stack(images))), torch.from_numpy(source.labels[chosen])
    except UserError:  # moved or damaged since: reported in training, not needed for an export
        return None


def _at_hand(name: str, root: str | None, entry: DatasetEntry) -> bool:
    """Whether a data set can be opened without downloading it."""
    if entry.kind == "builtin":
        return True
    if entry.kind == "own":
        return root is not None and Path(root).expanduser().exists()
    folder = data_folder(root)
    return (folder / name / "train").is_dir() or all(any(folder.glob(pattern)) for pattern in entry.needs)
