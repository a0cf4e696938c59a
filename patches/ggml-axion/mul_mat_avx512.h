// AVX-512 VNNI tiles: 16 weight rows in the lanes, one accumulator per column.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX512)

namespace axion {

// The arithmetic of columns [first, first + N) of W: one block of 16 rows.
template <Kind kind, int first, int N, int W>
AXION_INLINE void dot_columns(const Unpacked & u, const ActBlock<W> & a, __m512 acc[W]) {
    __m512i dot[N];
    __m512  low[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
        dot[n] = kind == Kind::with_min     ? _mm512_setzero_si512()
                 : kind == Kind::zero_point ? _mm512_set1_epi32(a.zero[first + n])
                                            : _mm512_set1_epi32(a.zero_low[first + n]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        if (kind == Kind::two_scales && k == 4) {
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) {
                low[n] = _mm512_mul_ps(_mm512_cvtepi32_ps(dot[n]), u.scale);
                dot[n] =
                    _mm512_sub_epi32(_mm512_set1_epi32(a.zero[first + n]), _mm512_set1_epi32(a.zero_low[first + n]));
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            int32_t x;
            memcpy(&x, a.q[first + n] + 4 * k, sizeof x);
            dot[n] = _mm512_dpbusd_epi32(dot[n], u.q[k], _mm512_set1_epi32(x));
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
        const __m512 value = _mm512_cvtepi32_ps(dot[n]), scale = _mm512_set1_ps(a.scale[first + n]);
        __m512 &     sum = acc[first + n];
        if (kind == Kind::two_scales) {
            sum = _mm512_fmadd_ps(_mm512_fmadd_ps(value, u.extra, low[n]), scale, sum);
        } else {
            sum = _mm512_fmadd_ps(value, _mm512_mul_ps(u.scale, scale), sum);
        }
        if (kind == Kind::with_min) {
            sum = _mm512_fmadd_ps(u.extra, _mm512_set1_ps(a.sum[first + n]), sum);
        }
    }
}

// The whole of it. With two scales eight columns at once would take 34 registers.
template <Kind kind, int W> AXION_INLINE void dot_block(const Unpacked & u, const ActBlock<W> & a, __m512 acc[W]) {
    constexpr int part = kind == Kind::two_scales && W > 4 ? (W + 1) / 2 : W;
    dot_columns<kind, 0, part, W>(u, a, acc);
    if constexpr (part < W) {
        dot_columns<kind, part, W - part, W>(u, a, acc);
    }
}

template <int W> AXION_INLINE void store_tile(const __m512 acc[W], const TileOutput & out) {
#pragma GCC                        unroll 8
    for (int n = 0; n < W; n++) {
        if (out.lanes == 0xffff) {
            _mm512_storeu_ps(out.dst[n] + out.row, acc[n]);
        } else {
            _mm512_mask_storeu_ps(out.dst[n] + out.row, out.lanes, acc[n]);
        }
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
    const char *      ahead    = prefetch_start(rows, row_bytes, out);
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        if constexpr (per_step == 1 || W == 1) {
            Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) {
                prefetch_ahead<tile_rows * Format::bytes / per_step>(ahead, u.q[0]);
                dot_block<Format::kind, W>(u, a[b + i], acc);
            });
        } else {
            // Eight copies of the arithmetic would not fit the instruction cache.
            alignas(64) PanelBlock panel[per_step];
            Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) { store_panel<Format::kind>(panel[i], u); });
            for (int i = 0; i < per_step; i++) {
                const Unpacked u = load_panel(panel[i]);
                prefetch_ahead<tile_rows * Format::bytes / per_step>(ahead, u.q[0]);
                dot_block<Format::kind, W>(u, a[b + i], acc);
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
        acc[n] = first                 ? _mm512_setzero_ps()
                 : out.lanes == 0xffff ? _mm512_loadu_ps(out.dst[n] + out.row)
                                       : _mm512_maskz_loadu_ps(out.lanes, out.dst[n] + out.row);
    }
    for (int64_t b = 0; b < num_blocks; b++) {
        dot_block<kind, W>(load_panel(panel[b]), a[b], acc);
    }
    store_tile<W>(acc, out);
}

template <class Format, int W> constexpr PanelTile panel_of = panel_tile<Format::kind, W>;

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
