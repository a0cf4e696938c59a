// Flash attention's tile for a q8_0 cache with Arm's int8 dots: four lanes of four values, times one lane. Packed:
//   K        [span/16][dk/4][16 positions][4 values]
//   V        [dv/32][span/16][4][4][8 values][4 positions]: eight values, then which four of the 16 positions
//   weights  [rows][scales][2][span] bytes: high and low digits of seven bits, each a product of its own
#pragma once

#include "flash_attn_layout.h"

#if !defined(__ARM_FEATURE_DOTPROD)
#error "needs dotprod"
#endif

namespace axion {
namespace fa {
namespace sdot {

constexpr int   k_bias       = 0;
constexpr float weight_max   = 16383.0f;
constexpr int   packed_bytes = 1;

inline int8x16_t load_bytes(const void * p) {
    return vld1q_s8((const int8_t *) p);
}

// Four rows of 16 bytes, columns of four: out[i] has column i of every row.
inline void transpose_columns(const int8x16_t r[4], int8_t * out, size_t stride) {
    const auto word = [](int8x16_t x) { return vreinterpretq_s32_s8(x); };
    const auto byte = [](int32x4_t x) { return vreinterpretq_s8_s32(x); };
    const auto ac0 = vzip1q_s32(word(r[0]), word(r[2])), ac2 = vzip2q_s32(word(r[0]), word(r[2]));
    const auto bd0 = vzip1q_s32(word(r[1]), word(r[3])), bd2 = vzip2q_s32(word(r[1]), word(r[3]));
    vst1q_s8(out, byte(vzip1q_s32(ac0, bd0)));
    vst1q_s8(out + stride, byte(vzip2q_s32(ac0, bd0)));
    vst1q_s8(out + 2 * stride, byte(vzip1q_s32(ac2, bd2)));
    vst1q_s8(out + 3 * stride, byte(vzip2q_s32(ac2, bd2)));
}

inline void pack_k_q8(const char * const * rows, int n, int dk, void * packed, float * scales) {
    unpack_scales(rows, n, dk / quant_size, scales);
    for (int p = 0; p < (n + 15) / 16 * 16; p += 4) {
        int8_t * out = (int8_t *) packed + (size_t) (p / 16) * 16 * dk + p % 16 * 4;
        for (int d = 0; d < dk; d += 16) {
            int8x16_t r[4];
            AXION_UNROLL
            for (int i = 0; i < 4; i++) {
                r[i] = load_bytes(rows[p + i < n ? p + i : n - 1] + d / quant_size * quant_bytes + 2 + d % quant_size);
            }
            transpose_columns(r, out + d / 4 * 64, 64);
        }
    }
}

// Sums of R rows at 16 positions over the four values in lane J of x.
template <int J, int R> inline void dot_lane(int32x4_t a[R][4], const int8x16_t x[R], const int8_t * k) {
    AXION_UNROLL
    for (int c = 0; c < 4; c++) {
        const int8x16_t y = load_bytes(k + J * 64 + c * 16);
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            a[r][c] = vdotq_laneq_s32(a[r][c], y, x[r], J);
        }
    }
}

template <int R>
AXION_OWN_FRAME void scores_q8_tile(const int8_t * q, const float * qs, int dk, const int8_t * k, const float * ks,
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
    for (int b = 0; b < dk / quant_size; b++, k += 8 * 64) {
        int32x4_t a[R][4];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            AXION_UNROLL
            for (int c = 0; c < 4; c++) {
                a[r][c] = start;
            }
        }
        AXION_UNROLL
        for (int half = 0; half < 2; half++) {
            int8x16_t x[R];
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                x[r] = load_bytes(q + (size_t) r * dk + b * quant_size + half * 16);
            }
            dot_lane<0, R>(a, x, k + half * 256);
            dot_lane<1, R>(a, x, k + half * 256);
            dot_lane<2, R>(a, x, k + half * 256);
            dot_lane<3, R>(a, x, k + half * 256);
        }
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            const float32x4_t scale = vld1q_f32(ks + b * span_size + c * 4);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                const float32x4_t f = vmulq_f32(vsubq_f32(vreinterpretq_f32_s32(a[r][c]), offset), scale);
                s[r][c]             = vfmaq_n_f32(s[r][c], f, qs[r * (dk / quant_size) + b]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            vst1q_f32(out + r * span_size + c * 4, s[r][c]);
        }
    }
}

inline void scores_q8(const QueryQ8 & q, int n, const void * k, const float * ks, int begin, int end, float * out) {
    const int num_scales = q.dk / quant_size;
    for (int r = 0, rows; r < n; r += rows) {
        rows            = n - r == 3 || n - r > 4 ? 3 : n - r >= 2 ? 2 : 1;
        const auto tile = rows == 3 ? scores_q8_tile<3> : rows == 2 ? scores_q8_tile<2> : scores_q8_tile<1>;
        for (int g = begin; g < end; g++) {
            tile(q.values + (size_t) r * q.dk, q.scales + r * num_scales, q.dk,
                 (const int8_t *) k + (size_t) g * 16 * q.dk, ks + g * 16, out + r * span_size + g * 16);
        }
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, void * packed, float * scales) {
    unpack_scales(rows, n, dv / quant_size, scales);
    for (int p = 0; p < n; p += 4) {
        for (int d = 0; d < dv; d += 16) {
            int8_t *  out = (int8_t *) packed + ((size_t) (d / quant_size) * (span_size / 16) + p / 16) * 512 +
                            d % quant_size / 8 * 128 + p % 16 * 8;
            int8x16_t r[4];
            AXION_UNROLL
            for (int i = 0; i < 4; i++) {
                r[i] = load_bytes(rows[p + i < n ? p + i : n - 1] + d / quant_size * quant_bytes + 2 + d % quant_size);
            }
            const int8x16_t ac0 = vzip1q_s8(r[0], r[2]), ac8 = vzip2q_s8(r[0], r[2]);
            const int8x16_t bd0 = vzip1q_s8(r[1], r[3]), bd8 = vzip2q_s8(r[1], r[3]);
            vst1q_s8(out, vzip1q_s8(ac0, bd0));
            vst1q_s8(out + 16, vzip2q_s8(ac0, bd0));
            vst1q_s8(out + 128, vzip1q_s8(ac8, bd8));
            vst1q_s8(out + 144, vzip2q_s8(ac8, bd8));
        }
    }
}

// Adding 2^23 rounds and leaves the integer in the low 16 bits, of which 14 are used.
inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    uint8_t *         high  = weights.data + (size_t) (r * weights.num_scales + b) * 2 * span_size;
    uint8_t *         low   = high + span_size;
    const float32x4_t magic = vdupq_n_f32(0x1p23f);
    for (int p = begin * 16; p < end * 16; p += 16) {
        uint16x8_t t[4];
        AXION_UNROLL
        for (int i = 0; i < 4; i++) {
            t[i] = vreinterpretq_u16_f32(vfmaq_f32(magic, vld1q_f32(w + p + i * 4), vld1q_f32(scaled + p + i * 4)));
        }
        const uint16x8_t a = vuzp1q_u16(t[0], t[1]), c = vuzp1q_u16(t[2], t[3]);
        const uint8x16_t l = vuzp1q_u8(vreinterpretq_u8_u16(a), vreinterpretq_u8_u16(c));
        vst1q_u8(low + p, vandq_u8(l, vdupq_n_u8(0x7f)));
        vst1q_u8(high + p, vshrn_high_n_u16(vshrn_n_u16(a, 7), c, 7));
    }
}

// Over the four positions in lane J, for eight values.
template <int J, int R>
inline void add_lane(int32x4_t high[R][2], int32x4_t low[R][2], const int8x16_t h[R], const int8x16_t l[R],
                     const int8_t * v) {
    AXION_UNROLL
    for (int c = 0; c < 2; c++) {
        const int8x16_t y = load_bytes(v + J * 32 + c * 16);
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            high[r][c] = vdotq_laneq_s32(high[r][c], y, h[r], J);
            low[r][c]  = vdotq_laneq_s32(low[r][c], y, l[r], J);
        }
    }
}

// R rows times eight values of a scale from `v` on, over the 16-groups [begin, end).
template <int R>
AXION_OWN_FRAME void values_q8_tile(const uint8_t * weights, size_t row_bytes, const int8_t * v, int begin, int end,
                                    const float * units, float * const * out) {
    int32x4_t high[R][2], low[R][2];
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        high[r][0] = high[r][1] = low[r][0] = low[r][1] = vdupq_n_s32(0);
    }
    for (int g = begin; g < end; g++) {
        int8x16_t h[R], l[R];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            h[r] = load_bytes(weights + r * row_bytes + g * 16);
            l[r] = load_bytes(weights + r * row_bytes + span_size + g * 16);
        }
        add_lane<0, R>(high, low, h, l, v + g * 512);
        add_lane<1, R>(high, low, h, l, v + g * 512);
        add_lane<2, R>(high, low, h, l, v + g * 512);
        add_lane<3, R>(high, low, h, l, v + g * 512);
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < 2; c++) {
            const float32x4_t sum = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(high[r][c], 7), low[r][c]));
            vst1q_f32(out[r] + c * 4, vmulq_n_f32(sum, units[r]));
        }
    }
}

inline void values_q8(const Weights & weights, int n, const void * v, int dv, int begin, int end, const float * units,
                      float * const * out) {
    const size_t row_bytes = (size_t) weights.num_scales * 2 * span_size;
    for (int r = 0, rows; r < n; r += rows) {
        rows            = n - r == 3 || n - r > 4 ? 3 : n - r >= 2 ? 2 : 1;
        const auto tile = rows == 3 ? values_q8_tile<3> : rows == 2 ? values_q8_tile<2> : values_q8_tile<1>;
        for (int d = 0; d < dv; d += 8) {
            const int      b  = d / quant_size;
            const int8_t * at = (const int8_t *) v + (size_t) b * (span_size / 16) * 512 + d % quant_size / 8 * 128;
            float *        to[3];
            for (int i = 0; i < rows; i++) {
                to[i] = out[r + i] + d;
            }
            tile(weights.data + r * row_bytes + (size_t) b * 2 * span_size, row_bytes, at, begin, end,
                 units + b * most_rows + r, to);
        }
    }
}

}  // namespace sdot
}  // namespace fa
}  // namespace axion
