// Strips of BF16 weights by BFMMLA: two rows by two columns by four values an instruction, four times FP32's rate on
// Neoverse V2.
//
// A strip's 16 rows are two halves: strip[half][k / 4][row / 2][row % 2][k % 4]; columns are x[k / 4][W][4], rounded to
// BF16. An instruction does, for each element, sum = sum + (x0 * w0 + x1 * w1) twice, each addition rounded to odd,
// denormals as zero. Error bound: twice that of mul_mat_float_tile.h, for rounding to odd.
#pragma once

#include "mul_mat_float_8x8.h"

#if defined(AXION_FLOAT_8X8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define AXION_FLOAT_BFMMLA

namespace axion {

constexpr int quad      = 4;         // values
constexpr int mmla_step = 2 * quad;  // values: 16 bytes of a row

AXION_FLOAT_INLINE float32x4_t mmla(float32x4_t acc, uint64x2_t w, uint64x2_t x) {
    return vbfmmlaq_f32(acc, vreinterpretq_bf16_u64(w), vreinterpretq_bf16_u64(x));
}

// Columns 2 * pair and the next, of W; a last one without a neighbour twice.
template <int W> AXION_FLOAT_INLINE uint64x2_t load_pair(const uint64_t * x, int pair) {
    return 2 * pair + 1 < W ? vld1q_u64(x + 2 * pair) : vdupq_n_u64(x[2 * pair]);
}

// Values [k, k + 8) of two rows as two quads, of which the first n exist.
AXION_FLOAT_INLINE void load_row_pair(const char * p, size_t row_bytes, int64_t n, uint64x2_t w[2]) {
    uint64x2_t a, b;
    if (n >= mmla_step) {
        a = vreinterpretq_u64_u8(vld1q_u8((const uint8_t *) p));
        b = vreinterpretq_u64_u8(vld1q_u8((const uint8_t *) p + row_bytes));
    } else {
        uint64_t tail[2][2] = {};
        memcpy(tail[0], p, (size_t) n * 2);
        memcpy(tail[1], p + row_bytes, (size_t) n * 2);
        a = vld1q_u64(tail[0]);
        b = vld1q_u64(tail[1]);
    }
    w[0] = vzip1q_u64(a, b);
    w[1] = vzip2q_u64(a, b);
}

// Column n of eight rows.
template <int P> AXION_FLOAT_INLINE Rows8 column_of(const float32x4_t acc[][P], int n) {
    const int p = n / 2;
    return n % 2 == 0 ? Rows8{ { vuzp1q_f32(acc[0][p], acc[1][p]), vuzp1q_f32(acc[2][p], acc[3][p]) } }
                      : Rows8{ { vuzp2q_f32(acc[0][p], acc[1][p]), vuzp2q_f32(acc[2][p], acc[3][p]) } };
}

// H halves of a strip by W columns, straight from the rows.
template <int H, int W>
AXION_FLOAT_INLINE void fused_mmla_halves(const char * rows, size_t row_bytes, int64_t num_values, const uint64_t * x,
                                          const TileOutput & out, int half) {
    constexpr int P = (W + 1) / 2;
    rows += (size_t) (half * half_rows) * row_bytes;
    for (int64_t k = 0; k < num_values; k += piece_values) {
        float32x4_t acc[4 * H][P];
#pragma GCC unroll 8
        for (int r = 0; r < 4 * H; r++) {
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                acc[r][p] = vdupq_n_f32(0);
            }
        }
        const int64_t end = k + piece_values < num_values ? k + piece_values : num_values;
        for (int64_t i = k; i < end; i += mmla_step, x += 2 * W) {
#pragma GCC unroll 8
            for (int r = 0; r < 4 * H; r++) {
                uint64x2_t w[2];
                load_row_pair(rows + (size_t) (2 * r) * row_bytes + i * 2, row_bytes, end - i, w);
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    acc[r][p] = mmla(acc[r][p], w[0], load_pair<W>(x, p));
                    acc[r][p] = mmla(acc[r][p], w[1], load_pair<W>(x + W, p));
                }
            }
        }
#pragma GCC unroll 2
        for (int h = 0; h < H; h++) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                store_lanes(out.dst[n] + out.row + (half + h) * half_rows, column_of<P>(acc + 4 * h, n),
                            (uint32_t) out.lanes >> (half + h) * half_rows, k == 0);
            }
        }
    }
}

template <int W>
void fused_mmla(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * x, const TileOutput & out) {
    if constexpr (W <= 4) {
        fused_mmla_halves<2, W>(rows, row_bytes, num_values, (const uint64_t *) x, out, 0);
    } else {
        fused_mmla_halves<1, W>(rows, row_bytes, num_values, (const uint64_t *) x, out, 0);
        fused_mmla_halves<1, W>(rows, row_bytes, num_values, (const uint64_t *) x, out, 1);
    }
}

inline void pack_mmla_strip(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip) {
    uint64_t * out = (uint64_t *) strip;
    for (int half = 0; half < 2; half++) {
        const char * p = rows + (size_t) (half * half_rows) * row_bytes + k * 2;
        for (int64_t i = 0; i < n; i += mmla_step, p += 2 * mmla_step, out += 2 * half_rows) {
#pragma GCC unroll 4
            for (size_t r = 0; r < 4; r++) {
                uint64x2_t w[2];
                load_row_pair(p + 2 * r * row_bytes, row_bytes, n - i, w);
                vst1q_u64(out + 2 * r, w[0]);
                vst1q_u64(out + half_rows + 2 * r, w[1]);
            }
        }
    }
}

// Eight rows by W columns over one piece.
template <int W>
AXION_OWN_FRAME void mmla_tile_8xw(const uint64_t * w, const uint64_t * x, int64_t num_quads, Rows8 result[W]) {
    constexpr int P = (W + 1) / 2;
    float32x4_t   acc[4][P];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            acc[r][p] = vdupq_n_f32(0);
        }
    }
    for (int64_t q = 0; q < num_quads; q++, w += half_rows, x += W) {
        uint64x2_t v[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            v[r] = vld1q_u64(w + 2 * r);
        }
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            const uint64x2_t c = load_pair<W>(x, p);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                acc[r][p] = mmla(acc[r][p], v[r], c);
            }
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        result[n] = column_of<P>(acc, n);
    }
}

template <int W>
void mmla_panel(const char * strips, int64_t num_strips, int64_t num_units, const uint32_t * x, const TileOutput * out,
                bool first) {
    const int64_t    num_quads = num_units / 2;  // units are two values
    const uint64_t * w         = (const uint64_t *) strips;
    for (int64_t half = 0; half < 2 * num_strips; half++, w += num_quads * half_rows) {
        const TileOutput & to    = out[half / 2];
        const int          shift = (int) (half % 2) * half_rows;
        Rows8              acc[W];
        mmla_tile_8xw<W>(w, (const uint64_t *) x, num_quads, acc);
        for (int n = 0; n < W; n++) {
            store_lanes(to.dst[n] + to.row + shift, acc[n], (uint32_t) to.lanes >> shift, first);
        }
    }
}

inline void pack_mmla_columns(const float * const * columns, int width, int64_t k, int64_t n, uint32_t * group) {
    uint64_t *    out       = (uint64_t *) group;
    const int64_t num_quads = (n + mmla_step - 1) / mmla_step * 2;
    for (int64_t q = 0; q < num_quads; q++, out += width) {
        const int64_t left = n - q * quad;
        for (int j = 0; j < width; j++) {
            float v[quad] = {};
            if (left > 0) {
                memcpy(v, columns[j] + k + q * quad, (size_t) (left < quad ? left : quad) * sizeof(float));
            }
            vst1_u64(out + j, vreinterpret_u64_bf16(vcvt_bf16_f32(vld1q_f32(v))));
        }
    }
}

}  // namespace axion

#endif
