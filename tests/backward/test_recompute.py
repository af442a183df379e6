import torch

from neq.backward.recompute import (
    RecomputeSpec,
    mark_kept,
    mark_recomputable,
    recompute_spec,
    was_recomputable,
)


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


def test_a_view_is_recomputed_through_what_it_is_a_view_of():
    before = torch.arange(12.0).view(3, 4).T  # a stride of its own
    out = torch.relu(before - 5)
    mark_recomputable(out, RecomputeSpec((before,), lambda x: torch.relu(x - 5).contiguous()))
    view = out[1:].reshape(-1)[::2] if out[1:].is_contiguous() else out[1:, :2]
    spec = recompute_spec(view)
    assert torch.equal(spec.compute(*spec.kept), view)
    assert not spec.by_channel
    assert was_recomputable(view)
    assert not was_recomputable(view, by_channel=True)
    assert was_recomputable(out, by_channel=True)
    out.add_(1)
    assert recompute_spec(view) is None


def test_what_is_kept_whole_serves_other_readers():
    x = torch.ones(2, 3, 1, 1)
    mark_kept(x)
    spec = recompute_spec(x)
    mark_kept(x)
    assert recompute_spec(x) is spec
    assert spec.compute(*spec.kept).data_ptr() == x.data_ptr()
