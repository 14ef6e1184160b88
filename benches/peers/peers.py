"""vitlet beside ONNX Runtime and OpenVINO: the same network, paired latencies, accuracy.

    python peers.py --vitlet ../../target/release/vitlet [--model deit_tiny_patch16_224] [--checkpoint DIR] [--pictures labels.csv]

Rounds go from contestant to contestant, so that whatever else the machine does meets all of them. A ratio is taken
within a round: the quotient of two medians that were measured within the same second or two.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

import network
import quantize

HERE = Path(__file__).parent
CALIBRATION = 128  # pictures


@dataclass
class Contestant:
    """`times` holds {"median_ms", "min_ms"} of every round."""

    name: str
    times: list[dict] = field(default_factory=list)
    most_threads: int = sys.maxsize

    def start(self, threads: int) -> None:
        """Makes ready to run with so many threads."""

    def ask(self, command: dict) -> dict:
        """Runs one of the commands that worker.py documents."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends what `start` began."""


@dataclass
class Vitlet(Contestant):
    program: Path = Path()
    model: Path = Path()
    threads: int = 1

    def start(self, threads: int) -> None:
        self.threads = threads

    def ask(self, command: dict) -> dict:
        common = ["-m", self.model, "--threads", str(self.threads)]
        if "time" in command:
            options = ["--iters", str(command["time"]), "--warmup", str(command["warmup"]), "--json"]
            return json.loads(subprocess.run([self.program, "bench", *common, *options], check=True, capture_output=True).stdout)
        files = ["--input", command["input"], "--output", command["output"]]
        subprocess.run([self.program, "run", *common, *files], check=True, stdout=subprocess.DEVNULL)
        return {}


@dataclass
class Peer(Contestant):
    runtime: str = ""
    model: Path = Path()
    size: tuple[int, ...] = ()
    process: subprocess.Popen | None = None

    def start(self, threads: int) -> None:
        command = [sys.executable, HERE / "worker.py", self.runtime, self.model, str(threads), json.dumps(self.size)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: dict) -> dict:
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.communicate()


def prepare(args: argparse.Namespace, folder: Path, model, calibration: np.ndarray) -> list[Contestant]:
    """Writes every contestant's model file into `folder`; vitlet is the first."""
    checkpoint = args.checkpoint
    if checkpoint is None:
        checkpoint = folder / "checkpoint"
        network.save_checkpoint(model, checkpoint)
    contestants = []
    for precision in args.precisions.split(","):
        converted = folder / f"vitlet.{precision}.gguf"
        subprocess.run([args.vitlet, "convert", checkpoint, "-o", converted, "--precision", precision], check=True, stdout=subprocess.DEVNULL)
        contestants.append(Vitlet(f"vitlet {precision}", program=args.vitlet, model=converted))
    single = folder / "f32.onnx"
    network.save_onnx(model, single)
    size = network.input_size(model)
    for kind in ("channel", "tensor"):
        path = folder / f"onnxruntime_{kind}.onnx"
        quantize.onnx_runtime(single, path, per_channel=kind == "channel")
        contestants.append(Peer(f"ONNX Runtime dynamic int8, per {kind}", runtime="onnxruntime", model=path, size=size))
    path = folder / "openvino_int8.xml"
    quantize.openvino(single, path, calibration)
    contestants.append(Peer("OpenVINO + NNCF static int8", runtime="openvino", model=path, size=size))
    contestants.append(Peer("ONNX Runtime f32", runtime="onnxruntime", model=single, size=size))
    contestants.append(Peer("OpenVINO f32", runtime="openvino", model=single, size=size))
    contestants.append(Peer("tract f32", runtime="tract", model=single, size=size, most_threads=1))
    return contestants


def measure(contestants: list[Contestant], threads: int, args: argparse.Namespace) -> None:
    for contestant in contestants:
        contestant.times = []
        contestant.start(threads)
        contestant.ask({"time": 2, "warmup": 2})
    for _ in range(args.rounds):
        for contestant in contestants:
            contestant.times.append(contestant.ask({"time": args.iters, "warmup": args.warmup}))
    for contestant in contestants:
        contestant.stop()


def logits(contestant: Contestant, folder: Path, x: Path, threads: int) -> np.ndarray:
    output = folder / "logits.npy"
    contestant.start(threads)
    contestant.ask({"input": str(x), "output": str(output)})
    contestant.stop()
    return np.load(output)


def accuracy(got: np.ndarray, reference: np.ndarray, labels: np.ndarray | None) -> list[str]:
    """Top-1 (where labels are known), agreement with the f32 network, and |logits - f32 logits| / |f32 logits|."""
    top = got.argmax(1)
    agreement = f"{100 * (top == reference.argmax(1)).mean():.1f} %"
    error = f"{np.linalg.norm(got - reference) / np.linalg.norm(reference):.4f}"
    return [error] if labels is None else [f"{100 * (top == labels).mean():.1f} %", agreement, error]


def latency(contestant: Contestant, ours: Contestant) -> list[str]:
    """Median and minimum in ms; vitlet's share of it: the median of the rounds' ratios, and their quartiles."""
    times = contestant.times
    row = [f"{statistics.median(t['median_ms'] for t in times):.2f}", f"{min(t['min_ms'] for t in times):.2f}"]
    if contestant is ours:
        return [*row, "1", "1"]
    ratios = [a["median_ms"] / b["median_ms"] for a, b in zip(ours.times, times)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    minima = min(t["min_ms"] for t in ours.times) / min(t["min_ms"] for t in times)
    return [*row, f"**{middle:.2f}** ({low:.2f} to {high:.2f})", f"{minima:.2f}"]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cpu() -> str:
    names = [text.split(":", 1)[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names) or '?'} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vitlet", type=Path, required=True, help="the program, a release build")
    parser.add_argument("--model", default="deit_tiny_patch16_224", help="name of a timm model, for random weights")
    parser.add_argument("--checkpoint", type=Path, help="timm checkpoint directory: config.json and model.safetensors")
    parser.add_argument("--pictures", type=Path, help="CSV of path,label_index: accuracy, and calibration for NNCF")
    parser.add_argument("--precisions", default="int8", help="vitlet's, comma-separated; ratios are for the first")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--iters", type=int, default=20, help="inferences per contestant and round")
    parser.add_argument("--warmup", type=int, default=3)
    args = parser.parse_args()

    model = network.load(args.model, args.checkpoint)
    x, labels = network.pictures(model, args.pictures) if args.pictures else (network.noise(model, 16), None)
    reference = network.logits(model, x)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Mirrored: ranges come from other pictures than the ones that measure accuracy.
        contestants = prepare(args, folder, model, x[:CALIBRATION, :, :, ::-1].copy())
        np.save(folder / "x.npy", x)
        quality = {c.name: accuracy(logits(c, folder, folder / "x.npy", 1), reference, labels) for c in contestants}
        source = args.checkpoint.name if args.checkpoint else f"{args.model}, random weights"
        print(f"{source}; {cpu()}; {date.today()}; {args.rounds} rounds of {args.iters} inferences")
        columns = ["logit error"] if labels is None else [f"top-1 of {len(x)}", "agrees with f32", "logit error"]
        for threads in map(int, args.threads.split(",")):
            able = [c for c in contestants if threads <= c.most_threads]
            measure(able, threads, args)
            header = [f"{threads} thread{'s' * (threads > 1)}", "median, ms", "min, ms", "vitlet / peer (quartiles)", "of minima", *columns]
            print("", line(header), line(["---"] * len(header)), sep="\n")
            for contestant in able:
                print(line([contestant.name, *latency(contestant, contestants[0]), *quality[contestant.name]]), flush=True)


if __name__ == "__main__":
    main()
