"""The method again, naively: unfused, concatenating, pooling both maps.

Slow on purpose and independent of `reviewkd_det`; the fast code is checked and timed against it.
"""

import torch
from torch.nn import functional as F


def hcl(student, teacher):
    """Hierarchical context loss of one level, (N, C, H, W) each."""
    height = student.shape[2]
    terms, weights = [F.mse_loss(student, teacher)], [1.0]
    for size in (4, 2, 1):
        if size < height:
            pooled_student = F.adaptive_avg_pool2d(student, (size, size))
            pooled_teacher = F.adaptive_avg_pool2d(teacher, (size, size))
            terms.append(F.mse_loss(pooled_student, pooled_teacher))
            weights.append(weights[-1] / 2)
    return sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)


def batch_norm(x, state, prefix, training):
    """Batch norm with the weights `prefix.*` of a state dict."""
    mean, var = state[prefix + ".running_mean"], state[prefix + ".running_var"]
    if training:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    scale = state[prefix + ".weight"] / torch.sqrt(var + 1e-5)
    shift = state[prefix + ".bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def review_walk(state, student_levels, teacher_sizes, training):
    """All levels, coarse to fine, with the state dict of a `ReviewPath`; batch norm, eps 1e-5."""
    outputs, residual = [], None
    for i in reversed(range(len(student_levels))):
        name = f"levels.{i}."
        x = F.conv2d(student_levels[i], state[name + "reduce.0.weight"])
        x = batch_norm(x, state, name + "reduce.1", training)
        if residual is not None:
            residual = F.interpolate(residual, size=x.shape[-2:], mode="nearest")
            both = torch.cat([x, residual], dim=1)
            gate = F.conv2d(both, state[name + "gate.weight"], state[name + "gate.bias"])
            gate = torch.sigmoid(gate)
            x = x * gate[:, 0:1] + residual * gate[:, 1:2]
        if x.shape[-2:] != tuple(teacher_sizes[i]):
            x = F.interpolate(x, size=teacher_sizes[i], mode="nearest")
        residual = x
        output = F.conv2d(x, state[name + "expand.0.weight"], padding=1)
        outputs.insert(0, batch_norm(output, state, name + "expand.1", training))
    return outputs
