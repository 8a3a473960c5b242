// The product of all rows of all steps with their gradients, as the gradient of a kernel is: long and narrow factors.

#ifndef JAXLM_RUN_KERNELS_OUTER_H_
#define JAXLM_RUN_KERNELS_OUTER_H_

#include <algorithm>
#include <cstring>

#include "product.h"
#include "vectors.h"

namespace {

// The gradient of U or W: out[unit][column] = sum over n of left[n][unit] grad[n][column], n = all rows of all steps.
struct Outer {
  const float *rows, *first, *grad;
  const bool* keep;
  Index count, batch, width, columns;

  // The left factor of n: its row; where there is a `first`, that of the step before, and none where it is not kept.
  const float* left(Index n) const {
    if (first == nullptr) return rows + n * width;
    if (!keep[n]) return nullptr;
    return n < batch ? first + n * width : rows + (n - batch) * width;
  }
};

constexpr Index kTileRows = kAccumulators / kPanelVectors;

// packed[block of units][n][unit], the n from `begin` on: what a tile reads lies side by side.
void pack_left(const Outer& in, Index begin, Index depth, float* packed) {
  static const float zeros[kTileRows] = {};
  for (Index n = 0; n < depth; ++n) {
    const float* const line = in.left(begin + n);
    for (Index unit = 0; unit < in.width; unit += kTileRows) {
      const Index rows = std::min(kTileRows, in.width - unit);
      const float* const from = line == nullptr ? zeros : line + unit;
      float* const to = packed + unit * depth + n * rows;
      if (rows == kTileRows)
        std::memcpy(to, from, sizeof(zeros));
      else
        std::memcpy(to, from, rows * sizeof(float));
    }
  }
}

// One panel of grad, the n from `begin` on.
void pack_right(const Outer& in, Index begin, Index depth, Index column, float* packed) {
  const Index left = in.columns - column;
  const float* from = in.grad + begin * in.columns + column;
  for (Index n = 0; n < depth; ++n, from += in.columns)
    for (Index v = 0; v < kPanelVectors; ++v, packed += kLanes)
      store(packed, left >= kPanelVectors * kLanes ? load(from + v * kLanes)
                    : left > v * kLanes            ? load(from + v * kLanes, left - v * kLanes)
                                                   : Vector{});
}

// While the tiles multiply, the part of grad that is packed next comes from memory: a few rows before each tile.
class Ahead {
 public:
  Ahead(const Outer& in, Index begin, Index column, Index columns, Index tiles)
      : in_(in), next_(begin), end_(std::min(begin + kDepth, in.count)), each_(divide_up(end_ - begin, tiles)),
        column_(column), columns_(std::min(columns, in.columns - column)) {}
  void fetch() {
    for (const Index last = std::min(next_ + each_, end_); next_ < last; ++next_)
      for (Index column = 0; column < columns_; column += 16)
        __builtin_prefetch(in_.grad + next_ * in_.columns + column_ + column, 0, 2);
  }

 private:
  const Outer& in_;
  Index next_;
  const Index end_, each_, column_, columns_;
};

constexpr Index kOuterPanels = 4;  // read together: lines that lie side by side are fetched ahead

Index outer_scratch(const Outer& in, Index panels) { return panels * (kDepth + in.width) * kPanelVectors * kLanes; }

// Some panels of columns for all units; a tile's sums over a part of the n stay in registers.
void outer_panels(const Outer& in, const float* packed, Index first_panel, Index panels, float* scratch, float* out) {
  constexpr Index kColumns = kPanelVectors * kLanes;
  const Index vectors = panels * kPanelVectors, first_column = first_panel * kColumns;
  float* const sums = scratch + panels * kDepth * kColumns;
  for (Index begin = 0; begin < in.count; begin += kDepth) {
    const Index depth = std::min(kDepth, in.count - begin);
    for (Index panel = 0; panel < panels; ++panel)
      pack_right(in, begin, depth, first_column + panel * kColumns, scratch + panel * kDepth * kColumns);
    Ahead ahead(in, begin + depth, first_column, vectors * kLanes, panels * divide_up(in.width, kTileRows));
    for (Index panel = 0; panel < panels; ++panel)
      for (Index unit = 0; unit < in.width; unit += kTileRows) {
        const Index rows = std::min(kTileRows, in.width - unit);
        ahead.fetch();
        tile_of<kTileRows, kPanelVectors, true>(rows, packed + begin * in.width + unit * depth, rows,
                                                scratch + panel * kDepth * kColumns, depth,
                                                sums + (panel * in.width + unit) * kColumns, begin == 0);
      }
  }
  for (Index unit = 0; unit < in.width; ++unit)
    for (Index v = 0; v < vectors; ++v) {
      const Index column = first_column + v * kLanes;
      const float* const from = sums + (v / kPanelVectors * in.width + unit) * kColumns + v % kPanelVectors * kLanes;
      if (column < in.columns) store(out + unit * in.columns + column, load(from), in.columns - column);
    }
}

}  // namespace

#endif  // JAXLM_RUN_KERNELS_OUTER_H_
