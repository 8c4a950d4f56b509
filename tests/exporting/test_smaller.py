"""A half and a quarter of the size, and nearly the same detections."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scratch.data.batch import Batch, collate
from tests.exporting.conftest import WANTED
from tests.test_export import MODELS, detector

onnx = pytest.importorskip("onnx", reason=WANTED)
onnxruntime = pytest.importorskip("onnxruntime", reason=WANTED)

from commands.export import export  # noqa: E402
from commands.exporting.smaller import Calibration, heads_of, in_half, in_int8, with_relus  # noqa: E402
from commands.exporting.whole import drawn  # noqa: E402

HALF, FLOAT, INT8 = 10, 1, 3  # the format's numbers for types


def batches(count: int) -> list[Batch]:
    return [collate([(torch.from_numpy(drawn(96, 128, seed).transpose(2, 0, 1).copy()), {})]) for seed in range(count)]


def run(model: "onnx.ModelProto", batch: Batch) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": batch.normalised().numpy(), "pad_mask": batch.pad_mask.numpy()})


@pytest.fixture(scope="module", params=["learned", pytest.param("proposals, fine memory", marks=pytest.mark.slow)])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "onnx.ModelProto":
    torch.manual_seed(1)
    path: Path = tmp_path_factory.mktemp("network") / "tensors.onnx"
    export(detector(MODELS[request.param]), path)
    return onnx.load(path)


def weights(model: "onnx.ModelProto", kind: int) -> int:
    return sum(int(np.prod(w.dims)) for w in model.graph.initializer if w.data_type == kind)


def test_half_keeps_its_weights_in_two_bytes_and_its_heads_in_four(network):
    half, batch = in_half(network), batches(1)[0]
    assert weights(half, HALF) > 10 * weights(half, FLOAT)
    of_heads = {name for node in half.graph.node if node.name in heads_of(half) for name in node.input}
    assert of_heads and all(w.data_type != HALF for w in half.graph.initializer if w.name in of_heads)
    here, there = run(half, batch), run(network, batch)
    assert all(np.abs(a - b).max() < 0.02 for a, b in zip(here, there)) and here[0].dtype == np.float32


def test_int8_keeps_its_weights_in_one_byte_of_seven_bits_each_channel_by_its_own_scale(network):
    small, batch = in_int8(network, batches(3)), batches(1)[0]
    assert weights(small, INT8) > 10 * weights(small, FLOAT)
    values = {w.name: onnx.numpy_helper.to_array(w) for w in small.graph.initializer}
    kernels = [value for value in values.values() if value.dtype == np.int8 and value.ndim == 4]
    assert kernels and all(np.abs(kernel.astype(int)).max() <= 64 for kernel in kernels)
    scales = [values[node.input[1]] for node in small.graph.node if node.op_type == "DequantizeLinear"
              and node.input[0] in values and values[node.input[0]].ndim == 4]
    assert scales and all(len(scale) > 1 for scale in scales)
    here, there = (np.sort(run(model, batch)[0], axis=1) for model in (small, network))  # proposals change places
    assert 0 < np.abs(here - there).mean() < 0.25


def test_the_heads_multiply_in_full_precision(network):
    small = in_int8(network, batches(1))
    heads = set(heads_of(small))
    quantised = {name for node in small.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    multiplying = [node for node in small.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    assert any(node.name in heads for node in multiplying)
    assert not any(name in quantised for node in multiplying if node.name in heads for name in node.input)
    assert any(name in quantised for node in multiplying for name in node.input)


def test_calibration_gives_each_batch_once():
    reader = Calibration(batches(2))
    first, second, end = reader.get_next(), reader.get_next(), reader.get_next()
    assert first["images"].shape == (1, 3, 96, 128) and not first["pad_mask"].any() and end is None
    assert np.abs(first["images"] - second["images"]).max() > 0


def test_a_clip_from_zero_on_is_a_relu_and_another_stays(network):
    before, after = run(network, batches(1)[0]), run(with_relus(network), batches(1)[0])
    assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(before, after))
    kinds = [[node.op_type for node in model.graph.node] for model in (network, with_relus(network))]
    assert kinds[0].count("Relu") == 0 < kinds[1].count("Relu")
    bounded = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) '
                                      '{ zero = Constant<value = float {0.0}>() one = Constant<value = float {1.0}>() '
                                      'y = Clip(x, zero, one) }')
    assert [node.op_type for node in with_relus(bounded).graph.node] == ["Constant", "Constant", "Clip"]
