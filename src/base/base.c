/* SPDX-License-Identifier: MIT
 * base.c - error texts, the version, and how settings structs grow.
 *
 * Idea: the first field of a settings struct is its size, so an old program and a new library
 * (or the reverse) agree on what was meant, as in the kernel's copy_struct_from_user.   Room: base.
 */
#include "base/base.h"

#include <errno.h>

#define SETTINGS_BYTES_MAX 4096

#define STRINGIFY(x) #x
#define TEXT(x) STRINGIFY(x)

const char *yoke_version(void)
{
    return TEXT(YOKE_VERSION_MAJOR) "." TEXT(YOKE_VERSION_MINOR) "." TEXT(YOKE_VERSION_PATCH);
}

static const char *own_error(int error)
{
    switch (error) {
    case YOKE_ETASK:
        return "at least one task did not end well";
    case YOKE_ECLOSED:
        return "the pool is shutting down";
    case YOKE_EIMAGE:
        return "the function is not part of the image the workers are copies of";
    case YOKE_ENESTED:
        return "not possible inside a process worker";
    case YOKE_EBROKEN:
        return "workers keep dying without ending a task; the pool has given up";
    case YOKE_EINIT:
        return "worker_init refused, or its worker died in it";
    case YOKE_EVERSION:
        return "a settings struct holds fields that this library does not know";
    default:
        return "unknown error";
    }
}

const char *yoke_strerror(int error)
{
    if (error == 0) {
        return "success";
    }
    if (error < -5000) {
        return own_error(error);
    }
    /* Not strerror: it is not thread-safe and follows the locale. */
    const char *text = error < 0 && error > -4096 ? strerrordesc_np(-error) : NULL;
    return text != NULL ? text : "unknown error";
}

int yk_settings_read(void *to, size_t to_bytes, const void *from)
{
    memset(to, 0, to_bytes);
    if (from == NULL) {
        return 0;
    }
    size_t from_bytes = 0;
    memcpy(&from_bytes, from, sizeof from_bytes);
    if (from_bytes < sizeof from_bytes || from_bytes > SETTINGS_BYTES_MAX) {
        return -EINVAL;
    }
    const unsigned char *bytes = from;
    for (size_t i = to_bytes; i < from_bytes; i++) {
        if (bytes[i] != 0) {
            return YOKE_EVERSION;
        }
    }
    memcpy(to, from, yk_min(to_bytes, from_bytes));
    return 0;
}
