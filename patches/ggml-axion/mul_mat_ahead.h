// What a thread will read next: its weights of one group as a stream of bytes, then those of the group after it.
//
// With one row of activations a product is as fast as memory. The tile at work fetches a piece some tiles ahead, which
// must be a piece that this thread will read: not its neighbour's, and at the end the beginning of the next product,
// which then arrives while threads wait for each other, normalise and attend.
#pragma once

#include "mul_mat_group.h"

namespace axion {

inline int64_t num_tiles(const Part & p) {
    return (p.num_rows + tile_rows - 1) / tile_rows;
}

// The tiles of every part that are thread ith's: all parts' tiles counted through, each matrix' tile as one.
struct TileShare {
    Range tiles[max_parts];
    bool  is_empty = true;

    TileShare(const Group & g, int ith, int nth) {
        int64_t total = 0;
        for (int k = 0; k < g.num_parts; k++) {
            total += num_tiles(g.parts[k]) * g.parts[k].num_matrices;
        }
        const Range mine   = split(total, 1, ith, nth);
        int64_t     before = 0;
        for (int k = 0; k < g.num_parts; k++) {
            const int64_t units = g.parts[k].num_matrices, n = num_tiles(g.parts[k]);
            const auto    tile = [&](int64_t at) {
                at = (at - before + units - 1) / units;
                return at < 0 ? 0 : at > n ? n : at;
            };
            tiles[k] = { tile(mine.begin), tile(mine.end) };
            is_empty = is_empty && tiles[k].begin == tiles[k].end;
            before += n * units;
        }
    }
};

class WeightStream {
  public:
    WeightStream(const Group & g, int ith, int nth) {
        add(g, ith, nth);
        if (g.next != nullptr) {
            add(*g.next, ith, nth);
        }
    }

    // The next piece of so many bytes; null at the end.
    const char * take(size_t bytes) {
        while (at_ < num_) {
            Piece &      p    = pieces_[at_];
            const char * here = p.begin[p.turn];
            if (here < p.end[p.turn]) {
                p.begin[p.turn] += bytes;
                p.turn = (p.turn + 1) % p.num_matrices;
                return here;
            }
            at_++;
        }
        return nullptr;
    }

  private:
    // A part's rows; of two matrices in turn, as their tiles are computed.
    struct Piece {
        const char * begin[2];
        const char * end[2];
        int          num_matrices, turn;
    };

    void add(const Group & g, int ith, int nth) {
        const TileShare share(g, ith, nth);
        for (int k = 0; k < g.num_parts; k++) {
            const Part & part = g.parts[k];
            Piece &      p    = pieces_[num_++];
            p.num_matrices    = part.num_matrices;
            p.turn            = 0;
            for (int m = 0; m < part.num_matrices; m++) {
                const size_t tile = tile_rows * part.matrix[m].row_bytes;
                p.begin[m]        = part.matrix[m].rows + share.tiles[k].begin * tile;
                p.end[m]          = part.matrix[m].rows + share.tiles[k].end * tile;
            }
        }
    }

    Piece pieces_[2 * max_parts];
    int   num_ = 0, at_ = 0;
};

}  // namespace axion
