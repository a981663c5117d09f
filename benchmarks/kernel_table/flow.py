"""Loops of a function, and the way through its main loop that nearly every round takes.

The main loop is the smallest one around a tensor-core instruction and a barrier: a kernel's walk over tiles.
Its body also holds what hardly ever happens: masked pairs, the end of the table, a maximum that moves, a
candidate that is taken. Which way a branch goes is not in the machine code, so the usual round is taken to be
the one that does all of the work (most tensor-core instructions, then most asynchronous copies) with the
fewest instructions: whatever can be jumped over is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .sass import Block


@dataclass(frozen=True)
class Loop:
    header: int
    body: frozenset[int]


def _order(blocks: list[Block]) -> list[int]:
    """Reachable blocks, each after those that lead to it (but for jumps back)."""
    order: list[int] = []
    seen = {0}
    stack = [(0, iter(blocks[0].next))]
    while stack:
        block, following = stack[-1]
        for one in following:
            if one not in seen:
                seen.add(one)
                stack.append((one, iter(blocks[one].next)))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def _dominates(blocks: list[Block], order: list[int]) -> Callable[[int, int], bool]:
    """Whether every way to the second block leads through the first (Cooper, Harvey, Kennedy 2001)."""
    place = {block: n for n, block in enumerate(order)}
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for one in blocks[block].next:
            before[one].append(block)
    parent = {0: 0}

    def meet(a: int, b: int) -> int:
        while a != b:
            while place[a] > place[b]:
                a = parent[a]
            while place[b] > place[a]:
                b = parent[b]
        return a

    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [one for one in before[block] if one in parent]
            new = known[0]
            for one in known[1:]:
                new = meet(new, one)
            if parent.get(block) != new:
                parent[block] = new
                changed = True

    def dominates(a: int, b: int) -> bool:
        while b != a and b != 0:
            b = parent[b]
        return a == b

    return dominates


def loops(blocks: list[Block]) -> list[Loop]:
    """Natural loops, innermost first; jumps back to the same block make one loop."""
    order = _order(blocks)
    dominates = _dominates(blocks, order)
    before: dict[int, list[int]] = {block: [] for block in order}
    for block in order:
        for one in blocks[block].next:
            before[one].append(block)
    bodies: dict[int, set[int]] = {}
    for block in order:
        for header in blocks[block].next:
            if dominates(header, block):
                body = bodies.setdefault(header, {header})
                missing = [block]
                while missing:
                    one = missing.pop()
                    if one not in body:
                        body.add(one)
                        missing += before[one]
    found = [Loop(header, frozenset(body)) for header, body in bodies.items()]
    return sorted(found, key=lambda loop: (len(loop.body), loop.header))


def _has(blocks: list[Block], loop: Loop, name: str) -> bool:
    return any(i.name == name for n in loop.body for i in blocks[n].instructions)


def main_loop(blocks: list[Block], found: list[Loop]) -> Loop | None:
    """None for a kernel without tensor-core instructions in a loop."""
    walks = [loop for loop in found if _has(blocks, loop, "HMMA")]
    tiled = [loop for loop in walks if _has(blocks, loop, "BAR")]
    return next(iter(tiled or walks), None)


@dataclass(frozen=True)
class Round:
    """A way through a loop: opcodes in order, and a Round where a loop inside it is gone through."""

    steps: tuple[str | Round, ...]

    @property
    def inner(self) -> list[Round]:
        return [step for step in self.steps if isinstance(step, Round)]

    def ops(self, trips: Callable[[Round], int]) -> list[str]:
        """Opcodes in order, with inner loops gone through as often as `trips` says."""
        flat: list[str] = []
        for step in self.steps:
            flat += step.ops(trips) * trips(step) if isinstance(step, Round) else [step]
        return flat


def count(ops: list[str], name: str) -> int:
    return sum(op.split(".", 1)[0] == name for op in ops)


def usual_round(blocks: list[Block], loop: Loop, found: list[Loop]) -> Round:
    """The way through `loop` that does all of the work with the fewest instructions."""
    inside = [one for one in found if one.body < loop.body]
    outermost = [one for one in inside if not any(one.body < other.body for other in inside)]
    node_of = {n: one.header for one in outermost for n in one.body}  # a loop stands for its blocks
    bodies = {one.header: one.body for one in outermost}
    contents: dict[int, tuple[str | Round, ...]] = {
        n: tuple(i.op for i in blocks[n].instructions) for n in loop.body
    }
    contents |= {one.header: (usual_round(blocks, one, found),) for one in outermost}
    # from each block, or inner loop, the best way to the jump back, if there is one: its rank and
    # where it goes next. Every inner loop counts once.
    best: dict[int, tuple[tuple[int, int, int], int | None]] = {}
    for node in reversed(_order(blocks)):
        if node not in loop.body or node_of.get(node, node) != node:
            continue
        members = bodies.get(node, frozenset({node}))
        leads_to = {one for n in members for one in blocks[n].next} - (members - {loop.header})
        ways: list[tuple[tuple[int, int, int], int | None]] = []
        if loop.header in leads_to:
            ways.append(((0, 0, 0), None))
        onward = {node_of.get(one, one) for one in leads_to & loop.body - {loop.header}}
        ways += [(best[one][0], one) for one in sorted(onward) if one in best]
        if ways:
            (hmma, copies, fewer), following = max(ways, key=lambda way: way[0])
            own = Round(contents[node]).ops(lambda _: 1)
            rank = (hmma + count(own, "HMMA"), copies + count(own, "LDGSTS"), fewer - len(own))
            best[node] = rank, following
    if loop.header not in best:
        raise ValueError("no way through the loop: its control flow is not understood")
    steps: list[str | Round] = []
    at: int | None = loop.header
    while at is not None:
        steps += contents[at]
        at = best[at][1]
    return Round(tuple(steps))


def with_trips(way: Round, hmma: int, copies: int) -> list[str]:
    """Opcodes of a round that is known to hold so many tensor-core instructions and asynchronous copies.

    From these follows how often loops inside it are gone through, all with the same instruction alike;
    loops that hold neither were not passed, or are counted once.
    """
    trips: dict[int, int] = {}
    once = way.ops(lambda _: 1)
    for name, wanted in (("HMMA", hmma), ("LDGSTS", copies)):
        loops_with = [one for one in way.inner if count(one.ops(lambda _: 1), name)]
        each_time = sum(count(one.ops(lambda _: 1), name) for one in loops_with)
        missing = wanted - count(once, name)
        more, rest = divmod(missing, each_time) if loops_with else (0, missing)
        if rest != 0 or more < 0 or any(trips.get(id(one), more) != more for one in loops_with):
            raise ValueError(f"expected {wanted} {name} in a round, found {count(once, name)}")
        trips |= {id(one): more for one in loops_with}
    return way.ops(lambda one: 1 + trips.get(id(one), 0))
