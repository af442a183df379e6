"""The losses of distillation.

    L_logits = T^2 KL(p || q),    p = softmax(z_teacher / T), q = softmax(z_student / T), mean over images
    L_features = mean over images and features of (P f_student - f_teacher)^2

T^2 keeps the gradient's size whatever T is. P is linear (a 1x1 convolution of pooled maps), and the identity
where both networks have as many features.

Sources: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; Romero et al., "FitNets: Hints
for Thin Deep Nets", ICLR 2015.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p || q), [], in float32 or more.

    Args:
        student, teacher: logits, [B, K].
        temperature: T.
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    q, p = ((each.to(wide) / temperature).log_softmax(1) for each in (student, teacher))
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def features_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared distance, [], in float32 or more.

    Args:
        student: P f, [B, F].
        teacher: [B, F].
    """
    wide = torch.promote_types(student.dtype, torch.float32)
    return F.mse_loss(student.to(wide), teacher.to(wide))
