// AVX-512 VNNI tiles: 16 weight rows in the lanes, one accumulator per column.
#pragma once

#include "mul_mat_tile.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include <immintrin.h>

// A call would spill what the caller keeps in 32 registers.
#define AXION_INLINE inline __attribute__((always_inline))

namespace axion {

enum class Kind {
    zero_point,  // weights are scale * (q - 128)
    with_min,    // weights are scale * q + min
    two_scales,  // as zero_point, with a scale for each 16
};

// One block of 32 of 16 rows in registers; the layout of PanelBlock.
struct Unpacked {
    __m512i q[8];
    __m512  scale;
    __m512  extra;
};

// Sixteen bytes of each of 16 rows, transposed: t[i] has dword i of every row.
AXION_INLINE void load_transposed(const char * p, size_t stride, __m512i t[4]) {
    __m512i r[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const char * q = p + i * stride;
        __m512i      v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) q));
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 4 * stride)), 1);
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 8 * stride)), 2);
        r[i]           = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 12 * stride)), 3);
    }
    const __m512i ab0 = _mm512_unpacklo_epi32(r[0], r[1]), ab2 = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi32(r[2], r[3]), cd2 = _mm512_unpackhi_epi32(r[2], r[3]);
    t[0] = _mm512_unpacklo_epi64(ab0, cd0);
    t[1] = _mm512_unpackhi_epi64(ab0, cd0);
    t[2] = _mm512_unpacklo_epi64(ab2, cd2);
    t[3] = _mm512_unpackhi_epi64(ab2, cd2);
}

// Four bytes of each of 16 rows.
AXION_INLINE __m512i load_dwords(const char * p, size_t stride) {
    __m128i x[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const char * q = p + 4 * i * stride;
        int32_t      d[4];
#pragma GCC unroll 4
        for (size_t r = 0; r < 4; r++) {
            memcpy(&d[r], q + r * stride, 4);
        }
        x[i] = _mm_insert_epi32(_mm_insert_epi32(_mm_insert_epi32(_mm_cvtsi32_si128(d[0]), d[1], 1), d[2], 2), d[3], 3);
    }
    const __m256i low  = _mm256_inserti128_si256(_mm256_castsi128_si256(x[0]), x[1], 1);
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(x[2]), x[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

AXION_INLINE __m512 low_halves_to_float(__m512i v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

AXION_INLINE __m512 high_halves_to_float(__m512i v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v, 16)));
}

// The whole of the arithmetic: one block of 16 rows times W columns.
template <Kind kind, int W> AXION_INLINE void dot_block(const Unpacked & u, const ActBlock<W> & a, __m512 acc[W]) {
    __m512i dot[W];
    __m512  low[W];
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        dot[n] = kind == Kind::with_min     ? _mm512_setzero_si512()
                 : kind == Kind::zero_point ? _mm512_set1_epi32(a.zero[n])
                                            : _mm512_set1_epi32(a.zero_low[n]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        if (kind == Kind::two_scales && k == 4) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                low[n] = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[n]), u.scale);
                dot[n] = _mm512_sub_epi32(_mm512_set1_epi32(a.zero[n]), _mm512_set1_epi32(a.zero_low[n]));
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            int32_t x;
            memcpy(&x, a.q[n] + 4 * k, sizeof x);
            dot[n] = _mm512_dpbusd_epi32(dot[n], u.q[k], _mm512_set1_epi32(x));
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        const __m512 value = _mm512_cvtepi32_ps(dot[n]), scale = _mm512_set1_ps(a.scale[n]);
        if (kind == Kind::two_scales) {
            acc[n] = _mm512_fmadd_ps(_mm512_fmadd_ps(value, u.extra, low[n]), scale, acc[n]);
        } else {
            acc[n] = _mm512_fmadd_ps(value, _mm512_mul_ps(u.scale, scale), acc[n]);
        }
        if (kind == Kind::with_min) {
            acc[n] = _mm512_fmadd_ps(u.extra, _mm512_set1_ps(a.sum[n]), acc[n]);
        }
    }
}

template <int W> AXION_INLINE void store_tile(const __m512 acc[W], const TileOutput & out) {
#pragma GCC                        unroll 8
    for (int n = 0; n < W; n++) {
        _mm512_mask_storeu_ps(out.dst[n] + out.row, out.lanes, acc[n]);
    }
}

AXION_INLINE Unpacked load_panel(const PanelBlock & p) {
    Unpacked u;
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        u.q[k] = _mm512_load_si512(p.q[k]);
    }
    u.scale = _mm512_load_ps(p.scale);
    u.extra = _mm512_load_ps(p.extra);
    return u;
}

template <Kind kind> AXION_INLINE void store_panel(PanelBlock & p, const Unpacked & u) {
#pragma GCC                            unroll 8
    for (int k = 0; k < 8; k++) {
        _mm512_store_si512(p.q[k], u.q[k]);
    }
    _mm512_store_ps(p.scale, u.scale);
    if (kind != Kind::zero_point) {
        _mm512_store_ps(p.extra, u.extra);
    }
}

template <class Format, int W>
void fused_tile(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group, TileOutput out) {
    const ActBlock<W> * a = (const ActBlock<W> *) group;
    __m512              acc[W];
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        acc[n] = _mm512_setzero_ps();
    }
    constexpr int64_t per_step = Format::block / act_block;
    const size_t      tile     = tile_rows * row_bytes;
    const char *      ahead    = out.ahead != nullptr ? out.ahead : rows + tile * (1 + prefetch_bytes / tile);
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        // Sixteen short streams are too much for the hardware's prefetcher; the tiles to come are one stream.
        const auto prefetch = [&] {
#pragma GCC unroll 16
            for (int64_t i = 0; i < tile_rows * Format::bytes / per_step; i += 64) {
                _mm_prefetch(ahead + i, _MM_HINT_T1);
            }
            ahead += tile_rows * Format::bytes / per_step;
        };
        if constexpr (per_step == 1 || W == 1) {
            Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) {
                prefetch();
                dot_block<Format::kind, W>(u, a[b + i], acc);
            });
        } else {
            // Eight copies of the arithmetic would not fit the instruction cache.
            alignas(64) PanelBlock panel[per_step];
            Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) { store_panel<Format::kind>(panel[i], u); });
            for (int i = 0; i < per_step; i++) {
                prefetch();
                dot_block<Format::kind, W>(load_panel(panel[i]), a[b + i], acc);
            }
        }
    }
    store_tile<W>(acc, out);
}

template <Kind kind, int W>
void panel_tile(const PanelBlock * panel, int64_t num_blocks, const char * group, TileOutput out, bool first) {
    const ActBlock<W> * a = (const ActBlock<W> *) group;
    __m512              acc[W];
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        acc[n] = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(out.lanes, out.dst[n] + out.row);
    }
    for (int64_t b = 0; b < num_blocks; b++) {
        dot_block<kind, W>(load_panel(panel[b]), a[b], acc);
    }
    store_tile<W>(acc, out);
}

// Step i of `bytes` in each of 16 rows, to L2; short steps share their lines.
template <int64_t bytes> AXION_INLINE void prefetch_rows(const char * p, size_t stride, int64_t i) {
    constexpr int64_t steps_per_line = bytes < 64 ? 64 / bytes : 1;
    if (i % steps_per_line == 0) {
        for (int64_t r = 0; r < tile_rows; r++) {
            for (int64_t at = 0; at < bytes; at += 64) {
                _mm_prefetch(p + r * (int64_t) stride + at, _MM_HINT_T1);
            }
        }
    }
}

template <class Format>
void unpack_panel(const char * rows, size_t row_bytes, int64_t first_block, int64_t num_blocks, PanelBlock * panel) {
    constexpr int64_t per_step = Format::block / act_block;
    rows += first_block / per_step * Format::bytes;
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        // The same columns of the next tile; while this one is multiplied they arrive.
        prefetch_rows<Format::bytes>(rows + tile_rows * row_bytes, row_bytes, b / per_step);
        Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) { store_panel<Format::kind>(panel[b + i], u); });
    }
}

}  // namespace axion

#endif
