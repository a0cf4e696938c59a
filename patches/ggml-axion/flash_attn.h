// Flash attention over a whole problem by several threads: the phases, and how the work is shared.
//
// 1. scan     the mask, row by row                                  (few cells: every thread does all of it)
// 2. blocks   each thread takes a tile and a KV head at a time, all its blocks in order and to the end; or, when these
//             are too few for the threads, a run of blocks, whose partials are left in memory
// 3. combine  in that second case: the partials of a row, in order of the blocks
// A row's arithmetic is the same either way, and for any number of threads.
#pragma once

#include "flash_attn_block.h"

namespace axion {
namespace fa {

constexpr size_t max_split_bytes = 64u << 20;
constexpr int    tile_rows       = 96;     // query rows times heads that share packed K and V
constexpr int    small_scan      = 32768;  // cells of mask that every thread may as well read itself

struct Plan {
    int    rows;         // over all streams
    int    tile_tokens;  // query rows of a tile, at most
    bool   is_split;
    bool   has_own_scan;
    size_t table_bytes, split_bytes, scratch_bytes;

    Plan(const Problem & p, int nth) {
        rows          = p.num_rows * p.num_streams;
        const int per = (int) ((int64_t) rows * p.num_kv_heads / (4 * nth));
        tile_tokens   = tile_rows / p.group();
        tile_tokens   = per < tile_tokens ? per : tile_tokens;
        tile_tokens   = tile_tokens < 1 ? 1 : tile_tokens > Tile::max_rows ? Tile::max_rows : tile_tokens;
        split_bytes   = (size_t) rows * p.num_heads * num_blocks(p.num_cells) * partial_size(p.dv) * sizeof(float);
        is_split      = ((int64_t) rows * p.num_kv_heads < 4 * nth || rows < 4) && split_bytes <= max_split_bytes;
        split_bytes   = is_split ? split_bytes + 64 : 0;
        has_own_scan  = is_split && (int64_t) rows * p.num_cells <= small_scan;
        table_bytes   = (RowTable::bytes(p) + 63) / 64 * 64;
        Scratch s;
        scratch_bytes = lay_out(s, p, tile_tokens * p.group(), nullptr);
    }

    size_t bytes(int nth) const {
        return 64 + table_bytes * (has_own_scan ? nth : 1) + split_bytes + scratch_bytes * nth;
    }
};

struct Run {
    const Problem & p;
    Plan            plan;
    int             ith, nth;
    RowTable        table;
    float *         split;  // [row][head][block] partials
    Scratch         s;
#if defined(AXION_AMX)
    bool uses_tiles = amx::is_permitted_here();
#endif

    Run(const Problem & problem, int ith_, int nth_, void * memory)
        : p(problem), plan(problem, nth_), ith(ith_), nth(nth_) {
        char * at = (char *) (((uintptr_t) memory + 63) & ~(uintptr_t) 63);
        char * t  = at + plan.table_bytes * (plan.has_own_scan ? ith : 0);
        table     = { (RowInfo *) t, (int32_t *) (t + ((size_t) plan.rows * sizeof(RowInfo) + 63) / 64 * 64) };
        at += plan.table_bytes * (plan.has_own_scan ? nth : 1);
        split = (float *) at;
        at += plan.split_bytes;
        lay_out(s, p, plan.tile_tokens * p.group(), at + plan.scratch_bytes * ith);
    }

    float * split_partial(int row, int head, int block) const {
        return split + (((size_t) row * p.num_heads + head) * num_blocks(p.num_cells) + block) * partial_size(p.dv);
    }

    void scan() {
        const int first = plan.has_own_scan ? 0 : (int) ((int64_t) plan.rows * ith / nth);
        const int last  = plan.has_own_scan ? plan.rows : (int) ((int64_t) plan.rows * (ith + 1) / nth);
        for (int row = first; row < last; row++) {
            scan_row(p, table, row);
        }
    }

    // Tile and KV head number `unit`, counted from the last tile, which has the most to do; false past the end.
    // Units have to be asked for in ascending order, so that the tiles are walked once.
    template <class Next> void whole_tiles(Next next) {
#if defined(AXION_AMX)
        const machine::Session session(uses_tiles);
#endif
        for (int unit = next(); walk_to(unit / p.num_kv_heads); unit = next()) {
            const int kv_head = unit % p.num_kv_heads, rows = walked.num_rows * p.group();
            prepare_queries(p, walked, kv_head, s);
            for (int i = 0; i < rows; i++) {
                clear_state(s.states + i * partial_size(p.dv), p.dv);
            }
            for (int block = 0; block < num_blocks(walked.count); block++) {
                block_partials(p, table, walked, kv_head, block, s);
                for (int i = 0; i < rows; i++) {
                    merge(s.states + i * partial_size(p.dv), s.partials + i * partial_size(p.dv), p.dv);
                }
            }
            for (int i = 0; i < rows; i++) {
                finish(p, s.states + i * partial_size(p.dv), walked.first + i / p.group(),
                       kv_head * p.group() + i % p.group());
            }
        }
    }

    // This thread's share of all (tile, block, KV head), in runs that keep to one place in memory.
    void split_blocks() {
#if defined(AXION_AMX)
        const machine::Session session(uses_tiles);
#endif
        int64_t total = 0, at = 0;
        for (int row = 0; row < plan.rows;) {
            const Tile tile = tile_from(p, table, row, plan.tile_tokens);
            total += (int64_t) num_blocks(tile.count) * p.num_kv_heads;
            row += tile.num_rows;
        }
        const int64_t begin = total * ith / nth, end = total * (ith + 1) / nth;
        for (int row = 0; row < plan.rows && at < end;) {
            const Tile tile = tile_from(p, table, row, plan.tile_tokens);
            for (int block = 0; block < num_blocks(tile.count); block++) {
                for (int kv_head = 0; kv_head < p.num_kv_heads; kv_head++, at++) {
                    if (at >= begin && at < end) {
                        split_block(tile, block, kv_head);
                    }
                }
            }
            row += tile.num_rows;
        }
    }

    void split_block(const Tile & tile, int block, int kv_head) {
        prepare_queries(p, tile, kv_head, s);
        block_partials(p, table, tile, kv_head, block, s);
        for (int i = 0; i < tile.num_rows * p.group(); i++) {
            float * to = split_partial(tile.first + i / p.group(), kv_head * p.group() + i % p.group(), block);
            memcpy(to, s.partials + i * partial_size(p.dv), partial_size(p.dv) * sizeof(float));
        }
    }

    void combine() {
        const int64_t n = (int64_t) plan.rows * p.num_heads;
        for (int64_t i = n * ith / nth; i < n * (ith + 1) / nth; i++) {
            const int row = (int) (i / p.num_heads), head = (int) (i % p.num_heads);
            clear_state(s.states, p.dv);
            for (int block = 0; block < num_blocks(table.info[row].count); block++) {
                merge(s.states, split_partial(row, head, block), p.dv);
            }
            finish(p, s.states, row, head);
        }
    }

  private:
    Tile walked{};
    int  num_walked = 0, next_row = 0;

    bool walk_to(int tile) {
        for (; num_walked <= tile && next_row < plan.rows; num_walked++) {
            walked = tile_from(p, table, next_row, plan.tile_tokens);
            next_row += walked.num_rows;
        }
        return num_walked > tile;
    }
};

}  // namespace fa
}  // namespace axion
