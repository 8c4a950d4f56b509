"""mlp: linear layers with relu between them: the box head, and the anchors' small networks."""

from __future__ import annotations

from torch import Tensor, nn

from scratch.ops.activations import relu
from scratch.ops.linear import Linear


class MLP(nn.Module):
    """x (…,input_dim) → (…,output_dim) through `num_layers` linear layers with relu between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int):
        super().__init__()
        widths = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList([Linear(n, m) for n, m in zip(widths, widths[1:])])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)
