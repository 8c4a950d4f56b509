"""Wrong answers of learners: whole answers, each with one typical mistake, written without a look at the graded tables.

    python -m tests.exercises.wrong_answers [NAME …]     grade them, and print the share that was named right

A body is what stands in the place of the hole. WRONG maps an exercise to its answers; each is a right body (RIGHT, as a
learner would write it) in which some words are replaced. GOOD has what a hint may name: keys of that exercise's
MISTAKES, several where each is as good, or an id of describe.py.
"""

from __future__ import annotations

import re
import sys
from textwrap import dedent, indent
from typing import Iterator, NamedTuple, Sequence

from exercises.check import Report, grade
from exercises.registry import NAMES, find
from exercises.stub import stub_of


class Wrong(NamedTuple):
    """What the learner did, the body, and what a hint may name."""

    what: str
    body: str
    good: frozenset[str]


def edited(name: str, what: str, words: Sequence[str], named: str = "") -> Wrong:
    """The right body with a mistake in it: old, new, old, new …; every `old` must be there, once or more.

    named   what a hint may name, where GOOD does not say it
    """
    body = dedent(RIGHT[name]).strip("\n")
    for old, new in zip(words[::2], words[1::2]):
        assert old in body, (what, old)
        body = body.replace(old, new)
    return Wrong(what, body, frozenset([named]) if named else good(name, what))


RIGHT = {
    "linear": """
        y = x @ weight.T
        if bias is not None:
            y = y + bias
        return y
    """,
    "softmax": """
        x = float32_under_autocast(x)
        dtype = x.dtype
        z = at_least_float32(x)
        top = z.amax(dim, keepdim=True)
        top = torch.where(top == -torch.inf, torch.zeros_like(top), top)
        e = (z - top).exp()
        total = e.sum(dim, keepdim=True)
        total = torch.where(total == 0, torch.ones_like(total), total)
        return (e / total).to(dtype)
    """,
    "attention": """
        B, N, Q, d = q.shape
        S = k.shape[2]
        bias = additive_mask(attn_mask, key_padding_mask, B, N, Q, S, q.dtype)
        scores = q @ k.transpose(-2, -1) / math.sqrt(d)
        if bias is not None:
            scores = (scores.reshape(B * N, Q, S) + bias).reshape(B, N, Q, S)
        weights = softmax(scores, dim=-1)
        weights = dropout(weights, check_probability(dropout_p), training)
        return weights @ v, weights if need_weights else None
    """,
    "multi_head_attention": """
        B, Q, D = query.shape
        N = self.num_heads
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, b_k, b_v = self.in_proj_bias.chunk(3)
        q, k, v = linear(query, w_q, b_q), linear(key, w_k, b_k), linear(value, w_v, b_v)
        q, k, v = [x.view(B, x.shape[1], N, D // N).transpose(1, 2) for x in (q, k, v)]
        out, weights = scaled_dot_product_attention(q, k, v, attn_mask, key_padding_mask, self.dropout, self.training,
                                                    need_weights)
        out = self.out_proj(out.transpose(1, 2).reshape(B, Q, D))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return out, weights
    """,
    "layer_norm": """
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        axes = tuple(range(-len(shape), 0))
        x = float32_under_autocast(x)
        z = at_least_float32(x)
        mean = z.mean(axes, keepdim=True)
        var = ((z - mean) ** 2).mean(axes, keepdim=True)
        y = (z - mean) / torch.sqrt(var + eps)
        return (y * weight + bias).to(x.dtype)
    """,
    "sine_encoding": """
        work = torch.promote_types(dtype, torch.float32)
        inside = ~pad_mask
        y = inside.cumsum(1, dtype=work)
        x = inside.cumsum(2, dtype=work)
        if normalize:
            y = y / (y[:, -1:, :] + 1e-6) * scale
            x = x / (x[:, :, -1:] + 1e-6) * scale
        i = torch.arange(num_pos_feats // 2, device=pad_mask.device, dtype=work)
        period = temperature ** (2 * i / num_pos_feats)
        features = []
        for place in (y, x):
            angle = place[..., None] / period
            features.append(torch.stack((angle.sin(), angle.cos()), -1).flatten(-2))
        return torch.cat(features, -1).permute(0, 3, 1, 2).to(dtype)
    """,
    "max_pool": """
        kernel, steps, pads, size = pooling_windows(x, kernel_size, stride, padding)
        H, W = x.shape[2:]
        rows = torch.arange(size[0], device=x.device) * steps[0] - pads[0]
        columns = torch.arange(size[1], device=x.device) * steps[1] - pads[1]
        best = None
        for u in range(kernel[0]):
            for v in range(kernel[1]):
                tap = x[:, :, (rows + u).clamp(0, H - 1)][:, :, :, (columns + v).clamp(0, W - 1)]
                best = tap if best is None else torch.maximum(best, tap)
        return best
    """,
    "conv2d": """
        s, p, d = [(a, a) if isinstance(a, int) else a for a in (stride, padding, dilation)]
        B, C, H, W = x.shape
        O, c, k1, k2 = weight.shape
        h = (H + 2 * p[0] - d[0] * (k1 - 1) - 1) // s[0] + 1
        w = (W + 2 * p[1] - d[1] * (k2 - 1) - 1) // s[1] + 1
        padded = x.new_zeros(B, C, H + 2 * p[0], W + 2 * p[1])
        padded[:, :, p[0]:p[0] + H, p[1]:p[1] + W] = x
        y = 0
        for u in range(k1):
            for v in range(k2):
                tap = padded[:, :, u * d[0]:u * d[0] + s[0] * (h - 1) + 1:s[0], v * d[1]:v * d[1] + s[1] * (w - 1) + 1:s[1]]
                tap = tap.reshape(B, groups, c, h * w)
                y = y + weight[:, :, u, v].reshape(groups, O // groups, c) @ tap
        y = y.reshape(B, O, h, w)
        return y if bias is None else y + bias.view(1, O, 1, 1)
    """,
    "batch_norm": """
        dtype = x.dtype
        z = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        if training:
            n = x.numel() // x.shape[1]
            if n <= 1:
                raise ValueError("got one value a channel: it has no variance")
            mean = z.mean((0, 2, 3))
            var = ((z - mean[:, None, None]) ** 2).mean((0, 2, 3))
            with torch.no_grad():
                running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)
                running_var.mul_(1 - momentum).add_((var * n / (n - 1)).to(running_var.dtype), alpha=momentum)
        else:
            mean, var = running_mean, running_var
        y = (z - mean[:, None, None]) / torch.sqrt(var + eps)[:, None, None]
        return (y * weight[:, None, None] + bias[:, None, None]).to(dtype)
    """,
    "giou": """
        a, b = at_least_float32(a_xyxy), at_least_float32(b_xyxy)

        def area(box):
            return (box[..., 2] - box[..., 0]).clamp(min=0) * (box[..., 3] - box[..., 1]).clamp(min=0)

        def ratio(one, other):
            safe = torch.where(other > 0, other, torch.ones_like(other))
            return torch.where(other > 0, one / safe, torch.zeros_like(other))

        low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
        inter = area(torch.cat((low, high), -1))
        union = area(a) + area(b) - inter
        hull = area(torch.cat((torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])), -1))
        return ratio(inter, union) - ratio(hull - union, hull)
    """,
    "hungarian": """
        n, m = len(cost), len(cost[0])
        u, v = [0] * (n + 1), [0] * (m + 1)
        owner = [0] * (m + 1)
        way = [0] * (m + 1)
        for i in range(1, n + 1):
            owner[0] = i
            j0 = 0
            minv = [inf] * (m + 1)
            used = [False] * (m + 1)
            while True:
                used[j0] = True
                i0, delta, j1 = owner[j0], inf, 0
                for j in range(1, m + 1):
                    if not used[j]:
                        cur = cost[i0 - 1][j - 1] - u[i0] - v[j]
                        if cur < minv[j]:
                            minv[j], way[j] = cur, j0
                        if minv[j] < delta:
                            delta, j1 = minv[j], j
                if delta == inf:
                    columns = [j - 1 for j in range(1, m + 1) if used[j]]
                    raise ValueError(sorted(owner[j] - 1 for j in range(m + 1) if used[j]), columns)
                for j in range(m + 1):
                    if used[j]:
                        u[owner[j]] += delta
                        v[j] -= delta
                    else:
                        minv[j] -= delta
                j0 = j1
                if owner[j0] == 0:
                    break
            while j0:
                owner[j0] = owner[way[j0]]
                j0 = way[j0]
        answer = [0] * n
        for j in range(1, m + 1):
            if owner[j]:
                answer[owner[j] - 1] = j - 1
        return answer
    """,
    "matcher": """
        logits, boxes = at_least_float32(outputs["pred_logits"]), at_least_float32(outputs["pred_boxes"])
        pairs = []
        for i, target in enumerate(targets):
            labels = target["labels"].to(logits.device)
            true = target["boxes"].to(boxes.dtype).to(boxes.device)
            if self.focal:
                by_class = focal_matching_cost(logits[i], self.focal_alpha, self.focal_gamma)
            else:
                by_class = -softmax(logits[i], dim=-1)
            class_cost = by_class[:, labels].T
            l1 = (boxes[i][None] - true[:, None]).abs().sum(-1)
            giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(boxes[i][None]), box_cxcywh_to_xyxy(true[:, None]))
            cost = self.cost_class * class_cost + self.cost_bbox * l1 - self.cost_giou * giou
            objects, queries = linear_sum_assignment(cost)
            order = sorted(zip(queries, objects))
            pairs.append((torch.tensor([query for query, _ in order], dtype=torch.int64),
                          torch.tensor([one for _, one in order], dtype=torch.int64)))
        return pairs
    """,
    "cross_entropy": """
        log_p = log_softmax(at_least_float32(float32_under_autocast(logits)), dim=-1)
        losses = -log_p.gather(-1, target[..., None])[..., 0]
        if weight is not None:
            w = weight[target]
            losses = losses * w
            if reduction == "mean":
                return losses.sum() / w.sum()
        return reduced(losses, reduction)
    """,
    "criterion": """
        (L, B, Q, _), K = logits.shape, self.num_classes
        labels = torch.cat([t["labels"] for t in targets])[target]
        true = torch.cat([t["boxes"] for t in targets]).to(boxes.dtype)[target]
        found = boxes.reshape(-1, 4)[query]
        classes = torch.full((L * B * Q,), K, device=logits.device)
        classes[query] = labels
        w = torch.ones(K + 1, dtype=logits.dtype, device=logits.device)
        w[K] = self.loss.eos_coef
        ce = cross_entropy(logits, classes.view(L, B, Q), w, reduction="none")
        l1 = l1_loss(found, true, reduction="none").sum(-1)
        giou = paired_generalized_box_iou(box_cxcywh_to_xyxy(found), box_cxcywh_to_xyxy(true))
        best = logits.detach().argmax(-1)
        right = (best.flatten()[query] == labels).view(L, -1).to(logits.dtype)
        sizes = torch.tensor([len(t["labels"]) for t in targets], device=logits.device)
        return {
            "loss_ce": ce.sum((1, 2)) / normalisers.class_weight,
            "loss_bbox": l1.view(L, -1).sum(-1) / normalisers.num_boxes,
            "loss_giou": (1 - giou).view(L, -1).sum(-1) / normalisers.num_boxes,
            "cardinality_error": ((best != K).sum(-1) - sizes).abs().to(logits.dtype).mean(-1),
            "class_error": 100 - 100 * right.sum(-1) / max(right.shape[1], 1),
        }
    """,
    "adamw": """
        b1, b2 = betas
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient ** 2
        m_hat = m / (1 - b1 ** step)
        v_hat = v / (1 - b2 ** step)
        weight = weight - lr * weight_decay * weight - lr * m_hat / (v_hat.sqrt() + eps)
        return weight, m, v
    """,
    "focal_loss": """
        same_shape(logits, targets)
        z = at_least_float32(float32_under_autocast(logits))
        t = targets.to(z.dtype)
        p = sigmoid(z)
        log_p = torch.where(z > 0, -torch.log1p(torch.exp(-z.abs())), z - torch.log1p(torch.exp(-z.abs())))
        log_q = log_p - z
        ce = -(t * log_p + (1 - t) * log_q)
        p_t = p * t + (1 - p) * (1 - t)
        loss = (1 - p_t) ** gamma * ce
        if alpha >= 0:
            loss = loss * (alpha * t + (1 - alpha) * (1 - t))
        return reduced(loss, reduction)
    """,
}

MISTAKES = {
    "linear": [
        ("forgets the bias", "y = y + bias", "pass"),
        ("does not transpose the weights, but reshapes them", "weight.T", "weight.reshape(weight.shape[1], weight.shape[0])"),
        ("subtracts the bias", "y + bias", "y - bias"),
        ("adds the bias twice", "y + bias", "y + 2 * bias"),
        ("multiplies the bias", "y + bias", "y * bias"),
        ("sums the bias up to one number", "y + bias", "y + bias.sum()"),
        ("uses the mean of the products", "x @ weight.T", "x @ weight.T / x.shape[-1]"),
        ("detaches the weights", "weight.T", "weight.detach().T"),
    ],
    "softmax": [
        ("always takes the last axis", "z.amax(dim,", "z.amax(-1,", "e.sum(dim,", "e.sum(-1,"),
        ("always takes the first axis", "z.amax(dim,", "z.amax(0,", "e.sum(dim,", "e.sum(0,"),
        ("does not subtract the maximum", "e = (z - top).exp()", "e = z.exp()"),
        ("normalises over everything", "total = e.sum(dim, keepdim=True)", "total = e.sum()"),
        ("forgets the exponential", "e = (z - top).exp()", "e = z"),
        ("returns the logarithm", "return (e / total)", "return (e / total).log()"),
        ("uses powers of two", "e = (z - top).exp()", "e = 2 ** (z - top)"),
        ("divides by the largest, not by the sum", "total = e.sum(dim, keepdim=True)", "total = e.amax(dim, keepdim=True)"),
        ("lets a row of −∞ become NaN", "top = torch.where(top == -torch.inf, torch.zeros_like(top), top)", "",
         "total = torch.where(total == 0, torch.ones_like(total), total)", ""),
        ("adds a small number to the sum", "total = e.sum(dim, keepdim=True)", "total = e.sum(dim, keepdim=True) + 1e-3"),
        ("takes the absolute values", "e = (z - top).exp()", "e = (-(z - top).abs()).exp() * 0 + z.abs().exp()"),
    ],
    "attention": [
        ("forgets √d", " / math.sqrt(d)", ""),
        ("divides by d", "math.sqrt(d)", "d"),
        ("multiplies by √d", "/ math.sqrt(d)", "* math.sqrt(d)"),
        ("divides by the root of the number of keys", "math.sqrt(d)", "math.sqrt(S)"),
        ("softmax over the queries", "softmax(scores, dim=-1)", "softmax(scores, dim=-2)"),
        ("softmax over the heads", "softmax(scores, dim=-1)", "softmax(scores, dim=1)"),
        ("forgets the masks", "if bias is not None:", "if False:"),
        ("forgets the padding mask", "additive_mask(attn_mask, key_padding_mask,", "additive_mask(attn_mask, None,"),
        ("forgets the attention mask", "additive_mask(attn_mask, key_padding_mask,", "additive_mask(None, key_padding_mask,"),
        ("multiplies by the mask", "+ bias)", "* bias)"),
        ("returns the scores as weights", "weights @ v, weights if", "weights @ v, scores if"),
        ("forgets dropout", "weights = dropout(weights, check_probability(dropout_p), training)", ""),
        ("weighs the keys, not the values", "weights @ v,", "weights @ k,"),
        ("puts the mask on the weights after softmax", "if bias is not None:\n    scores = (scores.reshape(B * N, Q, S) + bias).reshape(B, N, Q, S)\nweights = softmax(scores, dim=-1)",
         "weights = softmax(scores, dim=-1)\nif bias is not None:\n    weights = (weights.reshape(B * N, Q, S) * bias.exp()).reshape(B, N, Q, S)"),
    ],
    "multi_head_attention": [
        ("swaps keys and values", "linear(key, w_k, b_k), linear(value, w_v, b_v)", "linear(value, w_k, b_k), linear(key, w_v, b_v)"),
        ("uses the weights of the key for the value", "linear(value, w_v, b_v)", "linear(value, w_k, b_k)"),
        ("takes the query for key and value", "linear(key, w_k, b_k)", "linear(query, w_k, b_k)"),
        ("forgets the biases of the projections", "linear(query, w_q, b_q), linear(key, w_k, b_k), linear(value, w_v, b_v)",
         "linear(query, w_q), linear(key, w_k), linear(value, w_v)"),
        ("forgets the output map", "self.out_proj(out.transpose(1, 2).reshape(B, Q, D))", "out.transpose(1, 2).reshape(B, Q, D)"),
        ("does not transpose the heads back", "out.transpose(1, 2).reshape(B, Q, D)", "out.reshape(B, Q, D)"),
        ("deals the channels to the heads one by one", "x.view(B, x.shape[1], N, D // N).transpose(1, 2)",
         "x.view(B, x.shape[1], D // N, N).permute(0, 3, 1, 2)"),
        ("views instead of transposing", "x.view(B, x.shape[1], N, D // N).transpose(1, 2)", "x.view(B, N, x.shape[1], D // N)"),
        ("one head", "N = self.num_heads", "N = 1"),
        ("forgets the padding mask", "attn_mask, key_padding_mask, self", "attn_mask, None, self"),
        ("forgets to average the weights", "weights = weights.mean(1)", "pass"),
        ("always averages the weights", "weights is not None and average_attn_weights", "weights is not None"),
    ],
    "layer_norm": [
        ("normalises over the batch", "axes = tuple(range(-len(shape), 0))", "axes = (0,)"),
        ("only the last axis", "axes = tuple(range(-len(shape), 0))", "axes = (-1,)"),
        ("sample variance", "var = ((z - mean) ** 2).mean(axes, keepdim=True)",
         "var = ((z - mean) ** 2).sum(axes, keepdim=True) / (z[0].numel() * 0 + math.prod(shape) - 1)"),
        ("ε outside the root", "torch.sqrt(var + eps)", "(torch.sqrt(var) + eps)"),
        ("forgets ε", "torch.sqrt(var + eps)", "torch.sqrt(var)"),
        ("divides by the variance", "torch.sqrt(var + eps)", "(var + eps)"),
        ("mean of squares minus square of the mean", "var = ((z - mean) ** 2).mean(axes, keepdim=True)",
         "var = (z ** 2).mean(axes, keepdim=True) - mean ** 2"),
        ("forgets the mean", "y = (z - mean)", "y = z"),
        ("forgets the weight", "(y * weight + bias)", "(y + bias)"),
        ("forgets the bias", "(y * weight + bias)", "(y * weight)"),
        ("shifts before it scales", "(y * weight + bias)", "((y + bias) * weight)"),
        ("another ε", "torch.sqrt(var + eps)", "torch.sqrt(var + 1e-3)"),
        ("root mean square", "var = ((z - mean) ** 2)", "var = (z ** 2)"),
    ],
    "sine_encoding": [
        ("x before y", "for place in (y, x):", "for place in (x, y):"),
        ("all sines, then all cosines", "torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)", "torch.cat((angle.sin(), angle.cos()), -1)"),
        ("cosine first", "(angle.sin(), angle.cos())", "(angle.cos(), angle.sin())"),
        ("counts from 0", "y = inside.cumsum(1, dtype=work)", "y = inside.cumsum(1, dtype=work) - 1",
         "x = inside.cumsum(2, dtype=work)", "x = inside.cumsum(2, dtype=work) - 1"),
        ("counts the padding", "inside = ~pad_mask", "inside = torch.ones_like(pad_mask)"),
        ("takes the padding for the image", "inside = ~pad_mask", "inside = pad_mask"),
        ("swaps the axes", "y = inside.cumsum(1, dtype=work)\nx = inside.cumsum(2, dtype=work)", "y = inside.cumsum(2, dtype=work)\nx = inside.cumsum(1, dtype=work)",
         "y[:, -1:, :]", "y[:, :, -1:]", "x[:, :, -1:]", "x[:, -1:, :]"),
        ("never normalises", "if normalize:", "if False:"),
        ("always normalises", "if normalize:", "if True:"),
        ("forgets the scale", " * scale", ""),
        ("multiplies by the period", "place[..., None] / period", "place[..., None] * period"),
        ("an exponent of i instead of 2i", "(2 * i / num_pos_feats)", "(i / num_pos_feats)"),
        ("ignores the temperature", "temperature ** (2", "10000.0 ** (2"),
    ],
    "max_pool": [
        ("pads with zeros", "tap = x[:, :, (rows + u).clamp(0, H - 1)][:, :, :, (columns + v).clamp(0, W - 1)]",
         "r, c = rows + u, columns + v\n        tap = x[:, :, r.clamp(0, H - 1)][:, :, :, c.clamp(0, W - 1)]\n        ok = ((r >= 0) & (r < H))[:, None] & ((c >= 0) & (c < W))\n        tap = torch.where(ok, tap, torch.zeros_like(tap))"),
        ("the mean of the window", "best = tap if best is None else torch.maximum(best, tap)", "best = tap if best is None else best + tap",
         "return best", "return best / (kernel[0] * kernel[1])"),
        ("the minimum", "torch.maximum(best, tap)", "torch.minimum(best, tap)"),
        ("swaps rows and columns of the kernel", "range(kernel[0])", "range(kernel[1] )", "range(kernel[1]):", "range(kernel[0]):"),
        ("misses the last tap", "for v in range(kernel[1])", "for v in range(max(kernel[1] - 1, 1))"),
        ("ignores the padding", "* steps[0] - pads[0]", "* steps[0]", "* steps[1] - pads[1]", "* steps[1]"),
        ("a stride of 1 where none is given", "kernel, steps, pads, size = pooling_windows(x, kernel_size, stride, padding)",
         "kernel, steps, pads, size = pooling_windows(x, kernel_size, 1 if stride is None else stride, padding)"),
        ("always moves by the kernel", "pooling_windows(x, kernel_size, stride, padding)", "pooling_windows(x, kernel_size, None, padding)"),
        ("takes the maximum of absolute values", "torch.maximum(best, tap)", "torch.maximum(best.abs(), tap.abs())"),
    ],
    "conv2d": [
        ("forgets the bias", "y if bias is None else y + bias.view(1, O, 1, 1)", "y"),
        ("flips the kernel", "weight[:, :, u, v]", "weight[:, :, k1 - 1 - u, k2 - 1 - v]"),
        ("swaps the kernel's axes", "weight[:, :, u, v]", "weight.transpose(2, 3).reshape(weight.shape)[:, :, u, v]"),
        ("ignores the dilation", "s, p, d = [(a, a) if isinstance(a, int) else a for a in (stride, padding, dilation)]",
         "s, p, d = [(a, a) if isinstance(a, int) else a for a in (stride, padding, 1)]"),
        ("ignores the padding", "(stride, padding, dilation)", "(stride, 0, dilation)"),
        ("ignores the stride", "(stride, padding, dilation)", "(1, padding, dilation)"),
        ("padding off by one", "p[0]:p[0] + H, p[1]:p[1] + W] = x", "max(p[0] - 1, 0):max(p[0] - 1, 0) + H, max(p[1] - 1, 0):max(p[1] - 1, 0) + W] = x"),
        ("swaps stride of rows and columns", "s[0] * (h - 1) + 1:s[0]", "s[1] * (h - 1) + 1:s[1]", "s[1] * (w - 1) + 1:s[1]]", "s[0] * (w - 1) + 1:s[0]]",
         "// s[0] + 1", "// s[1] + 1 ", "// s[1] + 1\n", "// s[0] + 1\n"),
        ("adds the bias once for each tap", "y = y + weight[:, :, u, v].reshape(groups, O // groups, c) @ tap",
         "y = y + weight[:, :, u, v].reshape(groups, O // groups, c) @ tap + (0 if bias is None else bias.view(groups, O // groups, 1))",
         "y if bias is None else y + bias.view(1, O, 1, 1)", "y"),
        ("pads with the edge", "padded[:, :, p[0]:p[0] + H, p[1]:p[1] + W] = x",
         "padded = x[:, :, (torch.arange(H + 2 * p[0]) - p[0]).clamp(0, H - 1)][:, :, :, (torch.arange(W + 2 * p[1]) - p[1]).clamp(0, W - 1)]"),
        ("pads on one side only", "p[0]:p[0] + H, p[1]:p[1] + W] = x", "2 * p[0]:2 * p[0] + H, 2 * p[1]:2 * p[1] + W] = x"),
        ("an output one row short", "// s[0] + 1", "// s[0]"),
        ("takes the mean of the window", "return y if bias is None", "y = y / (k1 * k2 * c)\nreturn y if bias is None"),
    ],
    "batch_norm": [
        ("normalises each image", "mean = z.mean((0, 2, 3))\n", "mean = z.mean((2, 3))\n", "var = ((z - mean[:, None, None]) ** 2).mean((0, 2, 3))",
         "var = ((z - mean[..., None, None]) ** 2).mean((2, 3))", "y = (z - mean[:, None, None]) / torch.sqrt(var + eps)[:, None, None]",
         "y = (z - mean[..., None, None]) / torch.sqrt(var + eps)[..., None, None]",
         "add_(mean.to", "add_(mean.reshape(-1, x.shape[1]).mean(0).to", "(var * n", "(var.reshape(-1, x.shape[1]).mean(0) * n"),
        ("running variance without n/(n−1)", "(var * n / (n - 1))", "var"),
        ("normalises by the sample variance", "/ torch.sqrt(var + eps)[:, None, None]", "/ torch.sqrt(var * (n / (n - 1) if training else 1) + eps)[:, None, None]"),
        ("momentum the other way round", "running_mean.mul_(1 - momentum)", "running_mean.mul_(momentum)", "running_var.mul_(1 - momentum)", "running_var.mul_(momentum)",
         "alpha=momentum", "alpha=1 - momentum"),
        ("never updates the running statistics", "running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)", "pass",
         "running_var.mul_(1 - momentum).add_((var * n / (n - 1)).to(running_var.dtype), alpha=momentum)", "pass"),
        ("evaluates with the batch's own statistics", "if training:\n", "if True:\n"),
        ("trains with the running statistics", "else:\n    mean, var = running_mean, running_var", "if True:\n    mean, var = running_mean, running_var"),
        ("ε outside the root", "torch.sqrt(var + eps)", "(torch.sqrt(var) + eps)"),
        ("forgets the weight", "(y * weight[:, None, None] + bias[:, None, None])", "(y + bias[:, None, None])"),
        ("forgets the bias", "(y * weight[:, None, None] + bias[:, None, None])", "(y * weight[:, None, None])"),
        ("updates the running variance by the standard deviation", "(var * n / (n - 1)).to", "(var * n / (n - 1)).sqrt().to"),
        ("replaces the running statistics", "running_mean.mul_(1 - momentum).add_(mean.to(running_mean.dtype), alpha=momentum)", "running_mean.copy_(mean)",
         "running_var.mul_(1 - momentum).add_((var * n / (n - 1)).to(running_var.dtype), alpha=momentum)", "running_var.copy_(var * n / (n - 1))"),
    ],
    "giou": [
        ("returns the IoU", "return ratio(inter, union) - ratio(hull - union, hull)", "return ratio(inter, union)"),
        ("does not clamp the sides", ".clamp(min=0)", ""),
        ("adds the intersection to the union", "area(a) + area(b) - inter", "area(a) + area(b) + inter"),
        ("forgets the intersection in the union", "area(a) + area(b) - inter", "area(a) + area(b)"),
        ("divides the penalty by the union", "ratio(hull - union, hull)", "ratio(hull - union, union)"),
        ("penalty plus instead of minus", "ratio(inter, union) - ratio", "ratio(inter, union) + ratio"),
        ("takes the hull for the union", "return ratio(inter, union)", "return ratio(inter, hull)"),
        ("reads the boxes as centre and size", "a, b = at_least_float32(a_xyxy), at_least_float32(b_xyxy)",
         "a, b = at_least_float32(a_xyxy), at_least_float32(b_xyxy)\na, b = (torch.cat((t[..., :2] - t[..., 2:] / 2, t[..., :2] + t[..., 2:] / 2), -1) for t in (a, b))"),
        ("returns the loss", "return ratio(inter, union) - ratio(hull - union, hull)", "return 1 - ratio(inter, union) + ratio(hull - union, hull)"),
        ("counts pixels inclusively", "(box[..., 2] - box[..., 0])", "(box[..., 2] - box[..., 0] + 1)", "(box[..., 3] - box[..., 1])", "(box[..., 3] - box[..., 1] + 1)"),
        ("penalty by the intersection", "ratio(hull - union, hull)", "ratio(hull - inter, hull)"),
        ("0/0 is NaN", "return torch.where(other > 0, one / safe, torch.zeros_like(other))", "return one / other"),
    ],
    "hungarian": [
        ("greedy, row by row", None),
        ("greedy, cheapest pair first", None),
        ("maximises", "cost[i0 - 1][j - 1]", "-cost[i0 - 1][j - 1]"),
        ("each row its cheapest column, twice the same", None),
        ("the diagonal", None),
        ("forgets the columns' potentials", "- u[i0] - v[j]", "- u[i0]"),
        ("forgets the rows' potentials", "- u[i0] - v[j]", "- v[j]"),
        ("never moves the potentials", "u[owner[j]] += delta\n                v[j] -= delta", "pass"),
        ("returns the row of each column", None),
        ("greedy, and then one round of swaps", None),
        ("tries only the cheapest half of the columns", None),
    ],
    "matcher": [
        ("forgets the class cost", "self.cost_class * class_cost + ", ""),
        ("a positive probability", "-softmax(logits[i], dim=-1)", "softmax(logits[i], dim=-1)"),
        ("adds GIoU", "- self.cost_giou * giou", "+ self.cost_giou * giou"),
        ("forgets GIoU", " - self.cost_giou * giou", ""),
        ("forgets L1", " + self.cost_bbox * l1", ""),
        ("GIoU of boxes that are not converted", "paired_generalized_box_iou(box_cxcywh_to_xyxy(boxes[i][None]), box_cxcywh_to_xyxy(true[:, None]))",
         "paired_generalized_box_iou(boxes[i][None].expand(len(true), -1, -1), true[:, None])"),
        ("log-probability", "-softmax(logits[i], dim=-1)", "-softmax(logits[i], dim=-1).log()"),
        ("ignores the weights", "self.cost_class * class_cost + self.cost_bbox * l1 - self.cost_giou * giou", "class_cost + l1 - giou"),
        ("the mean of the four differences", ".abs().sum(-1)", ".abs().mean(-1)"),
        ("squared differences", ".abs().sum(-1)", ".pow(2).sum(-1)"),
        ("pairs in the order of the objects", "order = sorted(zip(queries, objects))", "order = list(zip(queries, objects))"),
        ("swaps query and target", "torch.tensor([query for query, _ in order], dtype=torch.int64),\n                  torch.tensor([one for _, one in order], dtype=torch.int64)",
         "torch.tensor([one for _, one in order], dtype=torch.int64),\n                  torch.tensor([query for query, _ in order], dtype=torch.int64)"),
        ("softmax over the queries", "softmax(logits[i], dim=-1)", "softmax(logits[i], dim=0)"),
        ("raw logits", "-softmax(logits[i], dim=-1)", "-logits[i]"),
    ],
    "cross_entropy": [
        ("forgets the minus", "losses = -log_p", "losses = log_p"),
        ("the mean divides by the number of targets", "return losses.sum() / w.sum()", "return losses.mean()"),
        ("forgets the class weights", "losses = losses * w", "pass"),
        ("always the mean", "return reduced(losses, reduction)", "return losses.mean()"),
        ("takes logits for log-probabilities", "log_p = log_softmax(at_least_float32(float32_under_autocast(logits)), dim=-1)", "log_p = at_least_float32(logits)"),
        ("softmax and then the logarithm", "log_softmax(at_least_float32(float32_under_autocast(logits)), dim=-1)",
         "(at_least_float32(float32_under_autocast(logits)).exp() / at_least_float32(float32_under_autocast(logits)).exp().sum(-1, keepdim=True)).log()"),
        ("softmax over the wrong axis", "dim=-1)\nlosses", "dim=0)\nlosses"),
        ("the probability, not its logarithm", "losses = -log_p.gather", "losses = -log_p.exp().gather"),
        ("divides by the sum of all class weights", "losses.sum() / w.sum()", "losses.sum() / weight.sum()"),
        ("weights squared", "losses = losses * w\n", "losses = losses * w * w\n"),
        ("logarithm to base 2", "losses = -log_p", "losses = -1.4426950408889634 * log_p"),
    ],
    "criterion": [
        ("no-object weight forgotten", "w[K] = self.loss.eos_coef", "pass"),
        ("the no-object weight on class 0", "w[K] =", "w[0] ="),
        ("unmatched queries get class 0", "torch.full((L * B * Q,), K, device=logits.device)", "torch.zeros(L * B * Q, dtype=torch.int64, device=logits.device)"),
        ("GIoU instead of 1 − GIoU", "(1 - giou)", "giou"),
        ("GIoU of boxes that are not converted", "paired_generalized_box_iou(box_cxcywh_to_xyxy(found), box_cxcywh_to_xyxy(true))", "paired_generalized_box_iou(found, true)"),
        ("class loss averaged over the queries", "/ normalisers.class_weight", "/ (B * Q)"),
        ("box losses averaged over the four sides", 'reduction="none").sum(-1)', 'reduction="none").mean(-1)'),
        ("box losses not normalised", "l1.view(L, -1).sum(-1) / normalisers.num_boxes", "l1.view(L, -1).sum(-1)",
         "(1 - giou).view(L, -1).sum(-1) / normalisers.num_boxes", "(1 - giou).view(L, -1).sum(-1)"),
        ("accuracy instead of error", "100 - 100 * right", "100 * right"),
        ("error as a share", "100 - 100 * right.sum(-1)", "1 - right.sum(-1)"),
        ("class loss of the matched queries alone", "ce.sum((1, 2))", "ce.flatten()[query].view(L, -1).sum(-1)"),
        ("cardinality without absolute value", ".abs().to(logits.dtype).mean(-1)", ".to(logits.dtype).mean(-1)"),
        ("the label of the first object for every query", "[target]\ntrue", "[:1].expand(len(target))\ntrue"),
    ],
    "adamw": [
        ("no bias correction", "m / (1 - b1 ** step)", "m", "v / (1 - b2 ** step)", "v"),
        ("bias correction of the momentum alone", "v / (1 - b2 ** step)", "v"),
        ("step counted from 0", "b1 ** step", "b1 ** (step + 1)", "b2 ** step", "b2 ** (step + 1)"),
        ("coupled weight decay", "b1, b2 = betas", "b1, b2 = betas\ngradient = gradient + weight_decay * weight", " - lr * weight_decay * weight", ""),
        ("no weight decay", " - lr * weight_decay * weight", ""),
        ("weight decay without the learning rate", "lr * weight_decay * weight", "weight_decay * weight"),
        ("ε inside the root", "(v_hat.sqrt() + eps)", "(v_hat + eps).sqrt()"),
        ("betas swapped", "b1, b2 = betas", "b2, b1 = betas"),
        ("forgets the root", "(v_hat.sqrt() + eps)", "(v_hat + eps)"),
        ("ascends", "- lr * m_hat", "+ lr * m_hat"),
        ("returns the corrected moments", "return weight, m, v", "return weight, m_hat, v_hat"),
        ("the gradient, not its square", "gradient ** 2", "gradient.abs()"),
        ("decays after the step", "weight = weight - lr * weight_decay * weight - lr * m_hat / (v_hat.sqrt() + eps)",
         "weight = weight - lr * m_hat / (v_hat.sqrt() + eps)\nweight = weight - lr * weight_decay * weight"),
    ],
    "focal_loss": [
        ("alpha on the noes", "(alpha * t + (1 - alpha) * (1 - t))", "((1 - alpha) * t + alpha * (1 - t))"),
        ("no alpha", "if alpha >= 0:", "if False:"),
        ("p_t instead of 1 − p_t", "(1 - p_t) ** gamma", "p_t ** gamma"),
        ("no focusing factor", "(1 - p_t) ** gamma * ce", "ce"),
        ("alpha for every answer", "(alpha * t + (1 - alpha) * (1 - t))", "alpha"),
        ("gamma always 2", "** gamma", "** 2"),
        ("always the mean", "return reduced(loss, reduction)", "return loss.mean()"),
        ("forgets the minus", "ce = -(t", "ce = (t"),
        ("the loss of the yeses alone", "ce = -(t * log_p + (1 - t) * log_q)", "ce = -(t * log_p)"),
        ("softmax instead of sigmoid", "p = sigmoid(z)", "p = (z - z.amax(-1, keepdim=True)).exp()\np = p / p.sum(-1, keepdim=True)"),
        ("the logarithm of a rounded probability", "log_p = torch.where(z > 0, -torch.log1p(torch.exp(-z.abs())), z - torch.log1p(torch.exp(-z.abs())))\nlog_q = log_p - z",
         "log_p = p.log()\nlog_q = (1 - p).log()"),
        ("alpha where it is negative, too", "if alpha >= 0:", "if True:"),
    ],
}

WHOLE = {
    ("hungarian", "greedy, row by row"): """
        taken, answer = set(), []
        for row in cost:
            j = min((j for j in range(len(row)) if j not in taken), key=lambda j: row[j])
            taken.add(j)
            answer.append(j)
        return answer
    """,
    ("hungarian", "greedy, cheapest pair first"): """
        answer = [-1] * len(cost)
        for value, i, j in sorted((cost[i][j], i, j) for i in range(len(cost)) for j in range(len(cost[0]))):
            if answer[i] < 0 and j not in answer:
                answer[i] = j
        return answer
    """,
    ("hungarian", "each row its cheapest column, twice the same"): """
        return [min(range(len(row)), key=lambda j: row[j]) for row in cost]
    """,
    ("hungarian", "the diagonal"): """
        return list(range(len(cost)))
    """,
    ("hungarian", "greedy, and then one round of swaps"): """
        taken, answer = set(), []
        for row in cost:
            j = min((j for j in range(len(row)) if j not in taken), key=lambda j: row[j])
            taken.add(j)
            answer.append(j)
        for a in range(len(answer)):
            for b in range(a + 1, len(answer)):
                if cost[a][answer[b]] + cost[b][answer[a]] < cost[a][answer[a]] + cost[b][answer[b]]:
                    answer[a], answer[b] = answer[b], answer[a]
        return answer
    """,
    ("hungarian", "tries only the cheapest half of the columns"): """
        from itertools import permutations
        n, m = len(cost), len(cost[0])
        good = sorted(range(m), key=lambda j: sum(row[j] for row in cost))[:max(n, m // 2)]
        return list(min(permutations(good, n), key=lambda c: sum(cost[i][j] for i, j in enumerate(c))))
    """,
}


GOOD = {
    "linear": {
        "forgets the bias": "bias_forgotten",
        "does not transpose the weights, but reshapes them": "weight_reshaped",
        "subtracts the bias": "bias_subtracted",
        "adds the bias twice": "bias_twice",
        "multiplies the bias": "bias_multiplied",
        "sums the bias up to one number": "bias_summed",
        "uses the mean of the products": "mean_over_inputs",
        "detaches the weights": "gradient_missing",
    },
    "softmax": {
        "always takes the last axis": "dim_ignored_last",
        "always takes the first axis": "dim_ignored_first",
        "does not subtract the maximum": "no_maximum",
        "normalises over everything": "over_everything",
        "forgets the exponential": "no_exponential",
        "returns the logarithm": "logarithm",
        "uses powers of two": "base_two",
        "divides by the largest, not by the sum": "largest_for_sum",
        "lets a row of −∞ become NaN": "nan_for_minus_infinity",
        "adds a small number to the sum": "eps_in_the_sum",
        "takes the absolute values": "absolute_values",
    },
    "attention": {
        "forgets √d": "no_root_d",
        "divides by d": "by_d",
        "multiplies by √d": "times_root_d",
        "divides by the root of the number of keys": "root_of_keys",
        "softmax over the queries": "softmax_over_queries",
        "softmax over the heads": "softmax_over_heads",
        "forgets the masks": "padding_ignored attn_mask_ignored",
        "forgets the padding mask": "padding_ignored",
        "forgets the attention mask": "attn_mask_ignored",
        "multiplies by the mask": "mask_multiplied",
        "returns the scores as weights": "scores_as_weights",
        "forgets dropout": "dropout_forgotten",
        "weighs the keys, not the values": "keys_as_values",
        "puts the mask on the weights after softmax": "masked_after_softmax",
    },
    "multi_head_attention": {
        "swaps keys and values": "keys_and_values_swapped",
        "uses the weights of the key for the value": "key_map_for_value",
        "takes the query for key and value": "key_from_query",
        "forgets the biases of the projections": "no_input_bias",
        "forgets the output map": "no_output_map",
        "does not transpose the heads back": "heads_not_turned_back",
        "deals the channels to the heads one by one": "heads_interleaved",
        "views instead of transposing": "heads_cut_from_tokens",
        "one head": "one_wide_head",
        "forgets the padding mask": "padding_ignored",
        "forgets to average the weights": "never_averaged",
        "always averages the weights": "always_averaged",
    },
    "layer_norm": {
        "normalises over the batch": "over_the_batch",
        "only the last axis": "last_axis_alone",
        "sample variance": "sample_variance",
        "ε outside the root": "eps_outside_the_root",
        "forgets ε": "eps_missing",
        "divides by the variance": "no_root",
        "mean of squares minus square of the mean": "one_pass",
        "forgets the mean": "numerator_not_centred mean_not_subtracted",
        "forgets the weight": "weight_forgotten",
        "forgets the bias": "bias_forgotten",
        "shifts before it scales": "bias_before_the_weight",
        "another ε": "eps_fixed",
        "root mean square": "variance_not_centred",
    },
    "sine_encoding": {
        "x before y": "x_first",
        "all sines, then all cosines": "sines_then_cosines",
        "cosine first": "cosine_first",
        "counts from 0": "counts_from_zero",
        "counts the padding": "padding_counts",
        "takes the padding for the image": "mask_inverted",
        "swaps the axes": "x_first",  # the sentence names this, too
        "never normalises": "never_normalised",
        "always normalises": "always_normalised",
        "forgets the scale": "scale_forgotten",
        "multiplies by the period": "multiplied",
        "an exponent of i instead of 2i": "exponent_without_two",
        "ignores the temperature": "temperature_ignored",
    },
    "max_pool": {
        "pads with zeros": "padding_is_zero",
        "the mean of the window": "mean",
        "the minimum": "minimum",
        "swaps rows and columns of the kernel": "kernel_swapped",
        "misses the last tap": "last_tap_missing",
        "ignores the padding": "padding_ignored",
        "a stride of 1 where none is given": "stride_one_by_default",
        "always moves by the kernel": "stride_ignored",
        "takes the maximum of absolute values": "largest_size",
    },
    "conv2d": {
        "forgets the bias": "bias_forgotten",
        "flips the kernel": "kernel_flipped",
        "swaps the kernel's axes": "kernel_transposed",
        "ignores the dilation": "dilation_ignored",
        "ignores the padding": "padding_ignored",
        "ignores the stride": "stride_ignored",
        "padding off by one": "padding_off_by_one",
        "swaps stride of rows and columns": "stride_swapped",
        "adds the bias once for each tap": "bias_for_each_tap",
        "pads with the edge": "padding_repeats_the_edge",
        "pads on one side only": "padding_before_alone padding_doubled",  # 2p zeros before the image, none behind
        "an output one row short": "last_window_lost",
        "takes the mean of the window": "mean_over_the_window",
    },
    "batch_norm": {
        "normalises each image": "each_image_by_itself",
        "running variance without n/(n−1)": "population_variance_remembered",
        "normalises by the sample variance": "sample_variance",
        "momentum the other way round": "momentum_turned_round",
        "never updates the running statistics": "never_updated",
        "evaluates with the batch's own statistics": "batch_statistics_in_evaluation updated_in_evaluation",  # both
        "trains with the running statistics": "running_statistics_updated_first running_statistics_in_training",
        "ε outside the root": "eps_outside_the_root",
        "forgets the weight": "weight_forgotten",
        "forgets the bias": "bias_forgotten",
        "updates the running variance by the standard deviation": "deviation_remembered",
        "replaces the running statistics": "replaced",
    },
    "giou": {
        "returns the IoU": "iou_alone",
        "does not clamp the sides": "not_clamped own_areas_not_clamped",  # neither is
        "adds the intersection to the union": "intersection_added",
        "forgets the intersection in the union": "intersection_counted_twice",
        "divides the penalty by the union": "penalty_by_the_union",
        "penalty plus instead of minus": "penalty_added",
        "takes the hull for the union": "iou_by_the_hull",
        "reads the boxes as centre and size": "read_as_cxcywh",
        "returns the loss": "loss",
        "counts pixels inclusively": "pixels_counted",
        "penalty by the intersection": "penalty_of_the_intersection",
        "0/0 is NaN": "nan_for_empty_boxes",
    },
    "hungarian": {
        "greedy, row by row": "greedy_row_by_row",
        "greedy, cheapest pair first": "greedy_smallest_first",
        "maximises": "most_expensive",
        "each row its cheapest column, twice the same": "row_minimum",
        "the diagonal": "in_order",
        "forgets the columns' potentials": "potentials_of_columns_forgotten",
        "forgets the rows' potentials": "potentials_of_rows_forgotten",
        "never moves the potentials": "potentials_fixed",
        "returns the row of each column": "owner_of_each_column rows_of_columns",
        "greedy, and then one round of swaps": "swapped_pairs_once",
        "tries only the cheapest half of the columns": "cheap_columns_alone",
    },
    "matcher": {
        "forgets the class cost": "class_ignored",
        "a positive probability": "class_cost_positive",
        "adds GIoU": "giou_added",
        "forgets GIoU": "giou_ignored",
        "forgets L1": "l1_ignored",
        "GIoU of boxes that are not converted": "giou_of_cxcywh",
        "log-probability": "class_cost_logarithm",
        "ignores the weights": "weights_ignored",
        "the mean of the four differences": "l1_mean",
        "squared differences": "squared_distance",
        "pairs in the order of the objects": "ordered_by_target",
        "swaps query and target": "queries_and_targets_swapped",
        "softmax over the queries": "softmax_over_queries",
        "raw logits": "logits_as_probabilities",
    },
    "cross_entropy": {
        "forgets the minus": "no_minus",
        "the mean divides by the number of targets": "mean_over_rows",
        "forgets the class weights": "weight_ignored",
        "always the mean": "always_mean",
        "takes logits for log-probabilities": "no_normaliser",
        "softmax and then the logarithm": "log_of_softmax",
        "softmax over the wrong axis": "classes_first",
        "the probability, not its logarithm": "probabilities",
        "divides by the sum of all class weights": "divided_by_all_weights",
        "weights squared": "weight_applied_twice",
        "logarithm to base 2": "base_two",
    },
    "criterion": {
        "no-object weight forgotten": "no_object_weight_one",
        "the no-object weight on class 0": "weight_on_the_first_class",
        "unmatched queries get class 0": "no_object_is_class_zero",
        "GIoU instead of 1 − GIoU": "giou_is_the_loss",
        "GIoU of boxes that are not converted": "giou_of_cxcywh",
        "class loss averaged over the queries": "class_loss_by_queries",
        "box losses averaged over the four sides": "l1_mean",
        "box losses not normalised": "box_losses_summed",
        "accuracy instead of error": "accuracy",
        "error as a share": "share_for_per_cent",
        "class loss of the matched queries alone": "unmatched_queries_left_out",
        "cardinality without absolute value": "sign_of_cardinality_kept",
        "the label of the first object for every query": "first_label_for_all",
    },
    "adamw": {
        "no bias correction": "no_correction",
        "bias correction of the momentum alone": "no_correction_of_v",
        "step counted from 0": "step_too_large",  # step + 1, for who thinks that it counts from 0
        "coupled weight decay": "decay_in_the_gradient",
        "no weight decay": "decay_forgotten",
        "weight decay without the learning rate": "decay_without_lr",
        "ε inside the root": "eps_inside_the_root",
        "betas swapped": "betas_swapped",
        "forgets the root": "no_root",
        "ascends": "uphill",
        "returns the corrected moments": "corrected_moments_returned",
        "the gradient, not its square": "size_for_square",
        "decays after the step": "decay_of_the_moved_weight",
    },
    "focal_loss": {
        "alpha on the noes": "alpha_swapped",
        "no alpha": "alpha_ignored",
        "p_t instead of 1 − p_t": "right_for_wrong",
        "no focusing factor": "factor_left_out",
        "alpha for every answer": "alpha_for_all",
        "gamma always 2": "gamma_fixed",
        "always the mean": "always_mean",
        "forgets the minus": "no_minus",
        "the loss of the yeses alone": "only_yes",
        "softmax instead of sigmoid": "softmax",
        "the logarithm of a rounded probability": "naive",
        "alpha where it is negative, too": "negative_alpha_taken",
    },
}


def good(name: str, what: str) -> frozenset[str]:
    return frozenset(GOOD[name][what].split())


# Of a second reader, who got no hint, or a wrong one, when these were written: (what, what a hint may name, edits …).
SECOND = {
    "softmax": [
        ("takes the maximum without keepdim", "maximum_loses_its_axis", "z.amax(dim, keepdim=True)", "z.amax(dim)",
         "e.sum(dim, keepdim=True)", "e.sum(dim)"),
        ("sums along the last axis", "sum_along_the_last_axis", "e.sum(dim,", "e.sum(-1,")],
    "attention": [
        ("returns the weights before dropout", "weights_before_dropout", "weights = dropout(weights,", "used = dropout(weights,",
         "return weights @ v", "return used @ v"),
        ("subtracts one maximum for all", "one_maximum_for_all", "weights = softmax(scores, dim=-1)",
         "e = (scores - scores.max()).exp()\nweights = e / e.sum(-1, keepdim=True)"),
        ("reads the mask of heads as (N, B, …)", "mask_of_heads_first",
         "scores = (scores.reshape(B * N, Q, S) + bias).reshape(B, N, Q, S)",
         "of_heads = attn_mask is not None and attn_mask.dim() == 3\n"
         "    scores = scores + (bias.reshape(N, B, Q, S).transpose(0, 1) if of_heads else "
         "bias.expand(B * N, -1, -1).reshape(B, N, -1, S))")],
    "layer_norm": [
        ("rounds back to the dtype before autocast", "cast_back", "shape = (normal", "dtype = x.dtype\nshape = (normal",
         ".to(x.dtype)", ".to(dtype)")],
    "conv2d": [
        ("forgets the dilation at the taps", "dilation_of_the_size_alone", "u * d[0]:u * d[0] +", "u:u +",
         "v * d[1]:v * d[1] +", "v:v +"),
        ("forgets the stride at the windows", "stride_of_the_size_alone", "s[0] * (h - 1) + 1:s[0]", "h",
         "s[1] * (w - 1) + 1:s[1]", "w"),
        ("does not expect that there is no bias", "none", "y if bias is None else y + bias.view(1, O, 1, 1)",
         "y + torch.stack([bias[o] for o in range(O)]).view(1, O, 1, 1)")],
    "giou": [
        ("counts pixels in the intersection alone", "pixels_counted", "inter = area(torch.cat((low, high), -1))",
         "inter = area(torch.cat((low, high + 1), -1))")],
    "hungarian": [
        ("does not reset the distances for each row", "distances_kept", "    minv = [inf] * (m + 1)\n", "",
         "way = [0] * (m + 1)\n", "way = [0] * (m + 1)\nminv = [inf] * (m + 1)\n"),
        ("does not lower the distances", "distances_not_lowered", "minv[j] -= delta", "pass"),
        ("takes a forbidden pair where nothing else is left", "forbidden_pairs_taken", "if delta == inf:",
         "if delta == inf:\n            delta, j1 = 0, next(j for j in range(1, m + 1) if not used[j])\n"
         "        if False:")],
    "criterion": [
        ("takes the predicted boxes at the objects' places", "boxes_at_the_places_of_objects",
         "boxes.reshape(-1, 4)[query]", "boxes.reshape(-1, 4)[target]"),
        ("takes the labels in their own order", "labels_in_their_own_order",
         'labels = torch.cat([t["labels"] for t in targets])[target]',
         'labels = torch.cat([t["labels"] for t in targets])\n'
         "labels = labels[torch.arange(len(target)) % max(len(target) // L, 1)]"),
        ("counts the queries above one half", "half_is_found", "(best != K).sum(-1)",
         "(logits.detach().softmax(-1)[..., :K].amax(-1) > 0.5).sum(-1)"),
        ("takes the absolute value over the batch", "cardinality_of_the_batch", ".abs().to(logits.dtype).mean(-1)",
         ".to(logits.dtype).mean(-1).abs()")],
}


def _all() -> dict[str, list[Wrong]]:
    answers: dict[str, list[Wrong]] = {}
    for name, mistakes in MISTAKES.items():
        answers[name] = []
        for what, *words in mistakes:
            if words == [None]:
                body = WHOLE.get((name, what))
                if body is None:  # the right one, read the other way
                    body = dedent(RIGHT[name]).strip("\n").replace("return answer", "") + (
                        "\nreturn [owner[j] - 1 for j in range(1, m + 1)]")
                answers[name].append(Wrong(what, dedent(body).strip("\n"), good(name, what)))
            else:
                answers[name].append(edited(name, what, words))
    for name, mistakes in SECOND.items():
        for what, named, *words in mistakes:
            answers[name].append(edited(name, what, words, named))
    return answers


WRONG = _all()


def source_of(name: str, body: str) -> str:
    """The stub with a body in the place of its hole."""
    stub = stub_of(find(name))
    hole = next(line for line in stub.splitlines() if "raise NotImplementedError" in line)
    margin = re.match(" *", hole).group()
    return stub.replace(hole, indent(dedent(body).strip("\n"), margin))


def named_right(wrong: Wrong, report: Report) -> bool:
    """Does the hint name what the learner did, and nothing that the learner did not do?"""
    said = {*report.mistakes, report.general} - {""}
    return not report.passed and bool(said) and said <= wrong.good


def graded(names: Sequence[str]) -> Iterator[tuple[str, Wrong, Report]]:
    for name in names:
        for wrong in WRONG[name]:
            yield name, wrong, grade(name, source_of(name, wrong.body), proofs=False)


def main(names: Sequence[str]) -> int:
    """Print the share of the wrong answers whose hint was right, exercise by exercise, and the others."""
    rights, totals = 0, 0
    for name in names or NAMES:
        answers = [(wrong, report, named_right(wrong, report)) for _, wrong, report in graded([name])]
        right = sum(named for _, _, named in answers)
        print(f"{name:21} {right:3} of {len(answers):3} named right", flush=True)
        for wrong, report, named in answers:
            if not named:
                said = "passed" if report.passed else ", ".join(report.mistakes) or f"only described: {report.general}"
                print(f"{'':21}     {wrong.what}: {said} ({report.stage})", flush=True)
        rights, totals = rights + right, totals + len(answers)
    print(f"{'all':21} {rights:3} of {totals:3} named right: {100 * rights / totals:.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
