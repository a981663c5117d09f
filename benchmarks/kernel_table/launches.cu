// Prints, as JSON, what the launchers of the tile kernels ask for and how much work a tile is: the
// constants of csrc/cuda that are not in the machine code. Runs on the host, needs no GPU.
#include <cstdio>
#include <string>

#include "ranks.cuh"
#include "topk.cuh"
#include "weighted_sums.cuh"

using namespace adaptau::cuda;

// Tensor-core instructions for one product of fragments.
template <class Type>
constexpr int kProducts = std::is_same_v<Type, F32> ? 3 : 1;

const char* separator = "";

// tile_instructions: of a warp, for one tile; copies: of a thread, for one tile and its parameters
template <class S>
void print(const std::string& kernel, int shared_bytes, int tile_instructions) {
  std::printf(
      "%s{\"kernel\": \"%s\", \"threads\": %d, \"shared\": %d, \"d\": %d, \"sums\": %d, "
      "\"rows\": %d, \"columns\": %d, \"hmma\": %d, \"copies\": %d}",
      separator, kernel.c_str(), S::kThreads, shared_bytes, S::D, S::kSums, S::kRows, S::kColumns,
      tile_instructions * kProducts<typename S::Type>, S::kColumns * S::kChunks / S::kThreads + 1);
  separator = ",\n ";
}

template <class S>
void print_all(const std::string& shape, bool exact) {
  constexpr int kScores = S::kHeight * S::kColumnTiles * S::kSteps;
  // a step of the sums takes as many columns as a step of the scores takes elements
  constexpr int kSums = S::kHeight * S::kSums / 8 * (S::kColumns * S::kSteps / S::D);
  for (const char* rows : {"true", "false"})
    print<S>("weighted_sums_kernel<" + shape + ", " + rows + ">", kWeightedSumsBytes<S>,
             kScores + kSums);
  if (!exact) return;
  print<S>("topk_lists_kernel<" + shape + ">", kTopkBytes<S>, kScores);
  print<S>("count_before_kernel<" + shape + ">", RanksWalk<S>::kBytes, kScores);
}

template <class Type>
void print_type(const char* name, bool exact) {
  for (int d : {64, 128, 256, 512})
    with_dimension<Type>(d, [&](auto shape) {
      print_all<decltype(shape)>(
          "Shape<" + std::string(name) + ", " + std::to_string(shape.D) + ">", exact);
      return 0;
    });
}

int main() {
  std::printf("[");
  print_type<Bf16>("Bf16", true);
  print_type<F16>("F16", true);
  print_type<F32>("F32", true);
  print_type<Tf32>("Tf32", false);
  std::printf("]\n");
}
