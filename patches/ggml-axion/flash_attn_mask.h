// Which cells a query row sees, and which rows can share packed K and V: all of it read from the mask's content.
//
// A row's visible cells, in order of the cell index, are numbered from 0: its ranks. Everything downstream counts in
// ranks, so cells of other sequences in between change nothing. Consecutive rows share a tile when each sees what the
// one before it saw, less some cells at the front (a sliding window), plus some at the end (the causal edge): each row
// is then an interval of the tile's joint list.
#pragma once

#include "flash_attn_problem.h"
#include "vecmath.h"

namespace axion {
namespace fa {

struct RowInfo {
    int  count;    // visible cells
    int  removed;  // cells the row before sees and this one does not
    bool joins;    // can follow the row before in a tile
    bool biased;   // the mask holds values other than 0 and -inf
};

// Bit c: cell c of 64 (of n) is visible.
inline uint64_t visible_word(const uint16_t * mask, int n, bool & biased) {
    uint64_t word = 0;
#if defined(__AVX512BW__)
    for (int i = 0; i < n; i += 32) {
        const __mmask32 in  = n - i >= 32 ? ~0u : (1u << (n - i)) - 1;
        const __m512i   x   = _mm512_maskz_loadu_epi16(in, mask + i);
        const __mmask32 see = _mm512_mask_cmpneq_epi16_mask(in, x, _mm512_set1_epi16((short) half_minus_infinity));
        word |= (uint64_t) see << i;
        biased |= _mm512_mask_test_epi16_mask(see, x, x) != 0;
    }
    return word;
#else
    int i = 0;
#if defined(__AVX2__)
    const __m256i hidden = _mm256_set1_epi16((short) half_minus_infinity);
    for (; i + 32 <= n; i += 32) {
        const __m256i x = _mm256_loadu_si256((const __m256i *) (mask + i));
        const __m256i y = _mm256_loadu_si256((const __m256i *) (mask + i + 16));
        const __m256i h = _mm256_cmpeq_epi16(x, hidden), k = _mm256_cmpeq_epi16(y, hidden);
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(h, k), 0xd8);
        word |= (uint64_t) (uint32_t) ~_mm256_movemask_epi8(bytes) << i;
        const __m256i other = _mm256_or_si256(_mm256_andnot_si256(h, x), _mm256_andnot_si256(k, y));
        biased |= !_mm256_testz_si256(other, other);
    }
#elif defined(__ARM_NEON)
    const uint16x8_t hidden  = vdupq_n_u16(half_minus_infinity);
    const uint8x16_t weights = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    uint16x8_t       other   = vdupq_n_u16(0);
    for (; i + 64 <= n; i += 64) {
        uint8x16_t part[4];
        AXION_UNROLL
        for (int j = 0; j < 4; j++) {
            const uint16x8_t x = vld1q_u16(mask + i + 16 * j), y = vld1q_u16(mask + i + 16 * j + 8);
            const uint16x8_t h = vceqq_u16(x, hidden), k = vceqq_u16(y, hidden);
            other   = vorrq_u16(other, vorrq_u16(vbicq_u16(x, h), vbicq_u16(y, k)));
            part[j] = vbicq_u8(weights, vuzp1q_u8(vreinterpretq_u8_u16(h), vreinterpretq_u8_u16(k)));
        }
        const uint8x16_t half = vpaddq_u8(vpaddq_u8(part[0], part[1]), vpaddq_u8(part[2], part[3]));
        word |= vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(half, half)), 0) << i;
    }
    biased |= vmaxvq_u16(other) != 0;
#endif
    for (; i < n; i++) {
        const bool see = mask[i] != half_minus_infinity;
        word |= (uint64_t) see << i;
        biased |= see && mask[i] != 0;
    }
    return word;
#endif
}

inline int first_bit(uint64_t w) {
    return __builtin_ctzll(w);
}

inline int last_bit(uint64_t w) {
    return 63 - __builtin_clzll(w);
}

inline int num_blocks(int count) {
    return (count + block_size - 1) / block_size;
}

// The cells of rank 0, 256, 512 ... of every row, and what the tiles are made from.
struct RowTable {
    RowInfo * info;    // [streams * rows]
    int32_t * starts;  // [streams * rows][num_blocks(num_cells)]

    static size_t bytes(const Problem & p) {
        return (size_t) p.num_streams * p.num_rows * (sizeof(RowInfo) + sizeof(int32_t) * num_blocks(p.num_cells)) +
               128;
    }

    const int32_t * starts_of(const Problem & p, int row) const {
        return starts + (size_t) row * num_blocks(p.num_cells);
    }
};

// Row `row`, counted over all streams, beside the row before it.
inline void scan_row(const Problem & p, const RowTable & table, int row) {
    RowInfo & info = table.info[row];
    if (p.mask.data == nullptr) {
        info = { p.num_cells, 0, row % p.num_rows != 0, false };
        return;
    }
    int32_t *        starts   = table.starts + (size_t) row * num_blocks(p.num_cells);
    const uint16_t * mask     = p.mask_row(row % p.num_rows, row / p.num_rows);
    const uint16_t * previous = row % p.num_rows != 0 ? p.mask_row(row % p.num_rows - 1, row / p.num_rows) : nullptr;
    bool             ignored  = false;
    int              first = -1, last_before = -1, last_removed = -1, first_added = p.num_cells;
    info = {};
    for (int c = 0; c < p.num_cells; c += 64) {
        const int      n    = p.num_cells - c < 64 ? p.num_cells - c : 64;
        const uint64_t here = visible_word(mask + c, n, info.biased);
        if (previous != nullptr) {
            const uint64_t before  = visible_word(previous + c, n, ignored);
            const uint64_t removed = before & ~here, added = here & ~before;
            info.removed += __builtin_popcountll(removed);
            last_before  = before != 0 ? c + last_bit(before) : last_before;
            last_removed = removed != 0 ? c + last_bit(removed) : last_removed;
            first_added  = added != 0 && first_added == p.num_cells ? c + first_bit(added) : first_added;
        }
        if (here == 0) {
            continue;
        }
        first           = first < 0 ? c + first_bit(here) : first;
        const int bits  = __builtin_popcountll(here);
        const int block = num_blocks(info.count);  // the next start that is still to be found
        if (block * block_size < info.count + bits) {
            uint64_t w = here;
            for (int skip = block * block_size - info.count; skip > 0; skip--) {
                w &= w - 1;
            }
            starts[block] = c + first_bit(w);
        }
        info.count += bits;
    }
    info.joins =
        previous != nullptr && last_before >= 0 && info.count > 0 && last_removed < first && first_added > last_before;
}

// The cells of ranks [rank, rank + n) of a row.
inline void list_cells(const Problem & p, const RowTable & table, int row, int rank, int n, int32_t * cells) {
    if (p.mask.data == nullptr) {
        for (int i = 0; i < n; i++) {
            cells[i] = rank + i;
        }
        return;
    }
    const uint16_t * mask = p.mask_row(row % p.num_rows, row / p.num_rows);
    int              cell = table.starts_of(p, row)[rank / block_size], skip = rank % block_size;
    bool             ignored = false;
    for (; n > 0; cell += 64) {
        const int left = p.num_cells - cell < 64 ? p.num_cells - cell : 64;
        uint64_t  word = visible_word(mask + cell, left, ignored);
        const int bits = __builtin_popcountll(word);
        if (skip >= bits) {
            skip -= bits;
            continue;
        }
        for (; skip > 0; skip--) {
            word &= word - 1;
        }
        if (word == ~0ull && n >= 64) {
            for (int i = 0; i < 64; i++) {
                cells[i] = cell + i;
            }
            cells += 64;
            n -= 64;
            continue;
        }
        for (; word != 0 && n > 0; word &= word - 1, n--) {
            *cells++ = cell + first_bit(word);
        }
    }
}

// Rows [first, first + num_rows) of the table, with where each begins in the joint list.
struct Tile {
    int                  first;
    int                  num_rows;
    int                  count;  // length of the joint list
    int                  shift[64];
    static constexpr int max_rows = 64;
};

inline Tile tile_from(const Problem & p, const RowTable & table, int first, int max_rows) {
    Tile      tile  = { first, 1, table.info[first].count, {} };
    const int total = p.num_streams * p.num_rows;
    while (tile.num_rows < max_rows && first + tile.num_rows < total) {
        const RowInfo & next  = table.info[first + tile.num_rows];
        const int       shift = tile.shift[tile.num_rows - 1] + next.removed;
        if (!next.joins || shift > max_shift) {
            break;
        }
        tile.shift[tile.num_rows++] = shift;
        tile.count                  = shift + next.count;
    }
    return tile;
}

// The cells of ranks [rank, rank + n) of the joint list: every row gives those past the end of the row before.
inline void list_joint_cells(const Problem & p, const RowTable & table, const Tile & tile, int rank, int n,
                             int32_t * cells) {
    int begin = 0;
    for (int t = 0; t < tile.num_rows; t++) {
        const int end  = tile.shift[t] + table.info[tile.first + t].count;
        const int from = begin > rank ? begin : rank, to = end < rank + n ? end : rank + n;
        if (from < to) {
            list_cells(p, table, tile.first + t, from - tile.shift[t], to - from, cells + (from - rank));
        }
        begin = end;
    }
}

}  // namespace fa
}  // namespace axion
