"""What a network costs."""

import torch
from torch import nn

from neq.results.best_network import load_best
from neq.results.report import costs as module
from neq.results.report.costs import costs


def test_of_a_run(tiny_run):
    best = load_best(tiny_run)
    found = costs(best)
    assert found.parameters == 543_176 + 13_664 + 1_930
    assert found.file_bytes == (tiny_run / "checkpoint" / "best.safetensors").stat().st_size
    table = module.neuron_table(best.network, (3, 24, 24))
    assert found.macs == table.total_macs + table.head_macs
    # The largest layer's input and output are there together.
    assert 4 * 2 * 24 * 24 < found.inference_bytes < 2**22


def test_operations_that_torch_does_not_count_are_counted_by_layer(tiny_run, monkeypatch):
    class Uncounted:
        def __init__(self, **_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_total_flops(self):
            return 0

    expected = costs(load_best(tiny_run)).macs
    monkeypatch.setattr(module, "FlopCounterMode", Uncounted)
    assert costs(load_best(tiny_run)).macs == expected


def test_macs_of_attention_count(tiny_run):
    class Attention(nn.Module):
        def forward(self, x):
            tokens = x.flatten(2).mT  # [1, 576, 3]
            return torch.softmax(tokens @ tokens.mT, -1) @ tokens

    best = load_best(tiny_run)
    object.__setattr__(best, "network", Attention())
    assert costs(best).macs == 2 * 576 * 576 * 3
