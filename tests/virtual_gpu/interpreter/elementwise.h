// Instructions that compute each lane's result from that lane's sources.
#pragma once

#include <string>
#include <unordered_map>

#include "lanes.h"

namespace virtual_gpu {

template <class T, class Op>
void unary(Warp& w, const Instruction& i, Mask mask) {
  const auto* a = lanes<T>(w, i.sources[0]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) { return T(Op{}(from_stored<T>(a[l]))); });
}

template <class T, class Op>
void binary(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  for_lanes<T>(w, i.results[0], mask,
               [&](int l) { return T(Op{}(from_stored<T>(a[l]), from_stored<T>(b[l]))); });
}

template <class T, class Op>
void ternary(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]),
             *c = lanes<T>(w, i.sources[2]);
  for_lanes<T>(w, i.results[0], mask, [&](int l) {
    return T(Op{}(from_stored<T>(a[l]), from_stored<T>(b[l]), from_stored<T>(c[l])));
  });
}

// Handlers by mnemonic. Each file adds those of its subject.
using Table = std::unordered_map<std::string, Handler>;
void add_arithmetic(Table& table);
void add_bits(Table& table);
void add_comparisons(Table& table);
void add_functions(Table& table);
void add_moves(Table& table);

}  // namespace virtual_gpu
