#include "access.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "lanes.h"

namespace virtual_gpu {
namespace {

constexpr int kBanks = 32, kSector = 32;

// Cells of 4 bytes that [at, at + bytes) touches.
template <class F>
void for_cells(std::vector<Cell>& cells, uint64_t at, int bytes, F&& f) {
  for (uint64_t c = at / 4; c <= (at + bytes - 1) / 4; ++c) f(cells[c], c);
}

// The bytes of cell c within [at, at + bytes), a bit each.
uint8_t bytes_of_cell(uint64_t c, uint64_t at, int bytes) {
  uint8_t bits = 0;
  for (uint64_t b = std::max(at, 4 * c); b < std::min(at + bytes, 4 * c + 4); ++b)
    bits |= static_cast<uint8_t>(1 << (b - 4 * c));
  return bits;
}

// Passes through shared memory for up to 128 bytes of lanes at a time: the most words that any bank
// has to deliver.
uint64_t wavefronts(const uint64_t* addresses, Mask lanes, int bytes) {
  const int at_once = kBanks * 4 / std::max(bytes, 4);  // lanes
  uint64_t total = 0;
  for (int first = 0; first < kLanes; first += at_once) {
    uint64_t words[kLanes * 4];
    int n = 0;
    for (int l = first; l < first + at_once; ++l)
      if (lanes >> l & 1)
        for (uint64_t word = addresses[l] / 4; word <= (addresses[l] + bytes - 1) / 4; ++word)
          words[n++] = word;
    if (!std::is_sorted(words, words + n)) std::sort(words, words + n);
    n = static_cast<int>(std::unique(words, words + n) - words);
    int in_bank[kBanks] = {};
    int most = 0;
    for (int k = 0; k < n; ++k) most = std::max(most, ++in_bank[words[k] % kBanks]);
    total += static_cast<uint64_t>(most);
  }
  return total;
}

// Distinct pieces of `size` bytes, of at most 16 bytes a lane.
uint64_t distinct(const uint64_t* addresses, Mask lanes, int bytes, uint64_t size) {
  uint64_t pieces[kLanes * 16];
  int n = 0;
  for (int l = 0; l < kLanes; ++l)
    if (lanes >> l & 1)
      for (uint64_t p = addresses[l] / size; p <= (addresses[l] + bytes - 1) / size; ++p)
        if (n == 0 || pieces[n - 1] != p) pieces[n++] = p;
  if (!std::is_sorted(pieces, pieces + n)) std::sort(pieces, pieces + n);
  return static_cast<uint64_t>(std::unique(pieces, pieces + n) - pieces);
}

}  // namespace

Access::Access(Warp& w, const Instruction& i, Mask, AccessKind kind, int bytes, Space space)
    : w_(w), i_(i), kind_(kind), bytes_(bytes), space_(space) {}

Access::~Access() {
  if (!w_.block->checked) return;
  if (shared_lanes_ != 0) count(shared_at_, shared_lanes_, bytes_, true);
  if (global_lanes_ != 0) count(global_at_, global_lanes_, bytes_, false);
}

void Access::count(const uint64_t (&addresses)[kLanes], Mask which, int bytes, bool is_shared) {
  Counts& c = w_.block->kernel->counts[&i_ - w_.block->kernel->code.data()];
  if (is_shared) {
    c.wavefronts += wavefronts(addresses, which, bytes);
    c.ideal_wavefronts += (distinct(addresses, which, bytes, 4) + kBanks - 1) / kBanks;
  } else {
    c.sectors += distinct(addresses, which, bytes, kSector);
    const int unit = bytes % 4 == 0 ? 4 : 1;  // bytes read by several lanes count once
    c.ideal_sectors += (distinct(addresses, which, bytes, unit) * unit + kSector - 1) / kSector;
  }
}

void Access::problem(Problem what, int l, uint64_t address, const char* space) {
  char message[160];
  const Dim3 b = w_.block->index;
  std::snprintf(message, sizeof message, "%s %s, block (%u, %u, %u), warp %d, lane %d, %d bytes",
                space,
                space[0] == 's' || space[0] == 'l' ? std::to_string(address).c_str() : "memory",
                b.x, b.y, b.z, w_.index, l, bytes_);
  report(w_, i_, what, message);
}

uint8_t* Access::lane(int l, uint64_t address) {
  if (address % std::min<uint64_t>(bytes_, 16) != 0) {
    problem(Problem::misaligned, l, address, "address");
    return nullptr;
  }
  switch (space_) {
    case Space::shared: return shared(l, address & 0xffffffffu, bytes_, kind_);
    case Space::local: return local(l, address & 0xffffffffu, bytes_);
    case Space::generic:
      if (address >= kLocalWindow) return local(l, address - kLocalWindow, bytes_);
      if (address >= kSharedWindow) return shared(l, address - kSharedWindow, bytes_, kind_);
      return global(l, address, bytes_, kind_);
    default: return global(l, address, bytes_, kind_);
  }
}

uint8_t* Access::local(int l, uint64_t offset, int bytes) {
  const uint64_t size = w_.block->kernel->local_bytes;
  if (offset + bytes > size) {
    problem(Problem::out_of_bounds, l, offset, "local");
    return nullptr;
  }
  return w_.local.data() + l * size + offset;
}

uint8_t* Access::shared(int l, uint64_t offset, int bytes, AccessKind kind) {
  Block& b = *w_.block;
  if (offset + bytes > b.shared.size()) {
    problem(Problem::out_of_bounds, l, offset, "shared");
    return nullptr;
  }
  uint8_t* at = b.shared.data() + offset;
  if (!b.checked) return at;
  shared_at_[l] = offset;
  shared_lanes_ |= Mask{1} << l;
  const Accessor who = b.accessor(w_, l);
  for_cells(b.shared_cells, offset, bytes, [&](Cell& cell, uint64_t c) {
    if (cell.copies > 0) problem(Problem::copy_in_flight, l, 4 * c, "shared");
    const uint8_t wanted = bytes_of_cell(c, offset, bytes);
    if (!cell.touch(who, kind, wanted)) problem(Problem::shared_race, l, 4 * c, "shared");
    if (kind != AccessKind::write && (wanted & ~cell.initialised))
      problem(Problem::uninitialised, l, 4 * c, "shared");
    if (kind != AccessKind::read) cell.initialised |= wanted;
  });
  return at;
}

uint8_t* Access::global(int l, uint64_t address, int bytes, AccessKind kind) {
  if (last_ == nullptr || !last_->contains(address, bytes)) {
    last_ = find_allocation(address);
    if (last_ == nullptr || !last_->contains(address, bytes)) {
      last_ = nullptr;
      problem(Problem::out_of_bounds, l, address, "global");
      return nullptr;
    }
  }
  const uint64_t at = address - last_->begin;
  if (w_.block->checked) {
    global_at_[l] = address;
    global_lanes_ |= Mask{1} << l;
    if (last_->cells.empty()) last_->cells.resize((last_->end - last_->begin + 3) / 4 + 1);
    const Accessor who = w_.block->accessor(w_, l);
    for_cells(last_->cells, at, bytes, [&](Cell& cell, uint64_t c) {
      if (!cell.touch(who, kind, bytes_of_cell(c, at, bytes)))
        problem(Problem::global_race, l, address, "global");
    });
    if (kind != AccessKind::write)
      for (int n = 0; n < bytes; ++n)
        if (!last_->initialised[at + n]) {
          problem(Problem::uninitialised, l, address, "global");
          break;
        }
  }
  if (kind != AccessKind::read)
    std::fill_n(last_->initialised.begin() + static_cast<int64_t>(at), bytes, uint8_t{1});
  return reinterpret_cast<uint8_t*>(address);
}

bool Access::start_copy(PendingCopy& copy) {
  const int n = static_cast<int>(copy.bytes), read = static_cast<int>(copy.read);
  if (copy.shared % n != 0 || copy.global % n != 0) {
    problem(Problem::misaligned, copy.lane, copy.shared, "copy");
    return false;
  }
  std::memset(copy.data, 0, sizeof copy.data);
  if (read > n) {
    problem(Problem::out_of_bounds, copy.lane, copy.shared, "copy");
    return false;
  }
  if (read > 0) {
    const uint8_t* source = global(copy.lane, copy.global, read, AccessKind::read);
    if (source == nullptr) return false;
    std::memcpy(copy.data, source, copy.read);
  }
  Block& b = *w_.block;
  if (!b.checked) {
    uint8_t* to = shared(copy.lane, copy.shared, n, AccessKind::write);
    if (to != nullptr) std::memcpy(to, copy.data, copy.bytes);
    return false;
  }
  if (copy.shared + copy.bytes > b.shared.size()) {
    problem(Problem::out_of_bounds, copy.lane, copy.shared, "shared");
    return false;
  }
  shared_at_[copy.lane] = copy.shared;
  shared_lanes_ |= Mask{1} << copy.lane;
  // A write from now on until it arrives.
  const Accessor who = b.accessor(w_, copy.lane);
  for_cells(b.shared_cells, copy.shared, n, [&](Cell& cell, uint64_t c) {
    if (cell.copies > 0) problem(Problem::copy_in_flight, copy.lane, 4 * c, "shared");
    if (!cell.touch(who, AccessKind::write, 15))
      problem(Problem::shared_race, copy.lane, 4 * c, "shared");
    ++cell.copies;
  });
  return true;
}

void complete_copies(Warp& w, Mask mask, size_t keep) {
  Block& b = *w.block;
  const size_t groups = w.copies.size() - 1;  // the last is open
  for (size_t g = 0; g + keep < groups; ++g) {
    auto& group = w.copies[g];
    for (const PendingCopy& copy : group) {
      if (!(mask >> copy.lane & 1)) continue;
      std::memcpy(b.shared.data() + copy.shared, copy.data, copy.bytes);
      const Accessor who = b.accessor(w, copy.lane);
      for_cells(b.shared_cells, copy.shared, static_cast<int>(copy.bytes),
                [&](Cell& cell, uint64_t c) {
                  --cell.copies;
                  cell.touch(who, AccessKind::write, 15);
                  cell.initialised |= bytes_of_cell(c, copy.shared, static_cast<int>(copy.bytes));
                });
      if (copy.read > 0 &&
          std::memcmp(reinterpret_cast<const void*>(copy.global), copy.data, copy.read) != 0)
        report(w, *copy.issued, Problem::copy_in_flight,
               "the source changed before the copy arrived");
    }
    std::erase_if(group, [&](const PendingCopy& c) { return mask >> c.lane & 1; });
  }
  while (w.copies.size() > 1 && w.copies.front().empty()) w.copies.pop_front();
}

void read_matrix_rows(Warp& w, const Instruction& i, int n, uint8_t (*rows)[16]) {
  Access access(w, i, kAllLanes, AccessKind::read, 16, Space::shared);
  const Operand& o = i.sources[0];
  for (int l = 0; l < 8 * n; ++l) {
    const uint64_t at = (o.wide ? lanes<uint64_t>(w, o)[l] : lanes<uint32_t>(w, o)[l]) +
                        static_cast<uint64_t>(i.offset);
    const uint8_t* row = access.lane(l, at);
    if (row != nullptr) {
      std::memcpy(rows[l], row, 16);
    } else {
      std::memset(rows[l], 0, 16);
    }
  }
}

}  // namespace virtual_gpu
