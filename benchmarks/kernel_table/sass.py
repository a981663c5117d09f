"""Machine code as nvdisasm prints it: instructions, what they do, and the blocks that branches cut them into."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True)
class Instruction:
    op: str  # with its modifiers: "LDGSTS.E.BYPASS.128"
    operands: str
    guarded: bool  # by a predicate in front

    @property
    def name(self) -> str:
        return self.op.split(".")[0]

    @property
    def jumps(self) -> bool:
        """ptxas also calls where it jumps; a call to a function names no local label."""
        return self.name in BRANCHES or (self.name == "CALL" and "`(.L_" in self.operands)

    @property
    def targets(self) -> list[str]:
        # BRA.DIV leads to slow code for lanes that have come apart, which come together again
        leads_on = self.jumps and not self.op.startswith("BRA.DIV")
        return re.findall(r"\.L_\w+", self.operands) if leads_on else []

    @property
    def goes_on(self) -> bool:
        """Whether the next instruction may follow."""
        if self.guarded or not (self.jumps or self.name in ENDS):
            return True
        # BRA P1, `(.L_x_1): a second predicate, a uniform one, or divergence
        return self.name == "BRA" and not self.operands.startswith("`(")


BRANCHES = ("BRA", "BRX", "JMP", "JMX")
ENDS = ("EXIT", "RET", "BPT", "KILL")


@dataclass
class Block:
    instructions: list[Instruction] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    next: list[int] = field(default_factory=list)  # blocks that may follow


_FUNCTION = re.compile(r"\.text\.(\S+):$")
_LABEL = re.compile(r"(\.L_\w+):$")
_INSTRUCTION = re.compile(
    r"\s+/\*[0-9a-f]{4,}\*/\s+(?:\{\s*)?(@\S+\s+)?([A-Z]\w*(?:\.\w+)*)\s*(.*?)\s*;"
)


def functions(disassembly: Iterable[str]) -> Iterator[tuple[str, list[Block]]]:
    """Mangled name and blocks of every function in `nvdisasm -c` output."""
    name, blocks = "", [Block()]
    for line in disassembly:
        if found := _INSTRUCTION.match(line):
            if name:
                guard, op, operands = found.groups()
                one = Instruction(op, operands, guard is not None)
                blocks[-1].instructions.append(one)
                if one.jumps or one.name in ENDS:
                    blocks.append(Block())
        elif found := _LABEL.match(line):
            if blocks[-1].instructions:
                blocks.append(Block())
            blocks[-1].labels.append(found[1])
        elif found := _FUNCTION.match(line):
            if name:
                yield name, _linked(blocks)
            name, blocks = found[1], [Block()]
    if name:
        yield name, _linked(blocks)


def _linked(blocks: list[Block]) -> list[Block]:
    at = {label: n for n, block in enumerate(blocks) for label in block.labels}
    for n, block in enumerate(blocks):
        last = block.instructions[-1] if block.instructions else None
        following = [at[t] for t in last.targets if t in at] if last else []
        if (last is None or last.goes_on) and n + 1 < len(blocks):
            following.append(n + 1)
        block.next = list(dict.fromkeys(following))
    return blocks


# What the table counts, by kind: modifiers follow the name.
COUNTED = {
    "HMMA": r"HMMA\b",
    "LDSM": r"LDSM\b",
    "LDGSTS": r"LDGSTS\b",
    "MUFU": r"MUFU\b",
    "LDG128": r"LDG\b.*\.128\b",
    "STG128": r"STG\b.*\.128\b",
    "LDS128": r"LDS\b.*\.128\b",
    "STS128": r"STS\b.*\.128\b",
    "BAR": r"BAR\b",
    "local": r"(LDL|STL|LDLM)\b",
}
_COUNTED = {kind: re.compile(pattern) for kind, pattern in COUNTED.items()}


@cache
def kinds(op: str) -> tuple[str, ...]:
    return tuple(kind for kind, pattern in _COUNTED.items() if pattern.match(op))


def count(ops: Iterable[str]) -> dict[str, int]:
    """Instructions of each counted kind that occurs, and of all."""
    counts: Counter[str] = Counter()
    for op, n in Counter(ops).items():
        counts["instructions"] += n
        for kind in kinds(op):
            counts[kind] += n
    return {kind: counts[kind] for kind in ("instructions", *COUNTED) if counts[kind]}
