"""matching: queries and objects as a graph with costs, and why the cheapest pair first is not the cheapest in all."""

from __future__ import annotations

import torch

from docs.site.drawings.drawing import Canvas, drawing, shown
from docs.site.example import BOXES, LOGITS, OBJECTS, TRUE, computed
from scratch.objective.matcher import HungarianMatcher
from scratch.ops.activations import softmax
from scratch.ops.boxes import box_cxcywh_to_xyxy, generalized_box_iou
from scratch.ops.hungarian import assign_brute_force, assign_by_potentials

COST = ((1, 2, 8), (3, 9, 9))  # the note's: rows cat and dog, columns queries


def costs() -> list[list[float]]:
    """The matching costs (queries, objects) of the worked example of docs/trace.md, by the matcher's formula."""
    matcher = HungarianMatcher()
    logits, boxes, true = (torch.tensor(x, dtype=torch.float64) for x in (LOGITS, BOXES, TRUE))
    p = softmax(logits, -1)[:, :len(OBJECTS)]
    l1 = (boxes[:, None] - true[None]).abs().sum(-1)
    giou = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(true))
    return (-matcher.cost_class * p + matcher.cost_bbox * l1 - matcher.cost_giou * giou).tolist()


def greedy(cost: tuple[tuple[int, ...], ...]) -> list[int]:
    """Each row takes its cheapest column that is still free."""
    columns: list[int] = []
    for row in cost:
        columns.append(min((j for j in range(len(row)) if j not in columns), key=row.__getitem__))
    return columns


def paint_matcher(canvas: Canvas) -> None:
    table, found = costs(), computed()
    pairs = dict(zip(found["query"].tolist(), found["target"].tolist()))
    left, right = 84, 276
    canvas.text(left - 34, 20, "queries", 13, bold=True)
    canvas.text(right + 34, 20, "true objects", 13, bold=True)
    y_query = [62.0, 142.0, 222.0]
    y_object = [62.0, 222.0]
    order = sorted(((q, t) for q in range(len(table)) for t in range(len(OBJECTS))),
                   key=lambda p: pairs.get(p[0]) == p[1])
    for q, t in order:
        chosen = pairs.get(q) == t
        canvas.line([(left, y_query[q]), (right, y_object[t])], "green" if chosen else "line", 3.2 if chosen else 1.3)
    for q, t in order:
        chosen = pairs.get(q) == t
        share = {(0, 0): 0.5, (2, 1): 0.5, (0, 1): 0.28, (2, 0): 0.28, (1, 0): 0.62, (1, 1): 0.62}[q, t]
        x, y = left + share * (right - left), y_query[q] + share * (y_object[t] - y_query[q])
        canvas.rect(x - 25, y - 10, 50, 19, "paper", "green" if chosen else "line", radius=4)
        canvas.text(x, y + 4.5, shown(table[q][t], 3), 12, colour="green" if chosen else "ink", bold=chosen)
    for q, y in enumerate(y_query):
        canvas.box(left - 76, y - 19, 74, 38, [f"query {q}", "no object" if q not in pairs else OBJECTS[pairs[q]]],
                   "soft" if q not in pairs else "blue", 12)
    for t, y in enumerate(y_object):
        canvas.box(right + 2, y - 15, 74, 30, [OBJECTS[t]], "orange", 13)
    total = sum(table[q][t] for q, t in pairs.items())
    canvas.text(180, 268, "cost = −p(class) + 5·L1 − 2·GIoU", 12.5)
    canvas.text(180, 288, f"the cheapest pairs: {' + '.join(shown(table[q][t], 3) for q, t in pairs.items())}"
                .replace("+ −", "− ") + f" = {shown(total, 3)}", 12.5, colour="green")


def paint_hungarian(canvas: Canvas) -> None:
    best = assign_by_potentials(COST)
    assert sum(COST[i][j] for i, j in enumerate(best)) == sum(
        COST[i][j] for i, j in enumerate(assign_brute_force(COST)))
    cell, high, left = 52, 30, 62
    for k, (title, columns, colour) in enumerate((("greedy: the cat first, then the dog", greedy(COST), "red"),
                                                  ("the Hungarian algorithm", best, "green"))):
        top = 14 + 142 * k
        canvas.text(8, top + 8, title, 13, "start", bold=True)
        for j in range(3):
            canvas.text(left + (j + 0.5) * cell, top + 28, f"query {j}", 11.5, colour="soft")

        def fill(i: int, j: int, columns: list[int] = columns, colour: str = colour) -> tuple[str, float]:
            return (colour, 0.28) if columns[i] == j else ("none", 1.0)

        canvas.grid(left, top + 34, cell, [[str(c) for c in row] for row in COST], 14, fill, high)
        for i, name in enumerate(OBJECTS):
            canvas.text(left - 8, top + 34 + (i + 0.5) * high + 4, name, 12.5, "end")
        chosen = [COST[i][j] for i, j in enumerate(columns)]
        canvas.text(left + 3 * cell + 12, top + 70, f"{' + '.join(map(str, chosen))} = {sum(chosen)}", 16, "start",
                    colour, bold=True)
    before = assign_by_potentials(COST[:1])[0]
    canvas.text(8, 276, "the augmenting path that adds the dog", 13, "start", bold=True)
    x = (38, 140, 236, 330)
    words = (("dog", "new row"), (f"query {best[1]}", "taken"), ("cat", "must move"), (f"query {best[0]}", "free"))
    assert before == best[1], "the dog takes the query that the cat had"
    for k, (name, note) in enumerate(words):
        canvas.box(x[k] - 29, 288, 58, 26, [name], "orange" if k % 2 == 0 else "blue", 12)
        canvas.text(x[k], 330, note, 11.5, colour="soft")
        if k < 3:
            canvas.line([(x[k] + 29, 301), (x[k + 1] - 30, 301)], "soft" if k == 1 else "green", 1.4,
                        "4 3" if k == 1 else "", arrow=True)
    canvas.text((x[0] + x[1]) / 2, 296, f"{COST[1][best[1]]}", 12, colour="green", bold=True)
    canvas.text((x[2] + x[3]) / 2, 296, f"{COST[0][best[0]]}", 12, colour="green", bold=True)


MATCHER = drawing(
    "bipartite-matching", "Bipartite matching: one query for each true object, at the smallest sum of costs",
    "Three queries and two objects with the six costs between them. Query 0 is paired with the cat and query 2 with "
    "the dog; query 1 has no object.", 302, paint_matcher)
HUNGARIAN = drawing(
    "hungarian", "Greedy gives 10, the optimum is 5: the new row moves another one",
    "A cost matrix of cat and dog against three queries. Greedy: 1 + 9 = 10. The Hungarian algorithm: 2 + 3 = 5, by "
    "the augmenting path dog, query 0, cat, query 1.", 342, paint_hungarian)
