"""Where a tool of the CUDA toolkit is: on the path, in a toolkit, or among NVIDIA's Python packages."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def find_tool(name: str) -> str | None:
    toolkits = [os.environ.get("CUDA_HOME", "/usr/local/cuda"), "/usr/local/cuda"]
    folders = [f"{toolkit}/{sub}" for toolkit in toolkits for sub in ("bin", name)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if found is not None:
        return found
    packages = (Path(folder) / "nvidia" for folder in sys.path if folder)
    inside = (path for folder in packages for path in folder.rglob(name) if path.is_file())
    return next((str(path) for path in inside), None)
