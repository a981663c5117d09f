// Places for the virtual registers of a kernel.
//
// nvcc gives every value a register of its own, thousands of them. Those whose lives do not overlap
// share a place: a life is the range of instructions from the first at which the register is live
// to the last, by the usual backward analysis over the flow graph.
#include <algorithm>
#include <map>

#include "program.h"

namespace virtual_gpu {
namespace {

using Bits = std::vector<uint64_t>;

bool is_register(const Operand& o) { return !(o.place & Operand::kConstant); }

template <class F>
void for_sources(Instruction& i, F&& f) {
  if (i.guarded) f(i.guard);
  for (int n = 0; n < i.n_sources; ++n)
    if (is_register(i.sources[n])) f(i.sources[n]);
}
template <class F>
void for_results(Instruction& i, F&& f) {
  for (int n = 0; n < i.n_results; ++n) f(i.results[n]);
}

struct Stretch {  // instructions begin .. end - 1, entered and left as a whole
  int begin, end;
  std::vector<int> next;
  Bits used, defined, live_in, live_out;
};

std::vector<Stretch> flow_graph(std::vector<Instruction>& code) {
  const int n = static_cast<int>(code.size());
  std::vector<bool> starts(n + 1);
  starts[0] = starts[n] = true;
  for (int k = 0; k < n; ++k)
    if (code[k].control == Control::branch) starts[code[k].target] = starts[k + 1] = true;
  std::vector<Stretch> graph;
  std::map<int, int> at;
  for (int k = 0; k < n; ++k)
    if (starts[k]) {
      at[k] = static_cast<int>(graph.size());
      int end = k + 1;
      while (!starts[end]) ++end;
      graph.push_back({k, end, {}, {}, {}, {}, {}});
    }
  for (Stretch& s : graph) {
    const Instruction& last = code[s.end - 1];
    if (last.control == Control::branch) s.next.push_back(at.at(last.target));
    const bool always = !last.guarded;
    const bool falls =
        !(always && (last.control == Control::branch || last.control == Control::exit));
    if (falls && s.end < n) s.next.push_back(at.at(s.end));
  }
  return graph;
}

void find_lives(std::vector<Stretch>& graph, std::vector<Instruction>& code, size_t n_registers) {
  const size_t words = (n_registers + 63) / 64;
  auto has = [](const Bits& b, uint32_t r) { return b[r / 64] >> (r % 64) & 1; };
  auto put = [](Bits& b, uint32_t r) { b[r / 64] |= uint64_t{1} << (r % 64); };
  for (Stretch& s : graph) {
    s.used = s.defined = s.live_in = s.live_out = Bits(words);
    for (int k = s.begin; k < s.end; ++k) {
      for_sources(code[k], [&](Operand& o) {
        if (!has(s.defined, o.place)) put(s.used, o.place);
      });
      // a guarded result keeps the old value in other lanes
      for_results(code[k], [&](Operand& o) {
        if (code[k].guarded && !has(s.defined, o.place)) put(s.used, o.place);
        put(s.defined, o.place);
      });
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t b = graph.size(); b-- > 0;) {
      Stretch& s = graph[b];
      for (size_t w = 0; w < words; ++w) {
        uint64_t out = 0;
        for (int n : s.next) out |= graph[n].live_in[w];
        const uint64_t in = s.used[w] | (out & ~s.defined[w]);
        changed |= in != s.live_in[w];
        s.live_out[w] = out;
        s.live_in[w] = in;
      }
    }
  }
}

}  // namespace

uint32_t place_registers(std::vector<Instruction>& code, const std::vector<uint8_t>& width) {
  const size_t n = width.size();
  std::vector<Stretch> graph = flow_graph(code);
  find_lives(graph, code, n);
  std::vector<int> first(n, static_cast<int>(code.size())), last(n, -1);
  auto touch = [&](uint32_t r, int k) {
    first[r] = std::min(first[r], k);
    last[r] = std::max(last[r], k);
  };
  for (const Stretch& s : graph)
    for (size_t r = 0; r < n; ++r) {
      if (s.live_in[r / 64] >> (r % 64) & 1) touch(static_cast<uint32_t>(r), s.begin);
      if (s.live_out[r / 64] >> (r % 64) & 1) touch(static_cast<uint32_t>(r), s.end);
    }
  for (int k = 0; k < static_cast<int>(code.size()); ++k) {
    for_sources(code[k], [&](Operand& o) { touch(o.place, k); });
    for_results(code[k], [&](Operand& o) { touch(o.place, k); });
  }

  std::vector<uint32_t> by_start(n), place(n);
  for (uint32_t r = 0; r < n; ++r) by_start[r] = r;
  std::sort(by_start.begin(), by_start.end(),
            [&](uint32_t a, uint32_t b) { return first[a] < first[b]; });
  // For each size: places and when they become free. A result never takes the place of a source of
  // the same instruction: handlers of whole warps write while they read.
  std::map<uint32_t, std::multimap<int, uint32_t>> free_from;
  uint32_t size = 0;
  for (uint32_t r : by_start) {
    if (last[r] < 0) continue;
    const uint32_t bytes = width[r] == 0 ? 64 : width[r] * kLanes;  // predicates keep the alignment
    auto& places = free_from[bytes];
    if (!places.empty() && places.begin()->first < first[r]) {
      place[r] = places.begin()->second;
      places.erase(places.begin());
    } else {
      place[r] = size;
      size += bytes;
    }
    places.emplace(last[r], place[r]);
  }
  for (Instruction& i : code) {
    for_sources(i, [&](Operand& o) { o.place = place[o.place]; });
    for_results(i, [&](Operand& o) { o.place = place[o.place]; });
  }
  return size;
}

}  // namespace virtual_gpu
