import torch
from torch import nn

from neq.backward import SyncBatchStats
from neq.training.forward import NetworkForward
from neq.training.profiling import SavedBytes


def test_the_gradient_of_a_mean_over_two_processes_is_that_of_one_with_the_whole_batch():
    """f(m), m = sum_p share_p value_p: averaged by the shares, the processes' gradients are df/dw."""
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = {0.6: x[:3], 0.4: x[3:]}

    def loss(mean):
        return mean.square().sum() + mean.prod()

    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = weight.clone().requires_grad_()
    loss((x @ whole).mean(0)).backward()
    averaged = torch.zeros_like(weight)
    for share, mine in shares.items():
        others = sum(part * (images @ weight).mean(0) for part, images in shares.items() if part != share)
        forward = NetworkForward(nn.Identity(), "fp32", SyncBatchStats(lambda own, o=others: own + o, share))
        own = weight.clone().requires_grad_()
        mean = forward.mean((mine @ own).mean(0))
        torch.testing.assert_close(mean, (x @ weight).mean(0))
        loss(mean).backward()
        averaged += share * own.grad
    torch.testing.assert_close(averaged, whole.grad)


def test_a_process_alone_has_the_mean_itself():
    value = torch.ones(3)
    assert NetworkForward(nn.Identity(), "fp32").mean(value) is value


def test_every_forward_pass_is_counted_and_in_the_runs_precision():
    network = nn.Linear(4, 2)
    saved = SavedBytes(network.parameters())
    forward = NetworkForward(network, "fp32", measured=saved)
    first, second = torch.randn(8, 4), torch.randn(3, 4)
    outputs = [forward(first), forward(second)]
    assert saved.total == first.nbytes + second.nbytes
    assert [output.dtype for output in outputs] == [torch.float32] * 2
    assert NetworkForward(network, "bf16")(first).dtype == torch.bfloat16
