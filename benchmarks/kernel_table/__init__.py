"""Machine code of the CUDA kernels, read without a GPU.

launches.py    what the launchers ask for (launches.cu prints csrc/cuda's constants)
cubins.py      machine code out of the built library
sass.py          its instructions and blocks
flow.py          its loops, and the usual way through the main one
occupancy.py     how many blocks a multiprocessor holds
table.py       all of that as a table; what a new build may change in it
model.py       cycles of a main loop, and what TFLOP/s that predicts
report.py      docs/gpu_kernels.md
"""
