"""The paper's tables and figures.

What is run (arms), how (runs), published numbers (published), and what comes out: tables, figures, and
the page of both.
"""
