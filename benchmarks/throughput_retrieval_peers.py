"""Other ways to the k largest inner products, on the CPU and on GPUs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from throughput_case import Contenders, missing
from torch import Tensor


def rows_a_chunk(u: Tensor, i: Tensor) -> int:
    """256 on a CPU, 64 Mi scores on a GPU."""
    return min(len(u), 256 if u.device.type == "cpu" else max(128, 2**26 // len(i)))


def torch_peers(u: Tensor, i: Tensor, k: int) -> Contenders:
    n = rows_a_chunk(u, i)
    return {
        "torch mm + topk": lambda: [(u @ i.T).topk(k)],
        "torch chunked": lambda: [(part @ i.T).topk(k) for part in u.split(n)],
    }


def cpu_peers(u: Tensor, i: Tensor, k: int, threads: int) -> Contenders:
    u_array, i_array = u.numpy(), i.numpy()

    def numpy_partition() -> np.ndarray:
        out = []
        for start in range(0, len(u_array), 256):
            scores = u_array[start : start + 256] @ i_array.T
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            out.append(np.take_along_axis(best, order, 1))
        return np.concatenate(out)

    peers: Contenders = {}
    if len(i) < 50_000:  # minutes beyond
        peers["numpy"] = numpy_partition
    try:
        import faiss

        faiss.omp_set_num_threads(threads)
        peers["faiss knn"] = lambda: faiss.knn(u_array, i_array, k, metric=faiss.METRIC_INNER_PRODUCT)
        if len(i) < 500_000:  # the same engine
            index = faiss.IndexFlatIP(i.shape[1])
            index.add(i_array)
            peers["faiss IndexFlatIP"] = lambda: index.search(u_array, k)
    except ImportError:
        peers["faiss"] = missing("faiss-cpu is not installed")
    try:
        from implicit.cpu.topk import topk as implicit_topk

        peers["implicit"] = lambda: implicit_topk(i_array, u_array, k, num_threads=threads)
    except ImportError:
        peers["implicit"] = missing("implicit is not installed")
    return peers


def faiss_gpu(u: Tensor, i: Tensor, k: int) -> Callable[[], object]:
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        raise ModuleNotFoundError("this faiss was built without CUDA")
    import faiss.contrib.torch_utils  # lets knn_gpu take tensors, on PyTorch's stream

    resources = faiss.StandardGpuResources()
    return lambda: [
        faiss.knn_gpu(resources, u, i, k, metric=faiss.METRIC_INNER_PRODUCT, device=u.device.index or 0)
    ]


def cuvs(u: Tensor, i: Tensor, k: int) -> Callable[[], object]:
    """The index holds the items' norms and is built beforehand."""
    from cuvs.common import Resources
    from cuvs.neighbors import brute_force

    if u.dtype == torch.bfloat16:
        raise TypeError("cuVS takes float32 and float16")
    resources = Resources(stream=torch.cuda.current_stream(u.device).cuda_stream)
    index = brute_force.build(i, metric="inner_product", resources=resources)

    def search() -> object:
        scores = torch.empty(len(u), k, device=u.device)
        ids = torch.empty(len(u), k, dtype=torch.int64, device=u.device)
        brute_force.search(index, u, k, neighbors=ids, distances=scores, resources=resources)
        return [(scores, ids)]

    return search


# name -> (what to install, how to make it); both allocate outside PyTorch's allocator
GPU_PEERS: dict[str, tuple[str, Callable[[Tensor, Tensor, int], Callable[[], object]]]] = {
    "faiss-gpu": ("faiss-gpu-cuvs", faiss_gpu),
    "cuVS brute force": ("cuvs-cu13", cuvs),
}


def gpu_peers(u: Tensor, i: Tensor, k: int) -> Contenders:
    peers: Contenders = {}
    for name, (package, make) in GPU_PEERS.items():
        try:
            if u.device.type != "cuda":
                raise ImportError(f"{package} needs a CUDA GPU")
            peers[name] = make(u, i, k)
        except ModuleNotFoundError as gone:
            peers[name] = missing(f"not installed: {package} ({gone})")
        except Exception as problem:
            peers[name] = missing(f"{type(problem).__name__}: {problem}")
    return peers
