"""The paper's tables and figures, ours beside the published numbers.

    python benchmarks/reproduce.py main               Adap-tau0 and Adap-tau in full: a night on two cores
    python benchmarks/reproduce.py normalisation      which embeddings are normalised
    python benchmarks/reproduce.py all --page         the page alone, of whatever is done so far
    python benchmarks/reproduce.py all --list         the names of the runs, for --only

Resumable: what is done is kept in --output, and a run that was killed goes on at its last checkpoint, in
--work. Several processes may share the work with --only. A run that diverges, or whose data is not there,
does not hold up the others. Data sets are folders of LightGCN-format text in --data, as `adaptau fetch`
makes them; published numbers are CSV files in --published, without which their columns are left out. The
figures need matplotlib: pip install '.[report]'.
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

from adaptau_ext.errors import InputError

ROOT = Path(__file__).parents[1]
TABLES = {
    "main": arms.main,
    "fixed": arms.fixed,
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
    shared = ROOT.parent / "shared"
    parser.add_argument("--data", type=Path, default=shared / "data", help="a folder for each data set")
    parser.add_argument(
        "--published", type=Path, default=shared / "reference", help="numbers beside ours"
    )
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "reproduction", help="checkpoints")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "reproduction")
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--only", default="*", help="runs whose name matches, like main-gowalla-*")
    parser.add_argument("--page", action="store_true", help="write the page, run nothing")
    parser.add_argument(
        "--list", action="store_true", help="name the runs and what is done, run nothing"
    )
    arguments = parser.parse_args(argv)
    names = TABLES if "all" in arguments.tables else arguments.tables
    tables = {name: rows() for name, rows in TABLES.items()}
    records = arguments.output / "records"
    folders = runs.Folders(arguments.data, arguments.work, records)
    rows = [row for name in names for row in tables[name]]
    every = {arm.name: arm for row in rows for arm in row.arms}  # tables share some
    wanted = [arm for name, arm in every.items() if fnmatch(name, arguments.only)]
    if not wanted:
        parser.error(
            f"--only {arguments.only}: no run of {', '.join(names)} has such a name; see --list"
        )
    if arguments.list:
        for arm in wanted:
            print(arm.name, "done" if runs.load(arm, records) else "to come", sep="\t")
        return 0
    published = Published(arguments.published)
    failed = False
    for arm in [] if arguments.page else wanted:
        try:
            runs.run(arm, folders, arguments.threads)
        except InputError as problem:
            print(f"{arm.name}: {problem}", file=sys.stderr)
            failed = True
    print(write_page(tables, records, published, arguments.output))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
