// Eight tile registers in plain C++, one set per thread: what the instructions of amx.h do, for machines without them.
//
// Integer dots wrap as the instructions' do. BF16 products follow Intel's description of TDPBF16PS: the even and the
// odd elements of a row each in a chain of fused multiply-adds, their sum added to the tile; every step rounded to
// nearest even, denormals taken and given as zero. What the hardware refuses (#UD) ends the program here.
#pragma once

#include "amx.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace axion {
namespace amx {

class ModelTiles {
  public:
    static void configure(const TileConfig & config) {
        expect(config.palette == 1 && config.start_row == 0, "a palette that there is");
        for (int t = 0; t < 16; t++) {
            expect(config.rows[t] <= (t < num_tiles ? max_rows : 0), "so many rows");
            expect(config.row_bytes[t] <= (t < num_tiles ? max_row_bytes : 0), "so many bytes in a row");
        }
        state()               = {};
        state().config        = config;
        state().is_configured = true;
    }

    static void release() {
        state() = {};
    }

    static bool is_configured() {
        return state().is_configured;
    }

    template <int t> static void zero() {
        memset(tile(t).bytes, 0, sizeof tile(t).bytes);
    }

    template <int t> static void load(const void * from, size_t stride) {
        Tile & to = tile(t);
        memset(to.bytes, 0, sizeof to.bytes);
        for (int r = 0; r < rows(t); r++) {
            memcpy(to.bytes[r], (const char *) from + (size_t) r * stride, (size_t) row_bytes(t));
        }
    }

    template <int t> static void store(void * to, size_t stride) {
        for (int r = 0; r < rows(t); r++) {
            memcpy((char *) to + (size_t) r * stride, tile(t).bytes[r], (size_t) row_bytes(t));
        }
    }

    template <int c, int a, int b> static void dot_s8() {
        dot_bytes<int8_t, int8_t>(c, a, b);
    }

    template <int c, int a, int b> static void dot_u8_s8() {
        dot_bytes<uint8_t, int8_t>(c, a, b);
    }

    template <int c, int a, int b> static void dot_s8_u8() {
        dot_bytes<int8_t, uint8_t>(c, a, b);
    }

    template <int c, int a, int b> static void dot_bf16() {
        expect_product(c, a, b);
        const Tile & x = tile(a);
        const Tile & y = tile(b);
        for (int m = 0; m < rows(c); m++) {
            for (int n = 0; n < row_bytes(c) / 4; n++) {
                float chain[2] = {};
                for (int k = 0; k < row_bytes(a) / 4; k++) {
                    for (int i = 0; i < 2; i++) {
                        chain[i] =
                            flush(fmaf(bf16_at(x.bytes[m], 2 * k + i), bf16_at(y.bytes[k], 2 * n + i), chain[i]));
                    }
                }
                float sum;
                memcpy(&sum, tile(c).bytes[m] + 4 * n, 4);
                sum = flush(flush(sum) + flush(chain[0] + chain[1]));
                memcpy(tile(c).bytes[m] + 4 * n, &sum, 4);
            }
        }
    }

  private:
    struct Tile {
        uint8_t bytes[max_rows][max_row_bytes];
    };

    struct State {
        TileConfig config;
        bool       is_configured;
        Tile       tiles[num_tiles];
    };

    static State & state() {
        static thread_local State s{};
        return s;
    }

    static void expect(bool is_so, const char * what) {
        if (!is_so) {
            fprintf(stderr, "a tile instruction that the hardware would refuse: not %s\n", what);
            abort();
        }
    }

    static Tile & tile(int t) {
        expect(state().is_configured && t >= 0 && t < num_tiles, "a configured tile");
        expect(rows(t) > 0 && row_bytes(t) > 0, "a tile with a shape");
        return state().tiles[t];
    }

    static int rows(int t) {
        return state().config.rows[t];
    }

    static int row_bytes(int t) {
        return state().config.row_bytes[t];
    }

    static void expect_product(int c, int a, int b) {
        expect(c != a && c != b && a != b, "three different tiles");
        expect(rows(c) == rows(a) && row_bytes(c) == row_bytes(b) && row_bytes(a) == 4 * rows(b), "shapes that fit");
        expect(row_bytes(a) % 4 == 0 && row_bytes(b) % 4 == 0, "whole dwords");
    }

    template <class A, class B> static void dot_bytes(int c, int a, int b) {
        expect_product(c, a, b);
        const Tile & x = tile(a);
        const Tile & y = tile(b);
        for (int m = 0; m < rows(c); m++) {
            uint32_t sums[max_row_bytes / 4];
            memcpy(sums, tile(c).bytes[m], sizeof sums);
            for (int k = 0; k < row_bytes(a) / 4; k++) {
                for (int n = 0; n < row_bytes(c) / 4; n++) {
                    int32_t sum = 0;  // of four products, which cannot overflow
                    for (int i = 0; i < 4; i++) {
                        sum += (A) x.bytes[m][4 * k + i] * (B) y.bytes[k][4 * n + i];
                    }
                    sums[n] += (uint32_t) sum;
                }
            }
            memcpy(tile(c).bytes[m], sums, sizeof sums);
        }
    }

    // Element i of a row, a denormal being zero.
    static float bf16_at(const uint8_t * row, int i) {
        uint16_t half;
        memcpy(&half, row + 2 * i, 2);
        const uint32_t bits = (uint32_t) half << 16;
        float          x;
        memcpy(&x, &bits, 4);
        return flush(x);
    }

    static float flush(float x) {
        return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
    }
};

}  // namespace amx
}  // namespace axion
