/* SPDX-License-Identifier: MIT
 * image.c - which code is loaded now.   Room: platform.
 *
 * Workers are copies of the program as of one moment. A function of a library that was loaded
 * later is not in them; comparing the code ranges of then and now tells that before a call.
 */
#include <link.h>

#include "platform/platform.h"

struct collect {
    struct yk_code_range *ranges;
    size_t max;
    size_t count;
};

#define FNV_OFFSET 1469598103934665603ULL
#define FNV_PRIME 1099511628211ULL

/* FNV-1a over the file name, with the address it is loaded at. */
static uint64_t identity_of(const struct dl_phdr_info *module)
{
    uint64_t hash = FNV_OFFSET ^ (uint64_t)module->dlpi_addr;
    for (const char *c = module->dlpi_name; c != NULL && *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * FNV_PRIME;
    }
    return hash;
}

static int add_module(struct dl_phdr_info *module, size_t size, void *arg)
{
    struct collect *const out = arg;
    (void)size;
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *const segment = &module->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || (segment->p_flags & PF_X) == 0) {
            continue;
        }
        if (out->count < out->max) {
            const uintptr_t start = (uintptr_t)(module->dlpi_addr + segment->p_vaddr);
            out->ranges[out->count] = (struct yk_code_range){
                .start = start,
                .end = start + segment->p_memsz,
                .identity = identity_of(module),
            };
        }
        out->count++;
    }
    return 0;
}

size_t yk_code_ranges(struct yk_code_range *ranges, size_t max)
{
    struct collect out = {.ranges = ranges, .max = max};
    dl_iterate_phdr(add_module, &out);
    return out.count;
}
