"""Fuzzing of every operator boundary and every file reader.

    cases      hypothesis draws plain data (JSON): shapes, dtypes, options and what is wrong with them,
               or the bytes of a file
    check      runs the operator or the reader; the outcome is a result that its twin agrees with, or
               that is consistent, or one of the package's own errors
    corpus/    a case for every outcome seen so far, run again by pytest (test_corpus.py)

`python -m tests.fuzz --minutes 60` looks for more, one process a target, and writes the table of
docs/robustness.md.
"""
