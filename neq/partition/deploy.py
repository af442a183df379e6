"""A branched network split into a file for each of two devices, and the manifest that both have.

A device's file holds the stem, its own branch and, of device 0, the head; batch norms are folded. Each device
needs the manifest and its own file alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from neq import __version__
from neq.config import MeanStd
from neq.config.schema import Augmentation
from neq.networks.safetensors_file import checked_bytes
from neq.partition.folding import folded
from neq.partition.model import Model, Segment
from neq.partition.model_file import mapping_of, model_of
from neq.partition.networks import BranchedNetwork
from neq.runs.stored_run import read_object
from neq.utils.atomic_files import atomic_file, write_text
from neq.utils.errors import UserError, shown

FORMAT = 1
MANIFEST = "manifest.json"
FILES = ("branch-0.safetensors", "branch-1.safetensors")
_STEM, _HEAD = ("stem.",), ("last_conv.", "classifier.")
_MOST_CLASSES = 10**6


@dataclass(frozen=True)
class Images:
    """What an image goes through before a network, as in its evaluation.

    Args:
        size: pixels a side.
        mean_std: of the normalization.
        augmentation: of the data set; see `neq.data.transforms.eval_transform`.
    """

    size: int
    mean_std: MeanStd
    augmentation: Augmentation


@dataclass(frozen=True)
class Manifest:
    """What both devices know of a network.

    Args:
        model: its structure.
        classes: names, in the order of its outputs.
        images: what they go through.
        files: SHA-256 of the file of each device.
        neq: version that made it.
    """

    model: Model
    classes: tuple[str, ...]
    images: Images
    files: tuple[str, str]
    neq: str = __version__

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As values of JSON."""
        return {
            "format": FORMAT,
            "neq": self.neq,
            "files": dict(zip(FILES, self.files, strict=True)),
            "image_size": self.images.size,
            "mean_std": self.images.mean_std.model_dump(mode="json"),
            "augmentation": self.images.augmentation,
            "classes": list(self.classes),
            "model": mapping_of(self.model),
        }

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads what `write_split` wrote.

        Raises:
            UserError: the file cannot be read, or is no manifest of this version.
        """
        content = read_object(path)
        if content.get("format") != FORMAT:
            raise UserError(f"{path} is no manifest of this version; make it again with neq partition split")
        try:
            names, files = content["classes"], content["files"]
            size, augmentation = content["image_size"], content["augmentation"]
            if not isinstance(names, list) or not 0 < len(names) <= _MOST_CLASSES:
                raise ValueError("classes")
            if not all(isinstance(name, str) for name in names):
                raise ValueError("classes")
            if type(size) is not int or not 1 <= size <= 4096:
                raise ValueError("image_size")
            if augmentation not in ("photo", "square", "none"):
                raise ValueError("augmentation")
            images = Images(size, MeanStd.model_validate(content["mean_std"]), augmentation)
            hashes = tuple(str(files[name]) for name in FILES)
            return cls(
                model_of(content["model"]), tuple(names), images, (hashes[0], hashes[1]), str(content["neq"])
            )
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            what = shown(str(error).split("\n")[0])
            raise UserError(f"{path} is damaged ({what}); make it again with neq partition split") from None


class DevicePart(nn.Module):
    """The part of a branched network that one device runs, in eval mode with folded norms.

    Args:
        network: folded.
        rank: of the device.
    """

    def __init__(self, network: BranchedNetwork, rank: int) -> None:
        super().__init__()
        self.model, self.rank = network.model, rank
        self.stem, self.branch = network.stem, network.branches[rank]
        self._top = network if rank == 0 else None
        self.to(memory_format=torch.channels_last)

    def segment(self, x: Tensor, segment: Segment) -> Tensor:
        """What its branch makes of a segment's input, [B, C, H, W]."""
        out: Tensor = self.branch(x, segment)
        return out

    def top(self, x: Tensor) -> Tensor:
        """Logits [B, classes], on device 0."""
        assert self._top is not None, "the head is on device 0"
        return self._top.top(x)


def check_splits(network: nn.Module, name: str, classes: int) -> BranchedNetwork:
    """The network, if it can be split.

    Args:
        network: any.
        name: as the user gave it.
        classes: how many it tells apart.

    Raises:
        UserError: it is no network of two branches, or has other layers than its model.
    """
    if not isinstance(network, BranchedNetwork) or network.model.sync is None:
        raise UserError(f"{name} is no network of two branches; give one, as syncnas_mobilenet_v2_100")
    with torch.device("meta"):
        as_built = BranchedNetwork(network.model, classes).state_dict()
    if _shapes(network.state_dict()) != _shapes(as_built):
        raise UserError(
            f"{name} has other layers than its model, as a pruned network has; give one that was not changed"
        )
    return network


def split(
    network: BranchedNetwork, classes: Sequence[str], images: Images
) -> tuple[Manifest, tuple[bytes, bytes]]:
    """The manifest of a network and the content of both devices' files.

    Args:
        network: of two branches, trained or not.
        classes: names, in the order of its outputs.
        images: what they go through.
    """
    tensors = {name: each.contiguous() for name, each in folded(network).cpu().state_dict().items()}
    contents = [checked_bytes(_of_rank(tensors, rank)) for rank in (0, 1)]
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    manifest = Manifest(network.model.at(images.size), tuple(classes), images, (hashes[0], hashes[1]))
    return manifest, (contents[0], contents[1])


def write_split(folder: Path, manifest: Manifest, contents: tuple[bytes, bytes]) -> None:
    """Writes the files of both devices, and the manifest last.

    Args:
        folder: made where it is not there.
        manifest, contents: of `split`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, content in zip(FILES, contents, strict=True):
        with atomic_file(folder / name) as file:
            file.write(content)
    write_text(folder / MANIFEST, json.dumps(manifest.to_json(), indent=1) + "\n")


def load_part(folder: Path, rank: int) -> tuple[Manifest, DevicePart]:
    """The manifest in a folder, and the part of one device; the other device's file is not read.

    Args:
        folder: with the manifest and the device's file.
        rank: 0 or 1.

    Raises:
        UserError: a file is missing, damaged, or of another network.
    """
    manifest, path = Manifest.read(folder / MANIFEST), folder / FILES[rank]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); device {rank} needs it beside {MANIFEST}"
        ) from None
    if hashlib.sha256(content).hexdigest() != manifest.files[rank]:
        raise UserError(
            f"{path} is damaged, or of another network: its hash is not that in {MANIFEST}; copy both again"
        )
    return manifest, part_of(manifest, content, rank)


def part_of(manifest: Manifest, content: bytes, rank: int) -> DevicePart:
    """The part of one device.

    Args:
        manifest: of the network.
        content: of the device's file.
        rank: 0 or 1.

    Raises:
        UserError: the file does not hold the weights of the manifest's model.
    """
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise UserError(f"{FILES[rank]} is no file of weights ({error}); split the network again") from None
    with torch.device("meta"):
        network = folded(BranchedNetwork(manifest.model, len(manifest.classes)))
    asked = _of_rank(network.state_dict(), rank)
    wrong = [
        name
        for name in sorted(asked.keys() | tensors.keys())
        if name not in asked
        or name not in tensors
        or (asked[name].shape, asked[name].dtype) != (tensors[name].shape, tensors[name].dtype)
    ]
    if wrong:
        raise UserError(
            f"{FILES[rank]} does not hold the weights of {MANIFEST}'s model: {shown(wrong[0])} differs; "
            "split the network again"
        )
    network.load_state_dict(tensors, strict=False, assign=True)
    network.branches[1 - rank] = nn.Identity()  # not of this device: without values
    return DevicePart(network.requires_grad_(False).eval(), rank)


def _of_rank(tensors: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Those of a device's file."""
    kept = (*_STEM, f"branches.{rank}.", *(_HEAD if rank == 0 else ()))
    return {name: each for name, each in tensors.items() if name.startswith(kept)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in tensors.items()}
