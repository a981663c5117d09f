// One instruction's accesses to memory, lane by lane: where they go, and whether they may.
#pragma once

#include "machine.h"

namespace virtual_gpu {

// Bounds and alignment are always checked; initialisation, races, and what the access costs in
// wavefronts and sectors only in checked launches.
class Access {
 public:
  Access(Warp& w, const Instruction& i, Mask mask, AccessKind kind, int bytes)
      : Access(w, i, mask, kind, bytes, i.space) {}
  Access(Warp& w, const Instruction& i, Mask mask, AccessKind kind, int bytes, Space space);
  ~Access();

  // Where the lane's bytes lie, or nullptr if it may not touch them.
  uint8_t* lane(int l, uint64_t address);
  // Notes a copy that begins, or performs it when nothing is checked. False if there is nothing
  // left to wait for.
  bool start_copy(PendingCopy& copy);

 private:
  uint8_t* shared(int l, uint64_t offset, int bytes, AccessKind kind);
  uint8_t* global(int l, uint64_t address, int bytes, AccessKind kind);
  uint8_t* local(int l, uint64_t offset, int bytes);
  void problem(Problem what, int l, uint64_t address, const char* space);
  void count(const uint64_t (&addresses)[kLanes], Mask which, int bytes, bool is_shared);

  Warp& w_;
  const Instruction& i_;
  AccessKind kind_;
  int bytes_;
  Space space_;
  Allocation* last_ = nullptr;  // found; the next lane is most likely in it as well
  uint64_t shared_at_[kLanes], global_at_[kLanes];
  Mask shared_lanes_ = 0, global_lanes_ = 0;
};

// The 16-byte rows that the first 8 n lanes point to (ldmatrix).
void read_matrix_rows(Warp& w, const Instruction& i, int n, uint8_t (*rows)[16]);

// cp.async.wait_group: these lanes' copies arrive, but for the newest `keep` groups.
void complete_copies(Warp& w, Mask mask, size_t keep);

}  // namespace virtual_gpu
