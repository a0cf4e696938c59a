// One expert's products, over quantised or floating-point weights: the same four steps under both. Internal to
// mul_mat_id.
#pragma once

#include "kernel.h"
#include "mul_mat_float_tile.h"
#include "mul_mat_quantise.h"

#include <algorithm>

namespace axion {

constexpr int64_t id_panel_blocks = 32;  // of a quantised panel: 20 KiB of L1

// What to do with the packed columns of one expert.
struct Expert {
    const char *    rows;
    size_t          row_bytes;
    char *          acts;
    float * const * dst;
    int64_t         num_columns;

    int64_t num_groups() const {
        return (num_columns + group_columns - 1) / group_columns;
    }

    int width(int64_t g) const {
        return (int) std::min(num_columns - g * group_columns, group_columns);
    }
};

struct QuantisedTiles {
    const TileFormat & format;
    int64_t            num_blocks;

    explicit QuantisedTiles(const ggml_tensor * w) : format(*tile_format(w->type)), num_blocks(w->ne[0] / act_block) {
    }

    int64_t column_bytes() const {
        return num_blocks * act_block_bytes;
    }

    char * group(const Expert & e, int64_t g) const {
        return e.acts + g * group_columns * column_bytes();
    }

    void pack(const Expert & e, int64_t g, const float * const * columns) const {
        for (int n = 0; n < e.width(g); n++) {
            quantise_column_of_width[e.width(g)](columns[n], group(e, g), n, num_blocks);
        }
    }

    void fused(const Expert & e, const char * rows, const TileOutput & out) const {
        format.fused[e.num_columns](rows, e.row_bytes, num_blocks, e.acts, out);
    }

    void panels(const Expert & e, Range groups, const char * rows, const TileOutput & out, char * panel) const {
        for (int64_t b = 0; b < num_blocks; b += id_panel_blocks) {
            const int64_t n = std::min(num_blocks - b, id_panel_blocks);
            format.unpack(rows, e.row_bytes, b, n, (PanelBlock *) panel);
            for (int64_t g = groups.begin; g < groups.end; g++) {
                const TileOutput to = { e.dst + g * group_columns, out.row, out.lanes };
                format.panel[e.width(g)]((const PanelBlock *) panel, n, group(e, g) + b * e.width(g) * act_block_bytes,
                                         to, b == 0);
            }
        }
    }
};

struct FloatTiles {
    const FloatFormat & format;
    int64_t             num_values, num_units, piece;

    explicit FloatTiles(const ggml_tensor * w)
        : format(*float_format(w->type)), num_values(w->ne[0]), num_units(format.num_units(num_values)),
          piece(format.piece_length(num_values)) {
    }

    int64_t column_bytes() const {
        return num_units * 4;
    }

    uint32_t * group(const Expert & e, int64_t g, int64_t k) const {
        const int64_t w = e.width(g);
        return (uint32_t *) (e.acts + g * group_columns * column_bytes()) + k / format.values_per_unit * w;
    }

    void pack(const Expert & e, int64_t g, const float * const * columns) const {
        format.pack_columns(columns, e.width(g), 0, num_values, group(e, g, 0));
    }

    void fused(const Expert & e, const char * rows, const TileOutput & out) const {
        format.fused[e.num_columns](rows, e.row_bytes, num_values, (const uint32_t *) e.acts, out);
    }

    void panels(const Expert & e, Range groups, const char * rows, const TileOutput & out, char * panel) const {
        for (int64_t k = 0; k < num_values; k += piece) {
            const int64_t n = std::min(num_values - k, piece);
            format.pack_rows(rows, e.row_bytes, k, n, panel);
            for (int64_t g = groups.begin; g < groups.end; g++) {
                const TileOutput to = { e.dst + g * group_columns, out.row, out.lanes };
                format.panel[e.width(g)](panel, 1, format.num_units(n), group(e, g, k), &to, k == 0);
            }
        }
    }
};

}  // namespace axion
