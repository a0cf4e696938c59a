// Tiles of 16 weight rows by 16 columns in AMX' registers, int8 into int32, for products of many columns.
//
// A block of 32 has its own scales, so a tile of sums holds one block only, a matrix of activations times one of
// weights: half of what a register would take along K, all of it along the others. It is stored, and the vectors make
// floats of it, by the chain of mul_mat_tile.h: the bits are those of every other tile. Meanwhile the next block's sums
// are stored and those of the one after are computed: two tiles of sums, used in turn.
// Weights lie as in PanelBlock but signed, so that no sum has a zero point to take off.
#pragma once

#include "amx.h"
#include "mul_mat_x86.h"
#include "simd.h"

#include <type_traits>

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

namespace axion {

static_assert(wide_columns == amx::max_rows && tile_rows * 4 == amx::max_row_bytes, "a whole tile of sums");

template <class Format> AXION_INLINE Bytes made_signed(Bytes q) {
    constexpr int   zero = Format::kind == Kind::with_min ? 0
                           : has_vnni                     ? 128
                           : Format::bits == 8            ? 0
                                                          : 1 << (Format::bits - 1);
    typedef uint8_t UnsignedBytes __attribute__((vector_size(sizeof(Bytes))));
    return zero == 0 ? q : (Bytes) ((UnsignedBytes) q - (UnsignedBytes) splat_byte(zero));
}

template <class Format>
void unpack_wide(const char * rows, size_t row_bytes, int64_t first_block, int64_t num_blocks, PanelBlock * panel) {
    constexpr int64_t per_step = Format::block / act_block;
    rows += first_block / per_step * Format::bytes;
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        // The same columns of the next tile; while this one is multiplied they arrive.
        prefetch_rows<Format::bytes>(rows + tile_rows * row_bytes, row_bytes, b / per_step);
#pragma GCC unroll 2
        for (int64_t r = 0; r < tile_rows; r += vector_rows) {
            Format::unpack(rows + r * (int64_t) row_bytes, row_bytes, [&](int i, const Unpacked & u) {
                PanelBlock & p = panel[b + i];
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    const Bytes q = made_signed<Format>(u.q[k]);
                    memcpy(p.q[k][r], &q, sizeof q);
                }
                memcpy(p.scale + r, &u.scale, sizeof u.scale);
                if (Format::kind != Kind::zero_point) {
                    memcpy(p.extra + r, &u.extra, sizeof u.extra);
                }
            });
        }
    }
}

// Registers: two tiles of sums, and for each of them its operands: of 32 along K, or of 16 where halves are summed
// apart.
struct WideTiles {
    static constexpr int sums = 0, acts = 2, weights = 4, half_acts = 6, half_weights = 7;

    static constexpr amx::TileConfig config() {
        amx::TileConfig c;
        for (int i = 0; i < 2; i++) {
            c.tile(sums + i, wide_columns, 4 * tile_rows);
            c.tile(acts + i, wide_columns, act_block).tile(weights + i, act_block / 4, 4 * tile_rows);
        }
        c.tile(half_acts, wide_columns, act_block / 2).tile(half_weights, act_block / 8, 4 * tile_rows);
        return c;
    }
};

// The sums of a block, by column; of blocks with two scales, of each half.
template <Kind kind> struct WideSums {
    alignas(64) int32_t value[kind == Kind::two_scales ? 2 : 1][wide_columns][tile_rows];
};

constexpr int wide_vectors = tile_rows / lanes;

// Adds block b to the sums in tile `turn`: all of it, or half `turn` where halves are apart.
template <class Tiles, Kind kind, int turn> AXION_INLINE void multiply_wide(const PanelBlock & w, const WideBlock & x) {
    using T                = WideTiles;
    constexpr bool is_half = kind == Kind::two_scales;
    constexpr int  a = is_half ? T::half_acts : T::acts + turn, b = is_half ? T::half_weights : T::weights + turn;
    constexpr int  at = is_half ? turn * act_block / 2 : 0;
    Tiles::template zero<T::sums + turn>();
    Tiles::template load<a>(x.q[0] + at, act_block);
    Tiles::template load<b>(w.q[at / 4], 4 * tile_rows);
    Tiles::template dot_s8<T::sums + turn, a, b>();
}

AXION_INLINE vf32 float_of_sums(const int32_t * p) {
    vi32 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf32);
}

// What a block adds to the products.
template <Kind kind>
AXION_INLINE void add_block(const PanelBlock & w, const WideBlock & x, const WideSums<kind> & sums,
                            vf32 acc[wide_columns][wide_vectors]) {
    AXION_UNROLL
    for (int v = 0; v < wide_vectors; v++) {
        const vf32 scale = vload(w.scale + v * lanes);
        const vf32 extra = kind == Kind::zero_point ? vf32{} : vload(w.extra + v * lanes);
        AXION_UNROLL
        for (int n = 0; n < (int) wide_columns; n++) {
            vf32 &     sum = acc[n][v];
            const vf32 dot = float_of_sums(sums.value[0][n] + v * lanes);
            if constexpr (kind == Kind::two_scales) {
                const vf32 second = float_of_sums(sums.value[1][n] + v * lanes);
                sum               = vfma(vfma(second, extra, dot * scale), vsplat(x.scale[n]), sum);
            } else {
                sum = vfma(dot, scale * vsplat(x.scale[n]), sum);
            }
            if constexpr (kind == Kind::with_min) {
                sum = vfma(extra, vsplat(x.sum[n]), sum);
            }
        }
    }
}

// Products as far as they are complete, by column. Apart from the tile's loop, which has the registers for itself.
struct WideProducts {
    alignas(64) float value[wide_columns][tile_rows];

    __attribute__((noinline)) void load(const TileOutput & out, int width) {
        for (int n = 0; n < width; n++) {
            const float * from = out.dst[n] + out.row;
            if (out.lanes == 0xffff) {
                memcpy(value[n], from, sizeof value[n]);
                continue;
            }
            for (int r = 0; r < tile_rows; r++) {
                value[n][r] = out.lanes >> r & 1 ? from[r] : 0.0f;
            }
        }
    }

    __attribute__((noinline)) void store(const TileOutput & out, int width) const {
        for (int n = 0; n < width; n++) {
            float * to = out.dst[n] + out.row;
            if (out.lanes == 0xffff) {
                memcpy(to, value[n], sizeof value[n]);
                continue;
            }
            for (int r = 0; r < tile_rows; r++) {
                if (out.lanes >> r & 1) {
                    to[r] = value[n][r];
                }
            }
        }
    }
};

// Blocks of a panel for `width` of 16 columns, under the configuration of WideTiles.
template <class Tiles, Kind kind>
void wide_tile(const PanelBlock * panel, int64_t num_blocks, const WideBlock * acts, int width, TileOutput out,
               bool first) {
    WideSums<kind> sums[2];  // of even and of odd blocks
    vf32           acc[wide_columns][wide_vectors];
    WideProducts   products{};
    if (!first) {
        products.load(out, width);
    }
    AXION_UNROLL
    for (int n = 0; n < (int) wide_columns; n++) {
        AXION_UNROLL
        for (int v = 0; v < wide_vectors; v++) {
            acc[n][v] = vload(products.value[n] + v * lanes);
        }
    }
    if constexpr (kind == Kind::two_scales) {
        const auto compute = [&](int64_t b, WideSums<kind> & to) __attribute__((always_inline)) {
            multiply_wide<Tiles, kind, 0>(panel[b], acts[b]);
            multiply_wide<Tiles, kind, 1>(panel[b], acts[b]);
            Tiles::template store<WideTiles::sums>(to.value[0], 4 * tile_rows);
            Tiles::template store<WideTiles::sums + 1>(to.value[1], 4 * tile_rows);
        };
        compute(0, sums[0]);
        for (int64_t b = 0; b < num_blocks; b++) {
            if (b + 1 < num_blocks) {
                compute(b + 1, sums[(b + 1) % 2]);
            }
            add_block<kind>(panel[b], acts[b], sums[b % 2], acc);
        }
    } else {
        const auto multiply = [&](auto turn, int64_t b) __attribute__((always_inline)) {
            if (b < num_blocks) {
                multiply_wide<Tiles, kind, turn>(panel[b], acts[b]);
            }
        };
        const auto store = [&](auto turn, int64_t b) __attribute__((always_inline)) {
            if (b < num_blocks) {
                Tiles::template store<WideTiles::sums + turn>(sums[turn].value[0], 4 * tile_rows);
            }
        };
        constexpr std::integral_constant<int, 0> even{};
        constexpr std::integral_constant<int, 1> odd{};
        multiply(even, 0);
        multiply(odd, 1);
        store(even, 0);
        for (int64_t b = 0; b < num_blocks; b += 2) {
            multiply(even, b + 2);
            store(odd, b + 1);
            add_block<kind>(panel[b], acts[b], sums[0], acc);
            if (b + 1 < num_blocks) {
                multiply(odd, b + 3);
                store(even, b + 2);
                add_block<kind>(panel[b + 1], acts[b + 1], sums[1], acc);
            }
        }
    }
    AXION_UNROLL
    for (int n = 0; n < (int) wide_columns; n++) {
        AXION_UNROLL
        for (int v = 0; v < wide_vectors; v++) {
            vstore(products.value[n] + v * lanes, acc[n][v]);
        }
    }
    products.store(out, width);
}

}  // namespace axion

#endif
