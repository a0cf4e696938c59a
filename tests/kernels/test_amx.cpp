// AMX' instructions as the plain model has them, against loops over whole matrices; on a machine with AMX the hardware
// against the model, bit by bit.

#include "amx.h"
#include "amx_model.h"
#include "check.h"

#include <cmath>
#include <vector>

using namespace axion;
using namespace axion::amx;

namespace {

constexpr size_t stride = 80;  // not a tile's own

struct Shape {
    int m, n, k;  // rows of c, its dwords, dwords of k
};

constexpr Shape shapes[] = { { 16, 16, 16 }, { 16, 16, 8 }, { 16, 16, 4 }, { 5, 16, 16 }, { 16, 3, 7 }, { 1, 1, 1 } };

struct Matrices {
    uint8_t a[max_rows * stride], b[max_rows * stride], c[max_rows * stride];

    template <class T> T at(const uint8_t * matrix, int row, int i) const {
        T x;
        memcpy(&x, matrix + (size_t) row * stride + (size_t) i * sizeof x, sizeof x);
        return x;
    }
};

TileConfig config_of(const Shape & s) {
    TileConfig config;
    config.tile(0, s.m, 4 * s.n).tile(3, s.m, 4 * s.k).tile(7, s.k, 4 * s.n);
    return config;
}

// c += a b by one of the instructions.
template <class Tiles, class F> void multiply(const Shape & s, Matrices & x, F dot) {
    const TileSession<Tiles> session(config_of(s));
    Tiles::template load<0>(x.c, stride);
    Tiles::template load<3>(x.a, stride);
    Tiles::template load<7>(x.b, stride);
    dot();
    Tiles::template store<0>(x.c, stride);
}

template <class Tiles> void multiply_by(int instruction, const Shape & s, Matrices & x) {
    multiply<Tiles>(s, x, [&] {
        switch (instruction) {
        case 0:
            return Tiles::template dot_s8<0, 3, 7>();
        case 1:
            return Tiles::template dot_u8_s8<0, 3, 7>();
        case 2:
            return Tiles::template dot_s8_u8<0, 3, 7>();
        default:
            return Tiles::template dot_bf16<0, 3, 7>();
        }
    });
}

void fill(Random & random, Matrices & x) {
    for (uint8_t * m : { x.a, x.b, x.c }) {
        for (size_t i = 0; i < max_rows * stride; i++) {
            m[i] = (uint8_t) random.bits();
        }
    }
}

// Values between 2^-8 and 2^8, and sometimes what is special.
uint16_t random_bf16(Random & random) {
    static const uint16_t special[] = { 0x0000, 0x8000, 0x0001, 0x807f, 0x0080, 0x7f80, 0xff80, 0x7fc0, 0x7f7f };
    if (random.below(40) == 0) {
        return special[random.below(9)];
    }
    return (uint16_t) ((random.bits() & 0x807f) | (uint64_t) (119 + random.below(16)) << 7);
}

void fill_bf16(Random & random, Matrices & x) {
    for (uint8_t * m : { x.a, x.b }) {
        for (size_t i = 0; i < max_rows * stride; i += 2) {
            const uint16_t v = random_bf16(random);
            memcpy(m + i, &v, 2);
        }
    }
    for (size_t i = 0; i < max_rows * stride; i += 4) {
        const float v = random.below(20) == 0 ? 1e-40f : random.real() * 100;
        memcpy(x.c + i, &v, 4);
    }
}

int64_t byte_of(const Matrices & x, const uint8_t * m, int row, int i, bool is_signed) {
    return is_signed ? (int64_t) x.at<int8_t>(m, row, i) : (int64_t) x.at<uint8_t>(m, row, i);
}

void integers_against_loops() {
    Random random;
    for (const Shape & s : shapes) {
        for (int instruction = 0; instruction < 3; instruction++) {
            Matrices x;
            fill(random, x);
            const Matrices before = x;
            multiply_by<ModelTiles>(instruction, s, x);
            for (int m = 0; m < s.m; m++) {
                for (int n = 0; n < s.n; n++) {
                    int64_t sum = before.at<int32_t>(before.c, m, n);
                    for (int k = 0; k < 4 * s.k; k++) {
                        sum += byte_of(before, before.a, m, k, instruction != 1) *
                               byte_of(before, before.b, k / 4, 4 * n + k % 4, instruction != 2);
                    }
                    CHECK(x.at<int32_t>(x.c, m, n) == (int32_t) (uint32_t) (uint64_t) sum, "instruction %d, %d %d",
                          instruction, m, n);
                }
            }
            // Nothing but the tile's own bytes is written.
            for (size_t i = 0; i < sizeof x.c; i++) {
                const bool is_own = i / stride < (size_t) s.m && i % stride < (size_t) (4 * s.n);
                CHECK(is_own || x.c[i] == before.c[i], "byte %d", (int) i);
            }
        }
    }
}

// Values of few bits, whose sums are exact in any order: the plain product in double.
void bf16_against_loops() {
    Random random;
    for (const Shape & s : shapes) {
        Matrices x;
        for (uint8_t * m : { x.a, x.b }) {
            for (size_t i = 0; i < max_rows * stride; i += 2) {
                const float v = (float) (random.below(257) - 128);
                memcpy(m + i, (const char *) &v + 2, 2);
            }
        }
        for (size_t i = 0; i < max_rows * stride; i += 4) {
            const float v = (float) random.below(1000);
            memcpy(x.c + i, &v, 4);
        }
        const Matrices before = x;
        const auto     bf16   = [&](const uint8_t * m, int row, int i) {
            const uint32_t bits = (uint32_t) before.at<uint16_t>(m, row, i) << 16;
            float          f;
            memcpy(&f, &bits, 4);
            return (double) f;
        };
        multiply_by<ModelTiles>(3, s, x);
        for (int m = 0; m < s.m; m++) {
            for (int n = 0; n < s.n; n++) {
                double sum = before.at<float>(before.c, m, n);
                for (int k = 0; k < 2 * s.k; k++) {
                    sum += bf16(before.a, m, k) * bf16(before.b, k / 2, 2 * n + k % 2);
                }
                CHECK(x.at<float>(x.c, m, n) == sum, "%d %d: %g, exact %g", m, n, x.at<float>(x.c, m, n), sum);
            }
        }
    }
}

// Two chains, their sum, then the tile; denormals are zero: cases where any other order shows.
void bf16_roundings() {
    const auto product_of = [](float c, std::vector<float> a, std::vector<float> b) {
        const Shape s = { 1, 1, (int) a.size() / 2 };
        Matrices    x{};
        for (int i = 0; i < (int) a.size(); i++) {
            memcpy(x.a + 2 * i, (const char *) &a[(size_t) i] + 2, 2);
            memcpy(x.b + (size_t) (i / 2) * stride + 2 * (i % 2), (const char *) &b[(size_t) i] + 2, 2);
        }
        memcpy(x.c, &c, 4);
        multiply_by<ModelTiles>(3, s, x);
        return x.at<float>(x.c, 0, 0);
    };
    const float big = 0x1p24f;
    CHECK(product_of(0, { big, 1, 1, 1 }, { 1, 1, 1, 1 }) == big + 2, "the even chain loses a one, the odd keeps two");
    CHECK(product_of(1, { big, 0, -big, 0 }, { 1, 1, 1, 1 }) == 1, "the tile's own value comes last");
    CHECK(product_of(1, { 1, 1, big, -big }, { 1, 1, 1, 1 }) == 2, "the even chain loses a one, the odd none");
    CHECK(product_of(0, { 0x1p-70f, 0 }, { 0x1p-70f, 0 }) == 0, "a denormal product is zero");
    CHECK(product_of(0, { 0x1p-130f, 0 }, { 1, 0 }) == 0, "so is a denormal factor");
    CHECK(product_of(1e-40f, { 0, 0 }, { 0, 0 }) == 0, "and the tile's own");
    CHECK(std::isnan(product_of(0, { INFINITY, -INFINITY }, { 1, 1 })), "no number");
}

template <class Tiles> void against_the_model(const char * what, bool has_bf16) {
    Random random;
    for (int round = 0; round < 200; round++) {
        for (const Shape & s : shapes) {
            for (int instruction = 0; instruction < (has_bf16 ? 4 : 3); instruction++) {
                Matrices x;
                fill(random, x);
                if (instruction == 3) {
                    fill_bf16(random, x);
                }
                Matrices y = x;
                multiply_by<Tiles>(instruction, s, x);
                multiply_by<ModelTiles>(instruction, s, y);
                for (int m = 0; m < s.m; m++) {
                    for (int n = 0; n < s.n; n++) {
                        const bool is_same = instruction == 3
                                                 ? same_bits(x.at<float>(x.c, m, n), y.at<float>(y.c, m, n))
                                                 : x.at<int32_t>(x.c, m, n) == y.at<int32_t>(y.c, m, n);
                        CHECK(is_same, "%s, instruction %d, %d %d", what, instruction, m, n);
                    }
                }
            }
        }
    }
}

void released() {
    {
        const TileSession<ModelTiles> session(config_of(shapes[0]));
        CHECK(ModelTiles::is_configured(), "configured");
    }
    CHECK(!ModelTiles::is_configured(), "no state stays");
}

}  // namespace

int main() {
    integers_against_loops();
    bf16_against_loops();
    bf16_roundings();
    released();
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)
    if (!is_permitted()) {
        printf("skipped: this machine's kernel or CPU gives no tiles\n");
    } else {
#if defined(__AMX_BF16__)
        against_the_model<HardwareTiles>("hardware", true);
#else
        against_the_model<HardwareTiles>("hardware", false);
#endif
        printf("the hardware's tiles were tested\n");
    }
#else
    printf("skipped: no tiles of the hardware's on this machine\n");
#endif
    return report("amx");
}
