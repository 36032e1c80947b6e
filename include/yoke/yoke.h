/* SPDX-License-Identifier: MIT
 * yoke.h - runs your work on all your cores, as threads or as processes, whichever fits.
 *
 * The umbrella: one header per noun.
 */
#ifndef YOKE_YOKE_H
#define YOKE_YOKE_H

#include <yoke/base.h>
#include <yoke/cancel.h>
#include <yoke/fork.h>
#include <yoke/memory.h>
#include <yoke/pool.h>
#include <yoke/process.h>
#include <yoke/program.h>
#include <yoke/sort.h>
#include <yoke/stream.h>
#include <yoke/task.h>
#include <yoke/thread.h>
#include <yoke/worker.h>

#endif
