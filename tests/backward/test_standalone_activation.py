import math

import pytest
import torch

from neq.backward.activations import Clamp
from neq.backward.standalone_activation import standalone_clamp


@pytest.mark.parametrize("upper", [math.inf, 6.0])
@pytest.mark.parametrize("output_is_kept", [True, False])
def test_it_is_a_clamp_and_saves_bits_or_its_result(upper, output_is_kept):
    generator = torch.Generator().manual_seed(0)
    x = (8 * torch.randn(2, 3, 5, 7, generator=generator)).requires_grad_()
    stock = x.detach().clone().requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        out = standalone_clamp(Clamp(upper), output_is_kept)(x)
    expected = stock.clamp(0, upper)
    assert torch.equal(out, expected)
    (kept,) = saved
    assert kept.nbytes == (out.nbytes if output_is_kept else math.ceil(out.numel() / 8))
    out.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(x.grad, stock.grad)
