"""A CUDA graph without CUDA: what is recorded are the operations, with the very tensors that they read and wrote.

A replay runs them again on the same memory, and nothing else: no Python of the model, no number that the CPU read, no
other tensor. Random numbers are drawn anew. `torch.cuda.make_graphed_callables` is PyTorch's own; only what it asks of
CUDA is replaced.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Graph:
    """In the place of torch.cuda.CUDAGraph."""

    made: list["Graph"] = []

    def __init__(self) -> None:
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        self.replays = 0
        Graph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch._C._AutoDispatchBelowAutograd():
            for func, args, kwargs, results in self.operations:
                for result, again in zip(results, tensors(func(*args, **kwargs))):
                    if result.data_ptr() != again.data_ptr():
                        result.copy_(again)


class Recording(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        memory = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
        results = tensors(result)
        if not func.is_view:  # a view stays one
            new = [t for t in results if t.untyped_storage().data_ptr() not in memory]
            assert len(new) in (0, len(results)), func
            self.graph.operations.append((func, args, kwargs or {}, new))
        return result


@contextmanager
def graphs_of_a_cpu() -> Iterator[list[Graph]]:
    """While it lasts, CUDA graphs are made of what runs on the CPU; yields those that were made."""
    Graph.made = []
    replaced = {"torch.cuda.CUDAGraph": Graph, "torch.cuda.graph": lambda graph, pool=None: Recording(graph),
                "torch.cuda.graphs.graph_pool_handle": lambda: None, "torch.cuda.synchronize": lambda: None,
                "torch.cuda.Stream": lambda: None, "torch.cuda.stream": lambda stream: nullcontext()}
    with ExitStack() as stack:
        for name, stand_in in replaced.items():
            stack.enter_context(mock.patch(name, stand_in))
        yield Graph.made
