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


def naive_nst(method, student, teacher, truth):
    def kernel(first, second):
        pairs = [(a @ b) ** 2 for a in first for b in second]
        return sum(pairs) / len(pairs)

    loss = 0.0
    for ours, theirs in zip(student.levels, teacher.levels, strict=True):
        ours, total = F.adaptive_avg_pool2d(ours, theirs.shape[-2:]), 0.0
        for image, target in zip(ours, theirs, strict=True):
            a, b = ([x.flatten() / x.norm() for x in maps] for maps in (image, target))
            total = total + kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
        loss = loss + total / len(ours)
    return loss


def naive_vid(method, student, teacher, truth):
    loss = 0.0
    levels = zip(student.levels, teacher.levels, strict=True)
    for i, (x, theirs) in enumerate(levels):
        state = method.adapters[i].state_dict()
        for layer in (0, 2, 4):
            x = torch.einsum("oc,nchw->nohw", state[f"{layer}.weight"][:, :, 0, 0], x)
            x = x.clamp(min=0) if layer < 4 else x
        x = F.adaptive_avg_pool2d(x, theirs.shape[-2:])
        total = 0.0
        for c in range(theirs.shape[1]):
            variance = math.log1p(math.exp(method.softened[i][c])) + 1e-5
            squares = ((x[:, c] - theirs[:, c]) ** 2).sum() / variance
            total = total + (squares + theirs[:, c].numel() * math.log(variance)) / 2
        loss = loss + total / theirs.numel()
    return loss


def naive_sp(method, student, teacher, truth):
    def rows(level):
        flat = [image.flatten() for image in level]
        gram = [torch.stack([a @ b for b in flat]) for a in flat]
        return torch.stack([row / (row**2).sum().sqrt() for row in gram])

    pairs = zip(student.levels, teacher.levels, strict=True)
    return sum(((rows(a) - rows(b)) ** 2).sum() / len(a) ** 2 for a, b in pairs)


def naive_mgd(method, student, teacher, truth):
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        state = method.adapters[i].state_dict()
        if "align.weight" in state:
            ours = torch.einsum("oc,nchw->nohw", state["align.weight"][:, :, 0, 0], ours)
            ours = ours + state["align.bias"][:, None, None]
        kept = torch.rand(*ours.shape[:2], 1, 1) >= method.settings.mask_ratio
        x = F.conv2d(ours * kept, state["generate.0.weight"], state["generate.0.bias"], padding=1)
        x = x.clamp(min=0)
        x = F.conv2d(x, state["generate.2.weight"], state["generate.2.bias"], padding=1)
        x = F.interpolate(x, theirs.shape[-2:], mode="bilinear")
        loss = loss + ((x - theirs) ** 2).sum() / len(theirs)
    return loss


def relative_distances(rows):
    found = torch.tensor([[((a - b) ** 2).sum() for b in rows] for a in rows])
    return found / found.max()


def naive_irg(method, student, teacher, truth):
    def mean_square(a, b):
        return ((a - b) ** 2).sum() / a.numel()

    def stages(first, second):
        channels, sizes = min(first.shape[1], second.shape[1]), second.shape[2:]
        a, b = (
            F.adaptive_avg_pool1d(
                F.adaptive_avg_pool2d(x, sizes).flatten(2).transpose(1, 2), channels
            ).transpose(1, 2)
            for x in (first, second)
        )
        found = ((a - b) ** 2).sum((1, 2))
        return found / found.max()

    edges = mean_square(*(relative_distances(x.vector) for x in (student, teacher)))
    return edges + mean_square(*(stages(*x.levels) for x in (student, teacher)))


def huber(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def naive_rkd(method, student, teacher, truth):
    def distances(rows):
        found = [[float((a - b).norm()) for b in rows] for a in rows]
        positive = [x for row in found for x in row if x > 0]
        mean = sum(positive) / len(positive)
        return [x / mean for row in found for x in row]

    def angles(rows):
        def unit(a, b):
            return (b - a) / (b - a).norm().clamp(min=1e-12)

        return [float(unit(a, b) @ unit(a, c)) for a in rows for b in rows for c in rows]

    def difference(function):
        ours, theirs = (function(x.vector) for x in (student, teacher))
        return sum(huber(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)

    weights = method.settings
    return weights.distance * difference(distances) + weights.angle * difference(angles)


def naive_pkt(method, student, teacher, truth):
    def neighbours(rows):
        found = [[float(a @ b / (a.norm() * b.norm()) + 1) / 2 for b in rows] for a in rows]
        return [x / sum(row) for row in found for x in row]

    ours, theirs = (neighbours(x.vector) for x in (student, teacher))
    return sum(b * math.log(b / a) for a, b in zip(ours, theirs, strict=True)) / len(ours)


def naive_cc(method, student, teacher, truth):
    def kernel(a, b):
        product, gamma = float(a @ b / (a.norm() * b.norm())), method.settings.gamma
        powers = range(method.settings.order + 1)
        terms = [(2 * gamma * product) ** p / math.factorial(p) for p in powers]
        return math.exp(-2 * gamma) * sum(terms)

    ours, theirs = ([kernel(a, b) for a in x.vector for b in x.vector] for x in (student, teacher))
    return sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / len(ours)


def probabilities(view, temperature):
    return torch.tensor([softmax(row, temperature) for row in view.logits.tolist()])


def naive_dist(method, student, teacher, truth):
    settings = method.settings
    ours, theirs = (probabilities(x, settings.temperature) for x in (student, teacher))

    def loss(first, second):
        rows = zip(first, second, strict=True)
        return 1 - sum(torch.corrcoef(torch.stack(pair))[0, 1] for pair in rows) / len(first)

    rows, columns = loss(ours, theirs), loss(ours.T, theirs.T)
    return settings.temperature**2 * (settings.beta * rows + settings.gamma * columns)


def naive_mlkd(method, student, teacher, truth):
    total = 0.0
    for temperature in method.settings.temperatures:
        ours, theirs = (probabilities(x, temperature) for x in (student, teacher))
        rows = zip(ours.tolist(), theirs.tolist(), strict=True)
        total += temperature**2 * sum(divergence(b, a) for a, b in rows) / len(ours)
        images = [[[a @ b for b in p] for a in p] for p in (ours, theirs)]
        total += ((torch.tensor(images[0]) - torch.tensor(images[1])) ** 2).sum() / len(ours)
        classes = [[[a @ b for b in p.T] for a in p.T] for p in (ours, theirs)]
        total += ((torch.tensor(classes[0]) - torch.tensor(classes[1])) ** 2).sum() / len(ours.T)
    return total


def naive_fgd(method, student, teacher, truth):
    loss, s = 0.0, method.settings
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        ours = adapted(method, i, ours, theirs)
        height, width = theirs.shape[2:]
        contexts = [
            naive_context(contexts[i].state_dict(), x)
            for contexts, x in ((method.ours, ours), (method.theirs, theirs))
        ]
        total = s.relation * ((contexts[0] - contexts[1]) ** 2).sum()
        for a, b, boxes in zip(ours, theirs, truth.boxes, strict=True):
            mask = torch.zeros(height, width)
            for x0, y0, x1, y1 in boxes.tolist():
                left, right = math.floor(x0 / 48 * width), math.ceil(x1 / 48 * width)
                top, bottom = math.floor(y0 / 32 * height), math.ceil(y1 / 32 * height)
                share = 1 / ((right + 1 - left) * (bottom + 1 - top))
                part = mask[top : bottom + 1, left : right + 1]
                mask[top : bottom + 1, left : right + 1] = part.clamp(min=share)
            others = (mask == 0) / max(1, int((mask == 0).sum()))
            (spatial_a, channel_a), (spatial_b, channel_b) = (
                (
                    height * width * (x.abs().mean(0).flatten() / s.temperature).softmax(0),
                    len(x) * (x.abs().mean((1, 2)) / s.temperature).softmax(0),
                )
                for x in (a, b)
            )
            squares = (a - b) ** 2 * channel_b[:, None, None] * spatial_b.view(height, width)
            total = total + (squares * (s.objects * mask + s.others * others)).sum()
            gap = (spatial_a - spatial_b).abs().sum() + (channel_a - channel_b).abs().sum()
            total = total + s.attention * gap
        loss = loss + total / len(theirs)
    return loss


def naive_context(state, level):
    outputs = []
    for image in level:
        scores = torch.einsum("c,chw->hw", state["mask.weight"][0, :, 0, 0], image)
        shares = (scores + state["mask.bias"]).flatten().softmax(0).view(scores.shape)
        x = state["transform.0.weight"][:, :, 0, 0] @ (image * shares).sum((1, 2))
        x = x + state["transform.0.bias"]
        x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
        x = x * state["transform.1.weight"].flatten() + state["transform.1.bias"].flatten()
        x = state["transform.3.weight"][:, :, 0, 0] @ x.clamp(min=0) + state["transform.3.bias"]
        outputs.append(image + x[:, None, None])
    return torch.stack(outputs)


def connected(method, i, level):
    """A student's level through its convolution and batch norm."""
    state = method.adapters[i].state_dict()
    x = torch.einsum("oc,nchw->nohw", state["0.weight"][:, :, 0, 0], level)
    x = x + state.get("0.bias", torch.zeros(len(x[0])))[:, None, None]
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt()
    return x * state["1.weight"][:, None, None] + state["1.bias"][:, None, None]


def naive_ofd(method, student, teacher, truth):
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        ours = F.adaptive_avg_pool2d(connected(method, i, ours), theirs.shape[-2:])
        # The mean of the negative values of a normal distribution of deviation 1 and mean 0.5.
        x = torch.linspace(-8, 0, 800001, dtype=torch.float64)
        density = (-((x - 0.5) ** 2) / 2).exp()
        margin, total = float((x * density).sum() / density.sum()), 0.0
        for f, g in zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True):
            g = max(g, margin)
            total += 0.0 if f <= g and g <= 0 else (f - g) ** 2
        loss += total / len(theirs) / 2 ** (1 - i)
    return loss


def naive_ab(method, student, teacher, truth):
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        ours, total = F.adaptive_avg_pool2d(connected(method, i, ours), theirs.shape[-2:]), 0.0
        for u, v in zip(ours.flatten().tolist(), theirs.flatten().tolist(), strict=True):
            if v <= 0 and u > -1:
                total += (u + 1) ** 2
            if v > 0 and u <= 1:
                total += (u - 1) ** 2
        loss += total / len(theirs) / 2 ** (1 - i)
    return loss


def naive_fsp(method, student, teacher, truth):
    def flow(first, second):
        first = F.adaptive_avg_pool2d(first, second.shape[-2:])
        return torch.einsum("nchw,ndhw->ncd", first, second) / second[0, 0].numel()

    ours = []
    for i, level in enumerate(student.levels):
        state = method.adapters[i].state_dict()
        if state:
            level = torch.einsum("oc,nchw->nohw", state["weight"][:, :, 0, 0], level)
            level = level + state["bias"][:, None, None]
        ours.append(level)
    return ((flow(*ours) - flow(*teacher.levels)) ** 2).mean()


def encoded(state, x, *, fixed):
    for conv, norm in ((0, 1), (3, 4), (6, 7)):
        x = F.conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], padding=1)
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, keepdim=True)
        if fixed:
            mean, var = 0.0, torch.tensor(1.0)  # the first running statistics
        x = (x - mean) / (var + 1e-5).sqrt()
        x = x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]
        x = x.where(x > 0, 0.1 * x)
    return x


def naive_ft(method, student, teacher, truth):
    ours = encoded(method.translate.state_dict(), student.levels[-1], fixed=False)
    theirs = encoded(method.paraphrase.encode.state_dict(), teacher.levels[-1], fixed=True)
    total = 0.0
    for a, b in zip(F.adaptive_avg_pool2d(ours, theirs.shape[-2:]), theirs, strict=True):
        a, b = ((x**2).sum(0) / len(x) for x in (a, b))
        a, b = (x / (x**2).sum().sqrt() for x in (a, b))
        total = total + (a - b).abs().sum() / a.numel()
    return total / len(theirs)


def naive_jacobian(method, student, teacher, truth):
    rows = zip(student.input_gradient, teacher.input_gradient, strict=True)
    found = [((a / a.norm() - b / b.norm()) ** 2).sum() for a, b in rows]
    return sum(found) / len(found)


def naive_crd(method, student, teacher, truth):
    negatives = method.others(truth.sample, method.settings.negatives)
    total = 0.0
    for side, view in enumerate((student, teacher)):
        scores = []
        for sample, others, row in zip(truth.sample, negatives, view.vector, strict=True):
            v = method.embed[side].weight @ row + method.embed[side].bias
            v = v / v.norm()
            rows = method.memory[1 - side, torch.cat([sample[None], others])]
            scores.append((rows @ v / method.settings.temperature).exp())
        scores, samples = torch.stack(scores), method.memory.shape[1]
        scores = scores / (scores.mean() * samples)
        noise = len(negatives[0]) / samples
        total -= (scores[:, 0] / (scores[:, 0] + noise)).log().mean()
        total -= (noise / (scores[:, 1:] + noise)).log().sum() / len(scores)
    return total


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(wanted, logit):
    return -(wanted * math.log(sigmoid(logit)) + (1 - wanted) * math.log(sigmoid(-logit)))


def naive_box_regression(method, student, teacher, truth):
    total = 0.0
    for ours, theirs, true in zip(student.deltas, teacher.deltas, truth.deltas, strict=True):
        distance = sum((a - b) ** 2 for a, b in zip(ours.tolist(), true.tolist(), strict=True))
        bound = sum((a - b) ** 2 for a, b in zip(theirs.tolist(), true.tolist(), strict=True))
        total += distance if distance > bound + method.settings.margin else 0.0
    return total / len(student.deltas)


def naive_mask_logits(method, student, teacher, truth):
    temperature = method.settings.temperature
    cells = zip(student.masks.flatten().tolist(), teacher.masks.flatten().tolist(), strict=True)
    errors = [cross_entropy(sigmoid(b / temperature), a / temperature) for a, b in cells]
    return temperature**2 * sum(errors) / len(errors)


def naive_rpn_logits(method, student, teacher, truth):
    objectness = list(zip(student.objectness.tolist(), teacher.objectness.tolist(), strict=True))
    total = sum(cross_entropy(sigmoid(b), a) for a, b in objectness)
    rows = zip(objectness, student.anchor_deltas, teacher.anchor_deltas, strict=True)
    for (a, b), ours, theirs in rows:
        total += method.settings.boxes * float((ours - theirs).abs().sum()) if b > a else 0.0
    return total / len(objectness)


def naive_crosskd(method, student, teacher, truth):
    def crossed(number, ours, theirs):
        state = method.align[number].state_dict()
        maps = []
        for x, wanted in zip(ours.maps, theirs.maps, strict=True):
            if state:
                x = torch.einsum("oc,nchw->nohw", state["weight"][:, :, 0, 0], x)
                x = x + state["bias"][:, None, None]
            channels = []
            for c in range(x.shape[1]):
                a, b = x[:, c], wanted[:, c]
                unit = (a - a.mean()) / (((a - a.mean()) ** 2).mean().sqrt() + 1e-6)
                channels.append(unit * ((b - b.mean()) ** 2).mean().sqrt() + b.mean())
            maps.append(torch.stack(channels, dim=1))
        return theirs.finish(maps)

    scores = teacher.classes.finish(teacher.classes.maps).sigmoid()
    logits = crossed(0, student.classes, teacher.classes)
    classes = sum(
        abs(q - sigmoid(x)) ** method.settings.beta * cross_entropy(q, x)
        for x, q in zip(logits.flatten().tolist(), scores.flatten().tolist(), strict=True)
    )
    boxes = crossed(1, student.boxes, teacher.boxes).flatten(0, 1).tolist()
    wanted = teacher.boxes.finish(teacher.boxes.maps).flatten(0, 1).tolist()
    weights = scores.amax(2).flatten().tolist()
    apart = sum(w * (1 - giou(a, b)) for w, a, b in zip(weights, boxes, wanted, strict=True))
    return (classes + method.settings.boxes * apart) / truth.objects


def giou(a, b):
    def area(x0, y0, x1, y1):
        return max(x1 - x0, 0) * max(y1 - y0, 0)

    corners = list(zip(a, b, strict=True))
    inner = area(*(max(x) for x in corners[:2]), *(min(x) for x in corners[2:]))
    outer = area(*(min(x) for x in corners[:2]), *(max(x) for x in corners[2:]))
    union = area(*a) + area(*b) - inner
    return inner / union - (outer - union) / outer


def naive_simkd(method, student, teacher, truth):
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(student.levels, teacher.levels, strict=True)):
        state = method.adapters[i].state_dict()
        for layer in (0, 3, 6) if state else ():
            weight = state[f"{layer}.weight"]
            ours = F.conv2d(ours, weight, padding=weight.shape[2] // 2)
            mean, var = ours.mean((0, 2, 3), keepdim=True), ours.var((0, 2, 3), False, keepdim=True)
            scale, shift = (state[f"{layer + 1}.{x}"][:, None, None] for x in ("weight", "bias"))
            ours = ((ours - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)
        loss = loss + ((F.adaptive_avg_pool2d(ours, theirs.shape[2:]) - theirs) ** 2).mean()
    return loss


def naive_tfkd(method, student, teacher, truth):
    s, total = method.settings, 0.0
    for row, target in zip(student.logits.tolist(), truth.target.tolist(), strict=True):
        u = [
            s.correct if k == target else (1 - s.correct) / (len(row) - 1) for k in range(len(row))
        ]
        total += divergence(softmax(u, s.temperature), softmax(row, 1.0))
    return total / len(student.logits)


def every_row(student):
    """For each image the logits of the student and of its peers."""
    views = [student, *student.peers]
    return list(zip(*(view.logits.tolist() for view in views), strict=True))


def naive_dml(method, student, teacher, truth):
    temperature, total = method.settings.temperature, 0.0
    for rows in every_row(student):
        for i, own in enumerate(rows):
            others = [x for j, x in enumerate(rows) if j != i]
            total += sum(
                divergence(softmax(x, temperature), softmax(own, temperature)) for x in others
            ) / len(others)
    return temperature**2 * total / len(student.logits)


def naive_kdcl(method, student, teacher, truth):
    temperature, total = method.settings.temperature, 0.0
    for rows, target in zip(every_row(student), truth.target.tolist(), strict=True):
        wanted = [min(row[k] - row[target] for row in rows) for k in range(len(rows[0]))]
        for row in rows:
            total += divergence(softmax(wanted, temperature), softmax(row, temperature))
    return temperature**2 * total / len(student.logits)


def naive_one(method, student, teacher, truth):
    temperature, total = method.settings.temperature, 0.0
    pooled = torch.stack([image.flatten(1).sum(1) / image[0].numel() for image in student.shared])
    scores = pooled @ method.gate[0].weight.T + method.gate[0].bias
    scores = (scores - scores.mean(0)) / (scores.var(0, False) + 1e-5).sqrt()
    scores = (scores * method.gate[1].weight + method.gate[1].bias).clamp(min=0).tolist()
    for rows, score, target in zip(every_row(student), scores, truth.target.tolist(), strict=True):
        gates = softmax(score, 1.0)
        ensemble = [sum(g * row[k] for g, row in zip(gates, rows, strict=True)) for k in range(5)]
        total -= math.log(softmax(ensemble, 1.0)[target])
        for row in rows:
            apart = divergence(softmax(ensemble, temperature), softmax(row, temperature))
            total += temperature**2 * apart
    return total / len(student.logits)


def naive_okddip(method, student, teacher, truth):
    temperature, total = method.settings.temperature, 0.0
    vectors = [peer.vector for peer in student.peers]
    for n, (leader, *peers) in enumerate(every_row(student)):
        said = [softmax(row, temperature) for row in peers]
        for vector, own in zip(vectors, said, strict=True):
            query = method.query.weight @ vector[n]
            heard = softmax([float(query @ (method.key.weight @ x[n])) for x in vectors], 1.0)
            wanted = [sum(a * p[k] for a, p in zip(heard, said, strict=True)) for k in range(5)]
            total += divergence(wanted, own)
        mean = [sum(p[k] for p in said) / len(said) for k in range(5)]
        total += divergence(mean, softmax(leader, temperature))
    return temperature**2 * total / len(student.logits)


NAIVE = {
    "DML": naive_dml,
    "KDCL": naive_kdcl,
    "ONE": naive_one,
    "OKDDip": naive_okddip,
    "TfKD": naive_tfkd,
    "SimKD": naive_simkd,
    "BoxRegression": naive_box_regression,
    "CrossKD": naive_crosskd,
    "MaskLogits": naive_mask_logits,
    "RPNLogits": naive_rpn_logits,
    "OFD": naive_ofd,
    "AB": naive_ab,
    "FSP": naive_fsp,
    "FT": naive_ft,
    "Jacobian": naive_jacobian,
    "CRD": naive_crd,
    "NST": naive_nst,
    "VID": naive_vid,
    "SP": naive_sp,
    "MGD": naive_mgd,
    "IRG": naive_irg,
    "RKD": naive_rkd,
    "PKT": naive_pkt,
    "CC": naive_cc,
    "DIST": naive_dist,
    "MLKD": naive_mlkd,
    "FGD": naive_fgd,
    "ReviewKD": naive_reviewkd,
    "FitNet": naive_fitnet,
    "AT": naive_at,
    "PKD": naive_pkd,
    "CWD": naive_cwd,
    "KD": naive_kd,
    "DKD": naive_dkd,
}
