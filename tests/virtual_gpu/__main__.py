"""Builds the virtual GPU's library and says how long that took."""

import time

from tests.virtual_gpu import build

start = time.perf_counter()
print(build.library(), f"{time.perf_counter() - start:.1f} s")
