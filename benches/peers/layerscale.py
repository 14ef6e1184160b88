"""What LayerScale does to other runtimes' int8: the same network, plain and with gammas, through each one's own
quantization.

    python layerscale.py --vitlet ../../target/release/vitlet --pictures labels.csv CHECKPOINT [CHECKPOINT ...]

Checkpoints are timm directories: a network, and the same function with LayerScale, with gammas over more decades, or
with gammas as extreme as a trained ViT-5's (tests/fixtures/spread_gammas.py). Prints a Markdown table of top-1,
agreement with f32 and logit error. One thread.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

import network
import quantize
from peers import CALIBRATION, Peer, Vitlet, accuracy, line, logits

#: `vitlet convert` options by the name in the table.
OURS = {
    "vitlet int8": [],
    "vitlet int8, one scale per tensor": ["--weight-scale", "per-tensor"],
    "vitlet f16": ["--precision", "f16"],
}


def contestants(args: argparse.Namespace, checkpoint: Path, folder: Path, calibration: np.ndarray) -> list:
    model = network.load("", checkpoint)
    found = []
    for i, (name, options) in enumerate(OURS.items()):
        converted = folder / f"{i}.gguf"
        subprocess.run([args.vitlet, "convert", checkpoint, "-o", converted, *options], check=True, stdout=subprocess.DEVNULL)
        found.append(Vitlet(name, program=args.vitlet, model=converted))
    single, size = folder / "f32.onnx", network.input_size(model)
    network.save_onnx(model, single)
    for kind in ("channel", "tensor"):
        path = folder / f"onnxruntime_{kind}.onnx"
        quantize.onnx_runtime(single, path, per_channel=kind == "channel")
        found.append(Peer(f"ONNX Runtime dynamic int8, per {kind}", runtime="onnxruntime", model=path, size=size))
    for kind in ("channel", "tensor"):
        path = folder / f"onnxruntime_static_{kind}.onnx"
        quantize.onnx_runtime_static(single, path, calibration, per_channel=kind == "channel")
        found.append(Peer(f"ONNX Runtime static int8, per {kind}", runtime="onnxruntime", model=path, size=size))
    for kind in ("channel", "tensor"):
        path = folder / f"openvino_{kind}.xml"
        quantize.openvino(single, path, calibration, per_channel=kind == "channel")
        found.append(Peer(f"OpenVINO + NNCF static int8, per {kind}", runtime="openvino", model=path, size=size))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--vitlet", type=Path, required=True, help="the program, a release build")
    parser.add_argument("--pictures", type=Path, required=True, help="CSV of path,label_index")
    args = parser.parse_args()
    torch.set_num_threads(1)

    for checkpoint in args.checkpoints:
        model = network.load("", checkpoint)
        x, labels = network.pictures(model, args.pictures)
        reference = network.logits(model, x)
        columns = [f"top-1 of {len(x)}", "agrees with f32", "logit error"]
        header = [checkpoint.name, *columns]
        print("", line(header), line(["---"] * len(header)), line(["f32", *accuracy(reference, reference, labels)]), sep="\n", flush=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            np.save(folder / "x.npy", x)
            # Mirrored: ranges come from other pictures than the ones that measure accuracy.
            for contestant in contestants(args, checkpoint, folder, x[:CALIBRATION, :, :, ::-1].copy()):
                print(line([contestant.name, *accuracy(logits(contestant, folder, folder / "x.npy", 1), reference, labels)]), flush=True)


if __name__ == "__main__":
    main()
