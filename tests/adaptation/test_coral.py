import torch

from neq.adaptation.coral import Coral, coral, covariance
from neq.adaptation.ddc import distance_of_means
from neq.adaptation.method import Both
from tests.adaptation.points import P_SOURCE, P_TARGET, close


def of(source, target):
    return coral(covariance(source, len(source)), covariance(target, len(target)))


def test_the_loss_of_known_points():
    assert close(of(P_SOURCE, P_TARGET), 1 / 3)
    both = Both(torch.cat([P_SOURCE, P_TARGET]), torch.zeros(8, 2))
    assert close(Coral(2, 2)(both), 1 / 3)


def test_covariances_are_those_of_torch():
    assert torch.allclose(covariance(P_TARGET, 4), torch.cov(P_TARGET.T))
    far = P_TARGET.float() + 1e4  # large means take no digits
    assert torch.allclose(covariance(far, 4), torch.cov(P_TARGET.T).float(), atol=1e-4)


def test_forms_of_other_codes_differ():
    squares = (torch.cov(P_SOURCE.T) - torch.cov(P_TARGET.T)).square()
    with_means = squares.mean() + distance_of_means(P_SOURCE.mean(0), P_TARGET.mean(0)) / 2
    across = (torch.cov(P_SOURCE) - torch.cov(P_TARGET)).square().sum() / (4 * 4**2)
    assert close(with_means, 2.333333333333)
    for other in (squares.sum() / (4 * 2 * 4), squares.mean(), squares.sum().sqrt() / 16, across, with_means):
        assert not close(other, 1 / 3)


def test_a_batch_in_two_processes_has_the_covariance_of_the_whole_batch():
    parts = P_TARGET.split([1, 3])
    values = []  # what each process passes to the mean, in the order of calls

    def recorded(part, answers):
        asked = []

        def mean(value):
            asked.append(value.detach())
            return answers[len(asked) - 1] if len(asked) <= len(answers) else value

        covariance(part, 4, mean)
        values.append(asked)

    answers = []
    for call in range(2):
        values.clear()
        for part in parts:
            recorded(part, answers)
        answers.append(sum(v[call] * len(p) / 4 for v, p in zip(values, parts, strict=True)))
    answer = iter(answers)
    found = covariance(parts[0], 4, lambda value: next(answer) + value - value.detach())
    assert torch.allclose(found, torch.cov(P_TARGET.T))
