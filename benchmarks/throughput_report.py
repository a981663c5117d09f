"""Rows of throughput.py as JSON, a Markdown table and a plot."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
from throughput_cases import OURS


@dataclass
class Row:
    operation: str
    shape: str
    data: str
    threads: int
    contender: str
    milliseconds: float = float("nan")
    spread: tuple[float, float] = (float("nan"), float("nan"))
    gflops: float = float("nan")
    peak_gflops: float = float("nan")
    of_peak: float = float("nan")
    extra_mib: float = float("nan")
    over_best_peer: float = float("nan")
    failure: str = ""
    samples: list[float] = field(default_factory=list, repr=False)


def is_ours(row: Row) -> bool:
    return row.contender == OURS or row.contender.startswith("our ")


def provenance(arguments: list[str]) -> dict[str, object]:
    name = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return {
        "command": " ".join(["python", "benchmarks/throughput.py", *arguments]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": git.stdout.strip(),
        "cpu": name,
        "level": torch.ops.adaptau.cpu_level(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def markdown(rows: list[Row], about: dict[str, object]) -> str:
    lines = [
        f"`{about['command']}`, commit {about['commit']}, {about['date']}: {about['cpu']}, "
        f"level {about['level']}, PyTorch {about['torch']}. Medians; the middle half in brackets.",
        "",
        "| operation | shape | data | threads | contender | ms | GF/s | of peak | MiB | over best peer |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        cells = [r.operation, r.shape, r.data, str(r.threads), r.contender]
        if r.failure:
            cells += [r.failure, "", "", "", ""]
        else:
            over = f"**{r.over_best_peer:.2f}**" if r.over_best_peer == r.over_best_peer else ""
            cells += [
                f"{r.milliseconds:.1f} ({r.spread[0]:.1f} - {r.spread[1]:.1f})",
                f"{r.gflops:.1f}",
                f"{r.of_peak:.2f}",
                f"{r.extra_mib:.0f}",
                over,
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fewest = min(row.threads for row in rows)
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if row.samples and row.threads == fewest:
            cases.setdefault(f"{row.operation}, {row.shape}, {row.data}", []).append(row)
    figure, axis = plt.subplots(figsize=(10, 1 + 0.27 * len(cases)), layout="constrained")
    for y, group in enumerate(reversed(cases.values())):
        for row in sorted(group, key=is_ours):
            colour = "tab:orange" if is_ours(row) else "tab:gray"
            axis.plot(row.of_peak, y, "o", color=colour, markersize=7 if is_ours(row) else 4)
    axis.axvline(1, color="black", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(cases)), list(reversed(cases)), fontsize=7)
    axis.set_xscale("log")
    axis.grid(axis="x", which="both", linewidth=0.3)
    axis.set_xlabel(
        f"nominal operations a second over the multiply-add peak, {fewest} thread(s); "
        "orange: adaptau_ext, grey: every other way"
    )
    figure.savefig(path, dpi=110)
