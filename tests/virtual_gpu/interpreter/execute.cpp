// One warp's instructions, and how its lanes part and meet.
//
// Lanes that stand at the same instruction form a fragment. The fragment that is furthest behind
// goes first, so that lanes which took different branches meet again where the branches do.
// Instructions of a whole warp wait for every lane they name, wherever it is.
#include <algorithm>

#include "lanes.h"

namespace virtual_gpu {
namespace {

// The running fragment with the least pc, or -1.
int furthest_behind(const Warp& w) {
  int chosen = -1;
  for (int n = 0; n < static_cast<int>(w.fragments.size()); ++n)
    if (w.fragments[n].state == Fragment::running &&
        (chosen < 0 || w.fragments[n].pc < w.fragments[chosen].pc))
      chosen = n;
  return chosen;
}

// Lanes at one place become one fragment. Those that wait for others of the warp look again.
void merge(Warp& w) {
  auto& f = w.fragments;
  for (size_t a = 0; a < f.size(); ++a)
    for (size_t b = a + 1; b < f.size();) {
      const bool at_block =
          f[a].state == Fragment::at_block_barrier || f[b].state == Fragment::at_block_barrier;
      if (f[a].pc == f[b].pc && (!at_block || f[a].state == f[b].state)) {
        f[a].lanes |= f[b].lanes;
        if (!at_block) f[a].state = Fragment::running;
        f.erase(f.begin() + static_cast<long>(b));
      } else {
        ++b;
      }
    }
}

// The lanes that must have come to a warp-wide instruction.
Mask named_lanes(const Warp& w, const Instruction& i, Mask lanes_here) {
  if (!i.member_mask) return w.live;
  Mask named = 0;
  const auto* members = lanes<uint32_t>(w, i.sources[i.member]);
  for (int l = 0; l < kLanes; ++l)
    if (lanes_here >> l & 1) named |= members[l];
  return named & w.live;
}

void end_lanes(Warp& w, Fragment& f, Mask which) {
  w.live &= ~which;
  f.lanes &= ~which;
}

}  // namespace

Outcome execute(Warp& w, int budget) {
  const Kernel& kernel = *w.block->kernel;
  const Instruction* code = kernel.code.data();
  Counts* counts = w.block->checked ? kernel.counts.data() : nullptr;
  while (budget > 0) {
    if (w.fragments.size() > 1) merge(w);
    const int chosen = furthest_behind(w);
    if (chosen < 0) return w.fragments.empty() ? Outcome::ended : Outcome::waits;
    Fragment& f = w.fragments[chosen];
    const bool alone = w.fragments.size() == 1;
    while (budget-- > 0) {
      const Instruction& i = code[f.pc];
      const Mask mask = i.guarded ? f.lanes & predicate(w, i.guard) : f.lanes;
      if (counts != nullptr) ++counts[f.pc].warps;
      if (i.control == Control::none) {
        if (mask != 0) i.run(w, i, mask);
        ++f.pc;
        if (!alone) break;
        continue;
      }
      if (i.control == Control::branch) {
        if (mask == f.lanes) {
          f.pc = i.target;
        } else if (mask == 0) {
          ++f.pc;
        } else {
          f.lanes &= ~mask;
          ++f.pc;
          w.fragments.push_back({i.target, mask, Fragment::running});  // f is gone
          break;
        }
      } else if (i.control == Control::exit) {
        end_lanes(w, f, mask);
        if (f.lanes == 0) {
          w.fragments.erase(w.fragments.begin() + chosen);
        } else {
          ++f.pc;
        }
        break;
      } else if (i.control == Control::barrier) {
        f.state = Fragment::at_block_barrier;
        break;
      } else {  // of the warp
        const Mask named = named_lanes(w, i, mask);
        if ((mask & named) != named) {
          f.state = Fragment::at_warp_barrier;
          break;
        }
        if (mask != 0) i.run(w, i, mask);
        ++f.pc;
      }
      if (!alone) break;
    }
  }
  return Outcome::ran;
}

}  // namespace virtual_gpu
