"""Files and folders that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from adaptau_ext.errors import ModelError

_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_BYTES = 73


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name to write at, which becomes `path` at the end: a crash leaves what was there before.

    What was written is on the disk before it gets its name, and the name before this returns. If
    something goes wrong, what was written is removed.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")  # several may write at a time
    try:
        yield part
        sync(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """As `beside`, for a folder of files, which replaces the one that is there."""
    folder = Path(os.path.abspath(folder))  # "." has no name
    part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        yield part
        for path in part.iterdir():
            sync(path)
        replace_folder(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def replace_folder(part: Path, folder: Path) -> None:
    """`part` becomes `folder`; between two renames the one before is beside, where `found` looks."""
    folder, old = Path(os.path.abspath(folder)), _before(folder)
    sync(part)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    part.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def found(folder: Path) -> Path:
    """The folder, or the one before it if a crash came between the renames of `replace_folder`."""
    old = _before(folder)
    return old if old.exists() and not folder.exists() else folder


def _before(folder: Path) -> Path:
    """A name that nobody else gives."""
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f".{folder.name}.adaptau-before")


def is_part(path: Path) -> bool:
    """Whether it is what a killed process left of `beside` or `folder_beside`."""
    return re.fullmatch(r".+\.[0-9a-f]{8}\.part", path.name) is not None


def sync(path: Path) -> None:
    """A file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: Callable[[BinaryIO], object]) -> None:
    """A file, see `beside`."""
    with beside(path) as part, part.open("xb") as file:
        content(file)


def write_text(path: Path, text: str) -> None:
    """As `write`."""
    write(path, lambda file: file.write(text.encode()))


def write_sealed(path: Path, content: Callable[[BinaryIO], object]) -> None:
    """As `write`, with the SHA-256 of the content behind it, for `opened`.

    Readers of zip archives, which .pt and .npz files are, do not mind.
    """
    with beside(path) as part, part.open("xb+") as file:
        content(file)
        file.seek(0)
        digest = _sha256(file)
        file.seek(0, os.SEEK_END)
        file.write(f"\nsha256 {digest}\n".encode())


@contextmanager
def opened(path: Path, way_out: str) -> Iterator[BinaryIO]:
    """What `write_sealed` wrote.

    Raises:
        ModelError: unless every byte of it is as it was; with the way out.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; {way_out}") from None
    with file:
        size = max(0, file.seek(0, os.SEEK_END) - _SEAL_BYTES)
        file.seek(size)
        seal = _SEAL.fullmatch(file.read())
        file.seek(0)
        if seal is None or _sha256(file, size).encode() != seal[1]:
            raise ModelError(f"{path}: cut short, or changed since it was written; {way_out}")
        file.seek(0)
        yield file


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return _sha256(file)


def _sha256(file: BinaryIO, n_bytes: int | None = None) -> str:
    """Of what follows, or of so many bytes."""
    digest, left = hashlib.sha256(), sys.maxsize if n_bytes is None else n_bytes
    while block := file.read(min(1 << 20, left)):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def read_json(path: Path, way_out: str) -> Any:
    """A JSON file of this package.

    Raises:
        ModelError: if it is none; with the way out.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):  # broken, no UTF-8, or nested too deeply
        raise ModelError(f"{path}: the file is damaged; {way_out}") from None
