// The weight formats for the NEON tiles: packed rows to signed bytes, two rows at a time.
#pragma once

#include "mul_mat_column_neon.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

#include "ggml-common.h"

namespace axion {

// A factor of two rows, spread over the sums of two rows times two columns.
AXION_INLINE void store_factors(float out[4], float32x2_t v) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    vst1q_f32(out, vcombine_f32(vdup_lane_f32(v, 0), vdup_lane_f32(v, 1)));
#else
    vst1q_f32(out, vcombine_f32(v, v));
#endif
}

// The FP16 scales of two rows.
AXION_INLINE void store_scales(NeonBlock & out, int pair, const char * p, size_t stride) {
    uint16x4_t h = vld1_dup_u16((const uint16_t *) p);
    h            = vld1_lane_u16((const uint16_t *) (p + stride), h, 1);
    store_factors(out.scale[pair], vget_low_f32(vcvt_f32_f16(vreinterpret_f16_u16(h))));
}

// The FP16 scales and mins of two rows.
AXION_INLINE void store_scales_and_mins(NeonBlock & out, int pair, const char * p, size_t stride) {
    uint32x2_t h        = vld1_dup_u32((const uint32_t *) p);
    h                   = vld1_lane_u32((const uint32_t *) (p + stride), h, 1);
    const float32x4_t f = vcvt_f32_f16(vreinterpret_f16_u32(h));
    store_factors(out.scale[pair], vget_low_f32(vuzp1q_f32(f, f)));
    store_factors(out.extra[pair], vget_low_f32(vuzp2q_f32(f, f)));
}

// Sixteen bytes of two rows: the first eight of both, the last eight of both.
struct Halves {
    uint8x16_t v[2];
};

AXION_INLINE Halves load_two_rows(const char * p, size_t stride) {
    const uint64x2_t a = vreinterpretq_u64_u8(load_bytes(p)), b = vreinterpretq_u64_u8(load_bytes(p + stride));
    return { { vreinterpretq_u8_u64(vzip1q_u64(a, b)), vreinterpretq_u8_u64(vzip2q_u64(a, b)) } };
}

AXION_INLINE void store_eights(NeonBlock & out, int k, int pair, uint8x16_t v) {
    vst1q_s8(out.q[k][pair][0], vreinterpretq_s8_u8(v));
}

// Byte j of a row gets `value` where bit j of its byte of `bits` is set: eight values of two rows.
AXION_INLINE uint8x16_t fifth_bits(const char * bits, size_t stride, uint8_t value) {
    const uint8x16_t mask = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
    const uint8x16_t byte = vcombine_u8(vdup_n_u8((uint8_t) *bits), vdup_n_u8((uint8_t) bits[stride]));
    return vandq_u8(vtstq_u8(byte, mask), vdupq_n_u8(value));
}

// Blocks of 32 with an FP16 scale, then an FP16 min (with_min), 32 fifth bits (has_fifth), 32 nibbles.
template <class Block, Kind the_kind, bool has_fifth, int the_zero> struct NibblesNeon {
    static constexpr int64_t block = act_block;
    static constexpr int64_t bytes = sizeof(Block);
    static constexpr Kind    kind  = the_kind;
    static constexpr int     zero  = has_fifth ? the_zero - 16 : the_zero;  // of what values() gives
    static constexpr int     fifth = kind == Kind::with_min ? 4 : 2;
    static constexpr int     first = fifth + (has_fifth ? 4 : 0);
    static_assert(bytes == first + 16, "packed");

    AXION_INLINE static void values(const char * p, uint8x16_t q[2]) {
        const uint8x16_t t = load_bytes(p + first);
        q[0]               = vandq_u8(t, vdupq_n_u8(15));
        q[1]               = vshrq_n_u8(t, 4);
        if (has_fifth) {
            // Upper bits set where the fifth bit is not: the value less 16.
            uint32_t bits;
            memcpy(&bits, p + fifth, sizeof bits);
            const uint8x16_t spread = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            const uint8x16_t mask   = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
            const uint8x16_t h      = vreinterpretq_u8_u32(vdupq_n_u32(~bits));
            q[0]                    = vsliq_n_u8(q[0], vtstq_u8(vqtbl1q_u8(h, spread), mask), 4);
            q[1] = vsliq_n_u8(q[1], vtstq_u8(vqtbl1q_u8(h, vaddq_u8(spread, vdupq_n_u8(2))), mask), 4);
        }
    }

    AXION_INLINE static void add_column(const char * p, size_t stride, const ActBlock<1> * a, float32x4_t acc[4]) {
        add_column_of_32<NibblesNeon>(p, stride, *a, acc);
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t low = vdupq_n_u8(15), offset = vdupq_n_u8(the_zero);
#pragma GCC unroll 8
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            const Halves t    = load_two_rows(p + first, stride);
            uint8x16_t   q[4] = { vandq_u8(t.v[0], low), vandq_u8(t.v[1], low), vshrq_n_u8(t.v[0], 4),
                                  vshrq_n_u8(t.v[1], 4) };
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                if (has_fifth) {
                    q[k] = vorrq_u8(q[k], fifth_bits(p + fifth + k, stride, 16));
                }
                store_eights(*out, k, i, the_zero ? vsubq_u8(q[k], offset) : q[k]);
            }
            if (kind == Kind::with_min) {
                store_scales_and_mins(*out, i, p, stride);
            } else {
                store_scales(*out, i, p, stride);
            }
        }
    }
};

using Q4_0Weights = NibblesNeon<block_q4_0, Kind::plain, false, 8>;
using Q4_1Weights = NibblesNeon<block_q4_1, Kind::with_min, false, 0>;
using Q5_0Weights = NibblesNeon<block_q5_0, Kind::plain, true, 16>;
using Q5_1Weights = NibblesNeon<block_q5_1, Kind::with_min, true, 0>;

AXION_INLINE uint8x16_t iq4_nl_table() {
    static const int8_t values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    return vreinterpretq_u8_s8(vld1q_s8(values));
}

struct Iq4NlWeights {
    static constexpr int64_t block = QK4_NL;
    static constexpr int64_t bytes = sizeof(block_iq4_nl);
    static constexpr Kind    kind  = Kind::plain;
    static constexpr int     zero  = 0;
    static_assert(bytes == 18, "d, 32 nibbles");

    AXION_INLINE static void values(const char * p, uint8x16_t q[2]) {
        const uint8x16_t t = load_bytes(p + 2), table = iq4_nl_table();
        q[0] = vqtbl1q_u8(table, vandq_u8(t, vdupq_n_u8(15)));
        q[1] = vqtbl1q_u8(table, vshrq_n_u8(t, 4));
    }

    AXION_INLINE static void add_column(const char * p, size_t stride, const ActBlock<1> * a, float32x4_t acc[4]) {
        add_column_of_32<Iq4NlWeights>(p, stride, *a, acc);
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t table = iq4_nl_table(), low = vdupq_n_u8(15);
#pragma GCC unroll 8
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            const Halves t = load_two_rows(p + 2, stride);
#pragma GCC unroll 2
            for (int k = 0; k < 2; k++) {
                store_eights(*out, k, i, vqtbl1q_u8(table, vandq_u8(t.v[k], low)));
                store_eights(*out, k + 2, i, vqtbl1q_u8(table, vshrq_n_u8(t.v[k], 4)));
            }
            store_scales(*out, i, p, stride);
        }
    }
};

struct Q8_0Weights {
    static constexpr int64_t block = QK8_0;
    static constexpr int64_t bytes = sizeof(block_q8_0);
    static constexpr Kind    kind  = Kind::plain;
    static constexpr int     zero  = 0;
    static_assert(bytes == 34, "d, 32 bytes");

    AXION_INLINE static void values(const char * p, uint8x16_t q[2]) {
        q[0] = load_bytes(p + 2);
        q[1] = load_bytes(p + 18);
    }

    AXION_INLINE static void add_column(const char * p, size_t stride, const ActBlock<1> * a, float32x4_t acc[4]) {
        add_column_of_32<Q8_0Weights>(p, stride, *a, acc);
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
#pragma GCC unroll 8
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            const Halves a = load_two_rows(p + 2, stride), b = load_two_rows(p + 18, stride);
            store_eights(*out, 0, i, a.v[0]);
            store_eights(*out, 1, i, a.v[1]);
            store_eights(*out, 2, i, b.v[0]);
            store_eights(*out, 3, i, b.v[1]);
            store_scales(*out, i, p, stride);
        }
    }
};

}  // namespace axion

#endif
