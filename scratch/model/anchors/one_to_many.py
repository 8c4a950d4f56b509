"""one_to_many: how are several queries trained on one object, if inference wants one prediction?

                                                 ┌─ ffn ───────► token ─► heads: ONE query for each
    self-attention ─ cross-attention ─ token (D) ┤    └► next layer       object, bipartite matching
                                                 └─ ffn of its own ─────► heads: `one_to_many` queries
                                                    in training alone     at most for each object

Bipartite matching trains one query on an object. Its neighbours, whose boxes may be as good, are
trained to predict nothing, so that in a step few tokens learn where an object is. One-to-many
assignment (objective/one_to_many) trains several on it. One token cannot have both targets, object
and no object; with a feed-forward network (ffn) of its own each assignment has its token.
Attention and heads get the gradient of both; only the last part of a layer differs (Mr. DETR, Zhang
et al. 2024, arXiv 2412.10028, section 3: one separate part of each decoder layer suffices). At
inference this route is not computed.

Groups of queries (queries.py) have the same aim, and multiply the queries. Here no query is added,
so attention and RoI features are computed once.

Proven in tests/model/anchors/test_one_to_many.py and tests/test_reference.py.
Read: OneToManyFeedForward
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scratch.ops.activations import relu
from scratch.ops.dropout import Dropout
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear

# ── Departures from the paper ───────────────────────────────────────────────────────────────────────────────────────
# In Mr. DETR such a route is a whole pass through the decoder: its tokens go on to the next layer; and a third route has
# self-attention with an instruction token. Here the second ffn of each layer gets the tokens of the one-to-one route,
# and its own result goes to the heads alone. Held by test_the_route_of_a_layer_starts_from_the_tokens_of_the_other.


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
    """(B,T,…) → (B,T+R,…): with a copy of the first R rows behind, for the one-to-many predictions of these queries."""
    return torch.cat((x, x[:, :route]), dim=1) if route else x
