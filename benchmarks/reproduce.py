"""The paper's tables and figures, ours beside the published numbers.

    python benchmarks/reproduce.py main               Adap-tau0 and Adap-tau in full: a night on two cores
    python benchmarks/reproduce.py normalisation      which embeddings are normalised
    python benchmarks/reproduce.py all --page         the page alone, of whatever is done so far

Resumable: what is done is kept in --output, and a run that was killed goes on at its last checkpoint, in
--work. Several processes may share the work with --only. A run that diverges does not hold up the
others. Data sets are folders of LightGCN-format text in --data; published numbers are CSV files in
--published.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from reproduction import arms, runs
from reproduction.page import write_page
from reproduction.published import Published

from adaptau_ext.errors import TrainingError

ROOT = Path(__file__).parents[1]
TABLES = {
    "main": arms.main,
    "seeds": arms.seeds,
    "seconds": arms.seconds,
    "search": arms.search,
    "clean": arms.clean,
    "strategies": arms.strategies,
    "normalisation": arms.normalisation,
    "noise": arms.noise,
    "curve": arms.curve,
    "trajectories": arms.trajectories,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", choices=[*TABLES, "all"], help="what to reproduce")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--published", type=Path, default=ROOT.parent / "shared" / "reference")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "reproduction", help="checkpoints")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "reproduction")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--only", default="*", help="runs whose name matches, like main-gowalla-*")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    arguments = parser.parse_args(argv)
    names = TABLES if "all" in arguments.tables else arguments.tables
    tables = {name: rows() for name, rows in TABLES.items()}
    records = arguments.output / "records"
    folders = runs.Folders(arguments.data, arguments.work, records)
    failed = False
    if not arguments.page:
        wanted = {arm.name: arm for name in names for row in tables[name] for arm in row.arms}
        for arm in wanted.values():  # tables share some
            if fnmatch(arm.name, arguments.only):
                try:
                    runs.run(arm, folders, arguments.threads)
                except TrainingError as problem:
                    print(f"{arm.name}: {problem}", file=sys.stderr)
                    failed = True
    print(write_page(tables, records, Published(arguments.published), arguments.output))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
