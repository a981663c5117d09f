// Instructions that lanes, or warps, execute together.
#include <algorithm>

#include "lanes.h"

namespace virtual_gpu {
namespace {

enum Shuffle : uint8_t { up, down, butterfly, index };

// Of a source lane that does not take part the value is undefined.
void shuffle(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<uint32_t>(w, i.sources[0]), *by = lanes<uint32_t>(w, i.sources[1]),
             *control = lanes<uint32_t>(w, i.sources[2]);
  uint32_t values[kLanes];
  Mask in_range = 0;
  for (int l = 0; l < kLanes; ++l) {
    const int clamp = control[l] & 31, segment = control[l] >> 8 & 31;
    const int b = by[l] & 31;
    const int most = (l & segment) | (clamp & ~segment), least = l & segment;
    int from = l;
    bool there = false;
    switch (static_cast<Shuffle>(i.variant)) {
      case up: from = l - b, there = from >= most; break;
      case down: from = l + b, there = from <= most; break;
      case butterfly: from = l ^ b, there = from <= most; break;
      case index: from = least | (b & ~segment), there = from <= most; break;
    }
    if (!there) from = l;
    if ((mask >> l & 1) && !(mask >> from & 1))
      report(w, i, Problem::divergent_barrier,
             "a shuffle reads from a lane that does not take part");
    values[l] = a[from];
    in_range |= Mask{there} << l;
  }
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) { return values[l]; });
  if (i.n_results > 1) set_predicate(w, i.results[1], in_range, mask);
}

enum Vote : uint8_t { all, any, uniform, ballot };

void vote(Warp& w, const Instruction& i, Mask mask) {
  const Mask bits = predicate(w, i.sources[0]) & mask;
  Mask result = 0;
  switch (static_cast<Vote>(i.variant)) {
    case all: result = bits == mask ? kAllLanes : 0; break;
    case any: result = bits != 0 ? kAllLanes : 0; break;
    case uniform: result = bits == mask || bits == 0 ? kAllLanes : 0; break;
    case ballot: for_lanes<uint32_t>(w, i.results[0], mask, [&](int) { return bits; }); return;
  }
  set_predicate(w, i.results[0], result, mask);
}

enum Reduce : uint8_t { add, min, max, bit_and, bit_or, bit_xor };

template <class T>
void reduce(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  bool first = true;
  T total{};
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const T x = from_stored<T>(a[l]);
    switch (static_cast<Reduce>(i.variant)) {
      case add: total = first ? x : static_cast<T>(uint32_t(total) + uint32_t(x)); break;
      case min: total = first ? x : std::min(total, x); break;
      case max: total = first ? x : std::max(total, x); break;
      case bit_and: total = first ? x : total & x; break;
      case bit_or: total = first ? x : total | x; break;
      case bit_xor: total = first ? x : total ^ x; break;
    }
    first = false;
  }
  for_lanes<T>(w, i.results[0], mask, [&](int) { return total; });
}

void match_any(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<uint32_t>(w, i.sources[0]);
  Mask same[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    same[l] = 0;
    for (int k = 0; k < kLanes; ++k)
      if ((mask >> k & 1) && a[k] == a[l]) same[l] |= Mask{1} << k;
  }
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) { return same[l]; });
}

void synchronise(Warp& w, const Instruction&, Mask) { ++w.syncs; }

void active_mask(Warp& w, const Instruction& i, Mask mask) {
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int) { return mask; });
}

template <class E, size_t kCount>
bool find(const std::pair<const char*, E> (&names)[kCount], const std::string& name,
          Instruction& i) {
  for (const auto& [known, value] : names)
    if (name == known) return i.variant = value, true;
  return false;
}

// The lanes that take part are those of the mask in source `member`.
bool together(Instruction& i, Handler run, int member) {
  i.run = run;
  i.control = Control::warp_barrier;
  i.member_mask = true;
  i.member = static_cast<uint8_t>(member);
  return true;
}

}  // namespace

bool decode_warp(const Parts& p, Instruction& i) {
  const bool sync = p.size() > 2 && p[1] == "sync";
  if (p[0] == "shfl" && sync && p.size() == 4 && p[3] == "b32") {
    constexpr std::pair<const char*, Shuffle> names[] = {
        {"up", up}, {"down", down}, {"bfly", butterfly}, {"idx", index}};
    return find(names, p[2], i) && together(i, shuffle, 3);
  }
  if (p[0] == "vote" && sync && p.size() == 4) {
    constexpr std::pair<const char*, Vote> names[] = {
        {"all", all}, {"any", any}, {"uni", uniform}, {"ballot", ballot}};
    return p[3] == (p[2] == "ballot" ? "b32" : "pred") && find(names, p[2], i) &&
           together(i, vote, 1);
  }
  if (p[0] == "redux" && sync && p.size() == 4) {
    constexpr std::pair<const char*, Reduce> names[] = {{"add", add},   {"min", min},
                                                        {"max", max},   {"and", bit_and},
                                                        {"or", bit_or}, {"xor", bit_xor}};
    if (!find(names, p[2], i) || (p[3] != "s32" && p[3] != "u32" && p[3] != "b32")) return false;
    return together(i, p[3] == "s32" ? reduce<int32_t> : reduce<uint32_t>, 1);
  }
  if (p[0] == "match" && p.size() == 4 && p[1] == "any" && p[2] == "sync" && p[3] == "b32")
    return together(i, match_any, 1);
  if (p[0] == "bar" && p.size() == 3 && p[1] == "warp" && p[2] == "sync")
    return together(i, synchronise, 0);
  if (p[0] == "activemask" && p.size() == 2) return i.run = active_mask, true;
  if ((p[0] == "bar" || p[0] == "barrier") && p.size() >= 2) {
    i.control = Control::barrier;
    if (p.size() == 2 && p[1] == "sync") return true;
    if (p.size() == 3 && p[1] == "sync" && p[2] == "aligned") return true;
    if (p[1] != "red" || p.size() != 4) return false;
    constexpr std::pair<const char*, Vote> names[] = {{"and", all}, {"or", any}, {"popc", ballot}};
    return find(names, p[2], i);
  }
  return false;
}

}  // namespace virtual_gpu
