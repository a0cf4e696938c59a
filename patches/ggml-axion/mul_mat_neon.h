// NEON tiles: 8 weight rows by 4 columns in registers, with SMMLA where the machine has it and SDOT elsewhere.
//
// Weights are signed here, so no zero point is taken off afterwards. A vector of weights holds eight values of two
// rows. Error bound: that of the activations (mul_mat_act.h); the products have the bits of mul_mat_reference.h.
#pragma once

#include "mul_mat_tile.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

#include <arm_neon.h>

#define AXION_INLINE inline __attribute__((always_inline))

namespace axion {

enum class Kind {
    plain,       // weights are scale * q
    with_min,    // weights are scale * q + min
    two_scales,  // as plain, with a scale for each 16
};

constexpr int row_pairs = tile_rows / 2;

// The bytes of a PanelBlock as they lie here: q[k / 8][row / 2][row % 2][k % 8].
struct NeonBlock {
    int8_t q[4][row_pairs][2][8];
    float  scale[tile_rows];
    float  extra[tile_rows];
};

static_assert(sizeof(NeonBlock) == sizeof(PanelBlock) && alignof(NeonBlock) <= alignof(PanelBlock), "same place");

// Sums of two rows times two columns are one vector; these say in which order.
#if defined(__ARM_FEATURE_MATMUL_INT8)

constexpr int lane_of(int row, int column) {
    return 2 * row + column;
}

AXION_INLINE void spread_rows(const float * p, float32x4_t out[2]) {
    const float32x4_t v = vld1q_f32(p);
    out[0]              = vzip1q_f32(v, v);
    out[1]              = vzip2q_f32(v, v);
}

AXION_INLINE float32x4_t spread_columns(float32x2_t v) {
    return vcombine_f32(v, v);
}

#else

constexpr int lane_of(int row, int column) {
    return row + 2 * column;
}

AXION_INLINE void spread_rows(const float * p, float32x4_t out[2]) {
    const float32x4_t v = vld1q_f32(p);
    out[0]              = vcombine_f32(vget_low_f32(v), vget_low_f32(v));
    out[1]              = vcombine_f32(vget_high_f32(v), vget_high_f32(v));
}

AXION_INLINE float32x4_t spread_columns(float32x2_t v) {
    return vcombine_f32(vdup_lane_f32(v, 0), vdup_lane_f32(v, 1));
}

#endif

// Two neighbours of a column's scales or sums; a last column without a neighbour is taken twice.
template <int W> AXION_INLINE float32x4_t load_columns(const float * p, int column) {
    return column + 1 < W ? spread_columns(vld1_f32(p + column)) : vdupq_n_f32(p[column]);
}

// Eight rows times two columns over the values 8 * from .. 8 * to of a block: exact in int32.
template <int W>
AXION_INLINE void dot_eights(const NeonBlock & u, const ActBlock<W> & a, int half, int column, int from, int to,
                             int32x4_t dot[4]) {
    const bool     is_last = column + 1 == W;
    const int8_t * first   = a.q[column];
#if defined(__ARM_FEATURE_MATMUL_INT8)
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        dot[i] = vdupq_n_s32(0);
    }
#pragma GCC unroll 4
    for (int k = from; k < to; k++) {
        const int8x16_t x =
            is_last ? vcombine_s8(vld1_s8(first + 8 * k), vld1_s8(first + 8 * k)) : vld1q_s8(first + 16 * k);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            dot[i] = vmmlaq_s32(dot[i], vld1q_s8(u.q[k][4 * half + i][0]), x);
        }
    }
#else
    const int8_t * second = is_last ? first : first + act_block;
    int32x4_t      d[2][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        d[0][i] = d[1][i] = vdupq_n_s32(0);
    }
#pragma GCC unroll 4
    for (int k = from; k < to; k++) {
        const int8x8_t x = vld1_s8(first + 8 * k), y = vld1_s8(second + 8 * k);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const int8x16_t w = vld1q_s8(u.q[k][4 * half + i][0]);
            d[0][i]           = vdotq_s32(d[0][i], w, vcombine_s8(x, x));
            d[1][i]           = is_last ? d[0][i] : vdotq_s32(d[1][i], w, vcombine_s8(y, y));
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        dot[i] = vpaddq_s32(d[0][i], d[1][i]);
    }
#endif
}

// The whole of the arithmetic: eight rows times columns [column, column + 2 * pairs), added block by block to acc.
template <Kind kind, int W, int pairs>
AXION_INLINE void dot_tile(const NeonBlock * panel, int64_t num_blocks, const ActBlock<W> * acts, int half, int column,
                           float32x4_t acc[][4]) {
    float32x4_t sum[pairs][4];
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            sum[p][i] = acc[p][i];
        }
    }
    for (int64_t b = 0; b < num_blocks; b++) {
        const NeonBlock &   u = panel[b];
        const ActBlock<W> & a = acts[b];
        float32x4_t         scale[4], extra[4];
        spread_rows(u.scale + 8 * half, scale);
        spread_rows(u.scale + 8 * half + 4, scale + 2);
        if (kind != Kind::plain) {
            spread_rows(u.extra + 8 * half, extra);
            spread_rows(u.extra + 8 * half + 4, extra + 2);
        }
#pragma GCC unroll 2
        for (int p = 0; p < pairs; p++) {
            const float32x4_t x = load_columns<W>(a.scale, column + 2 * p);
            int32x4_t         dot[4];
            if (kind == Kind::two_scales) {
                dot_eights<W>(u, a, half, column + 2 * p, 0, 2, dot);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    sum[p][i] = vfmaq_f32(sum[p][i], vcvtq_f32_s32(dot[i]), vmulq_f32(scale[i], x));
                }
                dot_eights<W>(u, a, half, column + 2 * p, 2, 4, dot);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    sum[p][i] = vfmaq_f32(sum[p][i], vcvtq_f32_s32(dot[i]), vmulq_f32(extra[i], x));
                }
                continue;
            }
            dot_eights<W>(u, a, half, column + 2 * p, 0, 4, dot);
            const float32x4_t s = load_columns<W>(a.sum, column + 2 * p);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                sum[p][i] = vfmaq_f32(sum[p][i], vcvtq_f32_s32(dot[i]), vmulq_f32(scale[i], x));
                if (kind == Kind::with_min) {
                    sum[p][i] = vfmaq_f32(sum[p][i], extra[i], s);
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            acc[p][i] = sum[p][i];
        }
    }
}

// Sums of 16 rows by W columns, kept between panels.
template <int W> struct Sums {
    static constexpr int num_pairs = (W + 1) / 2;
    float32x4_t          v[2][num_pairs][4];

    Sums() {
        memset(v, 0, sizeof v);
    }

    float & at(int row, int column) {
        return ((float *) &v[row / 8][column / 2][row % 8 / 2])[lane_of(row % 2, column % 2)];
    }

    template <Kind kind> void add(const NeonBlock * panel, int64_t num_blocks, const ActBlock<W> * acts) {
        add_from<kind, 0>(panel, num_blocks, acts);
    }

    template <Kind kind, int pair>
    AXION_INLINE void add_from(const NeonBlock * panel, int64_t num_blocks, const ActBlock<W> * acts) {
        if constexpr (pair < num_pairs) {
            constexpr int pairs = num_pairs - pair < 2 ? 1 : 2;
            dot_tile<kind, W, pairs>(panel, num_blocks, acts, 0, 2 * pair, v[0] + pair);
            dot_tile<kind, W, pairs>(panel, num_blocks, acts, 1, 2 * pair, v[1] + pair);
            add_from<kind, pair + 2>(panel, num_blocks, acts);
        }
    }

    void load(const TileOutput & out) {
        for (int n = 0; n < W; n++) {
            for (int r = 0; r < tile_rows; r++) {
                at(r, n) = out.lanes >> r & 1 ? out.dst[n][out.row + r] : 0.0f;
            }
        }
    }

    void store(const TileOutput & out) {
        for (int n = 0; n < W; n++) {
            for (int r = 0; r < tile_rows; r++) {
                if (out.lanes >> r & 1) {
                    out.dst[n][out.row + r] = at(r, n);
                }
            }
        }
    }
};

template <class Format>
void unpack_panel(const char * rows, size_t row_bytes, int64_t first_block, int64_t num_blocks, PanelBlock * panel) {
    constexpr int64_t per_step = Format::block / act_block;
    NeonBlock *       out      = (NeonBlock *) panel;
    rows += first_block / per_step * Format::bytes;
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        Format::unpack(rows, row_bytes, out + b);
    }
}

template <class Format, int W>
void fused_tile(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group, TileOutput out) {
    constexpr int64_t      at_once = 8;  // 5 KiB
    alignas(64) PanelBlock panel[at_once];
    Sums<W>                sums;
    for (int64_t b = 0; b < num_blocks; b += at_once) {
        const int64_t n = num_blocks - b < at_once ? num_blocks - b : at_once;
        unpack_panel<Format>(rows, row_bytes, b, n, panel);
        sums.template add<Format::kind>((const NeonBlock *) panel, n, (const ActBlock<W> *) group + b);
    }
    sums.store(out);
}

template <Kind kind, int W>
void panel_tile(const PanelBlock * panel, int64_t num_blocks, const char * group, TileOutput out, bool first) {
    Sums<W> sums;
    if (!first) {
        sums.load(out);
    }
    sums.template add<kind>((const NeonBlock *) panel, num_blocks, (const ActBlock<W> *) group);
    sums.store(out);
}

}  // namespace axion

#endif
