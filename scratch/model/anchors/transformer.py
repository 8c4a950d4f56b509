"""transformer: the encoder and the decoder of queries that are boxes (decoder.py), in two halves.

    src (B,D,h,w) ── encode ──► memory (B,S,D) ── proposals, fine memory ──► decode ──► hs, boxes

The published transformer runs its encoder and decoder in one call. Here the encoder may propose the boxes that the
decoder starts from (proposals.py), and its memory may be refined in between (fine_memory.py).
"""

from __future__ import annotations

from typing import Any, Callable

import torch
from torch import Tensor, nn

from scratch.model.anchors.decoder import AnchorDecoder, AnchorDecoderLayer
from scratch.model.anchors.queries import Queries
from scratch.model.transformer import TransformerEncoder, TransformerEncoderLayer
from scratch.ops.init import xavier_uniform_


class AnchorTransformer(nn.Module):
    """As `Transformer`, for queries that are anchor boxes.

    encode   src (B,D,h,w), pad_mask (B,h,w), the cells' positional encoding (B,S,D) → memory (B,S,D)
    decode   queries with anchors (B,T,4) and content (B,T,D), memory (B,S',D), its encoding and pad_mask (B,H',W')
             → hs (L,B,T,D), boxes (L,B,T,4), and the layers' attentions, to the queries and to the memory
    """

    def __init__(self, d_model: int = 256, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048, dropout: float = 0.1,
                 one_to_many: bool = False):
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout)
        self.encoder = TransformerEncoder([TransformerEncoderLayer(*sizes) for _ in range(num_encoder_layers)])
        layers = [AnchorDecoderLayer(*sizes, one_to_many) for _ in range(num_decoder_layers)]
        self.decoder = AnchorDecoder(layers, d_model)
        for parameter in self.parameters():  # Xavier for every matrix, as in the published transformer
            if parameter.dim() > 1:
                xavier_uniform_(parameter)
        self.decoder.reset_places()

    def encode(self, src: Tensor, pad_mask: Tensor, places: Tensor, need_weights: bool = False) -> tuple[Tensor, list]:
        return self.encoder(src.flatten(2).transpose(1, 2), pad_mask.flatten(1), places, need_weights)

    def decode(self, queries: Queries, memory: Tensor, places: Tensor, pad_mask: Tensor,
               refine: Callable[[Tensor, Tensor], Tensor],
               need_weights: bool = False) -> tuple[Tensor, Tensor, list, list]:
        return self.decoder(queries, memory, places, pad_mask.flatten(1), refine, need_weights)


def gathered_attention(encoder: list, decoder_self: list, decoder_cross: list, size: tuple[int, int],
                       cross_size: tuple[int, int]) -> dict[str, Any]:
    """The attentions of all layers, under the names of `Transformer`."""
    return {"encoder": encoder, "decoder_self": torch.stack(decoder_self), "decoder_cross": torch.stack(decoder_cross),
            "size": size, "cross_size": cross_size}
