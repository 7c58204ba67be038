// SPDX-License-Identifier: Apache-2.0
// A fixed set of threads that run one function together and wait for each other.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace twinstamp {

class Workers {
  public:
    explicit Workers(unsigned count) : count_(count) {
        // A thread that cannot be made must not leave joinable ones behind: that ends the process.
        try {
            for (unsigned worker = 1; worker < count_; ++worker) {
                threads_.emplace_back([this, worker] { loop(worker); });
            }
        } catch (...) {
            end();
            throw;
        }
    }
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    ~Workers() { end(); }

    unsigned count() const { return count_; }

    // Calls task(worker) for worker = 0..count-1, worker 0 on the caller's thread; returns when all are
    // done and rethrows the first exception.
    void run(const std::function<void(unsigned)>& task) {
        if (count_ > 1) {
            task_ = &task;
            busy_.store(count_ - 1, std::memory_order_relaxed);
            round_.fetch_add(1);
            if (asleep_.load() > 0) {
                std::lock_guard lock(mutex_);
                start_.notify_all();
            }
        }
        call(task, 0);
        if (!spin([this] { return busy_.load(std::memory_order_acquire) == 0; })) {
            std::unique_lock lock(mutex_);
            waiting_.store(true);
            // In one order with waiting_, or a core may see neither the other's store: a lost wake-up.
            done_.wait(lock, [this] { return busy_.load() == 0; });
            waiting_.store(false);
        }
        std::exception_ptr error;
        {
            std::lock_guard lock(mutex_);
            std::swap(error, error_);
        }
        if (error) std::rethrow_exception(error);
    }

  private:
    void end() {
        {
            std::lock_guard lock(mutex_);
            stop_.store(true);
        }
        start_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    // Phases follow each other within microseconds, waking a thread takes tens: look for a while first.
    template <typename Condition>
    static bool spin(Condition&& condition) {
        for (int turn = 0; turn < 4000; ++turn) {
            if (condition()) return true;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        return false;
    }

    void call(const std::function<void(unsigned)>& task, unsigned worker) {
        try {
            task(worker);
        } catch (...) {
            std::lock_guard lock(mutex_);
            if (!error_) error_ = std::current_exception();
        }
    }

    void loop(unsigned worker) {
        unsigned long seen = 0;
        while (true) {
            const auto begun = [&] { return stop_.load() || round_.load() != seen; };
            if (!spin(begun)) {
                std::unique_lock lock(mutex_);
                asleep_.fetch_add(1);
                start_.wait(lock, begun);
                asleep_.fetch_sub(1);
            }
            if (stop_.load()) return;
            seen = round_.load();
            call(*task_, worker);
            if (busy_.fetch_sub(1) == 1 && waiting_.load()) {
                std::lock_guard lock(mutex_);
                done_.notify_one();
            }
        }
    }

    const unsigned count_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable start_, done_;
    const std::function<void(unsigned)>* task_ = nullptr;  // published by round_
    std::atomic<unsigned long> round_{0};
    std::atomic<unsigned> busy_{0}, asleep_{0};
    std::atomic<bool> waiting_{false}, stop_{false};
    std::exception_ptr error_;
};

}  // namespace twinstamp
