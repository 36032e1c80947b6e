/* SPDX-License-Identifier: MIT
 * image.c - which code is loaded now, and of which files.   Room: platform.
 *
 * Workers are copies of a program as of one moment. A function of a library that was loaded later
 * is not in them; comparing the code ranges of then and now tells that before a call. Workers of
 * another program have the same files at other addresses: there, the file is what is compared.
 */
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <unistd.h>

#include "platform/platform.h"

#define FNV_OFFSET 1469598103934665603ULL
#define FNV_PRIME 1099511628211ULL

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *const at = bytes;
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ at[i]) * FNV_PRIME;
    }
    return hash;
}

/* The module as it is loaded here: its name and its address. */
static uint64_t identity_here(const struct dl_phdr_info *module)
{
    const uint64_t hash = FNV_OFFSET ^ (uint64_t)module->dlpi_addr;
    return module->dlpi_name != NULL
               ? hash_bytes(hash, module->dlpi_name, strlen(module->dlpi_name))
               : hash;
}

/* --- which file it is ----------------------------------------------------------------------- */

/* /proc/self/maps, read when it is first needed. */
struct maps {
    bool tried;
    char *text; /* or NULL */
};

static char *read_all(int fd)
{
    size_t room = (size_t)64 << 10;
    size_t used = 0;
    char *text = malloc(room);
    for (;;) {
        const ssize_t got = text != NULL ? read(fd, text + used, room - used - 1) : -1;
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
        if (room - used < room / 2) {
            char *const more = realloc(text, 2 * room);
            if (more == NULL) {
                free(text);
                return NULL;
            }
            text = more;
            room *= 2;
        }
    }
    if (text != NULL) {
        text[used] = '\0';
    }
    return text;
}

static void maps_read(struct maps *maps)
{
    maps->tried = true;
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        maps->text = read_all(fd);
        close(fd);
    }
}

/* Device and inode of the file mapped at this address; 0: unknown. What is mapped, not what the
 * name stands for by now: the file may have been replaced. */
static uint64_t hash_mapped_file(struct maps *maps, uintptr_t address)
{
    if (!maps->tried) {
        maps_read(maps);
    }
    for (const char *line = maps->text; line != NULL && *line != '\0';) {
        /* start-end rights offset device inode name */
        char *at = NULL;
        const uintptr_t start = strtoul(line, &at, 16);
        const uintptr_t end = *at == '-' ? strtoul(at + 1, &at, 16) : 0;
        if (address >= start && address < end) {
            const char *from = at;
            for (unsigned blanks = 0; *from != '\0' && blanks < 3; from++) {
                blanks += *from == ' ';
            }
            const size_t device = strcspn(from, " \n");
            const size_t inode = from[device] == ' ' ? 1 + strcspn(from + device + 1, " \n") : 0;
            return hash_bytes(FNV_OFFSET, from, device + inode);
        }
        const char *const newline = strchr(at, '\n');
        line = newline != NULL ? newline + 1 : NULL;
    }
    return 0;
}

static bool is_loaded(const struct dl_phdr_info *module, const ElfW(Phdr) * note)
{
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *const segment = &module->dlpi_phdr[i];
        if (segment->p_type == PT_LOAD && note->p_vaddr >= segment->p_vaddr &&
            note->p_vaddr + note->p_memsz <= segment->p_vaddr + segment->p_filesz) {
            return true;
        }
    }
    return false;
}

/* The hash of the build-id in this segment of notes; 0: there is none. */
static uint64_t hash_build_id(const struct dl_phdr_info *module, const ElfW(Phdr) * notes)
{
    const size_t align = notes->p_align == 8 ? 8 : 4;
    const size_t bytes = notes->p_memsz;
    /* NOLINTNEXTLINE(performance-no-int-to-ptr): an address from the loader. */
    const char *const at = (const char *)(module->dlpi_addr + notes->p_vaddr);
    ElfW(Nhdr) head;
    for (size_t i = 0; i <= bytes && bytes - i >= sizeof head;) {
        memcpy(&head, at + i, sizeof head);
        const size_t name = i + sizeof head;
        const size_t data = yk_round_up(name + head.n_namesz, align);
        if (data > bytes || head.n_descsz > bytes - data) {
            return 0;
        }
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == sizeof "GNU" &&
            memcmp(at + name, "GNU", sizeof "GNU") == 0) {
            return hash_bytes(FNV_OFFSET, at + data, head.n_descsz);
        }
        i = yk_round_up(data + head.n_descsz, align);
    }
    return 0;
}

/* The file, wherever it is loaded: its build-id, or, where it has none, the very file; and how its
 * segments lie. 0: nobody knows. */
static uint64_t identity_of_file(const struct dl_phdr_info *module, struct maps *maps)
{
    uint64_t file = 0;
    uint64_t hash = FNV_OFFSET;
    uintptr_t code = 0;
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *const segment = &module->dlpi_phdr[i];
        if (segment->p_type == PT_NOTE && file == 0 && is_loaded(module, segment)) {
            file = hash_build_id(module, segment);
        }
        if (segment->p_type == PT_LOAD) {
            hash = (hash ^ segment->p_vaddr) * FNV_PRIME;
            hash = (hash ^ segment->p_memsz) * FNV_PRIME;
            hash = (hash ^ segment->p_flags) * FNV_PRIME;
            code = (segment->p_flags & PF_X) != 0 ? module->dlpi_addr + segment->p_vaddr : code;
        }
    }
    file = file != 0 ? file : hash_mapped_file(maps, code);
    return file != 0 ? (hash ^ file) * FNV_PRIME | 1 : 0;
}

/* --- the list ------------------------------------------------------------------------------- */

struct collect {
    struct yk_code_range *ranges;
    size_t max;
    size_t count;
    bool files;
    uintptr_t only; /* not 0: just the module that holds this address */
    struct maps maps;
};

static bool holds(const struct dl_phdr_info *module, uintptr_t address)
{
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *const segment = &module->dlpi_phdr[i];
        const uintptr_t start = (uintptr_t)(module->dlpi_addr + segment->p_vaddr);
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X) != 0 && address >= start &&
            address - start < segment->p_memsz) {
            return true;
        }
    }
    return false;
}

static int add_module(struct dl_phdr_info *module, size_t size, void *arg)
{
    struct collect *const out = arg;
    (void)size;
    if (out->only != 0 && !holds(module, out->only)) {
        return 0;
    }
    const uint64_t identity =
        out->files ? identity_of_file(module, &out->maps) : identity_here(module);
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
                .base = (uintptr_t)module->dlpi_addr,
                .identity = identity,
            };
        }
        out->count++;
    }
    return 0;
}

static size_t list(struct collect *out)
{
    dl_iterate_phdr(add_module, out);
    free(out->maps.text);
    return out->count;
}

size_t yk_code_ranges(struct yk_code_range *ranges, size_t max)
{
    return list(&(struct collect){.ranges = ranges, .max = max});
}

size_t yk_code_files(struct yk_code_range *ranges, size_t max)
{
    return list(&(struct collect){.ranges = ranges, .max = max, .files = true});
}

size_t yk_code_file_of(uintptr_t fn, struct yk_code_range *ranges, size_t max)
{
    return list(&(struct collect){.ranges = ranges, .max = max, .files = true, .only = fn});
}
