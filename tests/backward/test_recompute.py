import torch

from neq.backward.recompute import RecomputeSpec, mark_recomputable, recompute_spec, was_recomputable


def test_a_tensor_can_be_recomputed_until_it_is_changed_in_place():
    out = torch.ones(2, 3)
    assert recompute_spec(out) is None
    spec = RecomputeSpec((torch.zeros(2, 3),), torch.relu)
    mark_recomputable(out, spec)
    assert recompute_spec(out) is spec
    assert recompute_spec(out + 1) is None  # another tensor
    out.add_(1)
    assert recompute_spec(out) is None
    assert was_recomputable(out)
