// Blocks of a launch, one after the other, and their warps in turns.
//
// The seed decides the order of the blocks, which warp goes on and for how many instructions. Warps
// wait at a barrier until every live one has come.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "lanes.h"

namespace virtual_gpu {

void count_kernel(const Kernel& kernel);  // report.cpp

Settings& settings() {
  static Settings s;
  return s;
}

namespace {

uint32_t launches = 0;

void start(Block& b, uint32_t threads) {
  b.warps.resize((threads + kLanes - 1) / kLanes);
  for (size_t n = 0; n < b.warps.size(); ++n) {
    Warp& w = b.warps[n];
    w.block = &b;
    w.index = static_cast<int>(n);
    w.live = threads - n * kLanes >= kLanes ? kAllLanes : (Mask{1} << threads % kLanes) - 1;
    w.fragments.push_back({0, w.live, Fragment::running});
    w.local.resize(b.kernel->local_bytes * kLanes);
  }
}

// Every fragment of the block waits: can they go on together?
bool pass_barrier(Block& b) {
  const Fragment* first = nullptr;
  const Warp* first_warp = nullptr;
  bool same_place = true;
  for (const Warp& w : b.warps)
    for (const Fragment& f : w.fragments) {
      if (f.state != Fragment::at_block_barrier) return false;
      if (first == nullptr) first = &f, first_warp = &w;
      same_place &= f.pc == first->pc;
    }
  if (first == nullptr) return false;
  const Instruction& at = b.kernel->code[first->pc];
  if (!same_place)
    report(*first_warp, at, Problem::divergent_barrier,
           "threads of the block wait at different barriers");

  // bar.red: what all of them say
  Mask some = 0, all = kAllLanes;
  uint32_t ones = 0;
  for (Warp& w : b.warps)
    for (Fragment& f : w.fragments) {
      const Instruction& i = b.kernel->code[f.pc];
      if (i.n_results == 0) continue;
      const Mask bits = predicate(w, i.sources[i.n_sources - 1]) & f.lanes;
      some |= bits;
      if (bits != f.lanes) all = 0;
      ones += static_cast<uint32_t>(std::popcount(bits));
    }
  for (Warp& w : b.warps)
    for (Fragment& f : w.fragments) {
      const Instruction& i = b.kernel->code[f.pc];
      if (i.n_results > 0) {
        if (i.results[0].predicate) {
          const Mask result = i.variant == 0 ? all : some != 0 ? kAllLanes : 0;
          set_predicate(w, i.results[0], result, f.lanes);
        } else {
          for_lanes<uint32_t>(w, i.results[0], f.lanes, [&](int) { return ones; });
        }
      }
      f.state = Fragment::running;
      ++f.pc;
    }
  ++b.epoch;
  return true;
}

void report_deadlock(const Block& b) {
  for (const Warp& w : b.warps)
    for (const Fragment& f : w.fragments) {
      const Instruction& i = b.kernel->code[f.pc];
      const bool own = f.state == Fragment::at_warp_barrier;
      report(w, i, own ? Problem::divergent_barrier : Problem::deadlock,
             own ? "not all lanes that it names come to this instruction"
                 : "other threads of the block never come to this barrier");
    }
  throw Abort("deadlock");
}

void run(Block& b, std::mt19937_64& random, bool in_order) {
  std::vector<Warp*> ready;
  for (;;) {
    ready.clear();
    for (Warp& w : b.warps)
      if (std::any_of(w.fragments.begin(), w.fragments.end(),
                      [](const Fragment& f) { return f.state == Fragment::running; }))
        ready.push_back(&w);
    if (ready.empty()) {
      if (pass_barrier(b)) continue;
      if (std::all_of(b.warps.begin(), b.warps.end(), [](const Warp& w) { return w.live == 0; }))
        return;
      report_deadlock(b);
    }
    if (in_order) {
      for (Warp* w : ready) execute(*w, 1 << 30);
    } else {
      execute(*ready[random() % ready.size()], 1 + static_cast<int>(random() % 200));
    }
  }
}

}  // namespace

bool launch(const Kernel& kernel, Dim3 grid, Dim3 size, uint32_t dynamic_shared,
            void* const* arguments) {
  const Settings& s = settings();
  std::vector<uint8_t> parameters(kernel.info.parameters_size);
  for (size_t n = 0; n < kernel.info.parameter_bytes.size(); ++n)
    std::memcpy(parameters.data() + kernel.info.parameter_offset[n], arguments[n],
                kernel.info.parameter_bytes[n]);
  if (s.checked) count_kernel(kernel);
  ++launches;

  std::mt19937_64 random(s.seed);
  std::vector<uint32_t> order(size_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  if (s.seed != 0) std::shuffle(order.begin(), order.end(), random);

  const uint32_t threads = size.x * size.y * size.z;
  const size_t warps = (threads + kLanes - 1) / kLanes;
  // aligned by hand: vectors of lanes are read 64 bytes at a time
  std::vector<uint8_t> files(warps * kernel.register_bytes + 64);
  uint8_t* registers = files.data() + (64 - reinterpret_cast<uint64_t>(files.data()) % 64) % 64;
  for (uint32_t serial : order) {
    Block b{};
    b.kernel = &kernel;
    b.parameters = parameters.data();
    b.grid = grid;
    b.size = size;
    b.index = {serial % grid.x, serial / grid.x % grid.y, serial / grid.x / grid.y};
    b.serial = serial;
    b.dynamic_shared = dynamic_shared;
    b.epoch = 1;
    b.launch = launches;
    b.checked = s.checked;
    b.shared.assign(kernel.info.static_shared + dynamic_shared, 0xff);
    if (s.checked) b.shared_cells.resize(b.shared.size() / 4 + 2);
    start(b, threads);
    for (size_t n = 0; n < warps; ++n) {
      b.warps[n].registers = registers + n * kernel.register_bytes;
      b.warps[n].file[0] = b.warps[n].registers;
      b.warps[n].file[1] = kernel.constants.data();
    }
    try {
      run(b, random, s.seed == 0);
    } catch (const Abort&) {
      return false;
    }
  }
  return true;
}

}  // namespace virtual_gpu
