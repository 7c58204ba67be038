// SPDX-License-Identifier: Apache-2.0
// Replays a launcher's work with each CUDA thread a thread of the operating system, for ThreadSanitizer:
// emulation_threads LOG [SEED [RESIDENT_BLOCKS]]. threads.py writes the log and reads what this prints.
//
// The kernels are instrumented, this file is not, and it waits with futexes that ThreadSanitizer does not
// see. What orders memory on a GPU, and only that, is told to it: barriers, __syncwarp, and fences together
// with atomics. Atomics are relaxed without a fence; shuffles, votes and matches order nothing.
//
// Exit status: 0; 2: the log cannot be replayed; 3: other contents than the log says; 66: a race was seen.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "memory.h"
#include "registry.h"

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
unsigned char __tsan_atomic8_load(const volatile unsigned char* address, int order);
unsigned short __tsan_atomic16_load(const volatile unsigned short* address, int order);
unsigned int __tsan_atomic32_load(const volatile unsigned int* address, int order);
unsigned long __tsan_atomic64_load(const volatile unsigned long* address, int order);
int __tsan_atomic32_compare_exchange_strong(volatile unsigned int* address, unsigned int* expected,
                                            unsigned int desired, int order, int failure_order);
int __tsan_atomic64_compare_exchange_strong(volatile unsigned long* address, unsigned long* expected,
                                            unsigned long desired, int order, int failure_order);
}

namespace emulation {

namespace {

constexpr int RELAXED = 0, RELEASE = 3;  // as __tsan_atomic… number them
constexpr u32 SHARED_BYTES = 48 << 10;
constexpr u32 RECENT = 8;
constexpr size_t STACK_BYTES = 256 << 10;

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "emulation_threads: %s\n", why.c_str());
    std::fflush(nullptr);
    _exit(2);
}

// Memory that ThreadSanitizer does not take for written: its mmap would mark all of it.
u8* map(void* wanted, u64 size) {
    const long got =
        syscall(SYS_mmap, wanted, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (wanted ? MAP_FIXED_NOREPLACE : 0), -1, 0);
    if (got == -1) give_up("no address space");
    return reinterpret_cast<u8*>(got);
}

class SpinLock {
  public:
    void lock() {
        while (taken_.exchange(true, std::memory_order_acquire)) sched_yield();
    }
    void unlock() { taken_.store(false, std::memory_order_release); }

  private:
    std::atomic<bool> taken_{false};
};

struct SharedArray {
    const void* site;
    u8* memory;
};

struct WarpState {
    SpinLock lock;
    Lane lanes[WARP];
    u32 waiting = 0;
    u64 results[WARP];
    std::atomic<u32> ticket[WARP] = {};
    u32 syncs[WARP] = {};   // __syncwarps a lane came to
    u8 order[WARP][2][64];  // what __syncwarp synchronises on, by lowest lane of the mask
};

struct Block {
    u32 number = 0;
    SpinLock lock;
    std::vector<SharedArray> arrays;
    u32 arrived = 0;
    u32 set = 0;
    u64 result = 0;
    std::atomic<u32> generation{0};
    u8 order[2][64];
    WarpState warps[BLOCK / WARP];
};

struct Worker {
    u32 slot = 0;
    u32 index = 0;
    Block* block = nullptr;
    bool fenced = false;
    void* recent[RECENT] = {};
    u32 next_recent = 0;
};

struct Launch {
    const Kernel* kernel = nullptr;
    const u64* arguments = nullptr;
    u32 blocks = 0;
    u32 resident = 0;
    std::vector<std::unique_ptr<Block>> block;  // in the order they run
};

Launch launch;
thread_local Worker* self = nullptr;

// Shared memory is used once in a launch, so that blocks one after the other do not seem to race for it.
u8* shared_pool = nullptr;
u64 shared_pool_bytes = 0;
std::atomic<u64> shared_used{0};

// Threads are dear under ThreadSanitizer, so they stay from launch to launch; what they are told of one
// launch's end and the next one's start is what joining and creating them would say.
std::vector<std::unique_ptr<Worker>> workers;
std::vector<std::unique_ptr<std::atomic<u32>>> rounds;  // of each slot: launches it was given
std::atomic<u32> at_work{0};
u8 launch_start[64], launch_end[64];

void* work(void* argument) {
    self = static_cast<Worker*>(argument);
    std::atomic<u32>& round = *rounds[self->slot];
    for (u32 done = 0;; ++done) {
        while (round.load(std::memory_order_acquire) == done) round.wait(done, std::memory_order_acquire);
        __tsan_acquire(launch_start);
        for (u32 i = self->slot; i < launch.blocks; i += launch.resident) {
            self->block = launch.block[i].get();
            self->fenced = false;
            launch.kernel->run();
        }
        __tsan_release(launch_end);
        if (at_work.fetch_sub(1, std::memory_order_acq_rel) == 1) at_work.notify_all();
    }
    return nullptr;
}

template <typename T>
bool compare_exchange(T* address, T* expected, T desired, int order) {
    if constexpr (sizeof(T) == 4) {
        return __tsan_atomic32_compare_exchange_strong(address, expected, desired, order, RELAXED) != 0;
    } else {
        return __tsan_atomic64_compare_exchange_strong(address, expected, desired, order, RELAXED) != 0;
    }
}

template <typename T>
T atomic_operation(Atomic kind, T* address, T value, T compare) {
    self->recent[self->next_recent++ % RECENT] = address;
    T old = *address;
    while (!compare_exchange(address, &old, atomic_result(kind, old, value, compare),
                             self->fenced ? RELEASE : RELAXED)) {
    }
    return old;
}

}  // namespace

Index thread_index() {
    return {self->index};
}
Index block_index() {
    return {self->block->number};
}
Index grid_size() {
    return {launch.blocks};
}
unsigned long parameter(unsigned index) {
    return launch.arguments[index];
}

void* shared(const void* site, unsigned long bytes, const char*) {
    Block& block = *self->block;
    block.lock.lock();
    u8* memory = nullptr;
    for (const SharedArray& array : block.arrays) {
        if (array.site == site) memory = array.memory;
    }
    if (memory == nullptr) {
        const u64 at = shared_used.fetch_add((bytes + 63) & ~63ull);
        if (at + bytes > shared_pool_bytes) give_up("too much shared memory");
        memory = shared_pool + at;
        block.arrays.push_back({site, memory});
    }
    block.lock.unlock();
    return memory;
}

int barrier(Barrier kind, int value, Site) {
    Block& block = *self->block;
    const u32 generation = block.generation.load(std::memory_order_acquire);
    u8* const order = block.order[generation & 1];
    __tsan_release(order);
    block.lock.lock();
    block.set += value != 0;
    if (++block.arrived == BLOCK) {
        block.result = kind == BARRIER_OR    ? block.set != 0
                       : kind == BARRIER_AND ? block.set == BLOCK
                                             : block.set;
        block.arrived = block.set = 0;
        block.generation.store(generation + 1, std::memory_order_release);
        block.lock.unlock();
        block.generation.notify_all();
    } else {
        block.lock.unlock();
        while (block.generation.load(std::memory_order_acquire) == generation) {
            block.generation.wait(generation, std::memory_order_acquire);
        }
    }
    // Nobody comes to the next barrier's end, and changes it, before all have read it.
    const int result = static_cast<int>(block.result);
    __tsan_acquire(order);
    return result;
}

unsigned long warp(Warp kind, unsigned mask, unsigned long value, unsigned bytes, unsigned argument,
                   unsigned width, Site site) {
    WarpState& warp = self->block->warps[self->index / WARP];
    const u32 lane = self->index % WARP;
    u8* const order = warp.order[__builtin_ctz(mask)][warp.syncs[lane] & 1];
    if (kind == WARP_SYNC) {
        ++warp.syncs[lane];
        __tsan_release(order);
    }
    const u32 ticket = warp.ticket[lane].load(std::memory_order_acquire);
    warp.lock.lock();
    warp.lanes[lane] = {kind, mask, bytes, argument, width, value, site};
    warp.waiting |= 1u << lane;
    if ((warp.waiting & mask) == mask) {
        warp.waiting &= ~mask;
        warp_results(warp.lanes, kind, mask, warp.results);
        for (u32 left = mask; left != 0; left &= left - 1) {
            std::atomic<u32>& of = warp.ticket[__builtin_ctz(left)];
            of.fetch_add(1, std::memory_order_release);
            of.notify_all();
        }
    }
    warp.lock.unlock();
    while (warp.ticket[lane].load(std::memory_order_acquire) == ticket) {
        warp.ticket[lane].wait(ticket, std::memory_order_acquire);
    }
    const u64 result = warp.results[lane];
    if (kind == WARP_SYNC) __tsan_acquire(order);
    return result;
}

unsigned int atomic(Atomic kind, unsigned int* address, unsigned int value, unsigned int compare, Site) {
    return atomic_operation(kind, address, value, compare);
}
unsigned long atomic(Atomic kind, unsigned long* address, unsigned long value, unsigned long compare, Site) {
    return atomic_operation(kind, address, value, compare);
}

// Together with relaxed atomics before it an acquire, with those behind it a release.
void fence() {
    for (void*& address : self->recent) {
        if (address != nullptr) __tsan_acquire(address);
        address = nullptr;
    }
    self->fenced = true;
}

namespace {

void run_launch(const Kernel& kernel, u32 blocks, const u64* arguments, u32 resident,
                std::mt19937_64& random) {
    launch.kernel = &kernel;
    launch.arguments = arguments;
    launch.blocks = blocks;
    launch.resident = std::min(resident, blocks);
    launch.block.clear();
    std::vector<u32> order(blocks);
    for (u32 i = 0; i < blocks; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    for (const u32 number : order) {
        launch.block.push_back(std::make_unique<Block>());
        launch.block.back()->number = number;
    }
    shared_pool_bytes = static_cast<u64>(blocks) * SHARED_BYTES;
    shared_pool = map(nullptr, shared_pool_bytes);
    shared_used = 0;
    __tsan_release(launch_start);
    at_work = launch.resident * BLOCK;
    while (workers.size() < static_cast<size_t>(launch.resident) * BLOCK) {
        workers.push_back(std::make_unique<Worker>());
        Worker& worker = *workers.back();
        worker.slot = static_cast<u32>(workers.size() - 1) / BLOCK;
        worker.index = static_cast<u32>(workers.size() - 1) % BLOCK;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, STACK_BYTES);
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, &worker) != 0) give_up("no more threads");
        pthread_detach(thread);
    }
    for (u32 slot = 0; slot < launch.resident; ++slot) {
        rounds[slot]->fetch_add(1, std::memory_order_acq_rel);
        rounds[slot]->notify_all();
    }
    for (u32 left = at_work; left != 0; left = at_work) at_work.wait(left, std::memory_order_acquire);
    __tsan_acquire(launch_end);
    syscall(SYS_munmap, shared_pool, shared_pool_bytes);
}

// A log is u64 words; bytes are filled up to whole words.
class Log {
  public:
    explicit Log(const char* path) {
        std::FILE* file = std::fopen(path, "rb");
        if (file == nullptr) give_up(std::string("cannot open ") + path);
        u64 word;
        while (std::fread(&word, 8, 1, file) == 1) words_.push_back(word);
        std::fclose(file);
    }
    bool more() const { return at_ < words_.size(); }
    u64 word() {
        if (!more()) give_up("the log is cut off");
        return words_[at_++];
    }
    const u8* bytes(u64 size) {
        const u64 count = (size + 7) / 8;
        if (count > words_.size() - at_) give_up("the log is cut off");
        at_ += count;
        return reinterpret_cast<const u8*>(&words_[at_ - count]);
    }

  private:
    std::vector<u64> words_;
    size_t at_ = 0;
};

enum Record : u64 { RECORD_WRITE = 1, RECORD_FILL = 2, RECORD_READ = 3, RECORD_LAUNCH = 4 };

const Kernel& find(const std::string& name) {
    for (const Kernel* kernel = kernels; kernel != nullptr; kernel = kernel->next) {
        if (name == kernel->name) return *kernel;
    }
    give_up("no kernel is called " + name);
}

int replay(Log& log, u64 seed, u32 resident) {
    std::mt19937_64 random(seed);
    u64 reads = 0, differing = 0;
    const u64 arena = log.word();
    map(reinterpret_cast<void*>(arena), ARENA_BYTES);
    for (u32 slot = 0; slot < resident; ++slot) rounds.push_back(std::make_unique<std::atomic<u32>>(0));
    while (log.more()) {
        switch (log.word()) {
            case RECORD_WRITE: {
                void* const address = reinterpret_cast<void*>(log.word());
                const u64 size = log.word();
                std::memcpy(address, log.bytes(size), size);
                break;
            }
            case RECORD_FILL: {
                void* const address = reinterpret_cast<void*>(log.word());
                const int value = static_cast<int>(log.word());
                std::memset(address, value, log.word());
                break;
            }
            case RECORD_READ: {
                const void* const address = reinterpret_cast<const void*>(log.word());
                const u64 size = log.word();
                ++reads;
                if (std::memcmp(address, log.bytes(size), size) != 0) {
                    ++differing;
                    std::printf("differs: read %llu, of %llu bytes\n",
                                static_cast<unsigned long long>(reads - 1),
                                static_cast<unsigned long long>(size));
                }
                break;
            }
            case RECORD_LAUNCH: {
                const u32 blocks = static_cast<u32>(log.word());
                const u64 count = log.word(), length = log.word();
                const std::string name(reinterpret_cast<const char*>(log.bytes(length)), length);
                const Kernel& kernel = find(name);
                if (count != kernel.parameters) give_up("another number of parameters for " + name);
                run_launch(kernel, blocks, reinterpret_cast<const u64*>(log.bytes(8 * count)), resident,
                           random);
                break;
            }
            default:
                give_up("no such record in the log");
        }
    }
    std::printf("reads: %llu, differing: %llu\n", static_cast<unsigned long long>(reads),
                static_cast<unsigned long long>(differing));
    return differing == 0 ? 0 : 3;
}

}  // namespace

}  // namespace emulation

// Volatile accesses: relaxed atomics, as in the PTX memory model.
#define TS_VOLATILE(size, bits, type)                         \
    void __tsan_volatile_read##size(void* p) {                \
        __tsan_atomic##bits##_load(static_cast<type*>(p), 0); \
    }                                                         \
    void __tsan_volatile_write##size(void* p) {               \
        __tsan_atomic##bits##_load(static_cast<type*>(p), 0); \
    }
extern "C" {
TS_VOLATILE(1, 8, unsigned char)
TS_VOLATILE(2, 16, unsigned short)
TS_VOLATILE(4, 32, unsigned int)
TS_VOLATILE(8, 64, unsigned long)
}

int main(int count, char** arguments) {
    if (count < 2) emulation::give_up("usage: emulation_threads LOG [SEED [RESIDENT_BLOCKS]]");
    emulation::Log log(arguments[1]);
    const unsigned long seed = count > 2 ? std::strtoul(arguments[2], nullptr, 10) : 0;
    const unsigned long resident = count > 3 ? std::strtoul(arguments[3], nullptr, 10) : 2;
    return emulation::replay(log, seed, static_cast<emulation::u32>(std::max(1ul, resident)));
}
