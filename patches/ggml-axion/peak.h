// What one core can do at best: loops that do nothing but the instruction a kernel lives on. `axion-llm bench kernels`
// reads every kernel's speed as a share of these.
//
// Takes nothing, computes nothing of use. Each loop keeps enough independent sums to cover the latency and stays in the
// registers; `read` walks a buffer larger than the last cache.
#pragma once

#include "amx.h"

#include <chrono>
#include <cstdint>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace axion {
namespace peak {

#if defined(__AVX512F__)
constexpr int width = 64;  // bytes of a register
#elif defined(__AVX2__)
constexpr int width = 32;
#else
constexpr int width = 16;
#endif
#if defined(__aarch64__)
constexpr int num_sums = 16;  // four pipes, four cycles
#else
constexpr int num_sums = 12;  // two pipes, four cycles; AVX2 has no more than 16 registers
#endif

typedef float   f32v __attribute__((vector_size(width)));
typedef int32_t i32v __attribute__((vector_size(width)));

// Not to be folded: the compiler knows neither the value before nor what becomes of it.
template <typename T> inline void keep(T & value) {
#if defined(__aarch64__)
    asm volatile("" : "+w"(value));
#elif defined(__x86_64__)
    asm volatile("" : "+x"(value));
#else
    asm volatile("" : "+m"(value));
#endif
}

struct Fma {  // float32 multiply-add
    typedef f32v         Sum;
    static constexpr int ops = 2 * width / 4;

    static Sum step(Sum sum, f32v a, f32v b) {
        return sum + a * b;
    }
};

struct Int8Dot {  // int8 products into int32
    typedef i32v Sum;
#if defined(__AVX512VNNI__)
    static constexpr int ops = 2 * 64;

    static Sum step(Sum sum, f32v a, f32v b) {
        return (Sum) _mm512_dpbusd_epi32((__m512i) sum, (__m512i) a, (__m512i) b);
    }
#elif defined(__AVX512BW__)
    static constexpr int ops = 2 * 64;

    static Sum step(Sum sum, f32v a, f32v b) {
        const __m512i pairs = _mm512_maddubs_epi16((__m512i) a, (__m512i) b);
        return sum + (Sum) _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    }
#elif defined(__AVX2__)
    static constexpr int ops = 2 * 32;

    static Sum step(Sum sum, f32v a, f32v b) {
        const __m256i pairs = _mm256_maddubs_epi16((__m256i) a, (__m256i) b);
        return sum + (Sum) _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
#elif defined(__ARM_FEATURE_MATMUL_INT8)
    static constexpr int ops = 2 * 32;

    static Sum step(Sum sum, f32v a, f32v b) {
        return (Sum) vmmlaq_s32((int32x4_t) sum, (int8x16_t) a, (int8x16_t) b);
    }
#elif defined(__ARM_FEATURE_DOTPROD)
    static constexpr int ops = 2 * 16;

    static Sum step(Sum sum, f32v a, f32v b) {
        return (Sum) vdotq_s32((int32x4_t) sum, (int8x16_t) a, (int8x16_t) b);
    }
#else
    static constexpr int ops = 0;

    static Sum step(Sum sum, f32v, f32v) {
        return sum;
    }
#endif
};

struct Bf16Dot {  // bfloat16 products into float32
    typedef f32v Sum;
#if defined(__AVX512BF16__)
    static constexpr int ops = 2 * 32;

    static Sum step(Sum sum, f32v a, f32v b) {
        return (Sum) _mm512_dpbf16_ps((__m512) sum, (__m512bh) a, (__m512bh) b);
    }
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    static constexpr int ops = 2 * 16;

    static Sum step(Sum sum, f32v a, f32v b) {
        return (Sum) vbfmmlaq_f32((float32x4_t) sum, (bfloat16x8_t) a, (bfloat16x8_t) b);
    }
#else
    static constexpr int ops = 0;

    static Sum step(Sum sum, f32v, f32v) {
        return sum;
    }
#endif
};

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Operations per second, a product and a sum being two; 0: the instruction set has no such instruction.
template <class Op> double rate(double seconds) {
    if (Op::ops == 0) {
        return 0;
    }
    constexpr int    num_steps = 20000;
    typename Op::Sum sums[num_sums]{};
    f32v             a{}, b{};
    keep(a);
    keep(b);
    double       done    = 0;
    const double started = now();
    double       passed  = 0;
    while (passed < seconds) {
        for (int i = 0; i < num_steps; i++) {
#pragma GCC unroll 16
            for (int j = 0; j < num_sums; j++) {
                sums[j] = Op::step(sums[j], a, b);
            }
            // The sums must be made in every turn, in registers.
#pragma GCC unroll 16
            for (int j = 0; j < num_sums; j++) {
                keep(sums[j]);
            }
        }
        done += double(num_steps) * num_sums * Op::ops;
        passed = now() - started;
    }
    return done / passed;
}

// As `rate`, for whole tiles of 16 x 64 bytes; 0 too where the process may not have any.
template <class Dot> inline double tile_rate([[maybe_unused]] double seconds) {
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)
    if (Dot::ops == 0 || !amx::is_permitted()) {
        return 0;
    }
    constexpr int   num_steps = 5000, a = 6, b = 7;  // the other six cover the latency: 52 cycles, one begins every 16
    amx::TileConfig config;
    for (int t = 0; t < amx::num_tiles; t++) {
        config.tile(t, amx::max_rows, amx::max_row_bytes);
    }
    const amx::TileSession<amx::HardwareTiles> session(config);
    amx::HardwareTiles::zero<a>();
    amx::HardwareTiles::zero<b>();
    double       done    = 0;
    const double started = now();
    double       passed  = 0;
    while (passed < seconds) {
        for (int i = 0; i < num_steps; i++) {
            Dot::template step<0, a, b>();
            Dot::template step<1, a, b>();
            Dot::template step<2, a, b>();
            Dot::template step<3, a, b>();
            Dot::template step<4, a, b>();
            Dot::template step<5, a, b>();
        }
        done += double(num_steps) * 6 * Dot::ops;
        passed = now() - started;
    }
    return done / passed;
#else
    return 0;
#endif
}

struct Int8Tile {  // TDPBUSD
    static constexpr int ops = 2 * 16 * 16 * 64;
#if defined(__AMX_INT8__)
    template <int c, int a, int b> static void step() {
        amx::HardwareTiles::dot_u8_s8<c, a, b>();
    }
#endif
};

struct Bf16Tile {  // TDPBF16PS
#if defined(__AMX_BF16__)
    static constexpr int ops = 2 * 16 * 16 * 32;

    template <int c, int a, int b> static void step() {
        amx::HardwareTiles::dot_bf16<c, a, b>();
    }
#else
    static constexpr int ops = 0;

    template <int c, int a, int b> static void step() {
    }
#endif
};

// Bytes read per second from memory, past the caches.
inline double read_rate(double seconds) {
    constexpr size_t      size = size_t(192) << 20;
    std::vector<uint64_t> buffer(size / 8, 1);  // written, so that there are pages behind it
    const char *          bytes = (const char *) buffer.data();
    i32v                  sums[4]{};
    double                done    = 0;
    const double          started = now();
    double                passed  = 0;
    while (passed < seconds) {
        for (size_t i = 0; i + 4 * width <= size; i += 4 * width) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                i32v value;
                __builtin_memcpy(&value, bytes + i + j * width, width);
                sums[j] += value;
            }
        }
        for (i32v & sum : sums) {
            keep(sum);
        }
        done += double(size);
        passed = now() - started;
    }
    return done / passed;
}

}  // namespace peak

// One core's best rate of a kind, measured for `seconds`; 0 for what the instruction set lacks.
inline double measure_peak(uint32_t kind, double seconds) {
    switch (kind) {
    case 0:
        return peak::rate<peak::Fma>(seconds);
    case 1:
        return peak::rate<peak::Int8Dot>(seconds);
    case 2:
        return peak::rate<peak::Bf16Dot>(seconds);
    case 3:
        return peak::read_rate(seconds);
    case 7:
        return peak::tile_rate<peak::Int8Tile>(seconds);
    case 8:
        return peak::tile_rate<peak::Bf16Tile>(seconds);
    default:
        return 0;
    }
}

}  // namespace axion
