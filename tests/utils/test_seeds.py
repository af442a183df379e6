import numpy as np
import torch

from neq.utils.seeds import generator, seed_for


def test_a_stream_has_one_seed_forever() -> None:
    assert seed_for(0, "order", 1) == 7021862330116196507  # a change would change every run
    assert 0 <= seed_for(42, "order", 1) < 2**63


def test_streams_differ_by_seed_name_and_numbers() -> None:
    seeds = {
        seed_for(0),
        seed_for(1),
        seed_for(0, "order"),
        seed_for(0, "order", 1),
        seed_for(0, "order", "1"),
        seed_for(0, "order", 1, 1),
        seed_for(0, "order", 11),
        seed_for(0, "dropout", 1),
    }
    assert len(seeds) == 8


def test_numpy_numbers_are_plain_numbers() -> None:
    assert seed_for(0, "order", int(np.int64(5))) == seed_for(0, "order", np.int64(5))  # type: ignore[arg-type]


def test_generator_repeats_its_stream() -> None:
    first = torch.rand(4, generator=generator(3, "selection", 2))
    assert torch.equal(first, torch.rand(4, generator=generator(3, "selection", 2)))
    assert not torch.equal(first, torch.rand(4, generator=generator(3, "selection", 3)))
