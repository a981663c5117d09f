// Threads are lent by the caller: PyTorch's pool in the extension, plain loops in the C++ tests.
#pragma once

#include <atomic>
#include <cstdint>

namespace adaptau {

struct Parallel {
  int workers = 1;
  // Calls body(context) on `workers` threads (the caller may be one of them) and waits for all.
  void (*run)(int workers, void (*body)(void* context), void* context) = nullptr;
};

// f(task, worker) for every task in [0, n), tasks handed out one by one, worker < parallel.workers.
// Results must not depend on which worker runs a task or when; every kernel here owns its rows.
// Counters are relaxed: only `run` orders memory, so that ThreadSanitizer sees tasks that share
// some.
template <class F>
void for_each_task(const Parallel& parallel, int64_t n, F&& f) {
  if (parallel.workers <= 1 || n <= 1 || parallel.run == nullptr) {
    for (int64_t task = 0; task < n; ++task) f(task, 0);
    return;
  }
  struct Shared {
    F& f;
    int64_t n;
    std::atomic<int64_t> next_task{0};
    std::atomic<int> next_worker{0};
  } shared{f, n};
  parallel.run(
      parallel.workers,
      [](void* context) {
        auto& s = *static_cast<Shared*>(context);
        const int worker = s.next_worker.fetch_add(1, std::memory_order_relaxed);
        const auto next = [&s] { return s.next_task.fetch_add(1, std::memory_order_relaxed); };
        for (int64_t task; (task = next()) < s.n;) s.f(task, worker);
      },
      &shared);
}

}  // namespace adaptau
