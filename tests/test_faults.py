"""What breaks around a run, and what is lost by it: nothing. The table is in docs/robustness.md."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse
import torch
import torch.distributed as dist
from typer.testing import CliRunner

import adaptau_ext as ax
from adaptau_ext import FittedModel, cli, durable
from adaptau_ext.data import DataError, load, room
from adaptau_ext.errors import ConfigError, ModelError, TrainingError
from adaptau_ext.evaluation import UserMetrics
from adaptau_ext.training import TrainConfig, Trainer, checkpoint
from adaptau_ext.training.finished import FinishedRun, fitted_model
from adaptau_ext.training.lock import Lock
from adaptau_ext.training.run import Run

QUICK = ("dim=32", "n_negatives=16", "batch_size=100", "lr=0.02", "threads=1", "patience=none")


@pytest.fixture(autouse=True)
def _threads(restore_threads: None) -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 40 users and 60 items."""
    rng = np.random.default_rng(0)
    pairs = [f"u{u},i{i}" for u in range(40) for i in rng.choice(60, 10, replace=False)]
    path = tmp_path_factory.mktemp("faults") / "log.csv"
    path.write_text("\n".join(["user,item", *pairs]) + "\n")
    return path


def adaptau(*words: object) -> tuple[int, str]:
    """Exit code of a command, and what it said in one line."""
    result = CliRunner().invoke(cli.app, [str(w) for w in words], env={"COLUMNS": "400"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def train(data: Path) -> Callable[..., tuple[int, str]]:
    def run(folder: Path, *words: str) -> tuple[int, str]:
        settings = dict(word.split("=") for word in (*QUICK, *words))
        return adaptau("train", f"data={data}", f"output={folder}", *map("=".join, settings.items()))

    return run


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, text = adaptau("train", f"data={data}", *QUICK, f"output={folder}", "epochs=4")
    assert code == 0, text
    return folder


def same(first: Path, second: Path) -> None:
    """The same epochs, and the same bits of what is recommended from."""
    lines = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (first, second)
    ]
    for one, other in zip(*lines, strict=True):
        assert {k: one[k] for k in one if "seconds" not in k} == {
            k: other[k] for k in other if "seconds" not in k
        }
    for name in ("users.parquet", "items.parquet"):
        assert (first / "model" / name).read_bytes() == (second / "model" / name).read_bytes()


def no_litter(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.name.endswith((".part", "-before"))]


# Damaged files


def test_any_flipped_bit_and_any_cut_of_a_checkpoint_is_found(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"table": torch.arange(6.0), "best": 3}, path)
    content = path.read_bytes()
    assert torch.equal(checkpoint.load(path)["table"], torch.arange(6.0))
    assert torch.load(path, weights_only=True)["best"] == 3  # the seal is in nobody's way
    for place in range(0, len(content), 3):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ModelError, match=r"checkpoint.pt: cut short, or changed .* start again"):
            checkpoint.load(path)
    for size in [*range(0, len(content), 17), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match="cut short"):
            checkpoint.load(path)
    path.write_bytes(content + b"\n")
    with pytest.raises(ModelError, match="cut short, or changed"):
        checkpoint.load(path)


def test_a_damaged_checkpoint_is_told_and_not_trained_on(
    train: Callable[..., tuple[int, str]], whole: Path, tmp_path: Path
) -> None:
    assert train(tmp_path, "epochs=2")[0] == 0
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :])
    code, text = train(tmp_path, "epochs=4")
    assert code == 2 and text.count("error:") == 1 and f"{path}: cut short, or changed" in text
    path.write_bytes(content)  # a copy is put back
    assert train(tmp_path, "epochs=4")[0] == 0
    same(tmp_path, whole)


def test_a_checkpoint_of_another_model_is_refused(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    for name, words in (("a", ("epochs=1",)), ("b", ("epochs=1", "tau=learned"))):
        assert train(tmp_path / name, *words)[0] == 0
    (tmp_path / "b" / "checkpoint.pt").write_bytes((tmp_path / "a" / "checkpoint.pt").read_bytes())
    code, text = train(tmp_path / "b", "epochs=2", "tau=learned")
    assert code == 2 and "checkpoint.pt: a checkpoint of another model or version" in text


def small_model() -> FittedModel:
    ids = pa.array(["a", "b"]), pa.array([1, 2, 3])
    seen = scipy.sparse.csr_array((np.ones(2, np.int8), ([0, 1], [2, 0])), shape=(2, 3))
    return FittedModel(*ids, torch.eye(2, 4), torch.eye(3, 4), "both", seen)


def test_any_flipped_bit_of_a_saved_model_is_found_or_changes_nothing(tmp_path: Path) -> None:
    folder = small_model().save(tmp_path / "m")
    expected = FittedModel.load(folder).recommend(k=3)
    for name in ("model.json", "users.parquet", "items.parquet"):
        content = (folder / name).read_bytes()
        step = 1 if name == "model.json" else 31
        refused = 0
        for place in range(0, len(content), step):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            (folder / name).write_bytes(flipped)
            try:
                loaded = FittedModel.load(folder)
            except ModelError:
                refused += 1
            else:
                assert loaded.recommend(k=3).equals(expected)  # white space is another
        assert refused > 0.8 * len(range(0, len(content), step))
        (folder / name).write_bytes(content)


def test_damaged_metrics_of_users_are_found(whole: Path, tmp_path: Path) -> None:
    run = FinishedRun.read(whole)
    copy = FinishedRun(tmp_path, run.config, run.results, run.epochs)
    content = bytearray((whole / "users.npz").read_bytes())
    (tmp_path / "users.npz").write_bytes(content)
    assert np.array_equal(copy.users().users, run.users().users)
    content[len(content) // 2] ^= 1
    (tmp_path / "users.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"users.npz: cut short, or changed"):
        copy.users()


# Crashes, full disks, forbidden folders


def test_a_name_is_given_after_the_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spied_fsync(descriptor: int) -> None:
        steps.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    def spied_replace(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(Path, "replace", spied_replace)
    durable.write_text(tmp_path / "a.json", "new")
    assert steps == ["sync .part", "rename", "sync "]  # the file, its name, the folder of names


@pytest.mark.parametrize("moment", ["write", "fsync", "rename"])
def test_a_failure_at_any_moment_leaves_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save({"epoch": 1}, path)

    def fails(*_: object, **__: object) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    where = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (Path, "replace")}[moment]
    monkeypatch.setattr(*where, fails)
    with pytest.raises(OSError, match="Input/output"):
        checkpoint.save({"epoch": 2}, path)
    monkeypatch.undo()
    assert checkpoint.load(path) == {"epoch": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    "problem", [KeyboardInterrupt(), MemoryError(), OSError(errno.EIO, "Input/output")]
)
def test_what_ends_a_write_of_a_checkpoint_is_what_is_told(problem: BaseException) -> None:
    """PyTorch closes its archive on the way out, which fails with another error."""
    state = {"table": torch.arange(6.0), "other": torch.arange(2000.0), "best": 3}

    class Failing(io.BytesIO):
        writes = 0
        fails_at = -1

        def write(self, data: Any) -> int:
            self.writes += 1
            if self.writes == self.fails_at:
                raise problem
            return super().write(data)

    whole = Failing()
    checkpoint._save(state, whole)
    assert whole.writes > 10
    for nth in range(1, whole.writes + 1):
        file = Failing()
        file.fails_at = nth
        with pytest.raises(type(problem)):
            checkpoint._save(state, file)


def test_a_model_survives_a_crash_between_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_model().save(tmp_path / "m")
    rename = Path.rename

    def dies(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dies)
    with pytest.raises(KeyboardInterrupt):
        small_model().save(folder)
    monkeypatch.undo()
    assert not folder.exists()
    assert fitted_model(folder).recommend(k=1).num_rows == 2
    small_model().save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_saving_a_model_removes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters").write_text("dear")
    with pytest.raises(ModelError, match="something is there that is no model"):
        small_model().save(tmp_path / "home")
    assert (tmp_path / "home" / "letters").read_text() == "dear"
    no_litter(tmp_path)
    (tmp_path / "m.old").mkdir()
    (tmp_path / "m.old" / "thesis").touch()
    for _ in range(2):
        small_model().save(tmp_path / "m")
    (tmp_path / "m").rename(tmp_path / "away")
    assert (tmp_path / "m.old" / "thesis").exists() and durable.found(tmp_path / "m") == tmp_path / "m"


def test_folders_may_be_called_by_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    model.save(tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    assert FittedModel.load(".").recommend(k=1).equals(model.recommend(k=1))
    (tmp_path / "m" / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "m" / "sub")
    assert fitted_model(Path("..")).recommend(k=1).equals(model.recommend(k=1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_checkpoint_before(
    train: Callable[..., tuple[int, str]], whole: Path, small_disk: Path
) -> None:
    folder = small_disk / "run"
    assert train(folder, "epochs=2")[0] == 0
    before = (folder / "checkpoint.pt").read_bytes()
    left = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(left - 30_000))
    code, text = train(folder, "epochs=4")
    assert code == 2
    assert "No space left on device; 2 epochs are kept; with room for more, the same command" in text
    assert (folder / "checkpoint.pt").read_bytes() == before
    no_litter(folder)
    (small_disk / "filler").unlink()
    assert train(folder, "epochs=4")[0] == 0
    same(folder, whole)


def test_a_file_too_large_for_the_disk_leaves_the_checkpoint_before(
    train: Callable[..., tuple[int, str]], whole: Path, tmp_path: Path
) -> None:
    """As a full disk, where nothing may be mounted."""
    assert train(tmp_path, "epochs=2")[0] == 0
    before = (tmp_path / "checkpoint.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        code, text = train(tmp_path, "epochs=4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2 and "File too large; 2 epochs are kept" in text
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    no_litter(tmp_path)
    assert train(tmp_path, "epochs=4")[0] == 0
    same(tmp_path, whole)


def test_a_read_only_disk_is_found_before_training(
    train: Callable[..., tuple[int, str]], small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, text = train(small_disk / "run", "epochs=1")
    assert code == 2 and text == f"error: {small_disk / 'run'}: Read-only file system"


def test_a_folder_of_somebody_else_is_found_before_training(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o500)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # root may write anywhere
        if os.getuid() == 0:
            for parent in (tmp_path, *tmp_path.parents[:2]):
                parent.chmod(0o755)
            folder.chmod(0o555)
            os.setgid(65534)
            os.setuid(65534)
        code, text = adaptau("train", *QUICK, "epochs=1", f"output={folder / 'run'}")
        os.write(write, f"{code} {text}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000).decode() == f"2 error: {folder / 'run'}: Permission denied"


# Being stopped, and being two


@pytest.mark.parametrize("moment", ["before", "after"])
def test_sigterm_while_a_checkpoint_is_written(
    train: Callable[..., tuple[int, str]],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    keep = Trainer.keep

    def stopped(self: Trainer, folder: Path) -> None:
        if len(self.results) == 3 and moment == "before":
            os.kill(os.getpid(), signal.SIGTERM)
        keep(self, folder)
        if len(self.results) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Trainer, "keep", stopped)
    code, text = train(tmp_path, "epochs=4")
    assert code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert f"2 epochs are kept; the same command with output={tmp_path} goes on" in text
    no_litter(tmp_path)
    monkeypatch.undo()
    assert train(tmp_path, "epochs=4")[0] == 0
    same(tmp_path, whole)


def test_two_trainings_in_one_folder(data: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(data), dim=8, n_negatives=16, epochs=2)
    first = Run(Trainer(config, load(data)), tmp_path)
    events = first.events()
    next(events)
    with pytest.raises(TrainingError, match="another training is going on there"):
        Run(Trainer(config, load(data)), tmp_path)
    code, text = adaptau(
        "train", f"data={data}", "dim=8", "n_negatives=16", "epochs=2", f"output={tmp_path}"
    )
    assert code == 2 and text.startswith(f"error: {tmp_path}: another training is going on there")
    list(events)  # the first one did not notice
    other = config.model_copy(update={"dim": 9})
    with pytest.raises(ConfigError, match="of another configuration") as kept:
        Run(Trainer(other, load(data)), tmp_path)
    list(Run(Trainer(config, load(data)), tmp_path).events())  # a refused one holds no lock
    assert kept.value.__traceback__ is not None  # nor does its error


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        kept = Lock(tmp_path)
        os.write(write, b"held")
        signal.pause()
        kept.release()
    assert os.read(read, 4) == b"held"
    with pytest.raises(TrainingError, match="another training"):
        Lock(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    Lock(tmp_path).release()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with pytest.warns(UserWarning, match=r"on a file system without locks .*two trainings"):
        Lock(tmp_path).release()


def test_what_a_killed_process_left_is_removed(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "model.0a1b2c3d.part").mkdir()
    (tmp_path / "checkpoint.pt.0a1b2c3d.part").write_bytes(b"half")
    (tmp_path / "film.mkv.part").write_bytes(b"another program's")
    assert train(tmp_path, "epochs=1")[0] == 0
    (tmp_path / "film.mkv.part").unlink()
    no_litter(tmp_path)


def test_forked_children_compute(tmp_path: Path) -> None:
    """Before the parent's threads have started, and after; the children of DataLoader, too."""
    torch.set_num_threads(2)
    u, i = torch.randn(300, 16), torch.randn(2000, 16)
    expected = ax.topk(u, i, 5)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if all(map(torch.equal, ax.topk(u, i, 5), expected)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.get_num_threads() == 2
    rows = torch.utils.data.DataLoader(
        range(4), num_workers=2, collate_fn=lambda chosen: ax.topk(u[chosen], i, 5)[1]
    )
    assert torch.equal(torch.cat(list(rows)), expected[1][:4])


# Hostile files


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_the_payload_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "executed")))
    assert (tmp_path / "executed").is_dir()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_as_checkpoint_is_refused(
    train: Callable[..., tuple[int, str]], tmp_path: Path, form: str, sealed: bool
) -> None:
    hostile = {"model": Payload(tmp_path / "executed")}
    write: Callable[[Any], object] = {
        "zip": lambda file: torch.save(hostile, file),
        "legacy": lambda file: torch.save(hostile, file, _use_new_zipfile_serialization=False),
        "pickle": lambda file: pickle.dump(hostile, file),
    }[form]
    run = tmp_path / "run"
    assert train(run, "epochs=1")[0] == 0
    (durable.write_sealed if sealed else durable.write)(run / "checkpoint.pt", write)
    code, text = train(run, "epochs=2")
    why = "this is no checkpoint of tensors and plain values" if sealed else "cut short, or changed"
    assert code == 2 and f"checkpoint.pt: {why}" in text
    assert not (tmp_path / "executed").exists()


def test_pickles_in_arrays_and_settings_are_refused(tmp_path: Path) -> None:
    objects = np.array([Payload(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "a.npz", format=objects, data=objects, users=objects)
    with pytest.raises(DataError, match="not a matrix"):
        load(tmp_path / "a.npz")
    with pytest.raises(ModelError, match="no users' metrics"):
        UserMetrics.load(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(DataError, match="not a matrix"):
        load(tmp_path / "a.npz")
    with pytest.raises(ModelError, match="no users' metrics"):
        UserMetrics.load(tmp_path / "a.npz")
    call = f"!!python/object/apply:os.mkdir ['{tmp_path / 'executed'}']"
    (tmp_path / "a.yaml").write_text(f"data: {call}\n")
    code, text = adaptau("train", tmp_path / "a.yaml")
    assert code == 2 and "could not determine a constructor" in text
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    """A world of one, for the checkpoints of several."""
    if not dist.is_gloo_available():
        pytest.skip("PyTorch was built without Gloo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'world'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_shards_that_are_damaged_hostile_or_elsewhere_are_refused(tmp_path: Path) -> None:
    from adaptau_ext.distributed import checkpoint as sharded

    folder = tmp_path / "checkpoint"

    def tables() -> sharded.Sharded:
        return {"table": (torch.zeros(4, 2), 4)}

    def save(value: float) -> None:
        sharded.save(folder, {"table": (torch.full((4, 2), value), 4)}, {}, {"step": value})

    save(1.0)
    save(2.0)
    (folder / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    found = tables()
    assert sharded.load(folder, found, {}) == {"step": 2.0}
    assert found["table"][0].eq(2).all() and not (tmp_path / "executed").exists()
    (part,) = folder.glob("*.safetensors")
    for path in (part, folder / "state"):
        content = path.read_bytes()
        for place in range(0, len(content), 7):
            path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
            with pytest.raises(ModelError, match=r"changed since it was written; .* to start again"):
                sharded.load(folder, tables(), {})
        path.write_bytes(content[:-1])
        with pytest.raises(ModelError, match="changed since it was written"):
            sharded.load(folder, tables(), {})
        path.write_bytes(content)

    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(part.read_bytes())
    sums = {"../outside.safetensors": durable.sha256(outside), part.name: durable.sha256(part)}
    line = json.dumps({"sha256": sums, "step": 3}).encode()
    durable.write_sealed(folder / "state", lambda file: file.write(line))
    with pytest.raises(ModelError, match=r"\.\./outside.safetensors: missing"):
        sharded.load(folder, tables(), {})
    save(4.0)
    (folder / "another.safetensors").write_bytes(part.read_bytes())  # the reader would take it, too
    with pytest.raises(ModelError, match=r"another.safetensors: missing, or changed"):
        sharded.load(folder, tables(), {})


@pytest.mark.usefixtures("one_process")
def test_a_full_disk_leaves_the_shards_before(tmp_path: Path) -> None:
    from adaptau_ext.distributed import checkpoint as sharded

    folder = tmp_path / "checkpoint"
    sharded.save(folder, {"table": (torch.ones(4000, 8), 4000)}, {}, {})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            sharded.save(folder, {"table": (torch.zeros(4000, 8), 4000)}, {}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = {"table": (torch.zeros(4000, 8), 4000)}
    assert sharded.load(folder, found, {}) == {} and found["table"][0].eq(1).all()
    no_litter(tmp_path)


HOSTILE_SETTINGS = {
    "aliases.yaml": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True))
        + "lr: *i\n",
        r"aliases, like \*name, are not read",
    ),
    "deep.yaml": ("lr: " + "[" * 5_000, "nested too deeply"),
    "deep.toml": ("lr = " + "[" * 5_000, "nested too deeply|[Ii]nvalid"),
    "long.yaml": ("lr: " + "x" * 100_000, "lr: .*number.* got 'x"),
    "key.yaml": ("x" * 1000 + ": 1", "unknown key 'x"),
    "huge.yaml": ("#" * (1 << 21), "larger than 1,048,576 bytes"),
    "nul.yaml": ('output: "a\\0b"', "null byte"),
    "nowhere.yaml": ('output: ""', "output must name a folder"),
    "digits.toml": ("epochs = " + "9" * 10_000, "epochs|Exceeds the limit"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HOSTILE_SETTINGS))
def test_hostile_settings_are_refused_in_one_short_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = HOSTILE_SETTINGS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    code, text = adaptau("train", name)
    assert code == 2 and len(text) < 1000, text[:300]
    assert re.search(message, text), text
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["model.json", "results.json", "metrics.jsonl", "config.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{}", "\udc00", "1" * 5000])
def test_hostile_json_is_refused(whole: Path, tmp_path: Path, name: str, content: str) -> None:
    small_model().save(tmp_path / "model")
    for path in ("results.json", "metrics.jsonl", "config.json"):
        (tmp_path / path).write_bytes((whole / path).read_bytes())
    path = tmp_path / "model" / name if name == "model.json" else tmp_path / name
    path.write_bytes(content.encode(errors="surrogatepass"))
    if (name, content) in {("metrics.jsonl", "{}"), ("results.json", "{}"), ("config.json", "{}")}:
        return  # an object, as they are; what is in it, the report looks for
    with pytest.raises(ModelError, match="damaged"):
        fitted_model(path.parent)


def test_fetch_writes_its_own_names_only(tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    code, text = adaptau("fetch", "../elsewhere", "--to", tmp_path)
    assert code == 2 and "data sets to fetch are yelp2018, gowalla, got '../elsewhere'" in text
    source = "nothing://{name.__class__.__init__.__globals__}/{file}"
    code, text = adaptau("fetch", "gowalla", "--to", tmp_path, "--source", source)
    assert code == 2 and "{name.__class__.__init__.__globals__}/train.txt" in text
    assert not list(tmp_path.rglob("*.txt"))


# Data that promises more than there is memory


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def promising_npz(path: Path) -> None:
    """A matrix of 10 TB, of which there are 64 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("row", "col", "data", "shape"):
            archive.writestr(f"{name}.npy", npy_header("(10000000000000,)") + bytes(64))
        plain = io.BytesIO()
        np.save(plain, np.array(b"coo"))
        archive.writestr("format.npy", plain.getvalue())


def wide_npz(path: Path) -> None:
    """One interaction, of the last of 10^13 users."""
    shape = (10**13, 10**13)
    one = scipy.sparse.coo_array(([1.0], ([10**13 - 1], [0])), shape=shape)
    scipy.sparse.save_npz(path, one)


def zeros_npz(path: Path) -> None:
    """Zeros, packed a thousandfold."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", npy_header("(8000000,)") + bytes(64_000_000))


def repeated(path: Path, head: str, block: str, times: int) -> None:
    """A gzip file of kilobytes that unpacks to times blocks."""
    packed = gzip.compress((block * (1_000_000 // len(block))).encode())
    path.write_bytes(gzip.compress(head.encode()) + packed * times)


def rows_of_one(path: Path) -> None:
    """Ten million rows in some kilobytes."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000_000, np.int32)), pa.array([1]))
    pyarrow.parquet.write_table(pa.table({"user": column, "item": column}), path)


BOMBS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "10 TB promised": ("a.npz", promising_npz, "not enough memory|not a matrix"),
    "10^13 users": ("a.npz", wide_npz, "ids of 10,000,000,000,000 users,? .* take .* GiB"),
    "zeros": ("a.npz", zeros_npz, "its arrays take .* GiB"),
    "rows": ("a.parquet", rows_of_one, "10,000,000 rows take .* GiB"),
    "packed rows": ("a.csv.gz", lambda path: repeated(path, "user,item\n", "1,2\n", 300), "its first rows and what follows take"),
    "line of 1 GB": ("a.csv.gz", lambda path: repeated(path, "user,item\n", "x", 1000), "straddl"),
    "header of 1 GB": ("a.csv.gz", lambda path: repeated(path, "", "x", 1000), "one column only, 'x+'"),
    "quotes": ("a.csv", lambda path: path.write_text("user,item\n" + '"' * 5_000_000), "a.csv: "),
    "quoted header": ("a.csv", lambda path: path.write_text('"' * 5_000_001), "a.csv: "),
    "two million columns": ("a.csv", lambda path: path.write_text("user,item" + ",c" * 2_000_000 + "\n1,2\n"), "a.csv: "),
    "nameless columns": ("a.csv", lambda path: path.write_text("x," * 2_000_000 + "\n"), "no column looks like users"),
    "zero bytes": ("a.csv", lambda path: path.write_bytes(bytes(1_000_000)), "a.csv: "),
    "sparse file": ("train.txt", lambda path: os.truncate(path, 1 << 42), "train.txt: its lines take 4,096.0 GiB"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, make, message = BOMBS[name]
    (tmp_path / file).touch()
    (tmp_path / "test.txt").touch()
    make(tmp_path / file)
    monkeypatch.setattr(room, "room", lambda: 50_000_000)
    monkeypatch.setattr("adaptau_ext.data.files.room", room.room)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=message) as found:
        load(tmp_path if file == "train.txt" else tmp_path / file)
    assert len(str(found.value)) < 1500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_memory_is_bounded_by_the_process_s_limit(tmp_path: Path) -> None:
    repeated(tmp_path / "a.csv.gz", "user,item\n", "1,2\n", 20_000)  # 20 GB in a few MB
    program = """
        import resource, sys
        from adaptau_ext.data import DataError, load
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30),) * 2)
        try:
            load(sys.argv[1])
        except DataError as problem:
            print(problem)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a.csv.gz")],
        capture_output=True, text=True, check=True, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert "a.csv.gz: its first rows and what follows take" in done.stdout


# Numbers that are none, memory that is not there, readers that leave


def test_nan_ends_training_and_is_not_kept(
    train: Callable[..., tuple[int, str]], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def diverging(self: Trainer, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        loss = step(self, users, items)
        if len(self.results) == 2:  # the last step of an epoch: its loss is a number still
            with torch.no_grad():
                next(self.model.parameters())[0, 0] = float("nan")
        return loss

    monkeypatch.setattr(Trainer, "step", diverging)
    code, text = train(tmp_path, "epochs=4", "batch_size=1000")
    assert code == 2 and "epoch 2 diverged" in text and f"2 epochs are kept in {tmp_path}" in text
    monkeypatch.undo()
    kept = checkpoint.load(tmp_path / "checkpoint.pt")
    assert len(kept["results"]) == 2 and all(x.isfinite().all() for x in kept["model"].values())


def test_a_learning_rate_that_diverges_is_told(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    words = ("lr=1e30", "normalize=none", "tau=1", "epochs=3")
    code, text = train(tmp_path, *words)
    assert code == 2 and "epoch 0 diverged" in text and "0 epochs are kept" in text


def test_a_model_that_does_not_fit_the_memory_is_told(
    train: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, text = train(tmp_path, "dim=1000000000000", "epochs=1")
    assert code == 2 and "not enough memory for" in text and "Traceback" not in text


def test_a_reader_that_leaves_ends_the_command_quietly(data: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "adaptau_ext",
        "train",
        f"data={data}",
        *QUICK,
        "epochs=50",
        "output=run",
    ]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.readline()
    process.stdout.close()
    error = process.communicate(timeout=120)[1]
    assert b"log.csv" in first and (process.returncode, error) == (141, b"")


def test_a_locale_without_utf8_loses_no_id(tmp_path: Path) -> None:
    ids = pa.array(["ü", "b"]), pa.array([1, 2, 3])
    one = small_model()
    FittedModel(*ids, one.user_embeddings, one.item_embeddings, "both", one.seen).save(tmp_path / "m")
    (tmp_path / "ids").write_text("ü\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "adaptau_ext", "recommend", "m", "--users", "ids", "-k", "1"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    )  # fmt: skip
    assert done.returncode == 0 and r"\xfc" in done.stdout, done.stderr
