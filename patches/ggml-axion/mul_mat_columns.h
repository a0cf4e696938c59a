// How the activations of a product with many columns lie, and the tiles that read them: groups of eight columns for the
// vectors' tiles, of sixteen for AMX'. Internal to mul_mat_group.
#pragma once

#include "mul_mat_group.h"
#include "mul_mat_quantise.h"

#if defined(AXION_AMX)
#include "mul_mat_amx.h"
#endif

namespace axion {

struct NarrowColumns : Acts {
    static constexpr int64_t per_group = group_columns;

    struct Session {};  // what a thread needs while it multiplies

    NarrowColumns(char * at, int64_t columns, int64_t blocks) : Acts{ at, nullptr, columns, blocks } {
    }

    // Column j.
    void quantise(const float * x, int64_t j) const {
        const int64_t g = j / group_columns;
        quantise_column_of_width[width(g)](x, group(g), (int) (j % group_columns), num_blocks);
    }

    void unpack(const Matrix & m, const char * rows, int64_t b, int64_t n, PanelBlock * panel) const {
        m.format->unpack(rows, m.row_bytes, b, n, panel);
    }

    // A panel of the n blocks from b on, times group g.
    void multiply(const Matrix & m, const PanelBlock * panel, int64_t b, int64_t n, int64_t g, TileOutput out) const {
        m.format->panel[width(g)](panel, n, group(g) + b * width(g) * act_block_bytes, out, b == 0);
    }
};

#if defined(AXION_AMX)

struct WideColumns {
    static constexpr int64_t         per_group = wide_columns;
    static constexpr amx::TileConfig config    = WideTiles::config();

    struct Session : amx::TileSession<amx::MachineTiles> {
        Session() : TileSession(config) {
        }
    };

    WideBlock * data;
    int64_t     num_columns, num_blocks;

    WideColumns(char * at, int64_t columns, int64_t blocks)
        : data((WideBlock *) at), num_columns(columns), num_blocks(blocks) {
    }

    static bool takes(const Group & g) {
        return g.num_columns > group_columns && is_on(amx_kernel) && amx::is_permitted_here();
    }

    static size_t bytes(int64_t columns, int64_t blocks) {
        return (size_t) ((columns + wide_columns - 1) / wide_columns * blocks) * sizeof(WideBlock);
    }

    int64_t num_groups() const {
        return (num_columns + wide_columns - 1) / wide_columns;
    }

    int width(int64_t g) const {
        const int64_t left = num_columns - g * wide_columns;
        return (int) (left < wide_columns ? left : wide_columns);
    }

    void quantise(const float * x, int64_t j) const {
        WideBlock * group = data + j / wide_columns * num_blocks;
        for (int64_t b = 0; b < num_blocks; b++) {
            store(group[b], j % wide_columns, quantise_block(x + b * act_block));
            // A tile has sixteen columns, whether or not there are so many.
            for (int64_t n = j + 1; j + 1 == num_columns && n % wide_columns != 0; n++) {
                store(group[b], n % wide_columns, {});
            }
        }
    }

    void unpack(const Matrix & m, const char * rows, int64_t b, int64_t n, PanelBlock * panel) const {
        m.format->unpack_wide(rows, m.row_bytes, b, n, panel);
    }

    void multiply(const Matrix & m, const PanelBlock * panel, int64_t b, int64_t n, int64_t g, TileOutput out) const {
        m.format->wide(panel, n, data + g * num_blocks + b, width(g), out, b == 0);
    }

  private:
    static void store(WideBlock & block, int64_t n, const QuantisedBlock & q) {
        memcpy(block.q[n], q.q, sizeof q.q);
        block.scale[n] = q.scale;
        block.sum[n]   = q.scale * (float) q.sum;
    }
};

#endif

// Bytes that the activations take in whichever layout.
inline size_t columns_bytes(int64_t num_columns, int64_t num_blocks) {
    const size_t narrow = acts_bytes(num_columns, num_blocks);
#if defined(AXION_AMX)
    const size_t wide = WideColumns::bytes(num_columns, num_blocks);
    return narrow > wide ? narrow : wide;
#else
    return narrow;
#endif
}

}  // namespace axion
