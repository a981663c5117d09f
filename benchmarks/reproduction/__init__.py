"""The paper's tables and figures: what is run (arms), how (runs), and what comes out (page, figures)."""
