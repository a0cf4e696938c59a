// Strips of floating-point weights in tiles of 8 rows by 8 columns, for machines with vectors of four or eight floats.
//
// A strip's 16 rows are two halves: strip[half][k][row]. Straight from the rows, four values of each of eight rows are
// transposed in registers. On NEON the 8x8 tile takes 16 accumulators and multiplies by lane; its k-step is inline
// assembly, because GCC 12 keeps only part of the tile in registers otherwise (24 FLOP/cycle instead of 31).
#pragma once

#include "mul_mat_float_tile.h"

#if (defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && !defined(__AVX512F__)) ||                           \
    (defined(__ARM_NEON) && defined(__aarch64__))
#define AXION_FLOAT_8X8

#include "vecmath.h"

#define AXION_FLOAT_INLINE inline __attribute__((always_inline))

namespace axion {

constexpr int half_rows = tile_rows / 2;

#if defined(__ARM_NEON)

// Eight rows of one k.
struct Rows8 {
    float32x4_t v[2];
};

using Quad = float32x4_t;

AXION_FLOAT_INLINE Rows8 zero_rows() {
    return { { vdupq_n_f32(0), vdupq_n_f32(0) } };
}

AXION_FLOAT_INLINE Rows8 load_rows(const float * p) {
    return { { vld1q_f32(p), vld1q_f32(p + 4) } };
}

AXION_FLOAT_INLINE void store_rows(float * p, Rows8 r) {
    vst1q_f32(p, r.v[0]);
    vst1q_f32(p + 4, r.v[1]);
}

AXION_FLOAT_INLINE Rows8 add_rows(Rows8 a, Rows8 b) {
    return { { vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1]) } };
}

AXION_FLOAT_INLINE Rows8 mac(Rows8 acc, Rows8 w, float x) {
    return { { vfmaq_n_f32(acc.v[0], w.v[0], x), vfmaq_n_f32(acc.v[1], w.v[1], x) } };
}

AXION_FLOAT_INLINE void transpose_quads(const Quad q[4], Quad t[4]) {
    const float32x4_t ab0 = vzip1q_f32(q[0], q[2]), ab2 = vzip2q_f32(q[0], q[2]);
    const float32x4_t cd0 = vzip1q_f32(q[1], q[3]), cd2 = vzip2q_f32(q[1], q[3]);
    t[0] = vzip1q_f32(ab0, cd0);
    t[1] = vzip2q_f32(ab0, cd0);
    t[2] = vzip1q_f32(ab2, cd2);
    t[3] = vzip2q_f32(ab2, cd2);
}

AXION_FLOAT_INLINE void transpose_rows(const Quad q[8], Rows8 w[4]) {
    Quad low[4], high[4];
    transpose_quads(q, low);
    transpose_quads(q + 4, high);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        w[i] = { { low[i], high[i] } };
    }
}

struct F32Quad {
    static constexpr int value_bytes = 4;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return vld1q_f32((const float *) p);
    }
};

struct F16Quad {
    static constexpr int value_bytes = 2;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *) p)));
    }
};

struct BF16Quad {
    static constexpr int value_bytes = 2;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *) p)), 16));
    }
};

// Eight rows by four columns, one k: an instruction for each accumulator.
AXION_FLOAT_INLINE void mac_by_lane(Rows8 acc[4], const Rows8 & w, float32x4_t x) {
    asm("fmla %0.4s, %8.4s, %10.s[0]\n\t"
        "fmla %1.4s, %9.4s, %10.s[0]\n\t"
        "fmla %2.4s, %8.4s, %10.s[1]\n\t"
        "fmla %3.4s, %9.4s, %10.s[1]\n\t"
        "fmla %4.4s, %8.4s, %10.s[2]\n\t"
        "fmla %5.4s, %9.4s, %10.s[2]\n\t"
        "fmla %6.4s, %8.4s, %10.s[3]\n\t"
        "fmla %7.4s, %9.4s, %10.s[3]"
        : "+w"(acc[0].v[0]), "+w"(acc[0].v[1]), "+w"(acc[1].v[0]), "+w"(acc[1].v[1]), "+w"(acc[2].v[0]),
          "+w"(acc[2].v[1]), "+w"(acc[3].v[0]), "+w"(acc[3].v[1])
        : "w"(w.v[0]), "w"(w.v[1]), "w"(x));
}

#else

using Rows8 = __m256;
using Quad  = __m128;

AXION_FLOAT_INLINE Rows8 zero_rows() {
    return _mm256_setzero_ps();
}

AXION_FLOAT_INLINE Rows8 load_rows(const float * p) {
    return _mm256_loadu_ps(p);
}

AXION_FLOAT_INLINE void store_rows(float * p, Rows8 r) {
    _mm256_storeu_ps(p, r);
}

AXION_FLOAT_INLINE Rows8 add_rows(Rows8 a, Rows8 b) {
    return _mm256_add_ps(a, b);
}

AXION_FLOAT_INLINE Rows8 mac(Rows8 acc, Rows8 w, float x) {
    return _mm256_fmadd_ps(w, _mm256_set1_ps(x), acc);
}

AXION_FLOAT_INLINE void transpose_rows(const Quad q[8], Rows8 w[4]) {
    __m256 r[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(q[i]), q[i + 4], 1);
    }
    const __m256 ab0 = _mm256_unpacklo_ps(r[0], r[1]), ab2 = _mm256_unpackhi_ps(r[0], r[1]);
    const __m256 cd0 = _mm256_unpacklo_ps(r[2], r[3]), cd2 = _mm256_unpackhi_ps(r[2], r[3]);
    w[0] = _mm256_shuffle_ps(ab0, cd0, 0x44);
    w[1] = _mm256_shuffle_ps(ab0, cd0, 0xee);
    w[2] = _mm256_shuffle_ps(ab2, cd2, 0x44);
    w[3] = _mm256_shuffle_ps(ab2, cd2, 0xee);
}

struct F32Quad {
    static constexpr int value_bytes = 4;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return _mm_loadu_ps((const float *) p);
    }
};

struct F16Quad {
    static constexpr int value_bytes = 2;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *) p));
    }
};

struct BF16Quad {
    static constexpr int value_bytes = 2;

    static AXION_FLOAT_INLINE Quad load(const char * p) {
        return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *) p)), 16));
    }
};

#endif

// Four values of eight rows, of which only the first n exist.
template <class F> AXION_FLOAT_INLINE void load_quads(const char * p, size_t stride, int64_t n, Rows8 w[4]) {
    Quad q[8];
    if (n >= 4) {
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++) {
            q[r] = F::load(p + r * stride);
        }
    } else {
        char tail[4 * sizeof(float)] = {};
        for (size_t r = 0; r < 8; r++) {
            memcpy(tail, p + r * stride, (size_t) n * F::value_bytes);
            q[r] = F::load(tail);
        }
    }
    transpose_rows(q, w);
}

AXION_FLOAT_INLINE void store_lanes(float * dst, Rows8 r, uint32_t lanes, bool first) {
    float v[half_rows];
    if ((lanes & 0xff) == 0xff) {
        store_rows(dst, first ? r : add_rows(load_rows(dst), r));
        return;
    }
    store_rows(v, r);
    for (int i = 0; i < half_rows; i++) {
        if (lanes >> i & 1) {
            dst[i] = first ? v[i] : dst[i] + v[i];
        }
    }
}

// H halves of a strip by W columns over a piece of K: the values of acc, from the rows.
template <class F, int H, int W>
AXION_FLOAT_INLINE void fused_halves(const char * rows, size_t row_bytes, int64_t num_values, const float * x,
                                     const TileOutput & out, int half) {
    rows += (size_t) (half * half_rows) * row_bytes;
    for (int64_t k = 0; k < num_values; k += piece_values) {
        Rows8 acc[H][W];
#pragma GCC unroll 2
        for (int h = 0; h < H; h++) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                acc[h][n] = zero_rows();
            }
        }
        const int64_t end = k + piece_values < num_values ? k + piece_values : num_values;
        for (int64_t i = k; i < end; i += 4, x += 4 * W) {
#pragma GCC unroll 2
            for (int h = 0; h < H; h++) {
                Rows8 w[4];
                load_quads<F>(rows + (size_t) (h * half_rows) * row_bytes + i * F::value_bytes, row_bytes, end - i, w);
#pragma GCC unroll 4
                for (int u = 0; u < 4; u++) {
#pragma GCC unroll 8
                    for (int n = 0; n < W; n++) {
                        acc[h][n] = mac(acc[h][n], w[u], x[u * W + n]);
                    }
                }
            }
        }
#pragma GCC unroll 2
        for (int h = 0; h < H; h++) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                store_lanes(out.dst[n] + out.row + (half + h) * half_rows, acc[h][n],
                            (uint32_t) out.lanes >> (half + h) * half_rows, k == 0);
            }
        }
    }
}

template <class F, int W>
void fused_strip(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * x, const TileOutput & out) {
    if constexpr (W <= 2) {
        fused_halves<F, 2, W>(rows, row_bytes, num_values, (const float *) x, out, 0);
    } else {
        fused_halves<F, 1, W>(rows, row_bytes, num_values, (const float *) x, out, 0);
        fused_halves<F, 1, W>(rows, row_bytes, num_values, (const float *) x, out, 1);
    }
}

template <class F> void pack_strip(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip) {
    const int64_t num_units = (n + 3) / 4 * 4;
    for (int half = 0; half < 2; half++) {
        float *      out = (float *) strip + half * num_units * half_rows;
        const char * p   = rows + (size_t) (half * half_rows) * row_bytes + k * F::value_bytes;
        for (int64_t i = 0; i < n; i += 4, p += 4 * F::value_bytes) {
            Rows8 w[4];
            load_quads<F>(p, row_bytes, n - i, w);
#pragma GCC unroll 4
            for (int u = 0; u < 4; u++, out += half_rows) {
                store_rows(out, w[u]);
            }
        }
    }
}

// Eight rows by W columns over one piece.
template <int W> AXION_OWN_FRAME void tile_8xw(const float * w, const float * x, int64_t num_units, Rows8 result[W]) {
    Rows8 acc[W];
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        acc[n] = zero_rows();
    }
    for (int64_t u = 0; u < num_units; u++, w += half_rows, x += W) {
        const Rows8 v = load_rows(w);
#if defined(__ARM_NEON)
        if constexpr (W == 8) {
            mac_by_lane(acc, v, vld1q_f32(x));
            mac_by_lane(acc + 4, v, vld1q_f32(x + 4));
            continue;
        }
#endif
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            acc[n] = mac(acc[n], v, x[n]);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        result[n] = acc[n];
    }
}

template <int W>
void panel_strips(const char * strips, int64_t num_strips, int64_t num_units, const uint32_t * x,
                  const TileOutput * out, bool first) {
    const float * w = (const float *) strips;
    for (int64_t half = 0; half < 2 * num_strips; half++, w += num_units * half_rows) {
        const TileOutput & to    = out[half / 2];
        const int          shift = (int) (half % 2) * half_rows;
        Rows8              acc[W];
        tile_8xw<W>(w, (const float *) x, num_units, acc);
        for (int n = 0; n < W; n++) {
            store_lanes(to.dst[n] + to.row + shift, acc[n], (uint32_t) to.lanes >> shift, first);
        }
    }
}

}  // namespace axion

#endif
