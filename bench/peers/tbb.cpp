/* SPDX-License-Identifier: MIT
 * tbb.cpp - oneTBB, as its users write it: task_group, parallel_for, task_arena, parallel_sort.
 *
 * Idea: an arena of as many threads as Yoke has workers, and a limit that allows them; the calls
 * are made within it, many at a time, so that entering it costs next to nothing. Tasks that are
 * posted run on threads beside the caller, so their arena keeps no place for it.
 */
#include "peer.h"

#include <memory>

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_sort.h>
#include <tbb/task_arena.h>
#include <tbb/task_group.h>

namespace
{

std::unique_ptr<tbb::global_control> limit;
std::unique_ptr<tbb::task_arena> arena, posts;

const char *start(unsigned threads)
{
    limit = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                  threads + 1);
    arena = std::make_unique<tbb::task_arena>(static_cast<int>(threads));
    posts = std::make_unique<tbb::task_arena>(static_cast<int>(threads), 0);
    arena->initialize();
    posts->initialize();
    return nullptr;
}

void stop()
{
    posts.reset();
    arena.reset();
    limit.reset();
}

long fib_in(int n)
{
    if (n < 2) {
        return n;
    }
    long left = 0;
    tbb::task_group group;
    group.run([&left, n] { left = fib_in(n - 1); });
    const long right = fib_in(n - 2);
    group.wait();
    return left + right;
}

long fib(int n)
{
    return arena->execute([n] { return fib_in(n); });
}

void region(std::size_t times, bench_half_fn *fn, void *arg)
{
    arena->execute([=] {
        for (std::size_t i = 0; i < times; i++) {
            tbb::parallel_for(0U, 2U, [=](unsigned half) { fn(arg, half); });
        }
    });
}

void sort(std::uint64_t *numbers, std::size_t count)
{
    arena->execute([=] { tbb::parallel_sort(numbers, numbers + count); });
}

void post(bench_task_fn *fn, void *arg)
{
    posts->enqueue([=] { fn(arg); });
}

} // namespace

const bench_peer bench_peer_table = {start,   stop, 2000000, fib,    region,
                                     nullptr, sort, post,    nullptr};
