"""One peer in a separate process, so that its threads disturb nobody while it waits.

    python worker.py {onnxruntime|openvino|tract} MODEL THREADS SIZE          SIZE: [3, height, width]

Reads one JSON command a line from standard input and answers each with a JSON line:

    {"time": 20, "warmup": 5}                 -> {"median_ms": ..., "min_ms": ...}      single inferences
    {"input": "x.npy", "output": "y.npy"}     -> {}                                     x [count, 3, H, W], y [count, classes]
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

Infer = Callable[[np.ndarray], np.ndarray]


def onnxruntime(model: str, threads: int) -> Infer:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def openvino(model: str, threads: int) -> Infer:
    import openvino as ov

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    return lambda x: request.infer({0: x}, share_inputs=True)[0]


def tract(model: str, threads: int) -> Infer:
    import tract as runtime

    assert threads == 1, "tract computes in the calling thread"
    runnable = runtime.onnx().load(model).into_model().into_runnable()
    return lambda x: runnable.run([x])[0].to_numpy()


def measure(infer: Infer, x: np.ndarray, iterations: int, warmup: int) -> dict[str, float]:
    for _ in range(warmup):
        infer(x)
    ms = []
    for _ in range(iterations):
        start = time.perf_counter()
        infer(x)
        ms.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": statistics.median(ms), "min_ms": min(ms)}


def main() -> None:
    runtime, model, threads, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    infer = {"onnxruntime": onnxruntime, "openvino": openvino, "tract": tract}[runtime](model, threads)
    x = np.random.default_rng(1).uniform(-2.0, 2.0, (1, *size)).astype(np.float32)
    for line in sys.stdin:
        command = json.loads(line)
        if "time" in command:
            answer = measure(infer, x, command["time"], command["warmup"])
        else:
            pictures = np.load(command["input"])
            np.save(command["output"], np.concatenate([np.array(infer(picture[None])) for picture in pictures]))
            answer = {}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
