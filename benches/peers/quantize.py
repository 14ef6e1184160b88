"""int8 versions of an ONNX file, as the documentation of each runtime recommends for transformers."""

import contextlib
import sys
from pathlib import Path

import nncf
import numpy as np
import openvino as ov
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


def onnx_runtime(source: Path, target: Path, per_channel: bool) -> None:
    """Dynamic: weights int8, activations quantized per tensor at run time; attention's own products stay in f32."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_dynamic(prepared, target, per_channel=per_channel, weight_type=QuantType.QInt8)
    prepared.unlink()


class Pictures(CalibrationDataReader):
    """`calibration` [count, 3, height, width], one by one."""

    def __init__(self, calibration: np.ndarray):
        self.rows = ({"x": x[None]} for x in calibration)

    def get_next(self) -> dict | None:
        return next(self.rows, None)


def onnx_runtime_static(source: Path, target: Path, calibration: np.ndarray, per_channel: bool) -> None:
    """Static: weights int8, activations per tensor with ranges from `calibration` [count, 3, height, width]."""
    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, target, Pictures(calibration), per_channel=per_channel, weight_type=QuantType.QInt8)
    prepared.unlink()


def openvino(source: Path, target: Path, calibration: np.ndarray, per_channel: bool = True) -> None:
    """Static: per channel (or per tensor) for weights, per tensor for activations, with the ranges found on
    `calibration` [count, 3, height, width]."""
    dataset = nncf.Dataset(calibration, lambda x: x[None])
    weights = nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=per_channel)
    advanced = nncf.AdvancedQuantizationParameters(weights_quantization_params=weights)
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        quantized = nncf.quantize(
            ov.convert_model(source), dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration), advanced_parameters=advanced
        )
    ov.save_model(quantized, target, compress_to_fp16=False)
