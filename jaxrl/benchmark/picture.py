"""The picture of a benchmark."""

import pathlib
from typing import Any

from matplotlib.figure import Figure


def draw(report: dict[str, Any], file: pathlib.Path) -> None:
    """Environment steps a second over population, a line for each device; peers as levels."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, result in report["devices"].items():
        rows = result["populations"]
        axes.plot(
            [row["population"] for row in rows],
            [row["steps_per_second"] for row in rows],
            marker="o",
            label=f"jaxrl, {result['device']}",
            color={"cpu": "tab:blue", "gpu": "tab:green"}[name],
        )
    for peer, style in zip(report.get("peers", []), ("-", "--", ":", "-."), strict=False):
        if "steps" in peer:
            rate = peer["steps"] / peer["seconds_per_agent"]
            axes.axhline(rate, color="grey", linestyle=style, label=peer["name"])
    axes.set(
        xscale="log", yscale="log", xlabel="agents", ylabel="environment steps a second, all agents"
    )
    axes.set_title(f"{report['what']}\n{report['machine']['cpu']}", fontsize=10)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=150)
