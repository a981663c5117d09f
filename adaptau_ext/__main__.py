"""`python -m adaptau_ext` is `adaptau`: `torchrun --nproc-per-node 4 -m adaptau_ext train ...`."""

from adaptau_ext.cli import main

if __name__ == "__main__":
    main()
