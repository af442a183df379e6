import torch

from neq.partition.folding import folded
from tests.partition.devices import network
from tests.partition.toys import IMAGE


def test_folded_norms_change_no_output():
    whole = network()
    made = folded(whole)
    images = torch.randn(2, 3, IMAGE, IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(made(images), whole(images), rtol=1e-4, atol=1e-4)
    assert not [module for module in made.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert [module for module in whole.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(list(made.parameters())) < len(list(whole.parameters()))
