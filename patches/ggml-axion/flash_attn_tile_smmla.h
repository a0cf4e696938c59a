// Flash attention's tile for a q8_0 cache with Arm's int8 matrix products: two rows times two columns of eight values.
// Packed:
//   K        [span/16][dk/8][8][2 positions][8 values]
//   V        [dv/32][span/8][16][2 values][8 positions]
//   weights  [rows/2][scales][2][span/8][2 rows][8 positions] bytes: high and low digits, each a product of its own
#pragma once

#include "flash_attn_layout.h"

#if !defined(__ARM_FEATURE_MATMUL_INT8)
#error "needs i8mm"
#endif

namespace axion {
namespace fa {
namespace smmla {

constexpr int   k_bias       = 0;
constexpr float weight_max   = 65535.0f;
constexpr int   packed_bytes = 1;
constexpr int   max_pairs    = group_rows / 2;
static_assert(group_rows % 2 == 0, "rows go in pairs");

inline int8x16_t low_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

inline int8x16_t high_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

inline float32x4_t low_pairs(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip1q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

inline float32x4_t high_pairs(float32x4_t a, float32x4_t b) {
    return vreinterpretq_f32_f64(vzip2q_f64(vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b)));
}

inline int8x16_t load_bytes(const void * p) {
    return vld1q_s8((const int8_t *) p);
}

inline void pack_k_q8(const char * const * rows, int n, int dk, void * packed, float * scales) {
    unpack_scales(rows, n, dk / quant_size, scales);
    for (int p = 0; p < (n + 15) / 16 * 16; p += 2) {
        const char * a   = rows[p < n ? p : n - 1] + 2;
        const char * b   = rows[p + 1 < n ? p + 1 : n - 1] + 2;
        int8_t *     out = (int8_t *) packed + (size_t) (p / 16) * 16 * dk + p % 16 * 8;
        for (int d = 0; d < dk; d += quant_size, a += quant_bytes, b += quant_bytes, out += 4 * 128) {
            const int8x16_t a0 = load_bytes(a), a1 = load_bytes(a + 16), b0 = load_bytes(b), b1 = load_bytes(b + 16);
            vst1q_s8(out, low_halves(a0, b0));
            vst1q_s8(out + 128, high_halves(a0, b0));
            vst1q_s8(out + 256, low_halves(a1, b1));
            vst1q_s8(out + 384, high_halves(a1, b1));
        }
    }
}

// The rows of a group in pairs; an odd one stands beside itself.
struct PairedQueries {
    alignas(64) int8_t values[max_head / 8][max_pairs][16];
    float scales[max_head / quant_size][max_pairs][4];

    PairedQueries(const QueryQ8 & q, int n) {
        const int num_scales = q.dk / quant_size;
        for (int r = 0; r < n; r += 2) {
            const int s = r + 1 < n ? r + 1 : r;
            for (int k = 0; k < q.dk / 8; k++) {
                memcpy(values[k][r / 2], q.values + (size_t) r * q.dk + k * 8, 8);
                memcpy(values[k][r / 2] + 8, q.values + (size_t) s * q.dk + k * 8, 8);
            }
            for (int b = 0; b < num_scales; b++) {
                float * to = scales[b][r / 2];
                to[0] = to[1] = q.scales[r * num_scales + b];
                to[2] = to[3] = q.scales[s * num_scales + b];
            }
        }
    }
};

// R pairs of rows at eight positions, the half `half` of a group of 16.
template <int R>
AXION_OWN_FRAME void scores_q8_tile(const PairedQueries & q, int num_scales, const int8_t * k, const float * ks, int n,
                                    float * out) {
    // Sums start here, where an int's bits are those of the float: taking it off again is four times faster than
    // the conversion, and as exact.
    const int32x4_t   start  = vdupq_n_s32(0x4b400000);
    const float32x4_t offset = vdupq_n_f32(0x1.8p23f);
    float32x4_t       s[R][4];
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            s[r][c] = vdupq_n_f32(0);
        }
    }
    for (int b = 0; b < num_scales; b++) {
        int32x4_t a[R][4];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            AXION_UNROLL
            for (int c = 0; c < 4; c++) {
                a[r][c] = start;
            }
        }
        AXION_UNROLL
        for (int j = 0; j < 4; j++) {
            int8x16_t x[R];
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                x[r] = load_bytes(q.values[b * 4 + j][r]);
            }
            AXION_UNROLL
            for (int c = 0; c < 4; c++) {
                const int8x16_t y = load_bytes(k + j * 128 + c * 16);
                AXION_UNROLL
                for (int r = 0; r < R; r++) {
                    a[r][c] = vmmlaq_s32(a[r][c], x[r], y);
                }
            }
        }
        k += 4 * 128;
        AXION_UNROLL
        for (int c = 0; c < 4; c += 2) {
            const float32x4_t four = vld1q_f32(ks + b * span_size + c * 2);
            const float32x4_t low = low_pairs(four, four), high = high_pairs(four, four);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                const float32x4_t qs = vld1q_f32(q.scales[b][r]);
                const float32x4_t f0 = vsubq_f32(vreinterpretq_f32_s32(a[r][c]), offset);
                const float32x4_t f1 = vsubq_f32(vreinterpretq_f32_s32(a[r][c + 1]), offset);
                s[r][c]              = vfmaq_f32(s[r][c], vmulq_f32(f0, low), qs);
                s[r][c + 1]          = vfmaq_f32(s[r][c + 1], vmulq_f32(f1, high), qs);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 4; c += 2) {
            vst1q_f32(out + 2 * r * span_size + c * 2, low_pairs(s[r][c], s[r][c + 1]));
            if (2 * r + 1 < n) {
                vst1q_f32(out + (2 * r + 1) * span_size + c * 2, high_pairs(s[r][c], s[r][c + 1]));
            }
        }
    }
}

inline void scores_q8(const QueryQ8 & q, int n, const void * k, const float * ks, int begin, int end, float * out) {
    const PairedQueries pairs(q, n);
    const auto          tile = n > 4 ? scores_q8_tile<3> : n > 2 ? scores_q8_tile<2> : scores_q8_tile<1>;
    for (int p = begin * 16; p < end * 16; p += 8) {
        const int8_t * at = (const int8_t *) k + (size_t) (p / 16) * 16 * q.dk + p % 16 * 8;
        tile(pairs, q.dk / quant_size, at, ks + p, n, out + p);
    }
}

// Eight rows of 16 values: each pair of values, the rows in order.
inline void transpose_bytes(const int8x16_t r[8], int8_t * out) {
    AXION_UNROLL
    for (int half = 0; half < 2; half++) {
        const auto      zip = [&](int8x16_t a, int8x16_t b) { return half ? vzip2q_s8(a, b) : vzip1q_s8(a, b); };
        const int8x16_t a04 = zip(r[0], r[4]), a15 = zip(r[1], r[5]), a26 = zip(r[2], r[6]), a37 = zip(r[3], r[7]);
        const int8x16_t even0 = vzip1q_s8(a04, a26), even1 = vzip2q_s8(a04, a26);
        const int8x16_t odd0 = vzip1q_s8(a15, a37), odd1 = vzip2q_s8(a15, a37);
        vst1q_s8(out + half * 64, vzip1q_s8(even0, odd0));
        vst1q_s8(out + half * 64 + 16, vzip2q_s8(even0, odd0));
        vst1q_s8(out + half * 64 + 32, vzip1q_s8(even1, odd1));
        vst1q_s8(out + half * 64 + 48, vzip2q_s8(even1, odd1));
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, void * packed, float * scales) {
    unpack_scales(rows, n, dv / quant_size, scales);
    for (int p = 0; p < n; p += 8) {
        const char * at[8];
        for (int i = 0; i < 8; i++) {
            at[i] = rows[p + i < n ? p + i : n - 1] + 2;
        }
        for (int b = 0; b < dv / quant_size; b++) {
            int8_t *  out = (int8_t *) packed + ((size_t) b * (span_size / 8) + p / 8) * 256;
            int8x16_t r[8];
            AXION_UNROLL
            for (int h = 0; h < 2; h++) {
                AXION_UNROLL
                for (int i = 0; i < 8; i++) {
                    r[i] = load_bytes(at[i] + b * quant_bytes + h * 16);
                }
                transpose_bytes(r, out + h * 128);
            }
        }
    }
}

// Adding 2^23 rounds and leaves the integer in the low 16 bits.
inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    uint8_t * high =
        weights.data + (size_t) ((r / 2) * weights.num_scales + b) * 4 * span_size + begin * 32 + r % 2 * 8;
    uint8_t *         low   = high + 2 * span_size;
    const float32x4_t magic = vdupq_n_f32(0x1p23f);
    for (int p = begin * 16; p < end * 16; p += 16, high += 32, low += 32) {
        uint16x8_t t[4];
        AXION_UNROLL
        for (int i = 0; i < 4; i++) {
            t[i] = vreinterpretq_u16_f32(vfmaq_f32(magic, vld1q_f32(w + p + i * 4), vld1q_f32(scaled + p + i * 4)));
        }
        const uint8x16_t a = vreinterpretq_u8_u16(vuzp1q_u16(t[0], t[1]));
        const uint8x16_t c = vreinterpretq_u8_u16(vuzp1q_u16(t[2], t[3]));
        const uint8x16_t l = vuzp1q_u8(a, c), h = vuzp2q_u8(a, c);
        vst1_u8(low, vget_low_u8(l));
        vst1_u8(low + 16, vget_high_u8(l));
        vst1_u8(high, vget_low_u8(h));
        vst1_u8(high + 16, vget_high_u8(h));
    }
}

// R pairs of rows times eight values of scale b from `v` on, over the groups [begin, end) of eight positions.
template <int R>
AXION_OWN_FRAME void values_q8_tile(const uint8_t * weights, size_t pair_bytes, const int8_t * v, int begin, int end,
                                    int n, const float * units, float * const * out) {
    int32x4_t high[R][4], low[R][4];
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            high[r][c] = low[r][c] = vdupq_n_s32(0);
        }
    }
    for (int g = begin; g < end; g++) {
        int8x16_t y[4];
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            y[c] = load_bytes(v + g * 256 + c * 16);
        }
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            const uint8_t *  w = weights + r * pair_bytes + g * 16;
            const uint8x16_t h = vld1q_u8(w), l = vld1q_u8(w + 2 * span_size);
            AXION_UNROLL
            for (int c = 0; c < 4; c++) {
                high[r][c] = vusmmlaq_s32(high[r][c], h, y[c]);
                low[r][c]  = vusmmlaq_s32(low[r][c], l, y[c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 4; c += 2) {
            const float32x4_t a = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high[r][c], 8), low[r][c]));
            const float32x4_t d = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high[r][c + 1], 8), low[r][c + 1]));
            vst1q_f32(out[2 * r] + c * 2, vmulq_n_f32(low_pairs(a, d), units[2 * r]));
            if (2 * r + 1 < n) {
                vst1q_f32(out[2 * r + 1] + c * 2, vmulq_n_f32(high_pairs(a, d), units[2 * r + 1]));
            }
        }
    }
}

inline void values_q8(const Weights & weights, int n, const void * v, int dv, int begin, int end, const float * units,
                      float * const * out) {
    const auto   tile       = n > 4 ? values_q8_tile<3> : n > 2 ? values_q8_tile<2> : values_q8_tile<1>;
    const size_t pair_bytes = (size_t) weights.num_scales * 4 * span_size;
    for (int d = 0; d < dv; d += 8) {
        const int      b  = d / quant_size;
        const int8_t * at = (const int8_t *) v + (size_t) b * (span_size / 8) * 256 + d % quant_size * 8;
        float *        to[group_rows];
        for (int r = 0; r < n; r++) {
            to[r] = out[r] + d;
        }
        tile(weights.data + (size_t) b * 4 * span_size, pair_bytes, at, begin * 2, end * 2, n, units + b * most_rows,
             to);
    }
}

}  // namespace smmla
}  // namespace fa
}  // namespace axion
