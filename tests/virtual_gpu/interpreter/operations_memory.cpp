// Loads, stores, atomics and asynchronous copies.
#include <algorithm>

#include "access.h"
#include "lanes.h"

namespace virtual_gpu {
namespace {

uint64_t address(const Warp& w, const Instruction& i, const Operand& o, int lane) {
  return (o.wide ? lanes<uint64_t>(w, o)[lane] : lanes<uint32_t>(w, o)[lane]) +
         static_cast<uint64_t>(i.offset);
}

void set_element(Warp& w, const Operand& result, int lane, uint64_t value) {
  if (result.wide) {
    result_lanes<uint64_t>(w, result)[lane] = value;
  } else {
    result_lanes<uint32_t>(w, result)[lane] = static_cast<uint32_t>(value);
  }
}
uint64_t element(const Warp& w, const Operand& o, int lane) {
  return o.wide ? lanes<uint64_t>(w, o)[lane] : lanes<uint32_t>(w, o)[lane];
}

uint64_t extended(uint64_t value, int bytes, bool sign) {
  if (!sign || bytes == 8) return value;
  const int unused = 64 - 8 * bytes;
  return static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
}

void load(Warp& w, const Instruction& i, Mask mask) {
  Access access(w, i, mask, AccessKind::read, i.bytes * i.elements);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const uint8_t* at = access.lane(l, address(w, i, i.sources[0], l));
    for (int e = 0; e < i.elements; ++e) {
      uint64_t value = 0;
      if (at != nullptr) std::memcpy(&value, at + e * i.bytes, i.bytes);
      set_element(w, i.results[e], l, extended(value, i.bytes, i.extends_sign));
    }
  }
}

void store(Warp& w, const Instruction& i, Mask mask) {
  Access access(w, i, mask, AccessKind::write, i.bytes * i.elements);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    uint8_t* at = access.lane(l, address(w, i, i.sources[0], l));
    if (at == nullptr) continue;
    for (int e = 0; e < i.elements; ++e) {
      const uint64_t value = element(w, i.sources[1 + e], l);
      std::memcpy(at + e * i.bytes, &value, i.bytes);
    }
  }
}

// An address of parameters counts from the first of them.
void load_parameter(Warp& w, const Instruction& i, Mask mask) {
  const uint64_t size = w.block->kernel->info.parameters_size;
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    const uint64_t at = address(w, i, i.sources[0], l);
    if (at > size || i.bytes * i.elements > size - at) {
      report(w, i, Problem::out_of_bounds, "beyond the parameters");
      continue;
    }
    for (int e = 0; e < i.elements; ++e) {
      uint64_t value = 0;
      std::memcpy(&value, w.block->parameters + at + e * i.bytes, i.bytes);
      set_element(w, i.results[e], l, extended(value, i.bytes, i.extends_sign));
    }
  }
}

enum Atomic : uint8_t { add, min, max, bit_and, bit_or, bit_xor, exchange, compare_and_swap };

template <class T>
T combined(Atomic operation, T old, T value, T swap) {
  using U = std::make_unsigned_t<T>;
  switch (operation) {
    case add: return static_cast<T>(static_cast<U>(old) + static_cast<U>(value));
    case min: return std::min(old, value);
    case max: return std::max(old, value);
    case bit_and: return old & value;
    case bit_or: return old | value;
    case bit_xor: return old ^ value;
    case exchange: return value;
    case compare_and_swap: return old == value ? swap : old;
  }
  return old;
}

// Lanes take their turns in an order of the seed's; a result is kept by atom, not by red.
template <class T>
void atomic(Warp& w, const Instruction& i, Mask mask) {
  Access access(w, i, mask, AccessKind::atomic, sizeof(T));
  const int first = static_cast<int>(settings().seed % kLanes);
  for (int n = 0; n < kLanes; ++n) {
    const int l = (first + n) % kLanes;
    if (!(mask >> l & 1)) continue;
    uint8_t* at = access.lane(l, address(w, i, i.sources[0], l));
    if (at == nullptr) continue;
    T old;
    std::memcpy(&old, at, sizeof old);
    const T value = from_stored<T>(lanes<T>(w, i.sources[1])[l]);
    const T swap = i.n_sources > 2 ? from_stored<T>(lanes<T>(w, i.sources[2])[l]) : T{};
    const T now = combined(static_cast<Atomic>(i.variant), old, value, swap);
    std::memcpy(at, &now, sizeof now);
    if (i.n_results > 0) result_lanes<T>(w, i.results[0])[l] = to_stored(old);
  }
}

void copy_async(Warp& w, const Instruction& i, Mask mask) {
  Access to(w, i, mask, AccessKind::write, i.bytes, Space::shared);
  for (int l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1)) continue;
    PendingCopy copy{};
    copy.shared = static_cast<uint32_t>(element(w, i.sources[0], l) + i.offset);
    copy.global = element(w, i.sources[1], l);
    copy.bytes = i.bytes;
    copy.read = i.n_sources > 2 ? static_cast<uint32_t>(element(w, i.sources[2], l)) : i.bytes;
    copy.lane = l;
    copy.issued = &i;
    if (!to.start_copy(copy)) continue;
    w.copies.back().push_back(copy);
  }
}

// Groups are those of a warp, which is what they are as long as its lanes commit together.
void commit_copies(Warp& w, const Instruction&, Mask mask) {
  if (mask != w.live)
    throw std::runtime_error("cp.async.commit_group by part of a warp is not modelled");
  w.copies.emplace_back();
}

void wait_copies(Warp& w, const Instruction& i, Mask mask) {
  complete_copies(w, mask, static_cast<size_t>(i.offset));
}
void wait_all_copies(Warp& w, const Instruction&, Mask mask) {
  w.copies.emplace_back();
  complete_copies(w, mask, 0);
}

void nothing(Warp&, const Instruction&, Mask) {}

bool decode_type(const std::string& type, Instruction& i) {
  if (type.size() < 2) return false;
  const char kind = type[0];
  const std::string bits = type.substr(1);
  if (kind != 'b' && kind != 'u' && kind != 's' && kind != 'f') return false;
  if (bits != "8" && bits != "16" && bits != "32" && bits != "64") return false;
  i.bytes = static_cast<uint8_t>(std::stoi(bits) / 8);
  i.extends_sign = kind == 's';
  return true;
}

bool decode_space(const std::string& part, Instruction& i) {
  if (part == "global") return i.space = Space::global, true;
  if (part == "shared") return i.space = Space::shared, true;
  if (part == "local") return i.space = Space::local, true;
  if (part == "param") return i.space = Space::parameter, true;
  if (part == "const") return i.space = Space::constant, true;
  return false;
}

// Caching, volatility and order hints change nothing here: memory is that of one host thread.
bool is_hint(const std::string& part) {
  for (const char* hint : {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "volatile", "relaxed",
                           "weak", "gpu", "cta", "sys", "acquire", "release", "acq_rel"})
    if (part == hint) return true;
  return part.starts_with("L1::") || part.starts_with("L2::");
}

bool decode_load_or_store(const Parts& parts, Instruction& i) {
  for (size_t n = 1; n + 1 < parts.size(); ++n) {
    if (parts[n] == "v2" || parts[n] == "v4") {
      i.elements = static_cast<uint8_t>(parts[n][1] - '0');
    } else if (!decode_space(parts[n], i) && !is_hint(parts[n])) {
      return false;
    }
  }
  if (!decode_type(parts.back(), i)) return false;
  const bool parameter = i.space == Space::parameter;
  i.run = parts[0] == "st" ? store : parameter ? load_parameter : load;
  return !(parameter && parts[0] == "st");  // of a call; the parser turns those into moves
}

bool decode_atomic(const Parts& parts, Instruction& i) {
  const std::pair<const char*, Atomic> names[] = {
      {"add", add},   {"min", min},     {"max", max},       {"and", bit_and},
      {"or", bit_or}, {"xor", bit_xor}, {"exch", exchange}, {"cas", compare_and_swap}};
  bool known = false;
  for (size_t n = 1; n + 1 < parts.size(); ++n) {
    bool here = decode_space(parts[n], i) || is_hint(parts[n]);
    for (const auto& [name, operation] : names)
      if (parts[n] == name) {
        i.variant = operation;
        known = here = true;
      }
    if (!here) return false;
  }
  const std::string& type = parts.back();
  if (type == "u32" || type == "b32") i.run = atomic<uint32_t>;
  if (type == "s32") i.run = atomic<int32_t>;
  if (type == "u64" || type == "b64") i.run = atomic<uint64_t>;
  if (type == "s64") i.run = atomic<int64_t>;
  return known && i.run != nullptr;
}

}  // namespace

bool decode_memory(const Parts& parts, Instruction& i) {
  if (parts[0] == "ld" || parts[0] == "st" || parts[0] == "ldu")
    return decode_load_or_store(parts, i);
  if (parts[0] == "atom" || parts[0] == "red") return decode_atomic(parts, i);
  std::string name;
  for (const auto& part : parts)
    if (!part.starts_with("L2::")) name += (name.empty() ? "" : ".") + part;
  if (name == "cp.async.cg.shared.global" || name == "cp.async.ca.shared.global") {
    i.run = copy_async;  // the parser moves the constant size into `bytes`
    i.space = Space::global;
  } else if (name == "cp.async.commit_group") {
    i.run = commit_copies;
  } else if (name == "cp.async.wait_group") {
    i.run = wait_copies;  // the parser moves the constant count into `offset`
  } else if (name == "cp.async.wait_all") {
    i.run = wait_all_copies;
  } else if (name == "membar.gl" || name == "membar.cta" || name == "membar.sys" ||
             parts[0] == "fence" || parts[0] == "prefetch" || parts[0] == "nanosleep") {
    i.run = nothing;
  } else {
    return false;
  }
  return true;
}

}  // namespace virtual_gpu
