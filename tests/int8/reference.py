"""Int8 networks computed slowly: forward in integers, and with gradients in float64 through autograd."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from neq.int8 import Add, Conv, MaxPool, Multiply, Pool, Table


def slow_conv(q_x, conv, given):
    """The codes of a convolution of codes, position by position.

    Args:
        q_x: codes, int64 [B, I, H, W].
        conv: its description.
        given: quantization of q_x.
    """
    weight, bias = conv.weight.numpy().astype(np.int64), conv.bias.numpy().astype(np.int64)
    outputs, width, kernel, _ = weight.shape
    pad, stride = (kernel - 1) // 2, conv.stride
    x = np.pad(q_x - given.zero, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    sides = [(side + 2 * pad - kernel) // stride + 1 for side in q_x.shape[2:]]
    sums = np.zeros((len(x), outputs, *sides), np.int64)
    for channel in range(outputs):
        first = channel // (outputs // conv.groups) * width
        for row in range(sides[0]):
            for column in range(sides[1]):
                top, left = row * stride, column * stride
                patch = x[:, first : first + width, top : top + kernel, left : left + kernel]
                sums[:, channel, row, column] = (patch * weight[channel]).sum((1, 2, 3)) + bias[channel]
    scale = given.scale * conv.scales.numpy().astype(np.float64) / conv.output.scale
    return codes(sums * scale[:, None, None], conv.output)


def codes(real, output):
    """The codes of values in units of the output's scale: rounded half to even, shifted, clamped."""
    return np.clip(np.rint(real).astype(np.int64) + output.zero, -128, 127)


def slow_max_pool(q_x, pool):
    """The largest codes, window by window; positions outside of the map are in none."""
    sides = [(side + 2 * pool.padding - pool.kernel) // pool.stride + 1 for side in q_x.shape[2:]]
    found = np.zeros((*q_x.shape[:2], *sides), np.int64)
    for row in range(sides[0]):
        for column in range(sides[1]):
            top, left = row * pool.stride - pool.padding, column * pool.stride - pool.padding
            window = q_x[:, :, max(top, 0) : top + pool.kernel, max(left, 0) : left + pool.kernel]
            found[:, :, row, column] = window.max((2, 3))
    return found


def slow_network(network, images):
    """The codes of every operation by name, for normalized images float32 [B, 3, H, W]."""
    found = {"image": codes(images.numpy() / np.float32(network.image.scale), network.image)}
    for each in network.operations:
        inputs = [found[name] for name in each.inputs]
        given = [network.quantization(name) for name in each.inputs]
        if isinstance(each, Conv):
            found[each.name] = slow_conv(inputs[0], each, given[0])
        elif isinstance(each, Add):
            parts = [(q - of.zero) * of.scale for q, of in zip(inputs, given, strict=True)]
            found[each.name] = codes((parts[0] + parts[1]) / each.output.scale, each.output)
        elif isinstance(each, Multiply):
            product = (inputs[0] - given[0].zero) * (inputs[1] - given[1].zero)
            scale = given[0].scale * given[1].scale / each.output.scale
            found[each.name] = codes(product * scale, each.output)
        elif isinstance(each, Table):
            found[each.name] = each.table.numpy().astype(np.int64)[inputs[0] + 128]
        elif isinstance(each, MaxPool):
            found[each.name] = slow_max_pool(inputs[0], each)
        else:
            assert isinstance(each, Pool)
            found[each.name] = codes((inputs[0] - each.output.zero).mean((2, 3), keepdims=True), each.output)
    return found


def straight_through(x):
    """x rounded; the gradient passes as if it were not."""
    return x.detach().round() + (x - x.detach())


def clamped(y, output):
    """Centred codes of y in units of the output's scale."""
    low, high = -128 - output.zero, 127 - output.zero
    y = straight_through(y)
    return torch.where(
        (y >= low) & (y <= high), y, y.detach().clamp(low, high)
    )  # torch's gate leaves out ends


def reference_conv(x, weight, bias, conv, given):
    """The centred codes of a convolution of centred codes, all float64, with autograd's gradients."""
    pad = (conv.weight.shape[2] - 1) // 2
    sums = F.conv2d(x, straight_through(weight), straight_through(bias), conv.stride, pad, groups=conv.groups)
    scale = given.scale * conv.scales.double() / conv.output.scale
    return clamped(sums * scale.view(-1, 1, 1), conv.output)


def looked_up(x, table, given):
    """The centred codes of a table, with the gradient by its slopes."""
    place = (x.detach() + given.zero + 128).long()
    values, slopes = table.table.double() - table.output.zero, table.slopes.double()
    return values[place] + slopes[place] * (x - x.detach())


def reference_network(network, images, tensors):
    """The outputs of a network for normalized images, with autograd's gradients.

    Args:
        network: its description.
        images: float32 [B, 3, H, W].
        tensors: name -> weight or bias in units of codes, or of the classifier, float64.
    """
    image = (images / network.image.scale).round().clamp(-128 - network.image.zero, 127 - network.image.zero)
    found = {"image": image.double()}
    for each in network.operations:
        inputs = [found[name] for name in each.inputs]
        given = [network.quantization(name) for name in each.inputs]
        if isinstance(each, Conv):
            pair = (tensors[f"{each.name}.{key}"] for key in ("weight", "bias"))
            found[each.name] = reference_conv(inputs[0], *pair, each, given[0])
        elif isinstance(each, Add):
            real = sum(x * of.scale for x, of in zip(inputs, given, strict=True))
            found[each.name] = clamped(real / each.output.scale, each.output)
        elif isinstance(each, Multiply):
            scale = given[0].scale * given[1].scale / each.output.scale
            found[each.name] = clamped(inputs[0] * inputs[1] * scale, each.output)
        elif isinstance(each, Table):
            found[each.name] = looked_up(inputs[0], each, given[0])
        elif isinstance(each, MaxPool):
            found[each.name] = F.max_pool2d(inputs[0], each.kernel, each.stride, each.padding)
        else:
            found[each.name] = straight_through(inputs[0].mean((2, 3), keepdim=True))
    last = network.operations[-1]
    features = found[last.name].flatten(1) * last.output.scale
    head = network.head.name
    return F.linear(features, tensors[f"{head}.weight"], tensors[f"{head}.bias"])


def latent(network, seed=0):
    """Weights and biases in units of codes between the integers, and the classifier, float64, by name."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for conv in network.convs:
        for key in ("weight", "bias"):
            values = getattr(conv, key).double()
            off = torch.rand(values.shape, generator=generator, dtype=torch.float64) * 0.8 - 0.4
            moved = values + off if key == "bias" else (values + off).clamp(-127, 127)
            found[f"{conv.name}.{key}"] = moved.float().double()
    return found
