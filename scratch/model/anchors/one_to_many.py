"""one_to_many: how can an object teach several queries, where inference wants one answer for it?

                                                    ┌─ ffn ──────────► token ─► heads: ONE query for each object,
    self-attention ─ cross-attention ─ token (D) ───┤      └─► next layer         the others predict nothing
                                                    └─ ffn of its own ────────► heads: up to `one_to_many` queries,
                                                       in training alone                those whose boxes fit it best

One-to-one matching teaches one query to predict an object. Its neighbours, whose boxes may be as
good, are taught to predict nothing, so that in a step few tokens learn where an object is. One-to-many
assignment (objective/one_to_many) teaches all that are near. One token cannot do both: it would have to
predict the object and nothing. With a feed-forward network (ffn) of its own it can: attention and
heads learn from both assignments, and only the last step of a layer decides between them (Mr. DETR,
Zhang et al. 2025, arXiv 2412.10028: any one part of the decoder's layers that is separate suffices).
At inference the second way is not computed.

How it differs from groups of queries (queries.py): no query is added, so that no attention and no
RoI features are computed again.

Proven in tests/model/anchors/test_one_to_many.py and tests/test_reference.py. Read: OneToManyFeedForward
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.activations import relu
from scratch.ops.dropout import Dropout
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# In Mr. DETR such a route is a whole pass through the decoder: its tokens go on to the next layer, and a third route has
# self-attention with an instruction token. Here the second ffn of each layer gets the tokens of the one-to-one way, and
# its own result goes to the heads alone. Held by test_the_route_of_a_layer_starts_from_the_tokens_of_the_other.


class OneToManyFeedForward(nn.Module):
    """Tokens (B,Q,D) after cross-attention → (B,Q,D): as the layer's own feed-forward network, with other weights."""

    def __init__(self, d_model: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward), Linear(dim_feedforward, d_model)
        self.norm = LayerNorm(d_model)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout1(relu(self.linear1(x)))  # (B,Q,F)
        return self.norm(x + self.dropout2(self.linear2(hidden)))


def with_route(x: Tensor, route: int) -> Tensor:
    """(B,T,…) → (B,T+R,…): what the R first queries have, once more at the end, for their one-to-many answers."""
    return torch.cat((x, x[:, :route]), dim=1) if route else x
