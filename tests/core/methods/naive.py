"""The methods again, naively, from their formulas; every registered method has one here.

Each takes the method, whose weights it reads, and the maps or logits that the method is given, in
float64, and returns its loss before the weight.
"""

import math

import torch
from torch.nn import functional as F

from tests import reference


def naive_reviewkd(method, student, teacher, truth):
    state = method.distiller.path.state_dict()
    sizes = [tuple(level.shape[-2:]) for level in teacher.levels]
    fused = reference.review_walk(state, student.levels, sizes, training=True)
    return sum(reference.hcl(f, t) for f, t in zip(fused, teacher.levels, strict=True))


def naive_fitnet(method, student, teacher, truth):
    loss = 0.0
    for i, ours, theirs in zip(range(2), student.levels, teacher.levels, strict=True):
        state = method.adapters[i].state_dict()
        stride = 2 if ours.shape[-1] == 2 * theirs.shape[-1] else 1
        padding = 1 if stride == 2 else 0
        x = F.conv2d(ours, state["0.weight"], state["0.bias"], stride=stride, padding=padding)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        x = (x - mean) / (var + 1e-5).sqrt()
        x = x * state["1.weight"][:, None, None] + state["1.bias"][:, None, None]
        x = x.clamp(min=0)
        loss = loss + ((x - theirs) ** 2).sum() / theirs.numel()
    return loss


def naive_at(method, student, teacher, truth):
    loss = 0.0
    for ours, theirs in zip(student.levels, teacher.levels, strict=True):
        ours = F.adaptive_avg_pool2d(ours, theirs.shape[-2:])
        total = 0.0
        for image, target in zip(ours, theirs, strict=True):
            a, b = ((x**2).sum(0) / len(x) for x in (image, target))
            a, b = (x / (x**2).sum().sqrt() for x in (a, b))
            total = total + ((a - b) ** 2).sum() / a.numel()
        loss = loss + total / len(ours)
    return loss


def adapted(method, i, ours, theirs):
    """A student's level through its 1x1 convolution, resized to the teacher's."""
    weights = method.adapters[i].state_dict()
    if weights:
        product = torch.einsum("oc,nchw->nohw", weights["weight"][:, :, 0, 0], ours)
        ours = product + weights["bias"][:, None, None]
    return F.interpolate(ours, theirs.shape[-2:], mode="bilinear")


def naive_pkd(method, student, teacher, truth):
    """(n - 1) / n * (1 - mean r), r the correlation of a channel's n values."""
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        ours = adapted(method, i, ours, theirs)
        pairs = [
            torch.corrcoef(torch.stack([ours[:, c].flatten(), theirs[:, c].flatten()]))[0, 1]
            for c in range(theirs.shape[1])
        ]
        count = theirs[:, 0].numel()
        loss = loss + (count - 1) / count * (1 - sum(pairs) / len(pairs))
    return loss


def naive_cwd(method, student, teacher, truth):
    temperature, loss = method.settings.temperature, 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        ours, total = adapted(method, i, ours, theirs), 0.0
        for image, target in zip(ours, theirs, strict=True):
            for channel, wanted in zip(image, target, strict=True):
                q, p = ((x.flatten() / temperature).softmax(0) for x in (channel, wanted))
                total = total + temperature**2 * (p * (p / q).log()).sum()
        loss = loss + total / (theirs.shape[0] * theirs.shape[1])
    return loss


def softmax(row, temperature):
    powers = [math.exp(x / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive_kd(method, student, teacher, truth):
    temperature = method.settings.temperature
    rows = [
        divergence(softmax(theirs, temperature), softmax(ours, temperature))
        for ours, theirs in zip(student.logits.tolist(), teacher.logits.tolist(), strict=True)
    ]
    return temperature**2 * sum(rows) / len(rows)


def naive_dkd(method, student, teacher, truth):
    settings, total = method.settings, 0.0
    rows = zip(student.logits.tolist(), teacher.logits.tolist(), truth.target.tolist(), strict=True)
    for ours, theirs, target in rows:
        q, p = (softmax(row, settings.temperature) for row in (ours, theirs))
        binary = divergence([p[target], 1 - p[target]], [q[target], 1 - q[target]])
        q_others, p_others = (
            [x / (1 - row[target]) for k, x in enumerate(row) if k != target] for row in (q, p)
        )
        total += settings.alpha * binary + settings.beta * divergence(p_others, q_others)
    return settings.temperature**2 * total / len(truth.target)


NAIVE = {
    "ReviewKD": naive_reviewkd,
    "FitNet": naive_fitnet,
    "AT": naive_at,
    "PKD": naive_pkd,
    "CWD": naive_cwd,
    "KD": naive_kd,
    "DKD": naive_dkd,
}
