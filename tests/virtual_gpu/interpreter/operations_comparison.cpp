// Comparisons, and what is made of predicates.
#include <cmath>
#include <functional>

#include "elementwise.h"

namespace virtual_gpu {
namespace {

template <class Op>
void predicate_logic(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], Op{}(predicate(w, i.sources[0]), predicate(w, i.sources[1])),
                mask);
}
void predicate_not(Warp& w, const Instruction& i, Mask mask) {
  set_predicate(w, i.results[0], ~predicate(w, i.sources[0]), mask);
}

enum Comparison : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };

template <class T>
bool compare(Comparison c, T a, T b) {
  bool unordered = false;
  if constexpr (std::is_floating_point_v<T>) unordered = std::isnan(a) || std::isnan(b);
  switch (c) {
    case eq: return a == b;
    case ne: return !unordered && a != b;
    case lt: return a < b;
    case le: return a <= b;
    case gt: return a > b;
    case ge: return a >= b;
    case equ: return unordered || a == b;
    case neu: return unordered || a != b;
    case ltu: return unordered || a < b;
    case leu: return unordered || a <= b;
    case gtu: return unordered || a > b;
    case geu: return unordered || a >= b;
    case num: return !unordered;
    case nan: return unordered;
  }
  return false;
}

template <class T, Comparison kComparison>
void set_if(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  Mask bits = 0;
  for (int l = 0; l < kLanes; ++l)
    bits |= Mask{compare(kComparison, from_stored<T>(a[l]), from_stored<T>(b[l]))} << l;
  set_predicate(w, i.results[0], bits, mask);
  if (i.n_results > 1) set_predicate(w, i.results[1], ~bits, mask);
}

template <class T>
Handler comparison(Comparison c) {
  switch (c) {
    case eq: return set_if<T, eq>;
    case ne: return set_if<T, ne>;
    case lt: return set_if<T, lt>;
    case le: return set_if<T, le>;
    case gt: return set_if<T, gt>;
    case ge: return set_if<T, ge>;
    case equ: return set_if<T, equ>;
    case neu: return set_if<T, neu>;
    case ltu: return set_if<T, ltu>;
    case leu: return set_if<T, leu>;
    case gtu: return set_if<T, gtu>;
    case geu: return set_if<T, geu>;
    case num: return set_if<T, num>;
    case nan: return set_if<T, nan>;
  }
  return nullptr;
}

template <class T>
void select(Warp& w, const Instruction& i, Mask mask) {
  const auto *a = lanes<T>(w, i.sources[0]), *b = lanes<T>(w, i.sources[1]);
  const Mask which = predicate(w, i.sources[2]);
  for_lanes<T>(w, i.results[0], mask,
               [&](int l) { return from_stored<T>(which >> l & 1 ? a[l] : b[l]); });
}

template <class T>
void add_comparisons_of(Table& t, const std::string& type) {
  const std::pair<const char*, Comparison> names[] = {
      {"eq", eq},   {"ne", ne},   {"lt", lt},   {"le", le},   {"gt", gt},   {"ge", ge},
      {"equ", equ}, {"neu", neu}, {"ltu", ltu}, {"leu", leu}, {"gtu", gtu}, {"geu", geu},
      {"num", num}, {"nan", nan}, {"lo", lt},   {"ls", le},   {"hi", gt},   {"hs", ge}};
  for (const auto& [name, c] : names)
    t["setp." + std::string(name) + "." + type] = comparison<T>(c);
}

}  // namespace

void add_comparisons(Table& t) {
  add_comparisons_of<int16_t>(t, "s16");
  add_comparisons_of<int32_t>(t, "s32");
  add_comparisons_of<int64_t>(t, "s64");
  for (const char* type : {"u16", "b16"}) add_comparisons_of<uint16_t>(t, type);
  for (const char* type : {"u32", "b32"}) add_comparisons_of<uint32_t>(t, type);
  for (const char* type : {"u64", "b64"}) add_comparisons_of<uint64_t>(t, type);
  add_comparisons_of<float>(t, "f32");
  add_comparisons_of<double>(t, "f64");
  for (const char* type : {"b16", "u16", "s16"}) t[std::string("selp.") + type] = select<uint16_t>;
  for (const char* type : {"b32", "u32", "s32", "f32"})
    t[std::string("selp.") + type] = select<uint32_t>;
  for (const char* type : {"b64", "u64", "s64", "f64"})
    t[std::string("selp.") + type] = select<uint64_t>;
  t["and.pred"] = predicate_logic<std::bit_and<>>;
  t["or.pred"] = predicate_logic<std::bit_or<>>;
  t["xor.pred"] = predicate_logic<std::bit_xor<>>;
  t["not.pred"] = predicate_not;
}

}  // namespace virtual_gpu
