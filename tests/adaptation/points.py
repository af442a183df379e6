"""Small inputs whose losses are known exactly."""

import torch

# P: 4 points of each domain. Q: 2 points of each domain, on a line. R: probabilities of 2 images.
P_SOURCE = torch.tensor([[0, 0], [2, 0], [0, 2], [2, 2]], dtype=torch.float64)
P_TARGET = torch.tensor([[1, 0], [3, 2], [1, 2], [3, 4]], dtype=torch.float64)
Q = torch.tensor([[0], [1], [2], [3]], dtype=torch.float64)
R = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)


def close(found, expected):
    """Whether values agree to nearly all digits of those that are written down."""
    return torch.allclose(
        torch.as_tensor(found, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=0,
        atol=1e-11,
    )


def several(value, rows, count):
    """The mean over processes that have a batch in parts, as one process computes it from all of them."""
    return sum(value(part) * (len(part) / len(rows)) for part in rows.tensor_split(count))
