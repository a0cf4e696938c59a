// What the kernels ask of ggml's pool of threads, for tests that run them on some.
#pragma once

#include "ggml-cpu-impl.h"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

struct ggml_threadpool {
    int                     nth;
    int                     waiting = 0, round = 0;
    std::mutex              mutex;
    std::condition_variable all_here;
    std::atomic<int>        chunk{ 0 };
};

void ggml_barrier(ggml_threadpool * pool) {
    std::unique_lock<std::mutex> lock(pool->mutex);
    if (++pool->waiting == pool->nth) {
        pool->waiting = 0;
        pool->round++;
        pool->all_here.notify_all();
        return;
    }
    pool->all_here.wait(lock, [pool, round = pool->round] { return pool->round != round; });
}

void ggml_threadpool_chunk_set(ggml_threadpool * pool, int value) {
    pool->chunk = value;
}

int ggml_threadpool_chunk_add(ggml_threadpool * pool, int value) {
    return pool->chunk.fetch_add(value);
}

// Calls f(ith, nth, pool) on so many threads.
inline void on_threads(int nth, const std::function<void(int, ggml_threadpool *)> & f) {
    ggml_threadpool          pool{};
    std::vector<std::thread> threads;
    pool.nth = nth;
    for (int ith = 0; ith < nth; ith++) {
        threads.emplace_back([&, ith] { f(ith, &pool); });
    }
    for (std::thread & t : threads) {
        t.join();
    }
}
