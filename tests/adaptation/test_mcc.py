import torch

from neq.adaptation.mcc import Mcc, class_confusion
from neq.adaptation.method import Both
from neq.adaptation.weights import certainty_weights
from tests.adaptation.points import R, close


def test_the_loss_of_known_probabilities():
    assert close(class_confusion(R.log(), 1), 0.466581359081)
    assert close(class_confusion(R.log(), 2.5), 0.494084686859)
    assert close(class_confusion(torch.zeros(5, 4, dtype=torch.float64), 2.5), 0.75)


def test_the_target_alone_counts():
    both = Both(torch.zeros(4, 3), torch.cat([torch.randn(2, 2).double(), R.log()]))
    assert close(Mcc(3, 2)(both), 0.494084686859)


def test_rows_sum_to_one_whichever_axis_is_divided_since_the_matrix_is_symmetric():
    p, weights = R, certainty_weights(R.log())
    confusion = p.T @ (weights[:, None] * p)
    other = confusion / confusion.sum(0)
    assert close((other.sum() - other.trace()) / 2, 0.466581359081)
    uneven = torch.tensor([[0.5, 0.2], [0.1, 0.2]])  # harmless only where it is symmetric
    assert not torch.allclose(
        (uneven / uneven.sum(1, keepdim=True)).trace(), (uneven / uneven.sum(0)).trace()
    )
