// SPDX-License-Identifier: Apache-2.0
// A fixed set of threads that run one function together and wait for each other.
#pragma once

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
        for (unsigned worker = 1; worker < count_; ++worker) {
            threads_.emplace_back([this, worker] { loop(worker); });
        }
    }
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    ~Workers() {
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
        }
        start_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    unsigned count() const { return count_; }

    // Calls task(worker) for worker = 0..count-1, worker 0 on the caller's thread; returns when all are
    // done and rethrows the first exception.
    void run(const std::function<void(unsigned)>& task) {
        if (count_ > 1) {
            std::lock_guard lock(mutex_);
            task_ = &task;
            busy_ = count_ - 1;
            ++round_;
            start_.notify_all();
        }
        call(task, 0);
        std::exception_ptr error;
        {
            std::unique_lock lock(mutex_);
            done_.wait(lock, [this] { return busy_ == 0; });
            std::swap(error, error_);
        }
        if (error) std::rethrow_exception(error);
    }

  private:
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
            const std::function<void(unsigned)>* task;
            {
                std::unique_lock lock(mutex_);
                start_.wait(lock, [&] { return stop_ || round_ != seen; });
                if (stop_) return;
                seen = round_;
                task = task_;
            }
            call(*task, worker);
            std::lock_guard lock(mutex_);
            if (--busy_ == 0) done_.notify_one();
        }
    }

    const unsigned count_;
    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable start_, done_;
    const std::function<void(unsigned)>* task_ = nullptr;
    unsigned long round_ = 0;
    unsigned busy_ = 0;
    bool stop_ = false;
    std::exception_ptr error_;
};

}  // namespace twinstamp
