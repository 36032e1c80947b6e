/* SPDX-License-Identifier: MIT
 * base.h - what every other header needs: errors, time, the version.
 *
 * Errors are ints: 0, -errno, or one of the YOKE_E codes below -5000. The library never sets
 * errno, prints, exits, installs a signal handler or reads the environment.
 */
#ifndef YOKE_BASE_H
#define YOKE_BASE_H

#if !defined(__linux__) || !defined(__SIZEOF_POINTER__) || __SIZEOF_POINTER__ != 8
#error "Yoke runs on Linux 5.10 or later on 64-bit machines, and nowhere else yet."
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define YOKE_VERSION_MAJOR 0
#define YOKE_VERSION_MINOR 1
#define YOKE_VERSION_PATCH 0

#if defined(__GNUC__)
#define YOKE_API __attribute__((visibility("default")))
#define YOKE_MUST_CHECK __attribute__((warn_unused_result))
#else
#define YOKE_API
#define YOKE_MUST_CHECK
#endif

/** Yoke's own errors. Everything else that goes wrong is a -errno. */
enum {
    YOKE_ETASK = -5001,   /**< at least one item or task did not end in YOKE_OK */
    YOKE_ECLOSED = -5002, /**< the pool, or the worker's parent, is shutting down */
    YOKE_EIMAGE = -5003,  /**< the function is not part of the image the workers are copies of */
    YOKE_ENESTED = -5004, /**< not possible inside a process worker */
    YOKE_EBROKEN = -5005, /**< workers keep dying without ending a task: the pool has given up */
    YOKE_EINIT = -5006,   /**< worker_init refused, or its worker died in it */
    YOKE_EVERSION = -5007 /**< a settings struct holds fields that this library does not know */
};

/** A deadline that never comes; for every parameter named until_ns. */
#define YOKE_FOREVER INT64_MAX

/** The text of an error returned by Yoke.
 *
 *  \param error  0, -errno, or a YOKE_E code; anything else gives "unknown error".
 *  \return a constant string in English, never NULL.
 *
 *  Ownership:  the string is the library's.
 *  Threads:    any.   Blocks: no.
 *  After fork: yes.
 */
YOKE_API const char *yoke_strerror(int error);

/** The version of the library that is running, as "MAJOR.MINOR.PATCH".
 *
 *  Ownership:  the string is the library's.
 *  Threads:    any.   Blocks: no.
 *  After fork: yes.
 */
YOKE_API const char *yoke_version(void);

/** Now, in nanoseconds of the monotonic clock: the clock of every until_ns.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: yes.
 */
YOKE_API int64_t yoke_now_ns(void);

/** A deadline that many milliseconds from now. Saturates at YOKE_FOREVER; a negative ms is now.
 *
 *  Threads:    any.   Blocks: no.
 *  After fork: yes.
 */
YOKE_API int64_t yoke_in_ms(int64_t ms);

/** The CPUs this process may really use: affinity and cgroup quota (v1 and v2), at least 1.
 *
 *  A quota of 1.5 CPUs counts as 2. Read anew at each call.
 *
 *  Threads:    any.   Blocks: no (reads a few files in /proc and /sys).
 *  After fork: yes.
 */
YOKE_API unsigned yoke_cpu_count(void);

/** Plant the seed image: call it first thing in main, before threads and big data.
 *
 *  Optional. Pools and processes with image = YOKE_SEED are made of copies of the program as it
 *  is now, so they start as fast from a 10 GB program as from a 10 MB one. A second call does
 *  nothing, unless somebody killed the process that holds the image: then it plants a new one. It
 *  costs one small process that sleeps, and one more once a single process was made of the seed: a
 *  copy that waits for the next one.
 *
 *  \return 0, -ENOMEM, -EAGAIN (no process to be had), -EMFILE, or YOKE_ENESTED in a worker.
 *
 *  Ownership:  the image is the library's; it goes when the program goes, however it goes.
 *  Threads:    any, but see above.   Blocks: for the time of one fork.
 *  After fork: yes, plants the child's own.
 */
YOKE_API YOKE_MUST_CHECK int yoke_init(void);

#ifdef __cplusplus
}
#endif

#endif
