"""The paper's tables and figures, ours beside the published numbers.

    python benchmarks/reproduce.py main               Adap-tau0 and Adap-tau in full: 29 hours of one core
    python benchmarks/reproduce.py normalisation      which embeddings are normalised
    python benchmarks/reproduce.py all --page         the page alone, of whatever is done so far
    python benchmarks/reproduce.py all --list         the names of the runs, for --only

Resumable: the page and what is done are kept in --output, and a run that was killed goes on at its last
checkpoint, in --work. Several processes may share the work with --only. A run that diverges, or whose data
is not there, does not hold up the others. Data sets are folders of LightGCN-format text in --data:
`adaptau fetch` makes data/yelp2018 and data/gowalla, ml-1m and lastfm you put there. Published numbers are
CSV files in --published, without which their columns are left out. The figures need matplotlib:
pip install '.[report]'. What is committed was written with --output benchmarks/results/reproduction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from data_folder import DATA
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
    parser.add_argument(
        "--data", type=Path, default=DATA, help="a folder for each data set; default: %(default)s"
    )
    parser.add_argument(
        "--published",
        type=Path,
        default=ROOT.parent / "shared" / "reference",
        help="numbers beside ours",
    )
    for name, folder in (("--work", "reproduction"), ("--output", "tables")):
        parser.add_argument(
            name, type=Path, default=ROOT / "runs" / folder, help="default: %(default)s"
        )
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
            try:
                state = "done" if runs.load(arm, records) else "to come"
            except InputError as problem:
                state = str(problem)
            print(arm.name, state, sep="\t")
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
