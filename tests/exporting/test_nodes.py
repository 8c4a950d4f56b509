"""Arithmetic that is written with operators computes in a runtime what it does in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.exporting.conftest import WANTED

pytest.importorskip("onnx", reason=WANTED)
onnxruntime = pytest.importorskip("onnxruntime", reason=WANTED)

from commands.exporting.nodes import Graph, Value  # noqa: E402


def run(graph: Graph, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(graph.model(8).SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, inputs)


def test_operators_are_those_of_numpy_and_numbers_take_the_type_of_the_tensor():
    g = Graph("a")
    x, y = g.input("x", np.float32, ["n"]), g.input("y", np.int64, ["n"])
    g.output("z", (x * 2 - 0.5) / (x + 1), ["n"])
    g.output("whole", y * 3 / 2, ["n"])
    g.output("less", (y < 5).cast(np.float64), ["n"])
    g.output("picked", g("Where", y > 2, y, 7, dtype=np.int64), ["n"])
    a, b = np.array([1.0, 2, 5], np.float32), np.array([1, 5, 7])
    z, whole, less, picked = run(g, x=a, y=b)
    np.testing.assert_allclose(z, (a * 2 - 0.5) / (a + 1), rtol=1e-6)
    assert z.dtype == np.float32 and less.dtype == np.float64
    assert whole.tolist() == [1, 7, 10] and less.tolist() == [1, 0, 0] and picked.tolist() == [7, 5, 7]


def test_slices_axes_and_shapes():
    g = Graph("a")
    x = g.input("x", np.float32, ["n", "m"])
    g.output("rows", x.at([1, 0]), ["k", "m"])
    g.output("column", x.at(2, axis=1), ["n"])
    g.output("turned", x.transposed(1, 0).with_axes(0), [1, "m", "n"])
    g.output("shape", x.shape(), [2])
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    rows, column, turned, shape = run(g, x=a)
    np.testing.assert_array_equal(rows, a[[1, 0]])
    np.testing.assert_array_equal(column, a[:, 2])
    np.testing.assert_array_equal(turned, a.T[None])
    assert shape.tolist() == [2, 3]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_sum_whose_length_is_known_only_when_it_runs(count: int):
    g = Graph("a")
    x, n = g.input("x", np.float32, ["n"]), g.input("count", np.int64, [])

    def term(body: Graph, t: Value) -> Value:
        return body("Mul", x, t.cast(np.float32) + 1)

    g.output("sum", g.sum_over(n, x * 10, term), ["n"])
    a = np.array([1.0, 3], np.float32)
    assert run(g, x=a, count=np.array(count))[0].tolist() == (a * (10 + sum(range(1, count + 1)))).tolist()


def test_every_name_begins_with_the_graphs_own_so_that_two_can_be_joined():
    g = Graph("left")
    g.output("z", g.input("x", np.float32, ["n"]) * 2 + 1, ["n"])
    made = {name for node in g.nodes for name in [node.name, *node.output]} | {c.name for c in g.constants}
    assert all(name.startswith("left/") or name == "z" for name in made) and len(made) == 8
