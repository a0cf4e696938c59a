// What a weight format offers to the matrix product: tiles of 16 weight rows by up to 8 columns. Internal to mul_mat.
//
// Every product is one chain over the blocks of 32, in order, whatever tile computes it:
//     acc = fma(int32 dot, weight scale * activation scale, acc);   acc = fma(weight min, activation sum, acc)
// and for weights with a scale for each 16
//     acc = fma(fma(second dot, second scale, first dot * first scale), activation scale, acc)
// so a column's result does not depend on the other columns, on the tile, or on how K is cut into panels.
#pragma once

#include "amx.h"
#include "mul_mat_act.h"

#include "ggml.h"

#include <cstddef>
#include <cstdint>

namespace axion {

constexpr int64_t tile_rows = 16;

// Weights are fetched at least this far ahead of the tile at work.
constexpr size_t prefetch_bytes = 16384;

#if defined(__ARM_NEON)
constexpr int64_t tile_factors = 2 * tile_rows;  // each twice, for two columns
#else
constexpr int64_t tile_factors = tile_rows;
#endif

// One block of 32 of 16 rows, unpacked: q[k / 4][row][k % 4] unsigned. The NEON tiles lay out the same bytes otherwise.
struct PanelBlock {
    uint8_t q[8][tile_rows][4];
    float   scale[tile_factors];
    float   extra[tile_factors];  // the min; for formats with blocks of 16: the scale of the second half
};

static_assert(sizeof(PanelBlock) == 512 + 8 * tile_factors, "packed");

// Where a tile's products go: lane r of column n is dst[n][r] if bit r of `lanes` is set.
struct TileOutput {
    float * const * dst;
    int64_t         row;
    uint16_t        lanes;
    const char *    ahead = nullptr;  // as many bytes as the tile has rows of weights, soon to be read; null: guess
};

// All of K, straight from the packed rows: for one group of columns.
using FusedTile = void (*)(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group, TileOutput out);
// From an unpacked panel; `first` starts the sums, else they go on from dst.
using PanelTile = void (*)(const PanelBlock * panel, int64_t num_blocks, const char * group, TileOutput out,
                           bool first);

// The same for `width` of 16 columns, in AMX' tiles, from a panel of signed weights.
using WideTile = void (*)(const PanelBlock * panel, int64_t num_blocks, const WideBlock * acts, int width,
                          TileOutput out, bool first);
using Unpack   = void (*)(const char * rows, size_t row_bytes, int64_t first_block, int64_t num_blocks,
                          PanelBlock * panel);

struct TileFormat {
    int64_t   block;  // columns of the smallest piece that can be unpacked
    FusedTile fused[group_columns + 1];
    PanelTile panel[group_columns + 1];
    Unpack    unpack;
#if defined(AXION_AMX)
    WideTile wide;
    Unpack   unpack_wide;
#endif
};

// Null when this machine has no tile for the format.
const TileFormat * tile_format(ggml_type type);

}  // namespace axion
