// SPDX-License-Identifier: Apache-2.0
// The kernels are compiled with -fsanitize=thread, which calls __tsan_… before every access to memory. Those
// functions are here: they check the access against the memory's shadow and now and then switch threads.
// Nothing in this file is instrumented, and device code holds nothing that needs a destructor, so a launch
// is given up by jumping out of it.
#include "scheduler.h"

#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <chrono>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <vector>

namespace emulation {

namespace {

constexpr u64 STACK_BYTES = 64 << 10;
constexpr u64 GUARD_BYTES = 4096;
constexpr u32 SHARED_BYTES = 48 << 10;  // what a block may have without asking for more
constexpr u32 SHARED_GAP = 64;          // red bytes between two arrays
constexpr u32 NOBODY = 0xFFFF;

struct Fiber {
    u8* stack = nullptr;  // lowest usable byte
    u64 bytes = 0;
    bool started = false;
    jmp_buf context;
    ucontext_t starter;
};

enum class State : u8 { READY, AT_BARRIER, AT_WARP, DONE };

struct Block;

struct Thread {
    Block* block;
    u32 index;
    State state;
    bool slow;
    Fiber* fiber;
    u64 result;
};

// The last accesses of one byte of shared memory; times are those of Run::clock.
struct Cell {
    u64 write_time, read_time, other_time;
    u16 writer, reader, other;
    bool atomic_write, atomic_read, atomic_other;
};

struct SharedArray {
    const void* site;
    const char* name;
    u32 offset, bytes;
};

struct Block {
    u32 number;
    u32 done;
    // Barrier that threads wait at.
    u32 arrived;
    Barrier barrier_kind;
    Site barrier_site;
    u32 any, count;
    // Shared memory and what orders accesses to it.
    u64 start_time, barrier_time;
    std::vector<SharedArray> arrays;
    u32 shared_used;
    std::unique_ptr<u8[]> shared_room;
    std::unique_ptr<Cell[]> cells;
    u64 warp_time[BLOCK / WARP][WARP][WARP];  // last __syncwarp of two lanes
    bool warp_synced[BLOCK / WARP];
    Lane lanes[BLOCK / WARP][WARP];
    u32 waiting[BLOCK / WARP];   // lanes at an intrinsic
    bool uniform[BLOCK / WARP];  // all of them at the same
    Thread threads[BLOCK];

    u8* shared_memory() const {
        return reinterpret_cast<u8*>((reinterpret_cast<u64>(shared_room.get()) + 63) & ~63ull);
    }
};

struct Run {
    Memory* memory = nullptr;
    const Kernel* kernel = nullptr;
    const u64* arguments = nullptr;
    Options options;
    u32 blocks = 0;
    u32 started = 0;
    std::vector<u32> order;
    std::vector<std::unique_ptr<Block>> slots;
    std::vector<Thread*> ready;
    u64 clock = 1;
    u64 random = 1;
    i32 countdown = 0;
    u64 yields = 0;
    bool slow_threads = false;
    jmp_buf exit;
    std::string offence;
    Statistics statistics;
    std::chrono::steady_clock::time_point deadline;
};

Run run;
Thread* running = nullptr;

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Fiber*> idle;
Fiber* starting = nullptr;
u64 image_begin = 0, image_end = 0;

u64 next_random() {
    run.random ^= run.random << 13;
    run.random ^= run.random >> 7;
    run.random ^= run.random << 17;
    return run.random * 0x2545F4914F6CDD1Dull;
}

u32 random_below(u32 n) {
    return static_cast<u32>(((next_random() >> 32) * n) >> 32);
}

void rewind_countdown() {
    if (run.countdown > 0) run.statistics.accesses -= static_cast<u64>(run.countdown);
    const u32 interval = run.options.interval == 0 ? 1u << 20 : run.options.interval;
    run.countdown = static_cast<i32>(1 + random_below(2 * interval - 1));
    run.statistics.accesses += static_cast<u64>(run.countdown);
}

[[noreturn]] void offend(const std::string& text) {
    run.offence = text;
    _longjmp(run.exit, 1);
}

std::string place() {
    return "kernel " + std::string(run.kernel->name) + ", block " + std::to_string(running->block->number) +
           ", thread " + std::to_string(running->index);
}

std::string text_of(const Site& site) {
    const char* file = std::strrchr(site.file, '/');
    return std::string(file ? file + 1 : site.file) + ":" + std::to_string(site.line);
}

// Where in the extension the access is, for addr2line.
std::string text_of_code(const void* code) {
    char text[64];
    std::snprintf(text, sizeof text, " [code +0x%llx]",
                  static_cast<unsigned long long>(reinterpret_cast<u64>(code) - image_begin - 1));
    return text;
}

// Fibers --------------------------------------------------------------------------------------------------

void fiber_main();

void start(Fiber* fiber) {
    ucontext_t first;
    getcontext(&first);
    first.uc_stack.ss_sp = fiber->stack;
    first.uc_stack.ss_size = fiber->bytes;
    first.uc_link = nullptr;
    makecontext(&first, fiber_main, 0);
    starting = fiber;
    fiber->started = true;
    swapcontext(&fiber->starter, &first);
}

Fiber* take_fiber() {
    if (idle.empty()) {
        void* room = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED) offend("no memory for another emulated thread's stack");
        mprotect(room, GUARD_BYTES, PROT_NONE);
        auto fiber = std::make_unique<Fiber>();
        fiber->stack = static_cast<u8*>(room) + GUARD_BYTES;
        // Stacks that start at the same place of a page would fight for the same cache lines.
        fiber->bytes = STACK_BYTES - (fibers.size() * 320 % 4096 & ~63ull);
        idle.push_back(fiber.get());
        fibers.push_back(std::move(fiber));
    }
    Fiber* fiber = idle.back();
    idle.pop_back();
    if (!fiber->started) start(fiber);
    return fiber;
}

Thread* take_ready() {
    auto& ready = run.ready;
    if (ready.empty()) return nullptr;
    u32 pick = random_below(static_cast<u32>(ready.size()));
    for (u32 i = 0; run.slow_threads && ready[pick]->slow && i < 4; ++i) {
        pick = random_below(static_cast<u32>(ready.size()));
    }
    Thread* thread = ready[pick];
    ready[pick] = ready.back();
    ready.pop_back();
    return thread;
}

void switch_to(Thread* next) {
    Thread* self = running;
    running = next;
    ++run.statistics.switches;
    if (next->fiber == nullptr) next->fiber = take_fiber();
    if (_setjmp(self->fiber->context) == 0) _longjmp(next->fiber->context, 1);
}

void yield() {
    rewind_countdown();
    if ((++run.yields & 0xFFFF) == 0 && std::chrono::steady_clock::now() > run.deadline) {
        offend(place() + ": the launch takes too long; does it wait for a block that has not started?");
    }
    run.ready.push_back(running);
    Thread* next = take_ready();
    if (next != running) switch_to(next);
}

[[noreturn]] void deadlock();

void sleep(State state) {
    running->state = state;
    Thread* next = take_ready();
    if (next == nullptr) deadlock();
    switch_to(next);
}

void wake(Thread& thread) {
    thread.state = State::READY;
    run.ready.push_back(&thread);
}

// One switch in eight where threads meet anyway; one in sixteen without switches at accesses, so that a
// thread that spins on an atomic lets the others run.
void maybe_yield() {
    if (random_below(run.options.interval == 0 ? 16 : 8) == 0) yield();
}

// Blocks --------------------------------------------------------------------------------------------------

void begin(Block& block, u32 number) {
    block.number = number;
    block.done = 0;
    block.arrived = 0;
    block.start_time = block.barrier_time = ++run.clock;
    block.arrays.clear();
    block.shared_used = 0;
    for (u32 w = 0; w < BLOCK / WARP; ++w) {
        block.waiting[w] = 0;
        if (block.warp_synced[w]) std::memset(block.warp_time[w], 0, sizeof block.warp_time[w]);
        block.warp_synced[w] = false;
    }
    const u32 slow_warps = run.slow_threads ? static_cast<u32>(next_random() >> 40) : 0;
    for (u32 i = 0; i < BLOCK; ++i) {
        block.threads[i] = {&block, i, State::READY, (slow_warps >> (i / 16) & 1) != 0, nullptr, 0};
        run.ready.push_back(&block.threads[i]);
    }
}

// The running thread came to its kernel's end.
void finish() {
    Block& block = *running->block;
    running->state = State::DONE;
    if (block.arrived > 0) {
        offend(place() + ": ends while others of its block wait at the barrier of " +
               text_of(block.barrier_site));
    }
    const u32 warp = running->index / WARP, lane = running->index % WARP;
    for (u32 left = block.waiting[warp]; left != 0; left &= left - 1) {
        const Lane& of = block.lanes[warp][__builtin_ctz(left)];
        if (of.mask >> lane & 1) {
            offend(place() + ": ends while others of its warp wait for it at " + name_of(of.kind) + " of " +
                   text_of(of.site));
        }
    }
    if (++block.done == BLOCK && run.started < run.blocks) begin(block, run.order[run.started++]);
}

[[noreturn]] void deadlock() {
    std::string text = "kernel " + std::string(run.kernel->name) + ": deadlock:";
    u32 named = 0;
    for (const auto& slot : run.slots) {
        for (const Thread& thread : slot->threads) {
            if (thread.state == State::DONE || thread.state == State::READY) continue;
            if (++named > 4) break;
            text += " block " + std::to_string(slot->number) + ", thread " + std::to_string(thread.index);
            if (thread.state == State::AT_BARRIER) {
                text += " waits at the barrier of " + text_of(slot->barrier_site) + ";";
            } else {
                const Lane& of = slot->lanes[thread.index / WARP][thread.index % WARP];
                text += " waits at " + std::string(name_of(of.kind)) + " of " + text_of(of.site) + ";";
            }
        }
    }
    offend(text);
}

void fiber_main() {
    Fiber* const self = starting;
    if (_setjmp(self->context) == 0) setcontext(&self->starter);
    for (;;) {
        run.kernel->run();
        finish();
        Thread* next = take_ready();
        if (next == nullptr) {
            for (const auto& slot : run.slots) {
                if (slot->done < BLOCK) deadlock();
            }
            idle.push_back(self);
            if (_setjmp(self->context) == 0) _longjmp(run.exit, 1);
            continue;
        }
        running = next;
        if (next->fiber == nullptr) {
            next->fiber = self;
            continue;
        }
        idle.push_back(self);
        if (_setjmp(self->context) == 0) _longjmp(next->fiber->context, 1);
    }
}

// Memory accesses -----------------------------------------------------------------------------------------

// Whether what `thread` did at `time` comes before what the running thread does now.
bool ordered(const Block& block, u32 thread, u64 time) {
    if (thread == running->index || time < block.barrier_time) return true;
    const u32 warp = running->index / WARP;
    return thread / WARP == warp && time < block.warp_time[warp][running->index % WARP][thread % WARP];
}

[[noreturn]] void offend_race(const SharedArray& array, u32 at, bool write, u32 other, bool other_wrote,
                              const void* code) {
    offend(place() + ": " + (write ? "writes" : "reads") + " byte " + std::to_string(at - array.offset) +
           " of shared " + array.name + ", which thread " + std::to_string(other) +
           (other_wrote ? " wrote" : " read") + " with no barrier between them" + text_of_code(code));
}

void check_shared(Block& block, u64 address, u32 size, bool write, bool atomic, const void* code) {
    const u32 offset = static_cast<u32>(address - reinterpret_cast<u64>(block.shared_memory()));
    const SharedArray* array = nullptr;
    for (const SharedArray& candidate : block.arrays) {
        if (offset >= candidate.offset && offset + size <= candidate.offset + candidate.bytes)
            array = &candidate;
    }
    if (array == nullptr) {
        offend(place() + ": " + (write ? "writes " : "reads ") + std::to_string(size) +
               " bytes of shared memory outside any array" + text_of_code(code));
    }
    const u16 self = static_cast<u16>(running->index);
    for (u32 at = offset; at < offset + size; ++at) {
        Cell& cell = block.cells[at];
        const bool written = cell.write_time >= block.start_time;
        if (run.options.racecheck) {
            if (written && !(atomic && cell.atomic_write) && !ordered(block, cell.writer, cell.write_time)) {
                offend_race(*array, at, write, cell.writer, true, code);
            }
            if (write && cell.read_time >= block.start_time) {
                if (!(atomic && cell.atomic_read) && !ordered(block, cell.reader, cell.read_time)) {
                    offend_race(*array, at, write, cell.reader, false, code);
                }
                if (cell.other_time >= block.start_time && !(atomic && cell.atomic_other) &&
                    !ordered(block, cell.other, cell.other_time)) {
                    offend_race(*array, at, write, cell.other, false, code);
                }
            }
        }
        if (write) {
            cell.write_time = run.clock;
            cell.writer = self;
            cell.atomic_write = atomic;
        } else {
            if (!written && run.options.initcheck) {
                offend(place() + ": reads byte " + std::to_string(at - array->offset) + " of shared " +
                       array->name + ", which nobody wrote" + text_of_code(code));
            }
            if (cell.read_time >= block.start_time && cell.reader != self) {
                cell.other_time = cell.read_time;
                cell.other = cell.reader;
                cell.atomic_other = cell.atomic_read;
            }
            cell.read_time = run.clock;
            cell.reader = self;
            cell.atomic_read = atomic;
        }
    }
}

// Byte by byte. A read of an aligned word is good where one byte of it is: kernels read whole words.
[[gnu::noinline]] bool readable(const u8* shadow, u64 address, u64 size) {
    const u8 wanted = ALLOCATED | (run.options.initcheck ? WRITTEN : 0);
    for (u64 i = 0; i < size;) {
        const u64 word = (address + i) & ~3ull;
        bool good = false, allowed = true;
        for (u64 b = 0; b < 4; ++b) {
            const u8 s = *(shadow + (word + b - address));
            good |= (s & wanted) == wanted || (s & BEHIND) != 0;
            if (word + b >= address && word + b < address + size) allowed &= (s & (ALLOCATED | BEHIND)) != 0;
        }
        if (!good || !allowed) return false;
        i = word + 4 - address;
    }
    return true;
}

[[gnu::noinline]] void check_elsewhere(u64 address, u32 size, bool write, bool atomic, const void* code) {
    const Fiber& fiber = *running->fiber;
    if (address - reinterpret_cast<u64>(fiber.stack) < STACK_BYTES) return;
    Block& block = *running->block;
    if (address - reinterpret_cast<u64>(block.shared_memory()) < SHARED_BYTES) {
        check_shared(block, address, size, write, atomic, code);
        return;
    }
    if (!write && address >= image_begin && address + size <= image_end) return;
    offend(place() + ": " + run.memory->explain(address, size, write) + text_of_code(code));
}

template <bool write>
void check(u64 address, u32 size, bool atomic, const void* code) {
    if (!run.memory->holds(address)) {
        check_elsewhere(address, size, write, atomic, code);
        return;
    }
    u8* shadow = run.memory->shadow(address);
    bool good = true;
    if constexpr (write) {
        for (u32 i = 0; i < size; ++i) good &= (shadow[i] & ALLOCATED) != 0;
        if (good) std::memset(shadow, ALLOCATED | WRITTEN, size);
    } else {
        for (u32 i = 0; i < size; ++i) good &= shadow[i] == (ALLOCATED | WRITTEN);
        if (!good) good = readable(shadow, address, size);
    }
    if (!good) offend(place() + ": " + run.memory->explain(address, size, write) + text_of_code(code));
}

template <u32 size, bool write, bool aligned, bool atomic>
inline void access(void* address, const void* code) {
    if (running == nullptr) return;  // initialisers of the extension
    const u64 at = reinterpret_cast<u64>(address);
    if constexpr (atomic) {
        maybe_yield();
    } else if (--run.countdown <= 0) {
        yield();
    }
    if (aligned && at % size != 0) {
        offend(place() + ": " + (write ? "writes " : "reads ") + std::to_string(size) +
               " bytes at an address " + std::to_string(at % size) + " bytes off their alignment" +
               text_of_code(code));
    }
    check<write>(at, size, atomic, code);
}

void access_range(void* address, u64 size, bool write, const void* code) {
    if (running == nullptr) return;
    if (--run.countdown <= 0) yield();
    const u64 at = reinterpret_cast<u64>(address);
    if (write) {
        check<true>(at, static_cast<u32>(size), false, code);
    } else {
        check<false>(at, static_cast<u32>(size), false, code);
    }
}

template <typename T>
[[gnu::always_inline]] inline T atomic_operation(Atomic kind, T* address, T value, T compare,
                                                 const Site& site) {
    maybe_yield();
    const u64 at = reinterpret_cast<u64>(address);
    if (at % sizeof(T) != 0) offend(place() + ": atomic at an address off its alignment, " + text_of(site));
    const void* code = __builtin_return_address(0);
    check<false>(at, sizeof(T), true, code);
    check<true>(at, sizeof(T), true, code);
    const T old = *address;
    *address = atomic_result(kind, old, value, compare);
    return old;
}

}  // namespace

// What device code calls ----------------------------------------------------------------------------------

Index thread_index() {
    return {running->index};
}
Index block_index() {
    return {running->block->number};
}
Index grid_size() {
    return {run.blocks};
}

unsigned long parameter(unsigned index) {
    return run.arguments[index];
}

void* shared(const void* site, unsigned long bytes, const char* name) {
    Block& block = *running->block;
    for (const SharedArray& array : block.arrays) {
        if (array.site == site) return block.shared_memory() + array.offset;
    }
    const u64 offset = (block.shared_used + 15) & ~15u;
    if (offset + bytes > SHARED_BYTES) {
        offend(place() + ": more than " + std::to_string(SHARED_BYTES) + " bytes of shared memory with " +
               name);
    }
    block.arrays.push_back({site, name, static_cast<u32>(offset), static_cast<u32>(bytes)});
    block.shared_used = static_cast<u32>(offset + bytes) + SHARED_GAP;
    u8* const memory = block.shared_memory() + offset;
    std::memset(memory, static_cast<int>(next_random() >> 56), bytes);
    return memory;
}

int barrier(Barrier kind, int value, Site site) {
    if (run.options.interval != 0) maybe_yield();
    Thread* const self = running;
    Block& block = *self->block;
    if (block.done > 0) {
        offend(place() + ": waits at the barrier of " + text_of(site) +
               " while threads of its block have ended");
    }
    if (block.arrived == 0) {
        block.barrier_kind = kind;
        block.barrier_site = site;
        block.any = block.count = 0;
    } else if (block.barrier_kind != kind || block.barrier_site.line != site.line ||
               std::strcmp(block.barrier_site.file, site.file) != 0) {
        offend(place() + ": waits at the barrier of " + text_of(site) +
               " while others of its block wait at that of " + text_of(block.barrier_site));
    }
    block.any |= value != 0;
    block.count += value != 0;
    if (++block.arrived < BLOCK) {
        sleep(State::AT_BARRIER);
        return static_cast<int>(self->result);
    }
    block.arrived = 0;
    block.barrier_time = ++run.clock;
    const u64 result = kind == BARRIER_OR    ? block.any
                       : kind == BARRIER_AND ? block.count == BLOCK
                                             : block.count;
    for (Thread& thread : block.threads) {
        thread.result = result;
        if (&thread != self) wake(thread);
    }
    if (run.options.interval != 0) maybe_yield();
    return static_cast<int>(result);
}

unsigned long warp(Warp kind, unsigned mask, unsigned long value, unsigned bytes, unsigned argument,
                   unsigned width, Site site) {
    if (run.options.interval != 0) maybe_yield();
    Thread* const self = running;
    Block& block = *self->block;
    const u32 number = self->index / WARP, lane = self->index % WARP;
    Lane* const lanes = block.lanes[number];
    const auto here = [&] { return place() + ": " + name_of(kind) + " of " + text_of(site); };
    if (!(mask >> lane & 1)) offend(here() + " with a mask that lacks the thread itself");
    if (width == 0 || width > WARP || (width & (width - 1)) != 0)
        offend(here() + " with an impossible width");
    // As a rule all that wait are at the same intrinsic.
    const u32 waiting = block.waiting[number];
    const Lane& first = lanes[waiting == 0 ? lane : __builtin_ctz(waiting)];
    const bool uniform = waiting == 0 || (block.uniform[number] && first.mask == mask && first.kind == kind &&
                                          first.bytes == bytes);
    block.uniform[number] = uniform;
    for (u32 left = uniform ? 0 : block.waiting[number]; left != 0; left &= left - 1) {
        const u32 i = static_cast<u32>(__builtin_ctz(left));
        if (!(mask >> i & 1) && !(lanes[i].mask >> lane & 1)) continue;
        if (lanes[i].mask != mask || lanes[i].kind != kind || lanes[i].bytes != bytes) {
            offend(here() + " meets lane " + std::to_string(i) + " at " + name_of(lanes[i].kind) + " of " +
                   text_of(lanes[i].site) + (lanes[i].mask != mask ? " with another mask" : ""));
        }
    }
    for (u32 i = 0; block.done > 0 && i < WARP; ++i) {
        if ((mask >> i & 1) && block.threads[number * WARP + i].state == State::DONE) {
            offend(here() + " waits for lane " + std::to_string(i) + ", which has ended");
        }
    }
    lanes[lane] = {kind, mask, bytes, argument, width, value, site};
    block.waiting[number] |= 1u << lane;
    if ((block.waiting[number] & mask) != mask) {
        sleep(State::AT_WARP);
        return self->result;
    }
    block.waiting[number] &= ~mask;
    if (kind == WARP_SYNC) {
        // Of the intrinsics only this one orders accesses to memory (CUDA C++ Programming Guide).
        ++run.clock;
        block.warp_synced[number] = true;
        for (u32 i = 0; i < WARP; ++i) {
            if (!(mask >> i & 1)) continue;
            for (u32 j = 0; j < WARP; ++j) {
                if (mask >> j & 1) block.warp_time[number][i][j] = run.clock;
            }
        }
    }
    const bool shuffle = kind >= WARP_SHUFFLE && kind <= WARP_SHUFFLE_XOR;
    for (u32 left = shuffle ? mask : 0; left != 0; left &= left - 1) {
        const u32 i = static_cast<u32>(__builtin_ctz(left)), source = shuffle_source(lanes[i], i);
        if (!(mask >> source & 1)) {
            offend(here() + ": lane " + std::to_string(i) + " reads lane " + std::to_string(source) +
                   ", which is not in the mask");
        }
    }
    u64 results[WARP];
    warp_results(lanes, kind, mask, results);
    for (u32 left = mask; left != 0; left &= left - 1) {
        const u32 i = static_cast<u32>(__builtin_ctz(left));
        Thread& thread = block.threads[number * WARP + i];
        thread.result = results[i];
        if (&thread != self) wake(thread);
    }
    if (run.options.interval != 0) maybe_yield();
    return self->result;
}

unsigned int atomic(Atomic kind, unsigned int* address, unsigned int value, unsigned int compare, Site site) {
    return atomic_operation(kind, address, value, compare, site);
}
unsigned long atomic(Atomic kind, unsigned long* address, unsigned long value, unsigned long compare,
                     Site site) {
    return atomic_operation(kind, address, value, compare, site);
}

// Accesses take effect at once here, so there is nothing to wait for.
void fence() {
    maybe_yield();
}

Statistics launch(Memory& memory, const Kernel& kernel, u32 blocks, const u64* arguments,
                  const Options& options) {
    if (image_begin == 0) {
        dl_iterate_phdr(
            [](dl_phdr_info* info, size_t, void*) {
                const u64 self = reinterpret_cast<u64>(&launch);
                u64 end = 0;
                bool ours = false;
                for (u32 i = 0; i < info->dlpi_phnum; ++i) {
                    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
                    const u64 from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
                    const u64 to = from + info->dlpi_phdr[i].p_memsz;
                    ours |= self >= from && self < to;
                    end = to;
                }
                if (ours) {
                    image_begin = info->dlpi_addr;
                    image_end = end;
                }
                return ours ? 1 : 0;
            },
            nullptr);
    }
    run.memory = &memory;
    run.kernel = &kernel;
    run.arguments = arguments;
    run.options = options;
    run.blocks = blocks;
    run.started = 0;
    run.statistics = {};
    run.offence.clear();
    run.ready.clear();
    run.random = options.seed * 0x9E3779B97F4A7C15ull + 0x1234567887654321ull;
    for (u32 i = 0; i < 4; ++i) next_random();
    run.slow_threads = next_random() >> 63;
    run.deadline = std::chrono::steady_clock::now() +
                   std::chrono::microseconds(static_cast<i64>(options.time_limit_s * 1e6));
    run.order.resize(blocks);
    for (u32 i = 0; i < blocks; ++i) {
        const u32 at = random_below(i + 1);
        run.order[i] = run.order[at];
        run.order[at] = i;
    }
    const u32 resident = options.resident_blocks == 0 ? 1 : options.resident_blocks;
    while (run.slots.size() < resident) {
        auto block = std::make_unique<Block>();
        block->shared_room = std::make_unique<u8[]>(SHARED_BYTES + 64);
        block->cells = std::make_unique<Cell[]>(SHARED_BYTES);
        run.slots.push_back(std::move(block));
    }
    for (auto& slot : run.slots) slot->done = BLOCK;
    for (u32 i = 0; i < resident && run.started < blocks; ++i) {
        begin(*run.slots[i], run.order[run.started++]);
    }
    run.countdown = 0;
    rewind_countdown();
    if (blocks > 0 && _setjmp(run.exit) == 0) {
        running = take_ready();
        running->fiber = take_fiber();
        _longjmp(running->fiber->context, 1);
    }
    running = nullptr;
    run.statistics.accesses -= static_cast<u64>(run.countdown > 0 ? run.countdown : 0);
    if (!run.offence.empty()) {
        // What the other threads left on their stacks is given up.
        idle.clear();
        for (auto& fiber : fibers) {
            fiber->started = false;
            idle.push_back(fiber.get());
        }
        for (auto& slot : run.slots) slot->done = BLOCK;
        throw Offence(run.offence);
    }
    return run.statistics;
}

}  // namespace emulation

// What instrumented code calls ----------------------------------------------------------------------------

using emulation::access;
using emulation::access_range;

#define TS_HOOK __attribute__((visibility("hidden"))) void
#define TS_CODE __builtin_return_address(0)
#define TS_HOOKS(size)                                       \
    TS_HOOK __tsan_read##size(void* p) {                     \
        access<size, false, true, false>(p, TS_CODE);        \
    }                                                        \
    TS_HOOK __tsan_write##size(void* p) {                    \
        access<size, true, true, false>(p, TS_CODE);         \
    }                                                        \
    TS_HOOK __tsan_volatile_read##size(void* p) {            \
        access<size, false, true, true>(p, TS_CODE);         \
    }                                                        \
    TS_HOOK __tsan_volatile_write##size(void* p) {           \
        access<size, true, true, true>(p, TS_CODE);          \
    }                                                        \
    TS_HOOK __tsan_unaligned_read##size(void* p) {           \
        access<size, false, false, false>(p, TS_CODE);       \
    }                                                        \
    TS_HOOK __tsan_unaligned_write##size(void* p) {          \
        access<size, true, false, false>(p, TS_CODE);        \
    }                                                        \
    TS_HOOK __tsan_unaligned_volatile_read##size(void* p) {  \
        access<size, false, true, true>(p, TS_CODE);         \
    }                                                        \
    TS_HOOK __tsan_unaligned_volatile_write##size(void* p) { \
        access<size, true, true, true>(p, TS_CODE);          \
    }

extern "C" {
TS_HOOKS(1)
TS_HOOKS(2)
TS_HOOKS(4)
TS_HOOKS(8)
TS_HOOKS(16)
TS_HOOK __tsan_read_range(void* p, unsigned long size) {
    access_range(p, size, false, TS_CODE);
}
TS_HOOK __tsan_write_range(void* p, unsigned long size) {
    access_range(p, size, true, TS_CODE);
}
TS_HOOK __tsan_init() {}
TS_HOOK __tsan_func_entry(void*) {}
TS_HOOK __tsan_func_exit() {}
}
