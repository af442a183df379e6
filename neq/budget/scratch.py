"""How many copies of its weight a convolution works on, measured once for each device."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import torch

from neq.backward.geometry import Geometry
from neq.utils.allocations import peak_bytes
from neq.utils.atomic_files import write_text
from neq.utils.cpu import cpu_model

_CHANNELS, _IMAGES, _SIZE = 256, 16, 8
# With fewer images, one thread multiplies the matrices of a 1x1 convolution where they are.
_MANY = 16


def kept_scratch(device: torch.device, folder: Path) -> float:
    """What `measure_scratch` found on a device: from the folder, else measured and put there.

    Args:
        device: that trains.
        folder: of the file; it need not exist.
    """
    on_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_cuda else cpu_model()
    key = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    path, known = folder / "scratch.json", dict[str, object]()
    with contextlib.suppress(OSError, ValueError, RecursionError):  # a damaged file is measured anew
        found = json.loads(path.read_text(encoding="utf-8"))
        known = found if isinstance(found, dict) else known
    value = known.get(key)
    if not isinstance(value, float) or not 0 <= value < 1000:
        value = known[key] = measure_scratch(device)
        with contextlib.suppress(OSError):  # a full or read-only disk only means measuring again
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(known))
    return value


def copies_pointwise(images: int) -> bool:
    """Whether a 1x1 convolution without strides works on copies of its weight too, on a CPU.

    Args:
        images: that it sees at once.

    Source: use_mkldnn of torch's ATen/native/Convolution.cpp.
    """
    return images >= _MANY or torch.get_num_threads() > 1


def measure_scratch(device: torch.device) -> float:
    """Copies of the weight of a 3x3 convolution that its forward and its gradients work on, the most of them.

    A gradient of the weight works on two, one in the weight's own layout and one in blocks of channels: half
    of what it takes counts (`neq.budget.step_trace`).
    """
    layout = torch.channels_last
    x = torch.zeros((_IMAGES, _CHANNELS, _SIZE, _SIZE), device=device).to(memory_format=layout)
    weight = torch.zeros((_CHANNELS, _CHANNELS, 3, 3), device=device).to(memory_format=layout)
    conv = Geometry((1, 1), (1, 1), (1, 1), 1)
    calls = (
        (lambda: conv.forward(x, weight, None), x.nbytes, 1),
        (lambda: conv.input_gradient(x, x, weight), x.nbytes, 1),
        (lambda: conv.weight_gradient(x, x, weight, 1), weight.nbytes, 2),
    )
    for call, _, _ in calls:
        call()  # what the library loads is there
    taken = [(peak_bytes(call, device) - result) / copies for call, result, copies in calls]
    return max(0.0, max(taken) / weight.nbytes)
