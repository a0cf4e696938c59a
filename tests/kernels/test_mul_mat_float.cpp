// Floating-point matrix products: tiles against the plain twin bit by bit, against FP64 within the stated bound.

#include "check.h"
#include "mul_mat_float_reference.h"

#include <cstdlib>
#include <memory>
#include <vector>

using namespace axion;

namespace {

struct Free {
    void operator()(void * p) const {
        free(p);
    }
};

using Buffer = std::unique_ptr<char, Free>;

Buffer aligned_buffer(size_t bytes) {
    return Buffer((char *) aligned_alloc(64, (bytes + 63) / 64 * 64));
}

size_t bytes_of(ggml_type type) {
    return type == GGML_TYPE_F32 ? 4 : 2;
}

const char * name_of(ggml_type type) {
    return type == GGML_TYPE_F32 ? "f32" : type == GGML_TYPE_F16 ? "f16" : "bf16";
}

void store_weight(ggml_type type, char * p, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint16_t half = (uint16_t) (bits >> 16);
    if (type == GGML_TYPE_F16) {
        const uint32_t exp = bits >> 23 & 255;  // truncated; small numbers become denormal halves
        half               = (uint16_t) (bits >> 16 & 0x8000);
        half |= exp == 255                ? 0x7c00 | (v != v ? 1 : 0)
                : exp >= 113 && exp < 143 ? (exp - 112) << 10 | (bits >> 13 & 1023)
                                          : bits >> 13 & 1023;
    }
    type == GGML_TYPE_F32 ? memcpy(p, &v, 4) : memcpy(p, &half, 2);
}

enum class Fill { plain, extreme };

struct Problem {
    ggml_type           type;
    const FloatFormat & format;
    int64_t             num_columns, num_values, num_units, whole_piece;
    size_t              row_bytes;
    std::vector<char>   weights;
    std::vector<float>  x;
    std::vector<float>  y;

    Problem(ggml_type t, Random & random, int64_t columns, int64_t values, Fill fill = Fill::plain)
        : type(t), format(*float_format(t)), num_columns(columns), num_values(values),
          num_units(format.num_units(values)), whole_piece(format.piece_length(values)),
          row_bytes((size_t) values * bytes_of(t) + 6 * bytes_of(t)),
          weights((size_t) tile_rows * row_bytes - 6 * bytes_of(t)), x((size_t) (columns * values)),
          y((size_t) (columns * tile_rows)) {
        const float odd[] = { 1e-40f, -1e-44f, 1e-20f, -3e-39f, 1e30f, -1e25f, 0.0f, -0.0f };
        for (int64_t r = 0; r < tile_rows; r++) {
            for (int64_t k = 0; k < values; k++) {
                const float v = fill == Fill::extreme && random.below(4) == 0 ? odd[random.below(8)] : random.real();
                store_weight(type, weights.data() + (size_t) r * row_bytes + (size_t) k * bytes_of(type), v);
            }
        }
        for (float & v : x) {
            v = fill == Fill::extreme && random.below(4) == 0 ? odd[random.below(8)] : random.real();
        }
    }

    const char * row(int64_t r) const {
        return weights.data() + (size_t) r * row_bytes;
    }

    // One group of columns [first, first + width) from the rows.
    void run_fused(int64_t first, int width, uint16_t lanes) {
        std::vector<uint32_t> group((size_t) (num_units * width));
        const float *         columns[group_columns];
        float *               dst[group_columns];
        point(first, width, columns, dst);
        for (int64_t k = 0; k < num_values; k += whole_piece) {
            format.pack_columns(columns, width, k, piece(k), group.data() + k / format.values_per_unit * width);
        }
        format.fused[width](weights.data(), row_bytes, num_values, group.data(), { dst, 0, lanes });
    }

    // The same rows as several strips of a panel.
    void run_panel(int64_t first, int width, uint16_t lanes, int64_t num_strips) {
        std::vector<uint32_t> group((size_t) (most_piece_units * width));
        const Buffer          panel = aligned_buffer((size_t) num_strips * most_piece_units * unit_row_bytes);
        const float *         columns[group_columns];
        float *               dst[group_columns];
        point(first, width, columns, dst);
        std::vector<float>      scratch((size_t) (num_strips * width * tile_rows));
        std::vector<float *>    others;
        std::vector<TileOutput> out;
        for (int64_t s = 0; s < num_strips; s++) {
            for (int n = 0; n < width; n++) {
                others.push_back(scratch.data() + (s * width + n) * tile_rows);
            }
        }
        for (int64_t s = 0; s < num_strips; s++) {
            out.push_back({ s + 1 == num_strips ? dst : others.data() + s * width, 0, lanes });
        }
        for (int64_t k = 0; k < num_values; k += whole_piece) {
            const int64_t units = format.num_units(piece(k));
            format.pack_columns(columns, width, k, piece(k), group.data());
            for (int64_t s = 0; s < num_strips; s++) {
                format.pack_rows(weights.data(), row_bytes, k, piece(k),
                                 panel.get() + s * units * (int64_t) unit_row_bytes);
            }
            format.panel[width](panel.get(), num_strips, units, group.data(), out.data(), k == 0);
        }
    }

    void point(int64_t first, int width, const float ** columns, float ** dst) {
        for (int n = 0; n < width; n++) {
            columns[n] = x.data() + (first + n) * num_values;
            dst[n]     = y.data() + (first + n) * tile_rows;
        }
    }

    int64_t piece(int64_t k) const {
        return num_values - k < whole_piece ? num_values - k : whole_piece;
    }

    void check(const char * form, bool finite) const {
        for (int64_t j = 0; j < num_columns; j++) {
            for (int64_t r = 0; r < tile_rows; r++) {
                const float * v        = x.data() + j * num_values;
                const float   expected = product_reference(type, row(r), v, num_values);
                const float   got      = y[(size_t) (j * tile_rows + r)];
                CHECK(same_bits(got, expected) || (got == 0 && expected == 0),
                      "%s %s K %d column %d row %d: %.9g, plain %.9g", name_of(type), form, (int) num_values, (int) j,
                      (int) r, got, expected);
                if (finite) {
                    check_accuracy(got, r, v);
                }
            }
        }
    }

    void check_accuracy(float got, int64_t r, const float * v) const {
        double exact = 0, magnitude = 0;
        for (int64_t k = 0; k < num_values; k++) {
            const double p = (double) weight_value(type, row(r), k) * v[k];
            exact += p;
            magnitude += fabs(p);
        }
        const bool   is_rounded = type == GGML_TYPE_BF16 && has_bf16_dots;
        const double unit       = (double) (whole_piece / num_chains + num_chains + num_values / whole_piece) * 0x1p-24;
        CHECK(fabs(got - exact) <=
                  magnitude * (rounds_to_odd ? 2 * unit : unit) + (is_rounded ? magnitude * 0x1p-8 : 0),
              "%s K %d: %g for %g, magnitude %g", name_of(type), (int) num_values, got, exact, magnitude);
    }
};

void test_problem(ggml_type type, Random & random, int64_t columns, int64_t values, Fill fill) {
    Problem p(type, random, columns, values, fill);
    for (int64_t j = 0; j < columns; j += group_columns) {
        p.run_fused(j, (int) (columns - j < group_columns ? columns - j : group_columns), 0xffff);
    }
    p.check("fused", fill == Fill::plain);
    for (int64_t strips = 1; strips <= 3; strips++) {
        std::fill(p.y.begin(), p.y.end(), -7.0f);
        for (int64_t j = 0; j < columns; j += group_columns) {
            p.run_panel(j, (int) (columns - j < group_columns ? columns - j : group_columns), 0xffff, strips);
        }
        p.check("panel", fill == Fill::plain);
    }
}

// Lanes that are not a tile's own stay as they are.
void test_lanes(ggml_type type) {
    Random random;
    for (uint32_t lanes : { 0x0000u, 0xff00u, 0xfff0u, 0x8000u, 0xfffeu }) {
        for (int form = 0; form < 2; form++) {
            Problem p(type, random, 3, 515);
            std::fill(p.y.begin(), p.y.end(), -7.0f);
            form == 0 ? p.run_fused(0, 3, (uint16_t) lanes) : p.run_panel(0, 3, (uint16_t) lanes, 1);
            for (int64_t j = 0; j < 3; j++) {
                for (int64_t r = 0; r < tile_rows; r++) {
                    const float expected =
                        lanes >> r & 1 ? product_reference(type, p.row(r), p.x.data() + j * p.num_values, p.num_values)
                                       : -7.0f;
                    CHECK(same_bits(p.y[(size_t) (j * tile_rows + r)], expected), "%s form %d lanes %x row %d",
                          name_of(type), form, lanes, (int) r);
                }
            }
        }
    }
}

// A NaN or infinity in one column, or in one row, shows there and nowhere else.
void test_not_finite(ggml_type type) {
    Random random;
    for (float value : { NAN, INFINITY, -INFINITY }) {
        Problem p(type, random, 3, 300);
        p.x[(size_t) p.num_values + 299] = value;
        store_weight(type, p.weights.data() + 5 * p.row_bytes + 298 * bytes_of(type), value);
        p.run_fused(0, 3, 0xffff);
        for (int64_t j = 0; j < 3; j++) {
            for (int64_t r = 0; r < tile_rows; r++) {
                CHECK(std::isfinite(p.y[(size_t) (j * tile_rows + r)]) == (j != 1 && r != 5),
                      "%s: %g at column %d row %d", name_of(type), value, (int) j, (int) r);
            }
        }
    }
}

}  // namespace

int main() {
    for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16 }) {
        if (float_format(type) == nullptr) {
            printf("no tiles for %s on this machine\n", name_of(type));
            continue;
        }
        Random random;
        for (int64_t columns : { 1, 2, 3, 4, 5, 6, 7, 8, 17 }) {
            for (int64_t values : { 1, 3, 8, 15, 64, 255, 256, 257, 777, 1601 }) {
                test_problem(type, random, columns, values, Fill::plain);
            }
            test_problem(type, random, columns, 301, Fill::extreme);
        }
        test_lanes(type);
        test_not_finite(type);
    }
    return report("mul_mat_float");
}
