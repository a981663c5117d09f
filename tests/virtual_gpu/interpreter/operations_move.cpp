// Moves: copies, special registers, halves of registers; and ends of a thread.
#include "operations_move.h"

#include "elementwise.h"

namespace virtual_gpu {
namespace {

// Names in the order of `special`.
constexpr const char* kSpecial[] = {
    "%tid.x",       "%tid.y",       "%tid.z",       "%ntid.x",      "%ntid.y",
    "%ntid.z",      "%ctaid.x",     "%ctaid.y",     "%ctaid.z",     "%nctaid.x",
    "%nctaid.y",    "%nctaid.z",    "%laneid",      "%warpid",      "%lanemask_eq",
    "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge", "%dynamic_smem_size"};

uint32_t special(const Warp& w, int which, int lane) {
  const Block& b = *w.block;
  const uint32_t thread = static_cast<uint32_t>(w.index * kLanes + lane);
  switch (which) {
    case 0: return thread % b.size.x;
    case 1: return thread / b.size.x % b.size.y;
    case 2: return thread / b.size.x / b.size.y;
    case 3: return b.size.x;
    case 4: return b.size.y;
    case 5: return b.size.z;
    case 6: return b.index.x;
    case 7: return b.index.y;
    case 8: return b.index.z;
    case 9: return b.grid.x;
    case 10: return b.grid.y;
    case 11: return b.grid.z;
    case 12: return static_cast<uint32_t>(lane);
    case 13: return static_cast<uint32_t>(w.index);
    case 14: return 1u << lane;
    case 15: return (1u << lane) - 1;
    case 16: return (2u << lane) - 1;
    case 17: return ~((2u << lane) - 1);
    case 18: return ~((1u << lane) - 1);
    default: return b.dynamic_shared;
  }
}

void read_special(Warp& w, const Instruction& i, Mask mask) {
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) { return special(w, i.variant, l); });
}

template <class T>
void move(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return from_stored<T>(a[l]); });
}

void predicate_move(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], predicate(w, i.sources[0]), mask);
}

void pack(Warp& w, const Instruction& i, Mask mask) {
  const auto *low = lanes<uint32_t>(w, i.sources[0]), *high = lanes<uint32_t>(w, i.sources[1]);
  if (i.results[0].wide) {
    for_lanes<uint64_t>(w, i.results[0], mask,
                        [&](int l) { return uint64_t{high[l]} << 32 | low[l]; });
  } else {
    for_lanes<uint32_t>(w, i.results[0], mask,
                        [&](int l) { return high[l] << 16 | (low[l] & 0xffff); });
  }
}

void unpack(Warp& w, const Instruction& i, Mask mask) {
  uint32_t low[kLanes], high[kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const uint64_t both = i.sources[0].wide ? lanes<uint64_t>(w, i.sources[0])[l]
                                            : lanes<uint32_t>(w, i.sources[0])[l];
    low[l] = static_cast<uint32_t>(i.sources[0].wide ? both : both & 0xffff);
    high[l] = static_cast<uint32_t>(i.sources[0].wide ? both >> 32 : both >> 16);
  }
  for_lanes<uint32_t>(w, i.results[0], mask, [&](int l) { return low[l]; });
  for_lanes<uint32_t>(w, i.results[1], mask, [&](int l) { return high[l]; });
}

std::string text_at(uint64_t address) {
  const Allocation* a = find_allocation(address);
  if (a == nullptr) return "?";
  const char* begin = reinterpret_cast<const char*>(address);
  return {begin, strnlen(begin, a->end - address)};
}

// __assertfail(message, file, line, ..)
void fail_assertion(Warp& w, const Instruction& i, Mask mask) {
  const int lane = std::countr_zero(mask);
  const std::string message = text_at(lanes<uint64_t>(w, i.sources[0])[lane]);
  report(w, i, Problem::assertion, message);
  throw Abort("assertion failed: " + message);
}

void trap(Warp& w, const Instruction& i, Mask) {
  report(w, i, Problem::trap, "trap");
  throw Abort("trap");
}

}  // namespace

bool decode_special(const std::string& name, Instruction& i) {
  for (size_t n = 0; n < std::size(kSpecial); ++n)
    if (name == kSpecial[n]) {
      i.variant = static_cast<uint8_t>(n);
      i.run = read_special;
      return true;
    }
  return false;
}

void add_moves(Table& t) {
  for (const char* type : {"b16", "u16", "s16"}) t[std::string("mov.") + type] = move<uint16_t>;
  for (const char* type : {"b32", "u32", "s32", "f32"})
    t[std::string("mov.") + type] = move<uint32_t>;
  for (const char* type : {"b64", "u64", "s64", "f64"})
    t[std::string("mov.") + type] = move<uint64_t>;
  t["mov.pred"] = predicate_move;
}

void make_pack(Instruction& i) { i.run = pack; }
void make_unpack(Instruction& i) { i.run = unpack; }
void make_assertion(Instruction& i) { i.run = fail_assertion; }
void make_trap(Instruction& i) { i.run = trap; }

}  // namespace virtual_gpu
