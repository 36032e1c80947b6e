/* SPDX-License-Identifier: MIT
 * sort.h - a stable parallel sort.
 */
#ifndef YOKE_SORT_H
#define YOKE_SORT_H

#include <yoke/fork.h>

#endif
