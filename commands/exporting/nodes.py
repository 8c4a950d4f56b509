"""nodes: how is a graph for an inference runtime written as arithmetic?

    g = Graph("picture")
    n = g.input("n", np.float64, [])              (2 * n + 1).cast(np.int64)
                                                  ─▶ Mul ─▶ Add ─▶ Cast: three nodes and two constants

A format for networks, ONNX, has one node for each operation, and each result has a name. Written
node by node, ten lines of arithmetic are forty lines of names. Here an operator of Python makes the
node and the name. All names begin with the graph's own, so that graphs can be joined.

Nothing is computed in Python: sizes that depend on the picture stay nodes. A number takes the type
of the tensor that it meets. Proven in tests/exporting/test_nodes.py. Read: Value → Graph
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Optional, Sequence, Union

import numpy as np
import onnx
from onnx import helper, numpy_helper

from commands.export import OPSET

Number = Union[int, float, np.ndarray]
Dimensions = Optional[Sequence[Union[int, str, None]]]


@dataclass(frozen=True)
class Value:
    """A tensor of a graph: its name, and the numpy type of its numbers."""

    graph: "Graph"
    name: str
    dtype: Any

    def __add__(self, other: Union["Value", Number]) -> "Value":
        return self.graph("Add", self, other)

    def __sub__(self, other: Union["Value", Number]) -> "Value":
        return self.graph("Sub", self, other)

    def __mul__(self, other: Union["Value", Number]) -> "Value":
        return self.graph("Mul", self, other)

    def __truediv__(self, other: Union["Value", Number]) -> "Value":
        """A quotient; of whole numbers (none below 0 here) the whole part."""
        return self.graph("Div", self, other)

    def __lt__(self, other: Union["Value", Number]) -> "Value":
        return self.graph("Less", self, other, dtype=np.bool_)

    def __gt__(self, other: Union["Value", Number]) -> "Value":
        return self.graph("Greater", self, other, dtype=np.bool_)

    def cast(self, dtype: Any) -> "Value":
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph("Cast", self, dtype=dtype, to=to)

    def at(self, index: Union["Value", Number], axis: int = 0) -> "Value":
        """The slice, or the slices, at an index of one axis."""
        index = index if isinstance(index, Value) else np.array(index, np.int64)
        return self.graph("Gather", self, index, axis=axis)

    def with_axes(self, *axes: int) -> "Value":
        """With axes of length 1 at these places of the result."""
        return self.graph("Unsqueeze", self, np.array(axes, np.int64))

    def transposed(self, *axes: int) -> "Value":
        return self.graph("Transpose", self, perm=list(axes))

    def shape(self) -> "Value":
        return self.graph("Shape", self, dtype=np.int64)


@dataclass
class Graph:
    """Nodes in the order in which they are made; calling it makes one."""

    name: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def input(self, name: str, dtype: Any, dimensions: Dimensions) -> Value:
        """A tensor that comes from outside; a dimension is a number or a name; None: any shape."""
        self.inputs.append(_described(name, dtype, dimensions))
        return Value(self, name, dtype)

    def output(self, name: str, value: Value, dimensions: Dimensions) -> None:
        """Give a tensor the name under which it is asked for."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name], name=self._new("Identity")))
        self.outputs.append(_described(name, value.dtype, dimensions))

    def __call__(self, kind: str, *inputs: Union[Value, Number], dtype: Optional[Any] = None,
                 **attributes: Any) -> Value:
        """A node of this kind, and its result. `dtype` is the result's, if it is not that of the first tensor."""
        of_first = next(value.dtype for value in inputs if isinstance(value, Value))
        return self.several(kind, *inputs, dtypes=[of_first if dtype is None else dtype], **attributes)[0]

    def several(self, kind: str, *inputs: Union[Value, Number], dtypes: Sequence[Any], **attributes: Any,
                ) -> list[Value]:
        """A node with a result for each of `dtypes`. Numbers among its inputs have the type of the last tensor."""
        of_last = [value.dtype for value in inputs if isinstance(value, Value)][-1:]
        names = [value.name if isinstance(value, Value) else self.constant(value, *of_last) for value in inputs]
        node = self._new(kind)
        results = [f"{node}/{i}" for i in range(len(dtypes))]
        self.nodes.append(helper.make_node(kind, names, results, name=node, **attributes))
        return [Value(self, name, dtype) for name, dtype in zip(results, dtypes)]

    def constant(self, value: Number, dtype: Any = None) -> str:
        """The name of a constant; an array keeps its own type."""
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype)
        name = self._new("constant")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def sum_over(self, count: Value, start: Value, term: Callable[["Graph", Value], Value]) -> Value:
        """start + Σ_{t<count} term(t), with one term in memory at a time; `term` makes its nodes in the graph given."""
        body = Graph(f"{self.name}/each")
        t = body.input(f"{body.name}/t", np.int64, [])
        going = body.input(f"{body.name}/going", np.bool_, [])
        so_far = body.input(f"{body.name}/so_far", start.dtype, None)
        body.output(f"{body.name}/goes_on", going, [])
        body.output(f"{body.name}/sum", so_far + term(body, t), None)
        loop = helper.make_graph(body.nodes, body.name, body.inputs, body.outputs, body.constants)
        return self("Loop", count, np.array(True), start, dtype=start.dtype, body=loop)

    def model(self, ir_version: int, opset: int = OPSET) -> onnx.ModelProto:
        """The graph as a model of its own."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)

    def _new(self, kind: str) -> str:
        return f"{self.name}/{kind}_{len(self.nodes) + len(self.constants)}"


def _described(name: str, dtype: Any, dimensions: Dimensions) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), dimensions)
