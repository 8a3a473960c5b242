// A product of many thin left factors with one right factor that was packed for it, and work dealt to XLA's threads.

#ifndef JAXLM_RUN_KERNELS_PRODUCT_H_
#define JAXLM_RUN_KERNELS_PRODUCT_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace {

constexpr Index kPanelVectors = 4;  // width of a panel, where its columns are no gates
constexpr Index kDepth = 128;  // terms summed before the next panel's part: so much of a panel stays in L1

// c[r][v] (+)= sum over k of a[r][k] b[k][v]: kRows rows of a, kVectors vectors of b. One order of summing for all
// kRows. The next row of a is a_stride further; kBeside: the rows of one k lie side by side, and the next k is.
template <int kRows, int kVectors, bool kBeside>
void tile(const float* a, Index a_stride, const float* b, Index depth, float* c, bool fresh) {
  Vector sums[kRows][kVectors] = {};
  if (!fresh) {
#pragma GCC unroll 64
    for (int i = 0; i < kRows * kVectors; ++i) sums[i / kVectors][i % kVectors] = load(c + i * kLanes);
  }
  for (Index k = 0; k < depth; ++k) {
    Vector row[kVectors];
#pragma GCC unroll 64
    for (int v = 0; v < kVectors; ++v) row[v] = load(b + (k * kVectors + v) * kLanes);
#pragma GCC unroll 64
    for (int i = 0; i < kRows * kVectors; ++i)
      sums[i / kVectors][i % kVectors] +=
          (kBeside ? a[k * a_stride + i / kVectors] : a[i / kVectors * a_stride + k]) * row[i % kVectors];
  }
#pragma GCC unroll 64
  for (int i = 0; i < kRows * kVectors; ++i) store(c + i * kLanes, sums[i / kVectors][i % kVectors]);
}

template <int kRows, int kVectors, bool kBeside = false>
void tile_of(Index rows, const float* a, Index a_stride, const float* b, Index depth, float* c, bool fresh) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return tile<kRows, kVectors, kBeside>(a, a_stride, b, depth, c, fresh);
    tile_of<kRows - 1, kVectors, kBeside>(rows, a, a_stride, b, depth, c, fresh);
  }
}

// Rows of left factors, laid as the product reads them: blocks of kDepth columns, in each the rows one after another.
class Blocked {
 public:
  Blocked(float* data, Index rows) : data_(data), rows_(rows) {}
  float* at(Index row, Index column) const {
    return data_ + (column / kDepth * rows_ + row) * kDepth + column % kDepth;
  }
  static Index size(Index rows, Index columns) { return rows * round_up(columns, kDepth); }

 private:
  float* data_;
  Index rows_;
};

// One panel of the product for all rows: out[row][v] = sum over k of left[row][k] panel[k][v].
template <int kVectors>
void multiply(const Blocked& left, Index rows, const float* panel, Index columns, float* out) {
  constexpr Index kMost = kAccumulators / kVectors;
  const Index tiles = divide_up(rows, kMost), height = divide_up(rows, tiles);
  for (Index k = 0; k < columns; k += kDepth) {
    const Index depth = std::min(kDepth, columns - k);
    for (Index r = 0; r < rows; r += height)
      tile_of<kMost, kVectors>(std::min(height, rows - r), left.at(r, k), kDepth, panel + k * kVectors * kLanes, depth,
                               out + r * kVectors * kLanes, k == 0);
  }
}

// Aligned floats; `data` is null where there is no memory.
struct Scratch {
  explicit Scratch(Index floats) : data(static_cast<float*>(std::aligned_alloc(64, round_up(floats * 4, 64)))) {}
  ~Scratch() { std::free(data); }
  Scratch(const Scratch&) = delete;
  float* const data;
};

// work(i) for all i < count: the caller and the pool's idle threads take the next one until none is left. The caller
// waits only for what another has begun, so that a pool whose threads all wait themselves stops nothing.
template <typename Work>
void for_all(xla::ffi::ThreadPool& pool, Index count, const Work& work) {
  struct Shared {
    std::atomic<Index> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    Index done = 0;
  };
  auto shared = std::make_shared<Shared>();
  auto take = [shared, count, &work] {
    for (Index i; (i = shared->next.fetch_add(1)) < count;) {
      work(i);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == count) shared->finished.notify_one();
    }
  };
  for (Index i = 1; i < std::min<Index>(count, pool.num_threads()); ++i) {
    auto copy = take;
    pool.Schedule(std::move(copy));
  }
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == count; });
}

}  // namespace

#endif  // JAXLM_RUN_KERNELS_PRODUCT_H_
