"""The table of fuzzing in docs/robustness.md, from benchmarks/results/fuzzing.json."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "fuzzing.json"
PAGE = ROOT / "docs" / "robustness.md"
BEGIN, END = "<!-- fuzzing: written by python -m tests.fuzz -->", "<!-- end of fuzzing -->"


def keep(part: str, results: dict[str, Any], seed: int) -> None:
    """Adds one run to the results; coverage of C++ where the extension was built with --coverage."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    before = kept.get(part, {"targets": {}, "seeds": []})
    targets = before["targets"]
    for name, result in results.items():
        total = targets.setdefault(
            name, {"inputs": 0, "refused": 0, "seconds": 0, "outcomes": 0, "findings": 0}
        )
        result = {**result, "findings": len(result["findings"])}
        for count in ("inputs", "refused", "seconds", "findings"):
            total[count] += result[count]
        total["outcomes"] = max(total["outcomes"], result["outcomes"])
        total["reached"] = result["reached"] or total.get("reached", {})
    minutes = round(sum(total["seconds"] for total in targets.values()) / 60, 1)
    kept[part] = {"minutes": minutes, "seeds": [*before["seeds"], seed], "targets": targets}
    reached = kept[part]["reached"] = before.get("reached", {})
    for name, (hit, of) in lines_reached().items():  # a run of one target reaches less of other files
        if hit * reached.get(name, [0, 1])[1] >= reached.get(name, [0, 1])[0] * of:
            reached[name] = [hit, of]
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    if PAGE.exists():
        PAGE.write_text(with_table(PAGE.read_text(), kept))


def lines_reached() -> dict[str, list[int]]:
    """gcov's [lines executed, lines] of each file of csrc, over all that was compiled from it."""
    lines: dict[str, dict[tuple[str, int], bool]] = {}
    for counts in (ROOT / "build").rglob("*.gcda"):
        with TemporaryDirectory() as folder:
            subprocess.run(
                ["gcov", "--json-format", counts], cwd=folder, capture_output=True, check=True
            )
            for path in Path(folder).glob("*.gz"):
                for file in json.loads(gzip.decompress(path.read_bytes()))["files"]:
                    name = os.path.normpath(file["file"]).removeprefix(f"{ROOT}/")
                    if name.startswith("csrc/"):
                        seen = lines.setdefault(name, {})
                        for line in file["lines"]:
                            key = name, line["line_number"]
                            seen[key] = seen.get(key, False) or line["count"] > 0
    return {name: [sum(seen.values()), len(seen)] for name, seen in sorted(lines.items())}


def with_table(page: str, kept: dict[str, Any]) -> str:
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table(kept)}\n{END}{rest.partition(END)[2]}"


def share(reached: dict[str, list[int]]) -> str:
    hit, of = (sum(counts[place] for counts in reached.values()) for place in (0, 1))
    return f"{100 * hit / of:.0f} %" if of else ""


def table(kept: dict[str, Any]) -> str:
    from tests.fuzz.targets import TARGETS

    parts = [kept[name]["targets"] for name in ("plain", "sanitized") if name in kept]
    native = {
        name: counts for part in kept.values() for name, counts in part["reached"].items() if counts[1]
    }
    rows = [
        "| target | inputs | of them under sanitizers | refused | distinct outcomes | coverage, Python | coverage, C++ | findings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, target in TARGETS.items():
        found = [part[name] for part in parts if name in part]
        if not found:
            continue
        python: dict[str, list[int]] = {}
        for result in found:
            for file, counts in result["reached"].items():
                python[file] = max(python.get(file, [0, 1]), counts)
        files = {file: native[file] for file in target.reaches if file in native}
        sanitized = kept.get("sanitized", {"targets": {}})["targets"].get(name, {"inputs": 0})["inputs"]
        inputs, refused = (sum(result[what] for result in found) for what in ("inputs", "refused"))
        rows.append(
            f"| `{name}` | {inputs:,} | {sanitized:,} | {100 * refused / max(inputs, 1):.0f} % "
            f"| {max(result['outcomes'] for result in found)} | {share(python)} | {share(files)} "
            f"| {sum(result['findings'] for result in found)} |"
        )
    return "\n".join(rows) + "\n"
