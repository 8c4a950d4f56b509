"""transformer: how do Q object queries read a whole image, all of them in parallel?

    src (B,D,h,w) → tokens (B,S,D) ── encoder ──► memory (B,S,D)     S = h·w cells of the feature map
    query_embed (Q,D) ── decoder (reads memory) ──► hs (L,B,Q,D): hidden states, one of each layer

Each step of a layer has a residual (skip) connection: its result is added to its input, and the sum
is normalised ("post-norm", Vaswani et al. 2017, arXiv 1706.03762):

    encoder   x ← norm1(x + self_attn(x + pos, x + pos, x))               attn(query, key, value)
              x ← norm2(x + ffn(x))                           ffn(x) = linear2(relu(linear1(x)))
    decoder   t ← norm1(t + self_attn(t + query_pos, t + query_pos, t))   t = 0 at the start
              t ← norm2(t + multihead_attn(t + query_pos, memory + pos, memory))
              t ← norm3(t + ffn(t))

Self-attention: tokens read each other. Cross-attention (multihead_attn): queries read the memory.
The feed-forward network ffn works on each token alone. An object query is a learnt vector (D), called
query_pos; the decoder turns each into one prediction. Positional encodings (pos, query_pos) are added
to queries and keys in every layer, never to values: they decide where to read, not what is read.
Queries have no order and no causal mask: all objects are found in one pass (DETR, section 3.2, A.3).
Since t = 0, as in the official code, all values of the first decoder layer's self-attention are equal
(the bias): without dropout its result does not depend on which query attends to which.

Names and dropout as in the official DETR. Proven in tests/model/test_transformer.py.
Read: TransformerEncoderLayer → TransformerDecoderLayer → TransformerDecoder → Transformer → MLP
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor, nn

from scratch.ops.activations import relu
from scratch.ops.attention import MultiheadAttention
from scratch.ops.dropout import Dropout
from scratch.ops.init import xavier_uniform_
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear


class TransformerEncoderLayer(nn.Module):
    """Tokens (B,S,D) → (B,S,D): self-attention among all cells that are not padding, then the feed-forward network.

    F features stand between linear1 and linear2. GFLOPs at D=256, F=2048, S=380: linear maps 1.00 (∝ S), attention 0.15
    (∝ S²). DC5, four times S: 3.98 and 2.37.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2 = LayerNorm(d_model), LayerNorm(d_model)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, src: Tensor, pad_mask: Tensor, pos: Tensor,
                need_weights: bool = False) -> tuple[Tensor, Optional[Tensor]]:
        """src, pos (B,S,D), pad_mask (B,S) → tokens (B,S,D) and attention (B,N,S,S), or None unless asked for."""
        q = k = src + pos
        gathered, weights = self.self_attn(q, k, src, key_padding_mask=pad_mask, need_weights=need_weights)
        src = self.norm1(src + self.dropout1(gathered))
        hidden = self.dropout(relu(self.linear1(src)))  # (B,S,F)
        return self.norm2(src + self.dropout2(self.linear2(hidden))), weights  # (B,S,D)


class TransformerDecoderLayer(nn.Module):
    """Queries (B,Q,D) → (B,Q,D): self-attention among them, cross-attention, feed-forward.

    0.44 GFLOPs at Q=100, S=380.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout=dropout)
        self.linear1 = Linear(d_model, dim_feedforward)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model)
        self.norm1, self.norm2, self.norm3 = LayerNorm(d_model), LayerNorm(d_model), LayerNorm(d_model)
        self.dropout1, self.dropout2, self.dropout3 = Dropout(dropout), Dropout(dropout), Dropout(dropout)

    def forward(self, tgt: Tensor, query_pos: Tensor, memory: Tensor, memory_keys: Tensor, pad_mask: Tensor,
                need_weights: bool = False, attn_mask: Optional[Tensor] = None,
                ) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
        """tgt, query_pos (B,Q,D), memory, memory_keys (B,S,D), pad_mask (B,S), attn_mask (Q,Q) → tgt (B,Q,D),
        and the attention among the queries (B,N,Q,Q) and to the memory (B,N,Q,S), or twice None.
        """
        # Without self-attention no query could know of the others, and several would predict the same object.
        q = k = tgt + query_pos
        gathered, self_weights = self.self_attn(q, k, tgt, attn_mask=attn_mask, need_weights=need_weights)
        tgt = self.norm1(tgt + self.dropout1(gathered))
        gathered, cross_weights = self.multihead_attn(
            tgt + query_pos, memory_keys, memory, key_padding_mask=pad_mask, need_weights=need_weights)
        tgt = self.norm2(tgt + self.dropout2(gathered))
        hidden = self.dropout(relu(self.linear1(tgt)))  # (B,Q,F)
        return self.norm3(tgt + self.dropout3(self.linear2(hidden))), self_weights, cross_weights


class TransformerEncoder(nn.Module):
    """A stack of encoder layers. They end normalised (post-norm), so no norm is added at the end."""

    def __init__(self, layers: list[TransformerEncoderLayer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, src: Tensor, pad_mask: Tensor, pos: Tensor, need_weights: bool = False) -> tuple[Tensor, list]:
        """src, pos (B,S,D), pad_mask (B,S) → memory (B,S,D), and each layer's attention (B,N,S,S) or None."""
        attention = []
        for layer in self.layers:
            src, weights = layer(src, pad_mask, pos, need_weights)
            attention.append(weights)
        return src, attention


class TransformerDecoder(nn.Module):
    """A stack of decoder layers. The tokens of every layer, through one shared `norm`, are a result of their own.

    The layers end normalised, too. The shared norm is there because the same heads read the tokens of every layer
    (section 3.2, auxiliary decoding losses).
    """

    def __init__(self, layers: list[TransformerDecoderLayer], norm: LayerNorm):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    # All layers' results come out, not only the last: in training each has a loss of its own (auxiliary losses,
    # section 3.2), so that the gradient reaches early layers without passing through all later ones.
    def forward(self, query_embed: Tensor, memory: Tensor, pos: Tensor, pad_mask: Tensor, need_weights: bool = False,
                attn_mask: Optional[Tensor] = None) -> tuple[Tensor, list, list]:
        """query_embed (Q,D), memory, pos (B,S,D), pad_mask (B,S) → hs (L,B,Q,D), and the layers' attentions."""
        memory_keys = memory + pos  # once for all layers
        # (shape[0]: in an exporter's trace len() would be a constant, and so the batch size.)
        query_pos = query_embed.expand(memory.shape[0], -1, -1)  # (B,Q,D): the same queries for every image
        tgt, hs, self_attention, cross_attention = torch.zeros_like(query_pos), [], [], []  # 0: see above
        for layer in self.layers:
            tgt, to_queries, to_memory = layer(tgt, query_pos, memory, memory_keys, pad_mask, need_weights, attn_mask)
            hs.append(self.norm(tgt))  # (B,Q,D); the next layer gets tgt, without this norm
            self_attention.append(to_queries)
            cross_attention.append(to_memory)
        return torch.stack(hs), self_attention, cross_attention


class Transformer(nn.Module):
    """src (B,D,h,w), pad_mask (B,h,w), query_embed (Q,D), pos_embed (B,D,h,w) → hs (L,B,Q,D), attention.

    attention is None, or with `need_weights` a dict: "encoder" a list of (B,N,S,S), "decoder_self" (L,B,N,Q,Q),
    "decoder_cross" (L,B,N,Q,S), "size" the (h,w) of S, and "cross_size" that of decoder_cross: here the same.
    attn_mask (Q,Q), True = may not read, is for queries that must not see each other; the published model has none.
    """

    def __init__(self, d_model: int = 256, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = TransformerEncoder([TransformerEncoderLayer(*sizes) for _ in range(num_encoder_layers)])
        layers = [TransformerDecoderLayer(*sizes) for _ in range(num_decoder_layers)]
        self.decoder = TransformerDecoder(layers, LayerNorm(d_model))
        for parameter in self.parameters():  # biases and norms stay as their layers made them
            if parameter.dim() > 1:
                xavier_uniform_(parameter)

    def forward(self, src: Tensor, pad_mask: Tensor, query_embed: Tensor, pos_embed: Tensor, need_weights: bool = False,
                attn_mask: Optional[Tensor] = None) -> tuple[Tensor, Optional[dict[str, Any]]]:
        size = tuple(src.shape[2:])  # (h,w)
        src, pos = (x.flatten(2).transpose(1, 2) for x in (src, pos_embed))  # (B,S,D) each
        pad_mask = pad_mask.flatten(1)  # (B,S)
        memory, encoder = self.encoder(src, pad_mask, pos, need_weights)  # (B,S,D)
        hs, to_queries, to_memory = self.decoder(query_embed, memory, pos, pad_mask, need_weights, attn_mask)
        if not need_weights:
            return hs, None  # (L,B,Q,D)
        return hs, {"encoder": encoder, "decoder_self": torch.stack(to_queries),
                    "decoder_cross": torch.stack(to_memory), "size": size, "cross_size": size}


class MLP(nn.Module):
    """x (…,input_dim) → (…,output_dim): `num_layers` linear layers with relu between them, as in the box head."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList([Linear(n, m) for n, m in zip(widths, widths[1:])])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)
