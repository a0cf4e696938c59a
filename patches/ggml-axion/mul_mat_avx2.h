// AVX2 tiles: 16 weight rows in two vectors, two columns at a time; a column alone straight from the packed rows.
//
// Dots of unsigned weights with signed activations by pairs (VPMADDUBSW), summed in int16 as long as the weights' bits
// allow, or into int32 at once where the machine has AVX-VNNI. Eight-bit weights give their sign to the activations.
// Without AVX-VNNI only Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are taken (mul_mat_formats.cpp).
// The chain of floats, and so the bits, are those of mul_mat_reference.h.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX2)

namespace axion {

// Products of a byte of so many bits with one of [-127, 127] are summed in pairs, so many pairs in int16: 2 * 127 times
// 8 * 15, 4 * 31 or 1 * 128 is at most 32512.
template <int bits> constexpr int pairs_in_int16 = bits == 4 ? 8 : bits == 5 ? 4 : 1;

AXION_INLINE __m256i four_values(const int8_t * q) {
    int32_t x;
    memcpy(&x, q, sizeof x);
    return _mm256_set1_epi32(x);
}

AXION_INLINE __m256i add32(__m256i a, __m256i b) {
    return _mm256_add_epi32(a, b);
}

// Dots of a block, or of half of it, for V vectors of rows times C columns: dword k of vector v is weights[v][k].
template <int bits, int V, int C, int count, class Weights>
AXION_INLINE void dot_dwords(const Weights & weights, const int8_t * const q[C], __m256i dot[C][V]) {
#if defined(AXION_DPBUSD)
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) {
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            const __m256i x = four_values(q[c] + 4 * k);
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) {
                dot[c][v] = _mm256_dpbusd_epi32(dot[c][v], weights(v, k), x);
            }
        }
    }
#else
    constexpr int chain = pairs_in_int16<bits> < count ? pairs_in_int16<bits> : count;
    const __m256i ones  = _mm256_set1_epi16(1);
    __m256i       part[C][V];
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) {
        __m256i w[V], u[V];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            w[v] = weights(v, k);
            u[v] = bits == 8 ? _mm256_abs_epi8(w[v]) : w[v];
        }
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            const __m256i x = four_values(q[c] + 4 * k);
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) {
                const __m256i pairs = _mm256_maddubs_epi16(u[v], bits == 8 ? _mm256_sign_epi8(x, w[v]) : x);
                part[c][v]          = k % chain == 0 ? pairs : _mm256_add_epi16(part[c][v], pairs);
                if (k % chain == chain - 1) {
                    dot[c][v] = add32(dot[c][v], _mm256_madd_epi16(part[c][v], ones));
                }
            }
        }
    }
#endif
}

// What the weights' zero point takes off: -zero * sum, from -128 * sum.
template <int bits> AXION_INLINE __m256i start_of(int32_t zero) {
    if (has_vnni) {
        return _mm256_set1_epi32(zero);
    }
    return bits == 8 ? _mm256_setzero_si256() : _mm256_srai_epi32(_mm256_set1_epi32(zero), 8 - bits);
}

// The whole of the arithmetic: one block of V vectors of rows times columns n .. n + C - 1 of a group of W.
template <Kind kind, int bits, int V, int C, int W, class Weights, class Scale, class Extra>
AXION_INLINE void dot_block(const Weights & weights, const Scale & scale, const Extra & extra, const ActBlock<W> & a,
                            int n, __m256 acc[C][V]) {
    const int8_t * q[C];
    __m256i        dot[C][V];
#pragma GCC unroll 2
    for (int c = 0; c < C; c++) {
        q[c] = a.q[n + c];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            dot[c][v] = kind == Kind::with_min     ? _mm256_setzero_si256()
                        : kind == Kind::zero_point ? start_of<bits>(a.zero[n + c])
                                                   : start_of<bits>(a.zero_low[n + c]);
        }
    }
    if constexpr (kind == Kind::two_scales) {
        dot_dwords<bits, V, C, 4>(weights, q, dot);
        __m256 low[C][V];
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            q[c] += 16;
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) {
                low[c][v] = _mm256_cvtepi32_ps(dot[c][v]) * scale(v);
                dot[c][v] = start_of<bits>(a.zero[n + c] - a.zero_low[n + c]);
            }
        }
        dot_dwords<bits, V, C, 4>([&](int v, int k) { return weights(v, k + 4); }, q, dot);
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
#pragma GCC unroll 2
            for (int v = 0; v < V; v++) {
                const __m256 both = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c][v]), extra(v), low[c][v]);
                acc[c][v]         = _mm256_fmadd_ps(both, _mm256_set1_ps(a.scale[n + c]), acc[c][v]);
            }
        }
        return;
    }
    dot_dwords<bits, V, C, 8>(weights, q, dot);
#pragma GCC unroll 2
    for (int c = 0; c < C; c++) {
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) {
            const __m256 factor = scale(v) * _mm256_set1_ps(a.scale[n + c]);
            acc[c][v]           = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[c][v]), factor, acc[c][v]);
            if (kind == Kind::with_min) {
                acc[c][v] = _mm256_fmadd_ps(extra(v), _mm256_set1_ps(a.sum[n + c]), acc[c][v]);
            }
        }
    }
}

// Sixteen rows times W columns, summed up in memory: registers hold two columns of them.
template <int W> struct Sums {
    alignas(32) float value[W][tile_rows];

    void load(const TileOutput & out) {
        for (int n = 0; n < W; n++) {
            for (int r = 0; r < tile_rows; r++) {
                value[n][r] = out.lanes >> r & 1 ? out.dst[n][out.row + r] : 0.0f;
            }
        }
    }

    void store(const TileOutput & out) const {
        for (int n = 0; n < W; n++) {
            if (out.lanes == 0xffff) {
                memcpy(out.dst[n] + out.row, value[n], sizeof value[n]);
                continue;
            }
            for (int r = 0; r < tile_rows; r++) {
                if (out.lanes >> r & 1) {
                    out.dst[n][out.row + r] = value[n][r];
                }
            }
        }
    }

    template <Kind kind, int bits, int C>
    AXION_INLINE void add_columns(const PanelBlock * panel, int64_t num_blocks, const ActBlock<W> * a, int n) {
        __m256 acc[C][2];
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            acc[c][0] = _mm256_load_ps(value[n + c]);
            acc[c][1] = _mm256_load_ps(value[n + c] + 8);
        }
        for (int64_t b = 0; b < num_blocks; b++) {
            const PanelBlock & p     = panel[b];
            const auto         w     = [&](int v, int k) { return _mm256_load_si256((const __m256i *) p.q[k][8 * v]); };
            const auto         scale = [&](int v) { return _mm256_load_ps(p.scale + vector_rows * v); };
            const auto         extra = [&](int v) { return _mm256_load_ps(p.extra + vector_rows * v); };
            dot_block<kind, bits, 2, C, W>(w, scale, extra, a[b], n, acc);
        }
#pragma GCC unroll 2
        for (int c = 0; c < C; c++) {
            _mm256_store_ps(value[n + c], acc[c][0]);
            _mm256_store_ps(value[n + c] + 8, acc[c][1]);
        }
    }

    template <Kind kind, int bits>
    AXION_INLINE void add(const PanelBlock * panel, int64_t num_blocks, const ActBlock<W> * a) {
        for (int n = 0; n + 1 < W; n += 2) {
            add_columns<kind, bits, 2>(panel, num_blocks, a, n);
        }
        if constexpr (W % 2 == 1) {
            add_columns<kind, bits, 1>(panel, num_blocks, a, W - 1);
        }
    }
};

// Blocks [0, num_blocks) of 16 rows at `rows`.
template <class Format>
AXION_INLINE void unpack_blocks(const char * rows, size_t row_bytes, int64_t num_blocks, PanelBlock * panel) {
    constexpr int64_t per_step = Format::block / act_block;
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        for (int v = 0; v < 2; v++) {
            Format::unpack(rows + v * vector_rows * row_bytes, row_bytes, [&](int i, const Unpacked & u) {
                PanelBlock & p = panel[b + i];
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    _mm256_store_si256((__m256i *) p.q[k][vector_rows * v], u.q[k]);
                }
                _mm256_store_ps(p.scale + vector_rows * v, u.scale);
                if (Format::kind != Kind::zero_point) {
                    _mm256_store_ps(p.extra + vector_rows * v, u.extra);
                }
            });
        }
    }
}

// One column times eight rows, unpacked in registers.
template <class Format>
AXION_INLINE __m256 dot_column(const char * rows, size_t row_bytes, int64_t num_blocks, const ActBlock<1> * a,
                               const char *& ahead) {
    constexpr int64_t per_step  = Format::block / act_block;
    __m256            acc[1][1] = { { _mm256_setzero_ps() } };
    for (int64_t b = 0; b < num_blocks; b += per_step, rows += Format::bytes) {
        Format::unpack(rows, row_bytes, [&](int i, const Unpacked & u) {
            prefetch_ahead<vector_rows * Format::bytes / per_step>(ahead, u.q[0]);
            dot_block<Format::kind, Format::bits, 1, 1, 1>([&](int, int k) { return u.q[k]; },
                                                           [&](int) { return u.scale; }, [&](int) { return u.extra; },
                                                           a[b + i], 0, acc);
        });
    }
    return acc[0][0];
}

template <class Format, int W>
void fused_tile(const char * rows, size_t row_bytes, int64_t num_blocks, const char * group, TileOutput out) {
    const char * ahead = prefetch_start(rows, row_bytes, out);
    Sums<W>      sums;
    if constexpr (W == 1) {
        for (int v = 0; v < 2; v++) {
            const char * half = rows + v * vector_rows * row_bytes;
            _mm256_store_ps(sums.value[0] + vector_rows * v,
                            dot_column<Format>(half, row_bytes, num_blocks, (const ActBlock<1> *) group, ahead));
        }
    } else {
        constexpr int64_t      at_once = 8;  // 5 KiB
        alignas(64) PanelBlock panel[at_once];
        Bytes                  nothing{};
        memset(sums.value, 0, sizeof sums.value);
        for (int64_t b = 0; b < num_blocks; b += at_once) {
            const int64_t n = num_blocks - b < at_once ? num_blocks - b : at_once;
            for (int64_t i = 0; i < n; i++) {
                prefetch_ahead<tile_rows * Format::bytes * act_block / Format::block>(ahead, nothing);
            }
            unpack_blocks<Format>(rows + b * act_block / Format::block * Format::bytes, row_bytes, n, panel);
            sums.template add<Format::kind, Format::bits>(panel, n, (const ActBlock<W> *) group + b);
        }
    }
    sums.store(out);
}

template <Kind kind, int bits, int W>
void panel_tile(const PanelBlock * panel, int64_t num_blocks, const char * group, TileOutput out, bool first) {
    Sums<W> sums;
    if (first) {
        memset(sums.value, 0, sizeof sums.value);
    } else {
        sums.load(out);
    }
    sums.template add<kind, bits>(panel, num_blocks, (const ActBlock<W> *) group);
    sums.store(out);
}

template <class Format, int W> constexpr PanelTile panel_of = panel_tile<Format::kind, Format::bits, W>;

template <class Format>
void unpack_panel(const char * rows, size_t row_bytes, int64_t first_block, int64_t num_blocks, PanelBlock * panel) {
    constexpr int64_t per_step = Format::block / act_block;
    rows += first_block / per_step * Format::bytes;
    // The same columns of the next tile; while this one is multiplied they arrive.
    for (int64_t i = 0; i < num_blocks / per_step; i++) {
        prefetch_rows<Format::bytes>(rows + tile_rows * row_bytes + i * Format::bytes, row_bytes, i);
    }
    unpack_blocks<Format>(rows, row_bytes, num_blocks, panel);
}

}  // namespace axion

#endif
