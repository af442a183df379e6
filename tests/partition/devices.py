"""Two devices as processes, and small networks that are split for them."""

import json
from pathlib import Path

import torch
from torch import nn

from neq.config import MeanStd
from neq.partition import write_model
from neq.partition.deploy import Images, split, write_split
from neq.partition.networks import BranchedNetwork
from tests.forked import NEQ, ROOT, Forked
from tests.partition.toys import IMAGE, two
from tests.training.distributed.together import free_port

IMAGES = Images(IMAGE, MeanStd(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)), "none")
CLASSES = ("ant", "bee", "cat", "dog", "eel")


def network(sync="annncna", seed=0):
    """A branched toy with statistics of its own in its norms."""
    torch.manual_seed(seed)
    made = BranchedNetwork(two(sync), len(CLASSES)).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made


def write_toy(folder, sync="annncna", seed=0):
    """A folder of a split toy."""
    write_split(folder, *split(network(sync, seed), CLASSES, IMAGES))
    return folder


def write_toy_model(path, sync="annncna"):
    """A model file of a toy."""
    write_model(path, two(sync))
    return path


def address():
    return f"127.0.0.1:{free_port()}"


def device(rank, folder, at, *flags):
    """`neq partition run` as a process."""
    command = ("partition", "run", str(folder), f"--rank={rank}", f"--address={at}", *flags)
    return Forked(NEQ, *command, env={"PYTHONPATH": str(ROOT)})


def latency_of(path):
    return json.loads(Path(path).read_text())
