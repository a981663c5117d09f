"""Public data sets, downloaded once and checked."""

from __future__ import annotations

from pathlib import Path

from adaptau_ext.errors import DataError

# The files of LightGCN's authors, which the paper's experiments read.
SOURCE = (
    "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/"
    "947ca2b3b1d2d3545b114145710cb06c4e57b3d2/data/{name}/{file}"
)
SHA256 = {
    "yelp2018": {
        "train.txt": "1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093",
        "test.txt": "9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
    },
    "gowalla": {
        "train.txt": "7244696fdeb23911319cf7b689f2e15a3c4c92549c873a5677b44e3f13cc3e62",
        "test.txt": "099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
    },
}


def fetch(name: str, folder: str | Path, *, source: str = SOURCE) -> Path:
    """Downloads a data set into `folder/name`; what is there and whole is not downloaded again.

    Nothing is unpacked, and names of files are this module's own.

    Args:
        source: address of a file, with {name} and {file} in it.

    Returns:
        the folder, for `load` and `adaptau train data=...`.

    Raises:
        DataError: for a name that is none of SHA256's, a download that fails, or a file whose SHA-256
            is another.
    """
    import pooch
    import requests

    if name not in SHA256:
        raise DataError(f"data sets to fetch are {', '.join(SHA256)}, got {name!r}")
    target = Path(folder) / name
    for file, digest in SHA256[name].items():
        address = source.replace("{name}", name).replace("{file}", file)
        try:
            pooch.retrieve(address, f"sha256:{digest}", fname=file, path=target)
        except (ValueError, requests.RequestException) as problem:
            raise DataError(f"{address}: {problem}") from None
    return target
