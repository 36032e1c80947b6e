/* SPDX-License-Identifier: MIT
 * cancel.h - pools and cancel tokens.   Room: pool.
 */
#ifndef YK_POOL_CANCEL_H
#define YK_POOL_CANCEL_H

#include "pool/dispatch.h"

/* It has a token and is being taken in. False: the token is set, and it must not be. */
bool yk_unit_belongs_locked(struct yoke_pool *pool, const struct yk_unit *unit)
    YK_REQUIRES(pool->lock);

#endif
