"""Propagation of embeddings over the graph of interactions, as in LightGCN."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from adaptau_ext.arguments import (
    Exclusion,
    as_ids,
    check_devices,
    compute_dtype,
    csr_pair,
    refuse_tangents,
)
from adaptau_ext.dropout import draw_seed, steps_of

_ops = torch.ops.adaptau


class BipartiteGraph:
    r"""Users and items joined by their interactions, with the symmetrically normalised adjacency.

    ::

        R = interactions                                      # [n_users, n_items], zeros and ones
        A = D ** -0.5 @ [[0, R], [R.T, 0]] @ D ** -0.5        # D: degrees; isolated nodes: zero rows

    Embeddings go in and come out as a pair, users and items. They may be float32, bfloat16 or float16
    (computed in float32, which is also what comes out) or float64, with any strides and any d. Results
    are differentiable in both, any number of times, and have the same bits on any number of threads.
    The graph is made on the CPU; `graph.to("cuda")` propagates embeddings there, all but float64.

    Args:
        interactions: a SciPy CSR matrix or a pair (indptr `[n_users + 1]`, indices) of tensors or
            arrays, each row's indices ascending and distinct. Every stored entry is an interaction,
            whatever its value.
        n_items: needed with a pair; a SciPy matrix has it.
        reorder: number the nodes inside so that those close to each other in the graph are close in
            memory (`adaptau_ext.reorder`). On first use on the CPU this takes one core about as long as
            fifty hops take two; hops with tables that do not fit the caches may take 0.8 of the time
            from then on. No bit of a result changes.

    Raises:
        RuntimeError: for an id out of range, a row that is unsorted or has duplicates.

    Source: LightGCN (He et al., SIGIR 2020), equations 3, 4 and 7.
    """

    def __init__(
        self, interactions: Exclusion, n_items: int | None = None, *, reorder: bool = False
    ) -> None:
        indptr, indices = csr_pair(interactions, torch.device("cpu"), "interactions")
        if n_items is None:
            if isinstance(interactions, tuple):
                raise TypeError(
                    "n_items is needed with a pair (indptr, indices); only a SciPy matrix has it"
                )
            n_items = int(interactions.shape[1])
        # rows of R and of its transpose: (user_indptr, user_indices, item_indptr, item_indices), and
        # what their nodes are outside, where they are numbered in another order: (users, items)
        self._adjacency: _Adjacency = (*_ops.bipartite_graph(indptr, indices, n_items), None, None)
        self._wants_order = reorder

    def to(self, device: torch.device | str) -> BipartiteGraph:
        """The same graph on another device, where its embeddings are. An order is the CPU's alone."""
        graph = copy.copy(self)
        users, items = self._adjacency[4:]
        if torch.device(device).type != "cpu" and users is not None and items is not None:
            graph._renumber([torch.argsort(order).int() for order in (users, items)])
            graph._adjacency, graph._wants_order = (*graph._adjacency[:4], None, None), True
        graph._adjacency = tuple(None if part is None else part.to(device) for part in graph._adjacency)
        return graph

    def _ready(self) -> _Adjacency:
        """The adjacency, in an order if one is wanted: found at the first use, compiled code aside."""
        indptr, indices, *_ = self._adjacency
        assert indptr is not None and indices is not None
        if self._wants_order and indptr.is_cpu and not torch.compiler.is_compiling():
            self._wants_order = False
            from adaptau_ext.reorder import locality_order  # SciPy takes a fifth of a second

            found = locality_order(indptr.numpy(), indices.numpy(), self.n_items)
            if found is not None:
                self._renumber([torch.from_numpy(order) for order in found])
        return self._adjacency

    def _renumber(self, orders: list[Tensor]) -> None:
        user_indptr, user_indices, item_indptr, item_indices, *_ = self._adjacency
        sides = (user_indptr, user_indices, *orders), (item_indptr, item_indices, *orders[::-1])
        renumbered = [part for side in sides for part in _ops.renumber_side(*side)]
        self._adjacency = (*renumbered, *orders)

    @property
    def n_users(self) -> int:
        """Users, isolated ones included."""
        return _nodes(self._adjacency)[0]

    @property
    def n_items(self) -> int:
        """Items, isolated ones included."""
        return _nodes(self._adjacency)[1]

    @property
    def n_interactions(self) -> int:
        """Edges between users and items, each counted once."""
        indices = self._adjacency[1]
        assert indices is not None
        return indices.shape[0]

    def __repr__(self) -> str:
        return (
            f"BipartiteGraph({self.n_users:,} users, {self.n_items:,} items, "
            f"{self.n_interactions:,} interactions)"
        )

    def propagate(
        self,
        x_users: Tensor,
        x_items: Tensor,
        n_layers: int = 3,
        *,
        users: Tensor | None = None,
        items: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""The mean of all layers' embeddings.

        ::

            E = cat([x_users, x_items])
            out = (E + A @ E + ... + A ** n_layers @ E) / (n_layers + 1)
            return out[:n_users][users], out[n_users:][items]

        With `users` or `items` (a training batch), the last layer is computed for those rows alone, and
        in the backward pass the first one, which starts from their gradients, follows their edges
        alone; the layers between are whole. The backward pass stores nothing but the graph.

        Args:
            x_users: `[n_users, d]`; x_items: `[n_items, d]`, same dtype.
            n_layers: at least 0.
            users, items: int64 ids of the rows to return, in any order, duplicates welcome; default:
                all of them.

        Returns:
            `[n_users, d]` or `[len(users), d]`, and `[n_items, d]` or `[len(items), d]`.

        Raises:
            RuntimeError: for a wrong shape or dtype, and ids out of range.
        """
        return self._run(x_users, x_items, n_layers, True, users, items)

    def hop(self, x_users: Tensor, x_items: Tensor) -> tuple[Tensor, Tensor]:
        r"""One multiplication by the adjacency, to build other models from.

        ::

            out = A @ cat([x_users, x_items])
            return out[:n_users], out[n_users:]

        Arguments, results and errors are those of `propagate`.
        """
        return self._run(x_users, x_items, 1, False, None, None)

    def layers(
        self,
        x_users: Tensor,
        x_items: Tensor,
        n_layers: int = 3,
        *,
        users: Tensor | None = None,
        items: Tensor | None = None,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""The embeddings after every hop, for models that want more than their mean.

        ::

            E[0] = cat([x_users, x_items]);  E[l + 1] = mask_l * (A @ E[l]) / (1 - dropout)
            return E[:, :n_users][:, users], E[:, n_users:][:, items]

        As in `propagate`, the last hop is computed for the rows wanted alone, and the backward pass
        stores nothing but the graph: masks are drawn again. The last bits of a layer depend on how many
        there are.

        Args:
            dropout: probability that an element of a hop's output is zero, in [0, 1).
            generator: of the masks' seed.
            others: as of `propagate`.

        Returns:
            `[n_layers + 1, n_users or len(users), d]` and the same of items.
        """

        steps = steps_of(dropout)
        seed = draw_seed(generator) if steps > 0 else 0
        users, items = self._checked(x_users, x_items, users, items)
        if x_users.device.type != "cpu":
            layers: tuple[Tensor, Tensor] = _HopByHop.apply(  # type: ignore[no-untyped-call]
                x_users, x_items, users, items, self._ready(), n_layers, steps, seed
            )
            return layers
        rows = _ops.propagate_layers(
            x_users, x_items, *self._ready(), n_layers, users, items, steps, seed
        )
        count = n_layers + 1
        user_rows, item_rows = (x.view(count, len(x) // count, x.shape[1]) for x in rows)
        return user_rows, item_rows

    def _run(
        self,
        x_users: Tensor,
        x_items: Tensor,
        n_layers: int,
        mean: bool,
        users: Tensor | None,
        items: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        users, items = self._checked(x_users, x_items, users, items)
        result: tuple[Tensor, Tensor] = _ops.propagate(
            x_users, x_items, *self._ready(), n_layers, mean, users, items
        )
        return result

    def _checked(
        self, x_users: Tensor, x_items: Tensor, users: Tensor | None, items: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """The ids of the rows wanted."""
        check_devices(
            x_users.device, x_items=x_items, graph=self._adjacency[0], users=users, items=items
        )
        refuse_tangents(x_users, x_items)
        return as_ids(users), as_ids(items)


_Adjacency = tuple[Tensor | None, ...]


def _nodes(adjacency: _Adjacency) -> tuple[int, int]:
    """Users, items."""
    user_indptr, item_indptr = adjacency[0], adjacency[2]
    assert user_indptr is not None and item_indptr is not None
    return user_indptr.shape[0] - 1, item_indptr.shape[0] - 1


class _HopByHop(torch.autograd.Function):
    """`BipartiteGraph.layers` where it is no operator. Hop l drops out by seed + l, backward too."""

    @staticmethod
    def forward(
        ctx: Any,
        x_users: Tensor,
        x_items: Tensor,
        users: Tensor | None,
        items: Tensor | None,
        adjacency: _Adjacency,
        n_layers: int,
        steps: int,
        seed: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(users, items, *adjacency)
        ctx.settings = n_layers, steps, seed
        ctx.dtypes = x_users.dtype, x_items.dtype
        e = tuple(x.to(compute_dtype(x)) for x in (x_users, x_items))
        ids, everything = (users, items), (None, None)

        def select(at: tuple[Tensor | None, ...]) -> list[Tensor]:
            return [x if i is None else x[i] for x, i in zip(e, at, strict=True)]

        # the rows of no hop: where there is none, this alone looks at the arguments
        layers = [list(_ops.propagate(*e, *adjacency, min(n_layers, 0), True, *ids))]
        for hop in range(1, n_layers + 1):
            last = hop == n_layers  # computed for the rows wanted alone
            wanted = ids if last else everything
            e = _ops.propagate(*e, *adjacency, 1, False, *wanted, None, None, steps, seed + hop)
            layers.append(select(everything if last else ids))
        users_out, items_out = (torch.stack(side) for side in zip(*layers, strict=True))
        return users_out, items_out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """In Horner form: G[l] = grad[l] + A (mask_(l + 1) * G[l + 1])."""
        users, items, *adjacency = ctx.saved_tensors
        n_layers, steps, seed = ctx.settings
        ids, nodes = (users, items), _nodes(adjacency)
        sums, places = zip(
            *(_sums_by_node(g, at) for g, at in zip(grads, ids, strict=True)), strict=True
        )

        def dropped(rows: list[Tensor], at: tuple[Tensor | None, ...], hop: int) -> list[Tensor]:
            if steps == 0 or hop == 0:
                return rows
            sides = zip(rows, at, (0, nodes[0]), strict=True)
            return [_ops.dropout(x, i, first, steps, seed + hop) for x, i, first in sides]

        if n_layers > 0:
            rows, given = dropped([x[n_layers] for x in grads], ids, n_layers), ids
        else:
            g = [x.new_zeros(n, x.shape[2]) for x, n in zip(grads, nodes, strict=True)]
        for hop in range(n_layers, 0, -1):
            masked = (steps, seed + hop - 1) if hop > 1 else (0, 0)
            g = list(_ops.propagate(*rows, *adjacency, 1, False, None, None, *given, *masked))
            if hop > 1:
                _add(g, places, dropped([x[hop - 1] for x in sums], places, hop - 1))
            rows, given = g, (None, None)
        _add(g, places, [x[0] for x in sums])
        return *(x.to(dtype) for x, dtype in zip(g, ctx.dtypes, strict=True)), *[None] * 6


def _sums_by_node(rows: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The rows `[layers, n, d]` of each node added up, in order, and the nodes they are of; as many
    rows as before, where a node has several all but one of them zero."""
    if ids is None:
        return rows, None
    nodes = ids.sort().values
    place = torch.searchsorted(nodes, ids)
    columns = rows.transpose(0, 1).flatten(1)
    sums = torch.ops.aten.embedding_dense_backward(columns, place, len(ids), -1, False)
    return sums.unflatten(1, (rows.shape[0], rows.shape[2])).transpose(0, 1), nodes


def _add(tables: list[Tensor], nodes: tuple[Tensor | None, ...], rows: list[Tensor]) -> None:
    """Zeros aside one row a node is added: in whatever order, the bits are the same."""
    for table, at, x in zip(tables, nodes, rows, strict=True):
        if at is None:
            table += x
        else:
            table.index_add_(0, at, x)
