"""A smaller ONNX file: weights of half precision, or convolutions in 8-bit integers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from reviewkd_det.deploy.images import as_input
from reviewkd_det.deploy.metadata import METADATA, Metadata

__all__ = ["make_smaller"]

QUANTIZED = ("Conv", "Gemm", "MatMul")  # boxes and scores are computed as before


def make_smaller(path: Path, metadata: Metadata, images: Sequence[np.ndarray]) -> None:
    """Rewrite an ONNX file in the precision that its metadata name.

    float16 stores each large weight by half and computes in float32 as before; int8 quantises
    convolutions and linear layers statically, each channel by itself.

    Args:
        path: the file, which is replaced.
        metadata: metadata of the detector; they are written into the file.
        images: images that the ranges of int8 are found on, (H, W, 3), uint8, red first.
    """
    import onnx

    if metadata.precision == "int8":
        _quantize(path, metadata, images)
    model = onnx.load(str(path))
    if metadata.precision == "float16":
        _halve_weights(model)
    for entry in model.metadata_props:
        if entry.key == METADATA:
            entry.value = metadata.dumps()
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _halve_weights(model: Any) -> None:
    """Store each float32 weight as float16, and cast it where it is used."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in list(model.graph.initializer):
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        values = numpy_helper.to_array(weight).astype(np.float16)
        if not np.isfinite(values).all():
            continue
        stored = f"{weight.name}_float16"
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(numpy_helper.from_array(values, stored))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantize(path: Path, metadata: Metadata, images: Sequence[np.ndarray]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        """The inputs, one after the other."""

        def __init__(self) -> None:
            self.inputs: Iterator[np.ndarray] = (as_input(x, metadata)[0] for x in images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next one; None behind the last."""
            given = next(self.inputs, None)
            return None if given is None else {"image": given}

    with TemporaryDirectory() as folder:
        prepared = str(Path(folder, "prepared.onnx"))
        quant_pre_process(str(path), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared, str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=list(QUANTIZED), activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
