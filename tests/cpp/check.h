// Three assertions and a counter are all these tests need.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

inline int failures = 0;

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::printf("%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                          \
    }                                                                      \
  } while (0)

// |actual - expected| <= budget; NaN fails.
#define CHECK_NEAR(actual, expected, budget)                                                      \
  do {                                                                                            \
    const double a_ = (actual), e_ = (expected), b_ = (budget);                                   \
    if (!(std::abs(a_ - e_) <= b_)) {                                                             \
      std::printf("%s:%d: %s = %.17g, expected %.17g within %.3g\n", __FILE__, __LINE__, #actual, \
                  a_, e_, b_);                                                                    \
      ++failures;                                                                                 \
    }                                                                                             \
  } while (0)

inline int report() {
  std::printf(failures == 0 ? "passed\n" : "%d checks failed\n", failures);
  return failures == 0 ? 0 : 1;
}

template <class T>
std::vector<T> random_values(size_t n, unsigned seed, double scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<T> x(n);
  for (T& v : x) v = static_cast<T>(normal(generator));
  return x;
}
