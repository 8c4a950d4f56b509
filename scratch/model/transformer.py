"""transformer: how do Q questions, asked all at once, get their answers from a whole picture?

    src (B,D,h,w) → tokens (B,S,D) ── encoder ──► memory (B,S,D)   S = h·w cells; each reads all
    query_embed (Q,D) ── decoder (reads memory) ──► hs (L,B,Q,D)   Q questions; L layers answer each

Every layer adds to its tokens what it has gathered, then normalises ("post-norm", Vaswani et al.
2017):

    encoder   x ← norm1(x + self_attn(x + pos, x + pos, x))                  attn(query, key, value)
              x ← norm2(x + ffn(x))                             ffn(x) = linear2(relu(linear1(x)))
    decoder   t ← norm1(t + self_attn(t + query, t + query, t))
              t ← norm2(t + multihead_attn(t + query, memory + pos, memory))
              t ← norm3(t + ffn(t))

Where a token stands (pos, query) enters queries and keys in every layer and values never: what is
passed on is what is there. The decoder's tokens start as zeros, so a query is nothing but its
learnt address. The queries have no order and no mask: all objects are found in one pass (DETR,
section 3.2, appendix A.3).

GFLOPs of an encoder layer at D=256, F=2048, S=380: linear maps 1.00 (∝ S), attention 0.15 (∝ S²).
With DC5, S is four times that: 3.98 and 2.37. A decoder layer with Q=100 and S=380: 0.44.

Names and dropout as in the official DETR. Proven in tests/model/test_transformer.py.
Read: TransformerEncoderLayer → TransformerDecoderLayer → TransformerDecoder → Transformer; then
anchors/decoder.py → AnchorTransformer
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor, nn

from scratch.model.anchors.decoder import AnchorDecoder, AnchorDecoderLayer
from scratch.model.anchors.queries import Queries
from scratch.ops.activations import relu
from scratch.ops.attention import MultiheadAttention
from scratch.ops.dropout import Dropout
from scratch.ops.init import xavier_uniform_
from scratch.ops.layer_norm import LayerNorm
from scratch.ops.linear import Linear


class TransformerEncoderLayer(nn.Module):
    """Tokens (B,S,D) → (B,S,D): each cell gathers from all cells that are not padding, then thinks on its own."""

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
        q = k = src + pos  # asked by content and place; answered, below, by content alone
        gathered, weights = self.self_attn(q, k, src, key_padding_mask=pad_mask, need_weights=need_weights)
        src = self.norm1(src + self.dropout1(gathered))
        hidden = self.dropout(relu(self.linear1(src)))  # (B,S,F)
        return self.norm2(src + self.dropout2(self.linear2(hidden))), weights  # (B,S,D)


class TransformerDecoderLayer(nn.Module):
    """Queries (B,Q,D) → (B,Q,D): agree among each other who takes which object, then look at the picture."""

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
        """tgt, query_pos (B,Q,D), memory, memory_keys (B,S,D), pad_mask (B,S), attn_mask (Q,Q) → tgt (B,Q,D).

        With it come the attention among the queries (B,N,Q,Q) and to the memory (B,N,Q,S), or twice None.
        """
        # Without this step queries could not know of each other, and several would claim the same object.
        q = k = tgt + query_pos
        gathered, self_weights = self.self_attn(q, k, tgt, attn_mask=attn_mask, need_weights=need_weights)
        tgt = self.norm1(tgt + self.dropout1(gathered))
        gathered, cross_weights = self.multihead_attn(
            tgt + query_pos, memory_keys, memory, key_padding_mask=pad_mask, need_weights=need_weights)
        tgt = self.norm2(tgt + self.dropout2(gathered))
        hidden = self.dropout(relu(self.linear1(tgt)))  # (B,Q,F)
        return self.norm3(tgt + self.dropout3(self.linear2(hidden))), self_weights, cross_weights


class TransformerEncoder(nn.Module):
    """Encoder layers one after the other; post-norm layers end normalised, so there is no norm to add."""

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
    """Decoder layers one after the other; every layer's tokens are an answer, read through one shared `norm`."""

    def __init__(self, layers: list[TransformerDecoderLayer], norm: LayerNorm):
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    # All layers' answers come out, not only the last: in training each of them is matched and blamed (the auxiliary
    # losses of section 3.2), so that early layers need not wait for a gradient through all later ones.
    def forward(self, queries: Queries, memory: Tensor, pos: Tensor, pad_mask: Tensor,
                need_weights: bool = False) -> tuple[Tensor, list, list]:
        """queries of addresses (Q,D), memory, pos (B,S,D), pad_mask (B,S) → hs (L,B,Q,D), the layers' attentions."""
        memory_keys = memory + pos  # once for all layers
        # (shape[0]: to an exporter's trace, len() would be a number, and the batch fixed.)
        query_pos = queries.place.expand(memory.shape[0], -1, -1)  # (B,Q,D): the same questions to every picture
        # Zeros, not noise: the first self-attention then mixes equal values, so it is an idle layer (official, too).
        tgt, hs, self_attention, cross_attention = torch.zeros_like(query_pos), [], [], []
        for layer in self.layers:
            tgt, self_weights, cross_weights = layer(tgt, query_pos, memory, memory_keys, pad_mask, need_weights,
                                                     queries.attn_mask)
            hs.append(self.norm(tgt))  # (B,Q,D); what goes on to the next layer is not normed twice
            self_attention.append(self_weights)
            cross_attention.append(cross_weights)
        return torch.stack(hs), self_attention, cross_attention


class Transformer(nn.Module):
    """src (B,D,h,w), pad_mask (B,h,w), queries of addresses (Q,D), pos_embed (B,D,h,w) → hs (L,B,Q,D).

    hs, every layer's answers, comes with None or, if `need_weights`, with who looked where: "encoder" a list of
    (B,N,S,S), "decoder_self" (L,B,N,Q,Q), "decoder_cross" (L,B,N,Q,S), and "size", the (h,w) that S stands for;
    "cross_size", that of decoder_cross, differs from it where the decoder reads a finer memory.
    """

    def __init__(self, d_model: int = 256, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = TransformerEncoder([TransformerEncoderLayer(*sizes) for _ in range(num_encoder_layers)])
        layers = [TransformerDecoderLayer(*sizes) for _ in range(num_decoder_layers)]
        self.decoder = TransformerDecoder(layers, LayerNorm(d_model))
        start_matrices(self)

    def forward(self, src: Tensor, pad_mask: Tensor, queries: Queries, pos_embed: Tensor,
                need_weights: bool = False) -> tuple[Tensor, Optional[dict[str, Any]]]:
        B, D, h, w = src.shape
        src = src.flatten(2).transpose(1, 2)  # (B,S,D)
        pos = pos_embed.flatten(2).transpose(1, 2)  # (B,S,D)
        pad_mask = pad_mask.flatten(1)  # (B,S)
        memory, encoder = self.encoder(src, pad_mask, pos, need_weights)  # (B,S,D)
        hs, decoder_self, decoder_cross = self.decoder(queries, memory, pos, pad_mask, need_weights)  # (L,B,Q,D)
        attention = gathered_attention(encoder, decoder_self, decoder_cross, (h, w), (h, w)) if need_weights else None
        return hs, attention


class AnchorTransformer(nn.Module):
    """As `Transformer`, for queries that are boxes; in two halves, for the encoder may propose them to the decoder.

    encode   src (B,D,h,w), pad_mask (B,h,w), the cells' places (B,S,D) → memory (B,S,D)
    decode   queries with anchors (B,T,4) and content (B,T,D), memory (B,S',D), its places and pad_mask (B,H',W')
             → hs (L,B,T,D), boxes (L,B,T,4), and the layers' attentions, to the queries and to the memory
    """

    def __init__(self, d_model: int = 256, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = TransformerEncoder([TransformerEncoderLayer(*sizes) for _ in range(num_encoder_layers)])
        self.decoder = AnchorDecoder([AnchorDecoderLayer(*sizes) for _ in range(num_decoder_layers)], d_model)
        start_matrices(self)
        self.decoder.reset_places()

    def encode(self, src: Tensor, pad_mask: Tensor, places: Tensor, need_weights: bool = False) -> tuple[Tensor, list]:
        return self.encoder(src.flatten(2).transpose(1, 2), pad_mask.flatten(1), places, need_weights)

    def decode(self, queries: Queries, memory: Tensor, places: Tensor, pad_mask: Tensor,
               refine: Callable[[Tensor, Tensor], Tensor],
               need_weights: bool = False) -> tuple[Tensor, Tensor, list, list]:
        return self.decoder(queries, memory, places, pad_mask.flatten(1), refine, need_weights)


def start_matrices(module: nn.Module) -> None:
    """Xavier for every matrix; biases and norms stay as their layers made them."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            xavier_uniform_(parameter)


def gathered_attention(encoder: list, decoder_self: list, decoder_cross: list, size: tuple[int, int],
                       cross_size: tuple[int, int]) -> dict[str, Any]:
    """Who looked where, under the names of `Transformer`."""
    return {"encoder": encoder, "decoder_self": torch.stack(decoder_self), "decoder_cross": torch.stack(decoder_cross),
            "size": size, "cross_size": cross_size}
