"""Losses and retrieval over several processes, on torch.distributed alone.

    import torch.distributed as dist
    from adaptau_ext import distributed as axd

    dist.init_process_group("gloo")                      # or "nccl"; torchrun starts the processes
    loss = axd.in_batch_softmax(u, i, tau)               # batches split: candidates from every rank
    loss = axd.sharded_softmax(u, i, tau, target, first_item=...)   # catalogue split: items stay put
    scores, ids = axd.topk(u, i, 20, first_item=...)     # exact, merged
    ranks = axd.ranks(u, i, held_out, first_item=...)    # exact, counted

Ranks may have different numbers of users and items, none included. The losses of the ranks add up to
the loss of one process, and gradients to its gradients; retrieval gives the same bits.

    collectives.py    rows that move, and gradients that move back: all_to_all alone
    csr.py            lists of items seen from a part of the catalogue
    softmax.py        the two losses
    retrieval.py      top-k and ranks
"""

from adaptau_ext.distributed.retrieval import ranks, topk
from adaptau_ext.distributed.softmax import in_batch_softmax, sharded_softmax
from adaptau_ext.distributed.world import World

__all__ = ["World", "in_batch_softmax", "ranks", "sharded_softmax", "topk"]
