"""Draws docs/residuals.svg from the logs of compare_residuals.sh: training loss of each kind of residual branch, and
where its factors went.

    plot_residuals.py [LOGS] [OUT.svg]           LOGS/NAME/{log,gammas}.csv; default: residuals/ beside this file, docs/residuals.svg
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "vitlet", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.color": "#d8dee4", "axes.edgecolor": "#8c959f"})
import matplotlib.pyplot as plt

import residual

COLORS = dict(zip(residual.NAMES, ["#2f6fde", "#d9731a", "#128a76", "#b8478c", "#9aa4af", "#1f2328"]))
LABELS = {"layerscale": "LayerScale, 1e-5", "rezero": "ReZero", "skipinit": "SkipInit", "fixup": "Fixup", "tfixup": "T-Fixup", "none": "pre-norm, nothing else"}


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as f:
        return list(csv.reader(f))


def main(logs: Path, out: Path) -> None:
    figure, (loss, factors) = plt.subplots(1, 2, figsize=(9.6, 4.0), layout="constrained")
    for name in residual.NAMES:
        log = rows(logs / name / "log.csv")
        label = f"{LABELS[name]} ({100 * float(log[-1][2]):.1f} %)"
        loss.plot([int(r[0]) for r in log], [float(r[1]) for r in log], color=COLORS[name], marker="o", markersize=3, label=label)
        for branch, style in (("1", "-"), ("2", "--")):
            picked = [r for r in rows(logs / name / "gammas.csv")[1:] if r[1] == branch]
            if picked:
                label = f"{LABELS[name]}, {'attention' if branch == '1' else 'MLP'}"
                factors.plot([int(r[0]) for r in picked], [float(r[5]) for r in picked], style, color=COLORS[name], label=label)
    loss.set(xlabel="epoch", ylabel="training loss", title="24 layers, 48 wide (test accuracy at the end)")
    factors.set(xlabel="block", ylabel="mean |factor| after training", yscale="log", title="factors of the branches")
    for axes in (loss, factors):
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    here = Path(__file__).parent
    given = [Path(a) for a in sys.argv[1:]]
    main(*(given + [here / "residuals", here.parents[1] / "docs" / "residuals.svg"][len(given):]))
