"""Rows of throughput.py as JSON, a Markdown table and a plot."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from throughput_case import is_ours

NAN = float("nan")


@dataclass
class Row:
    operation: str
    shape: str
    data: str
    threads: int  # of the CPU; 0 for a GPU
    contender: str
    dtype: str = "float32"
    milliseconds: float = NAN
    spread: tuple[float, float] = (NAN, NAN)
    host_milliseconds: float = NAN  # until the call returned
    gflops: float = NAN
    peak_gflops: float = NAN
    of_peak: float = NAN
    extra_mib: float = NAN
    error: float = NAN
    over_best_peer: float = NAN
    failure: str = ""
    clocks: str = ""
    samples: list[float] = field(default_factory=list, repr=False)
    host_samples: list[float] = field(default_factory=list, repr=False)

    def saved(self) -> dict[str, Any]:
        """For JSON, which knows no NaN: what was not measured is null."""
        kept = {k: v for k, v in asdict(self).items() if not k.endswith("samples")}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in kept.items()} | {
            "spread": None if math.isnan(self.spread[0]) else list(self.spread)
        }

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Row:
        known = {k: NAN if v is None else v for k, v in saved.items()}
        return cls(**known | {"spread": tuple(saved["spread"] or (NAN, NAN))})


def first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}".splitlines()[0][:200]


def commit() -> str:
    """The checkout's, with a mark where files differ from it."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], capture_output=True, text=True,
        check=False, cwd=Path(__file__).parent,
    )  # fmt: skip
    return git.stdout.strip() or "unknown"


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def provenance(arguments: list[str]) -> dict[str, Any]:
    return {
        "command": " ".join(["python", "benchmarks/throughput.py", *arguments]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "cpu": cpu_name(),
        "level": torch.ops.adaptau.cpu_level(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def heading(about: dict[str, Any]) -> str:
    """Where a page's numbers come from; about: of `provenance`, perhaps with "threads"."""
    machine = f"{about['cpu']}, level {about['level']}"
    if "gpu" in about:
        machine = f"{about['gpu']}, driver {about['driver']}, {about['peaks']}"
    threads = f", {about['threads']} threads" if "threads" in about else ""
    return (
        f"`{about['command']}`, commit {about['commit']}, {about['date']}: {machine}{threads}, "
        f"PyTorch {about['torch']}.\n\n"
    )


def number(x: float, form: str) -> str:
    return "" if math.isnan(x) else format(x, form)


def bold(x: float) -> str:
    return "" if math.isnan(x) else f"**{x:.2f}**"


def time_cell(r: Row) -> str:
    low, high = r.spread
    digits = ".1f" if r.milliseconds >= 10 else ".2f" if r.milliseconds >= 1 else ".3f"
    spread = "once" if low == high else f"{low:{digits}} - {high:{digits}}"
    return f"{r.milliseconds:{digits}} ({spread})"


COMMON: dict[str, Callable[[Row], str]] = {
    "operation": lambda r: r.operation,
    "shape": lambda r: r.shape,
    "data": lambda r: r.data,
}
CPU_COLUMNS: dict[str, Callable[[Row], str]] = {
    **COMMON,
    "threads": lambda r: str(r.threads),
    "contender": lambda r: r.contender,
    "ms": time_cell,
    "GF/s": lambda r: number(r.gflops, ".1f"),
    "of peak": lambda r: number(r.of_peak, ".2f"),
    "MiB": lambda r: number(r.extra_mib, ".0f"),
    "over best peer": lambda r: bold(r.over_best_peer),
}
GPU_COLUMNS: dict[str, Callable[[Row], str]] = {
    **COMMON,
    "dtype": lambda r: r.dtype,
    "contender": lambda r: r.contender,
    "ms": time_cell,
    "ms until it returned": lambda r: number(r.host_milliseconds, ".2f"),
    "TFLOP/s": lambda r: number(r.gflops * 1e-3, ".1f"),
    "of matmul's": lambda r: number(r.of_peak, ".2f"),
    "MiB": lambda r: number(r.extra_mib, ".0f"),
    "error": lambda r: number(r.error, ".1e"),
    "over best peer": lambda r: bold(r.over_best_peer),
}


def table(rows: list[Row]) -> list[list[str]]:
    """Header and cells; a failure stands where the time would."""
    columns = CPU_COLUMNS if any(r.threads for r in rows) else GPU_COLUMNS
    cells = [list(columns)]
    for r in rows:
        line = [make(r) for make in columns.values()]
        if r.failure:
            at = list(columns).index("ms")
            line[at:] = [r.failure, *[""] * (len(columns) - at - 1)]
        cells.append(line)
    return cells


def markdown_table(cells: list[list[str]]) -> str:
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "".join("| " + " | ".join(x.replace("|", "\\|") for x in line) + " |\n" for line in lines)


def markdown(rows: list[Row], about: dict[str, Any]) -> str:
    peak, unit = ("of matmul's", "TFLOP/s") if "gpu" in about else ("of peak", "GF/s")
    of = (
        "what cuBLAS reaches for the dtype"
        if "gpu" in about
        else (
            "the float32 multiply-adds of the threads, which arithmetic in bfloat16 or bytes, or none, exceeds"
        )
    )
    head = heading(about) + (
        "Contenders take turns. Medians, the middle half in brackets; once: a call takes a third of the measuring "
        f"time. {unit}: operations of the textbook way, whatever is really done; {peak}: their share of {of}. MiB: "
        "beyond inputs and outputs.\n\n"
    )
    clocks = {f"{r.operation}, {r.shape}, {r.dtype}: {r.clocks}": None for r in rows if r.clocks}
    tail = "\nWhile measuring:\n\n" + "".join(f"* {line}\n" for line in clocks) if clocks else ""
    return head + markdown_table(table(rows)) + tail


def one_line(r: Row) -> str:
    """For the terminal."""
    where = f"{r.threads} th" if r.threads else r.dtype
    head = f"{r.operation:13s} {r.shape:45s} {r.data:16s} {where:8s} {r.contender:30s} "
    if r.failure:
        return head + r.failure
    over = f"  {r.over_best_peer:.2f} x best peer" if is_ours(r.contender) else ""
    error = "" if math.isnan(r.error) else f"  error {r.error:.1e}"
    return head + (
        f"{r.milliseconds:9.2f} ms {r.gflops:9.1f} GF/s {r.of_peak:5.2f} of peak "
        f"{r.extra_mib:7.0f} MiB{error}{over}"
    )


def save(rows: list[Row], about: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, "rows": [r.saved() for r in rows]}, indent=1)
    (folder / "throughput.json").write_text(text + "\n")
    (folder / "throughput.md").write_text(markdown(rows, about))
    plot(rows, folder / "throughput.png")


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
        if not math.isnan(row.milliseconds) and row.threads == fewest:
            dtype = "" if row.threads else f", {row.dtype}"
            cases.setdefault(f"{row.operation}, {row.shape}, {row.data}{dtype}", []).append(row)
    figure, axis = plt.subplots(figsize=(10, 1 + 0.27 * len(cases)), layout="constrained")
    for y, group in enumerate(reversed(cases.values())):
        for row in sorted(group, key=lambda r: is_ours(r.contender)):
            ours = is_ours(row.contender)
            colour = "tab:orange" if ours else "tab:gray"
            axis.plot(row.of_peak, y, "o", color=colour, markersize=7 if ours else 4)
    axis.axvline(1, color="black", linestyle=":", linewidth=1)
    axis.set_yticks(range(len(cases)), list(reversed(cases)), fontsize=7)
    axis.set_xscale("log")
    axis.grid(axis="x", which="both", linewidth=0.3)
    peak = f"float32 peak, {fewest} thread(s)" if fewest else "cuBLAS peak of the dtype"
    shown = f"nominal operations over the {peak}; orange: adaptau_ext, grey: others"
    axis.set_xlabel(shown, loc="right", fontsize=9)
    figure.savefig(path, dpi=110)
