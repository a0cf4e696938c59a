# Adds our kernels to the CPU backend (every variant of it); included by the hook in ggml-cpu/CMakeLists.txt.
file(GLOB AXION_SOURCES CONFIGURE_DEPENDS ${GGML_AXION_DIR}/*.cpp)
list(APPEND GGML_CPU_SOURCES ${AXION_SOURCES})
target_include_directories(${GGML_CPU_NAME} PRIVATE ${GGML_AXION_DIR})
target_compile_definitions(${GGML_CPU_NAME} PRIVATE GGML_USE_AXION)
set(AXION_WARNINGS -Wall -Wextra -Werror -Wno-unused-function -Wno-psabi)
if (CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC warns of its own AVX-512 intrinsics (its bug 105593).
    list(APPEND AXION_WARNINGS -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
set_source_files_properties(${AXION_SOURCES} PROPERTIES COMPILE_OPTIONS "${AXION_WARNINGS}")
set_source_files_properties(${GGML_AXION_DIR}/dispatch.cpp PROPERTIES
    COMPILE_DEFINITIONS "AXION_BUILD_ID=\"${AXION_BUILD_ID}\"")
# GCC's last bit of unrolling takes it half a minute over the AVX2 strips of this one file, and gives nothing: they are
# unrolled by hand. (Elsewhere it costs little, and attention is faster with it.)
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_FLAGS -march=native)
check_cxx_source_compiles("
    #if !defined(__AVX2__) || defined(__AVX512F__)
    #error
    #endif
    int main() { return 0; }" AXION_IS_AVX2_HERE)
unset(CMAKE_REQUIRED_FLAGS)
if (GGML_NATIVE AND AXION_IS_AVX2_HERE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set_source_files_properties(${GGML_AXION_DIR}/mul_mat_float_formats.cpp PROPERTIES
        COMPILE_OPTIONS "${AXION_WARNINGS};-O2" SKIP_PRECOMPILE_HEADERS ON)
endif()
