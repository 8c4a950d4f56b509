"""smaller: how does a network become a half or a quarter of its size?

    half   weights and activations in float16: 2 bytes each
    int8   weights and activations of the layers that multiply, in whole numbers of 8 bits: 1 byte each

        x ≈ s·(q − z)        q in 0..255 for activations, −64..63 for weights; s, z chosen in advance

int8 is static: the range of every activation, and with it s and z, is measured on pictures of the
user's own (calibration). Each output channel of a weight has an s of its own. Weights take 7 bits:
with 8, the products that processors without a certain instruction add up in pairs can pass 16 bits,
and results would depend on the machine.

Both are done to the network alone. Resizing, normalisation and the boxes in pixels stay as they are;
so do the heads that predict boxes and classes: between 0.5 and 1 float16 counts in steps of 1/2048,
a third of a pixel in a picture 640 wide. The tools are ONNX Runtime's own.
Proven in tests/exporting/test_smaller.py. Read: in_half → in_int8 → Calibration
"""

from __future__ import annotations

import logging
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator, Optional

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from scratch.data.batch import Batch

# The last steps to a class and to a box, by the names of the modules that made the nodes.
HEADS = re.compile(r"/(class_embed|bbox_embed|proposal_head)[/.]")
MULTIPLYING = ["Conv", "MatMul", "Gemm"]


def in_half(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network in float16; it takes and gives float32."""
    half, heads = with_relus(network), set(heads_of(network))
    in_float32 = [node.name for node in half.graph.node if node.name in heads or
                  not (node.op_type in MULTIPLYING or "/backbone/" in node.name)]
    with quiet():
        model = OnnxModel(convert_float_to_float16(half, keep_io_types=True, node_block_list=in_float32))
    model.topological_sort()  # the conversions that were added stand at the end
    return model.model


def in_int8(network: onnx.ModelProto, batches: Iterable[Batch]) -> onnx.ModelProto:
    """The network with convolutions and linear layers in int8, calibrated on `batches`; all other nodes in float32."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        whole, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("whole", "prepared", "quantised"))
        onnx.save(with_relus(network), whole)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        quantize_static(str(prepared), str(quantised), Calibration(batches), quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=MULTIPLYING, per_channel=True, reduce_range=True,
                        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                        nodes_to_exclude=heads_of(onnx.load(prepared)), extra_options={"MatMulConstBOnly": True})
        return onnx.load(quantised)


class Calibration(CalibrationDataReader):
    """Batches, one after the other, as the quantiser asks for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Optional[dict[str, np.ndarray]]:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch.normalised().numpy(), "pad_mask": batch.pad_mask.numpy()}


def with_relus(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with a Relu for each Clip from 0 on: max(x, 0) has two names in the format.

    ONNX Runtime 1.32 ends with a segmentation fault where it fuses a convolution and a Clip in float16.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    zeros = {node.output[0] for node in copy.graph.node if node.op_type == "Constant" for attribute in node.attribute
             if attribute.name == "value" and not numpy_helper.to_array(attribute.t).any()}
    for node in copy.graph.node:
        if node.op_type == "Clip" and node.input[1] in zeros and not any(node.input[2:]):
            node.op_type = "Relu"
            del node.input[1:]
    read = {name for node in copy.graph.node for name in node.input}
    kept = [node for node in copy.graph.node if node.op_type != "Constant" or node.output[0] in read]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def heads_of(network: onnx.ModelProto) -> list[str]:
    """The names of the nodes that predict classes and boxes."""
    return [node.name for node in network.graph.node if HEADS.search(node.name)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the tools' advice, which is for those who call them by hand: what is to be prepared is prepared here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
