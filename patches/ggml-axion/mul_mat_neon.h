// NEON tiles: 8 weight rows by 4 columns in registers, with SMMLA where the machine has it and SDOT elsewhere.
//
// Weights are signed here, so no zero point is taken off afterwards. A vector of weights holds eight values of two
// rows. Error bound: that of the activations (mul_mat_act.h); the products have the bits of mul_mat_reference.h.
#pragma once

#include "mul_mat_tile.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

#include <arm_neon.h>
#include <cstring>

#define AXION_INLINE inline __attribute__((always_inline))
#define AXION_LAMBDA __attribute__((always_inline))

namespace axion {

enum class Kind {
    plain,       // weights are scale * q
    with_min,    // weights are scale * q + min
    two_scales,  // as plain, with a scale for each 16
};

constexpr int row_pairs = tile_rows / 2;

// The bytes of a PanelBlock as they lie here: q[k / 8][row / 2][row % 2][k % 8]; the factors of two rows are spread
// over the four sums of two rows times two columns.
struct NeonBlock {
    int8_t q[4][row_pairs][2][8];
    float  scale[row_pairs][4];
    float  extra[row_pairs][4];
};

static_assert(sizeof(NeonBlock) == sizeof(PanelBlock) && alignof(NeonBlock) <= alignof(PanelBlock), "same place");

// Dots start from the bits of 1.5 * 2^23: read as a float, the sum is then 1.5 * 2^23 + dot, exactly, while
// |dot| < 2^22. One subtraction on four pipes gives what SCVTF, on two of them and in two steps, would.
constexpr float dot_bias = 0x1.8p23f;
static_assert(act_block * 128 * 128 < 1 << 22, "dots are small enough");

#if defined(__ARM_FEATURE_MATMUL_INT8)
constexpr float dot_starts[4] = { dot_bias, dot_bias, dot_bias, dot_bias };
#else
constexpr float dot_starts[4] = { dot_bias, 0, dot_bias, 0 };  // neighbours are added at the end
#endif

// Loaded anew each time: copies of a register would take a vector pipe, and the load pipes are idle. `unlike` and `n`
// keep the compiler from doing it just once.
template <int n> AXION_INLINE void start_dots(const void * unlike, int32x4_t d[4]) {
    asm("ldr %q0, %4\n\tldr %q1, %4\n\tldr %q2, %4\n\tldr %q3, %4"
        : "=w"(d[0]), "=w"(d[1]), "=w"(d[2]), "=w"(d[3])
        : "Q"(dot_starts), "r"(unlike), "i"(n));
}

AXION_INLINE float32x4_t dot_float(int32x4_t dot) {
    return vsubq_f32(vreinterpretq_f32_s32(dot), vdupq_n_f32(dot_bias));
}

template <int W> AXION_INLINE float32x4_t scales_of(const ActBlock<W> & a, int column) {
    return a.is_alone(column) ? vdupq_n_f32(a.factors[column][0]) : vld1q_f32(a.factors[column]);
}

template <int W> AXION_INLINE float32x4_t sums_of(const ActBlock<W> & a, int column) {
    return a.is_alone(column) ? vdupq_n_f32(a.factors[column][1]) : vld1q_f32(a.factors[column + 1]);
}

// Eight rows times pairs of columns over the values 8 * from .. 8 * to of a block.
template <int from, int to, int W, int pairs>
AXION_INLINE void dot_eights(const NeonBlock & u, const ActBlock<W> & a, int half, int column,
                             float32x4_t out[pairs][4]) {
    int32x4_t dot[pairs][4];
#if defined(__ARM_FEATURE_MATMUL_INT8)
    start_dots<from>(&u, dot[0]);
    if constexpr (pairs == 2) {
        start_dots<from + 1>(&u, dot[1]);
    }
#pragma GCC unroll 4
    for (int k = from; k < to; k++) {
        int8x16_t x[pairs];
#pragma GCC unroll 2
        for (int p = 0; p < pairs; p++) {
            const int8_t * q = a.q[column + 2 * p];
            x[p] =
                a.is_alone(column + 2 * p) ? vcombine_s8(vld1_s8(q + 8 * k), vld1_s8(q + 8 * k)) : vld1q_s8(q + 16 * k);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const int8x16_t w = vld1q_s8(u.q[k][4 * half + i][0]);
#pragma GCC unroll 2
            for (int p = 0; p < pairs; p++) {
                dot[p][i] = vmmlaq_s32(dot[p][i], w, x[p]);
            }
        }
    }
#else
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++) {
        const bool     is_alone = a.is_alone(column + 2 * p);
        const int8_t * first    = a.q[column + 2 * p];
        const int8_t * second   = is_alone ? first : first + act_block;
        int32x4_t      d[2][4];
        start_dots<from>(&u, d[0]);
        start_dots<from + 1>(&u, d[1]);
#pragma GCC unroll 4
        for (int k = from; k < to; k++) {
            const int8x8_t x = vld1_s8(first + 8 * k), y = vld1_s8(second + 8 * k);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const int8x16_t w = vld1q_s8(u.q[k][4 * half + i][0]);
                d[0][i]           = vdotq_s32(d[0][i], w, vcombine_s8(x, x));
                d[1][i]           = is_alone ? d[0][i] : vdotq_s32(d[1][i], w, vcombine_s8(y, y));
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            dot[p][i] = vpaddq_s32(d[0][i], d[1][i]);
        }
    }
#endif
#pragma GCC unroll 2
    for (int p = 0; p < pairs; p++) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            out[p][i] = dot_float(dot[p][i]);
        }
    }
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
        const NeonBlock &   u          = panel[b];
        const ActBlock<W> & a          = acts[b];
        const auto          add_scaled = [&](const float (*scale)[4], const float32x4_t dot[pairs][4]) AXION_LAMBDA {
#pragma GCC unroll 2
            for (int p = 0; p < pairs; p++) {
                const float32x4_t x = scales_of(a, column + 2 * p);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    sum[p][i] = vfmaq_f32(sum[p][i], dot[p][i], vmulq_f32(vld1q_f32(scale[4 * half + i]), x));
                }
            }
        };
        float32x4_t dot[pairs][4];
        if constexpr (kind == Kind::two_scales) {
            float32x4_t high[pairs][4];
            dot_eights<0, 2, W, pairs>(u, a, half, column, dot);
#pragma GCC unroll 2
            for (int p = 0; p < pairs; p++) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    dot[p][i] = vmulq_f32(dot[p][i], vld1q_f32(u.scale[4 * half + i]));
                }
            }
            dot_eights<2, 4, W, pairs>(u, a, half, column, high);
#pragma GCC unroll 2
            for (int p = 0; p < pairs; p++) {
                const float32x4_t x = scales_of(a, column + 2 * p);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    dot[p][i] = vfmaq_f32(dot[p][i], high[p][i], vld1q_f32(u.extra[4 * half + i]));
                    sum[p][i] = vfmaq_f32(sum[p][i], dot[p][i], x);
                }
            }
        } else {
            dot_eights<0, 4, W, pairs>(u, a, half, column, dot);
            add_scaled(u.scale, dot);
        }
        if constexpr (kind == Kind::with_min) {
#pragma GCC unroll 2
            for (int p = 0; p < pairs; p++) {
                const float32x4_t s = sums_of(a, column + 2 * p);
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    sum[p][i] = vfmaq_f32(sum[p][i], vld1q_f32(u.extra[4 * half + i]), s);
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
        return ((float *) &v[row / 8][column / 2][row % 8 / 2])[pair_lane(row % 2, column % 2)];
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

// A single column does without a panel (mul_mat_column_neon.h).
template <class Format>
__attribute__((noinline)) void column_tile(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group,
                                           TileOutput out) {
    constexpr int64_t   per_step = Format::block / act_block;
    const ActBlock<1> * acts     = (const ActBlock<1> *) group;
    const size_t        tile     = tile_rows * row_bytes;
    const char *        ahead    = rows + tile * (1 + prefetch_bytes / tile);
    float32x4_t         acc[4]   = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        for (int64_t i = 0; i < tile_rows * Format::bytes; i += 64) {
            __builtin_prefetch(ahead + i, 0, 2);
        }
        ahead += tile_rows * Format::bytes;
        Format::add_column(rows, row_bytes, acts + b, acc);
    }
    float sums[tile_rows];
    for (int g = 0; g < 4; g++) {
        vst1q_f32(sums + 4 * g, acc[g]);
    }
    for (int r = 0; r < tile_rows; r++) {
        if (out.lanes >> r & 1) {
            out.dst[0][out.row + r] = sums[r];
        }
    }
}

template <class Format, int W>
void fused_tile(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group, TileOutput out) {
    if constexpr (W == 1) {
        column_tile<Format>(rows, row_bytes, num_blocks, group, out);
        return;
    }
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

template <class Format, int W> constexpr PanelTile panel_of = panel_tile<Format::kind, W>;

}  // namespace axion

#endif
