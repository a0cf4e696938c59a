// Tile registers (AMX, Sapphire Rapids and later): the instructions, their configuration, the process's permission.
//
// Code that multiplies tiles is a template over one of two: HardwareTiles here, or ModelTiles (amx_model.h), the same
// operations in plain C++, so that layouts and arithmetic are tested on every machine. A build with AXION_AMX_MODEL
// runs the whole of it on the model.
//
// A tile is up to 16 rows of up to 64 bytes. Its shape belongs to the register's number, so tile numbers are constants.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(AXION_AMX_MODEL) && defined(__AVX2__)
#define AXION_AMX
#define AXION_AMX_BF16
#elif defined(__x86_64__) && defined(__linux__) && defined(__AMX_TILE__) && defined(__AMX_INT8__) &&                   \
    defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define AXION_AMX
#if defined(__AMX_BF16__)
#define AXION_AMX_BF16
#endif
#endif

#if defined(__AMX_TILE__) && defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace axion {
namespace amx {

constexpr int max_rows = 16, max_row_bytes = 64, num_tiles = 8;

// What LDTILECFG reads.
struct TileConfig {
    uint8_t  palette   = 1;
    uint8_t  start_row = 0;
    uint8_t  reserved[14]{};
    uint16_t row_bytes[16]{};
    uint8_t  rows[16]{};

    constexpr TileConfig & tile(int t, int num_rows, int num_bytes) {
        rows[t]      = (uint8_t) num_rows;
        row_bytes[t] = (uint16_t) num_bytes;
        return *this;
    }
};

static_assert(sizeof(TileConfig) == 64, "as LDTILECFG reads it");

// Tiles are configured for as long as one of these lives; afterwards none of their state is left to be saved at a
// switch of threads, and the core may clock as before.
template <class Tiles> class TileSession {
  public:
    explicit TileSession(const TileConfig & config) {
        Tiles::configure(config);
    }
    ~TileSession() {
        Tiles::release();
    }
    TileSession(const TileSession &)             = delete;
    TileSession & operator=(const TileSession &) = delete;
};

#if defined(__AMX_TILE__) && defined(__x86_64__) && defined(__linux__)

// Assembly and not the intrinsics: GCC before 12.4, 13.3 and 14 takes 8 of the 64 bytes of a configuration for an input
// (its bug 114098), and its loads do not say that they read memory.
struct HardwareTiles {
    static void configure(const TileConfig & config) {
        asm volatile("ldtilecfg %0" : : "m"(config));
    }

    static void release() {
        asm volatile("tilerelease");
    }

    template <int t> static inline __attribute__((always_inline)) void zero() {
        asm volatile("tilezero %%tmm%c0" : : "i"(t));
    }

    template <int t> static inline __attribute__((always_inline)) void load(const void * from, size_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(t) : "memory");
    }

    template <int t> static inline __attribute__((always_inline)) void store(void * to, size_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(t) : "memory");
    }

    // c += a b: dword n of row m gets the products of a's bytes 4k .. 4k + 3 of row m by b's 4n .. 4n + 3 of row k.
    template <int c, int a, int b> static inline __attribute__((always_inline)) void dot_s8() {  // signed by signed
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
    }

    template <int c, int a, int b> static inline __attribute__((always_inline)) void dot_u8_s8() {  // a unsigned
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
    }

    template <int c, int a, int b> static inline __attribute__((always_inline)) void dot_s8_u8() {  // b unsigned
        asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
    }

    template <int c, int a, int b> static inline __attribute__((always_inline)) void dot_bf16() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(c), "i"(a), "i"(b));
    }
};

// Whether the kernel lets this process have tile data: asked for once, for all its threads. Containers, gVisor, VMs
// without XTILEDATA and kernels before 5.16 say no; then nothing here is used.
inline bool is_permitted() {
    static const bool answer = [] {
        constexpr long     request   = 0x1023;  // ARCH_REQ_XCOMP_PERM
        constexpr long     tile_data = 18;
        constexpr unsigned has_tile = 1u << 24, has_int8 = 1u << 25;
        unsigned           a = 0, b = 0, c = 0, d = 0;
        if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & has_tile) == 0 || (d & has_int8) == 0) {
            return false;
        }
        return syscall(SYS_arch_prctl, request, tile_data) == 0;
    }();
    return answer;
}

#endif

}  // namespace amx
}  // namespace axion

#if defined(AXION_AMX) && defined(AXION_AMX_MODEL)
#include "amx_model.h"
#endif

#if defined(AXION_AMX)

namespace axion {
namespace amx {

#if defined(AXION_AMX_MODEL)
using MachineTiles = ModelTiles;

inline bool is_permitted_here() {
    return true;
}
#else
using MachineTiles = HardwareTiles;

inline bool is_permitted_here() {
    return is_permitted();
}
#endif

}  // namespace amx
}  // namespace axion

#endif
