/* SPDX-License-Identifier: MIT
 * program.c - a process that runs a program: its start, its streams, its output.   Room: process.
 *
 * Everything that can be refused is opened here, before the start, so that it is this call's
 * error. What is opened only for the program is closed again when it has its own.
 */
#include <errno.h>
#include <stdlib.h>

#include "process/local.h"
#include "process/process.h"

#define MEMORY_BYTES_DEFAULT ((size_t)8 << 20)
#define FLAGS_ALL ((unsigned)(YOKE_PROGRAM_LEAVE | YOKE_PROGRAM_PLAIN))

/* A start under way. */
struct start {
    const yoke_program *wanted;
    yoke_process *process;
    int streams[YK_STREAMS];  /* what becomes 0, 1 and 2; -1: it is closed */
    bool is_ours[YK_STREAMS]; /* close it after the start */
};

/* --- the supervisor's file ----------------------------------------------------------------- */

static int supervisor_fd(int *fd)
{
    struct yk_program_local *const local = yk_program_local();
    if (local == NULL) {
        return -ENOMEM;
    }
    struct yk_supervisor_file *const file = &local->supervisor;
    struct yk_file_identity now;
    int rc = 0;
    yk_mutex_lock(&file->lock);
    const bool usable = file->open && yk_fd_identify(file->fd, &now) &&
                        now.device == file->identity.device && now.inode == file->identity.inode;
    if (!usable) {
        rc = yk_supervisor_open(&file->identity, &file->fd);
        file->open = rc == 0;
    }
    *fd = file->fd;
    yk_mutex_unlock(&file->lock);
    return rc;
}

/* --- streams ------------------------------------------------------------------------------- */

static int open_pipe(struct start *start, int which)
{
    int ends[2];
    const int rc = yk_pipe_open(&ends[0], &ends[1]);
    if (rc == 0) {
        start->streams[which] = which == 0 ? ends[0] : ends[1];
        start->process->pipes[which] = which == 0 ? ends[1] : ends[0];
    }
    return rc;
}

static int open_capture(struct start *start, const yoke_stream *stream, int which)
{
    const char *const folder = start->wanted->spill_directory;
    const struct yk_capture_bounds bounds = {
        .memory_bytes = stream->memory_bytes != 0 ? stream->memory_bytes : MEMORY_BYTES_DEFAULT,
        .total_bytes = stream->total_bytes != 0 ? stream->total_bytes : SIZE_MAX,
        .folder = folder != NULL ? folder : "/tmp",
    };
    return yk_capture_begin(&bounds, &start->process->captures[which], &start->streams[which]);
}

/* Those that become a descriptor that is opened for them. */
static int open_new(struct start *start, const yoke_stream *stream, int which)
{
    int *const fd = &start->streams[which];
    switch (stream->kind) {
    case YOKE_STREAM_NULL:
        return yk_null_open(fd);
    case YOKE_STREAM_PIPE:
        return open_pipe(start, which);
    case YOKE_STREAM_FILE:
        return yk_file_open(stream->path, which == 0 ? YK_FILE_READ : YK_FILE_WRITE, fd);
    case YOKE_STREAM_APPEND:
        return yk_file_open(stream->path, YK_FILE_APPEND, fd);
    case YOKE_STREAM_BYTES:
        return yk_bytes_open(stream->bytes, stream->byte_count, fd);
    default:
        return open_capture(start, stream, which);
    }
}

static int open_stream(struct start *start, const yoke_stream *stream, int which)
{
    switch (stream->kind) {
    case YOKE_STREAM_INHERIT:
        return 0; /* it is there already */
    case YOKE_STREAM_FD:
        start->streams[which] = stream->fd;
        return yk_fd_is_open(stream->fd) ? 0 : -EBADF;
    case YOKE_STREAM_STDOUT:
        start->streams[which] = start->streams[1];
        return 0;
    default: {
        const int rc = open_new(start, stream, which);
        start->is_ours[which] = rc == 0;
        return rc;
    }
    }
}

static int open_streams(struct start *start)
{
    const yoke_stream *const streams[YK_STREAMS] = {&start->wanted->input, &start->wanted->output,
                                                    &start->wanted->error};
    int rc = 0;
    /* Before anything is opened: what is closed here is closed there. */
    for (int i = 0; i < YK_STREAMS; i++) {
        start->streams[i] = yk_fd_is_open(i) ? i : -1;
    }
    for (int i = 0; i < YK_STREAMS && rc == 0; i++) {
        rc = open_stream(start, streams[i], i);
    }
    return rc;
}

static bool stream_is_valid(const yoke_stream *stream, int which)
{
    switch (stream->kind) {
    case YOKE_STREAM_INHERIT:
    case YOKE_STREAM_NULL:
    case YOKE_STREAM_PIPE:
        return true;
    case YOKE_STREAM_FD:
        return stream->fd >= 0;
    case YOKE_STREAM_FILE:
        return stream->path != NULL;
    case YOKE_STREAM_APPEND:
        return stream->path != NULL && which != 0;
    case YOKE_STREAM_STDOUT:
        return which == 2;
    case YOKE_STREAM_BYTES:
        return which == 0 && (stream->bytes != NULL || stream->byte_count == 0);
    case YOKE_STREAM_CAPTURE:
        return which != 0;
    default:
        return false;
    }
}

/* --- start --------------------------------------------------------------------------------- */

static int check_program(const yoke_program *program)
{
    if (program->argv == NULL || program->argv[0] == NULL || (program->flags & ~FLAGS_ALL) != 0 ||
        !stream_is_valid(&program->input, 0) || !stream_is_valid(&program->output, 1) ||
        !stream_is_valid(&program->error, 2) || program->limits.cpu_ns < 0 ||
        (program->keep_fds == NULL) != (program->keep_fd_count == 0)) {
        return -EINVAL;
    }
    for (size_t i = 0; i < program->keep_fd_count; i++) {
        if (!yk_fd_is_open(program->keep_fds[i])) {
            return -EBADF;
        }
    }
    return 0;
}

static int start_program(struct start *start)
{
    const yoke_program *const wanted = start->wanted;
    struct yk_program program = {
        .argv = (char *const *)wanted->argv, /* exec takes them so, and changes nothing */
        .environment = (char *const *)wanted->environment,
        .directory = wanted->directory,
        .keep_fds = wanted->keep_fds,
        .keep_fd_count = wanted->keep_fd_count,
        .limits = &wanted->limits,
        .supervisor = -1,
        .leave = start->process->leave,
    };
    int rc = open_streams(start);
    if (rc == 0 && (wanted->flags & YOKE_PROGRAM_PLAIN) == 0) {
        rc = supervisor_fd(&program.supervisor);
    }
    memcpy(program.streams, start->streams, sizeof program.streams);
    rc = rc == 0 ? yk_program_start(&program, &start->process->program) : rc;
    for (int i = 0; i < YK_STREAMS; i++) {
        if (start->is_ours[i]) {
            yk_fd_close(start->streams[i]);
        }
    }
    return rc;
}

int yoke_program_start(const yoke_program *program, yoke_process **process)
{
    yoke_program settings;
    if (program == NULL || process == NULL) {
        return -EINVAL;
    }
    int rc = yk_settings_read(&settings, sizeof settings, program);
    rc = rc == 0 ? check_program(&settings) : rc;
    if (rc != 0) {
        return rc;
    }
    yoke_process *const made = calloc(1, sizeof *made);
    if (made == NULL) {
        return -ENOMEM;
    }
    made->generation = yk_process_generation();
    made->program = (struct yk_program_handle){.pid = -1, .pidfd = -1, .control = -1};
    made->leave = (settings.flags & YOKE_PROGRAM_LEAVE) != 0;
    for (int i = 0; i < YK_STREAMS; i++) {
        made->pipes[i] = -1;
    }
    struct start start = {.wanted = &settings, .process = made};
    rc = start_program(&start);
    if (rc != 0) {
        yk_program_forget(made, true);
        free(made);
        return rc;
    }
    *process = made;
    return 0;
}

void yk_program_forget(yoke_process *process, bool ours)
{
    if (process->program.control >= 0) {
        yk_fd_close(process->program.control);
    }
    for (int i = 0; i < YK_STREAMS; i++) {
        if (process->pipes[i] >= 0) {
            yk_fd_close(process->pipes[i]);
        }
        if (process->captures[i] != NULL) {
            yk_capture_destroy(process->captures[i], ours);
        }
    }
}

/* --- what it wrote ------------------------------------------------------------------------- */

int yoke_process_take_pipe(yoke_process *process, int stream, int *fd)
{
    int rc = yk_process_check(process);
    if (rc != 0) {
        return rc;
    }
    if (stream < 0 || stream >= YK_STREAMS || fd == NULL) {
        return -EINVAL;
    }
    rc = -ENOENT;
    yk_mutex_lock(&process->lock);
    if (process->record == NULL && process->pipes[stream] >= 0) {
        *fd = process->pipes[stream];
        process->pipes[stream] = -1;
        rc = 0;
    }
    yk_mutex_unlock(&process->lock);
    return rc;
}

int yoke_process_output(yoke_process *process, int stream, yoke_output *output)
{
    yoke_output out;
    int rc = yk_process_check(process);
    if (rc == 0 && (stream < 1 || stream >= YK_STREAMS || output == NULL)) {
        rc = -EINVAL;
    }
    rc = rc == 0 ? yk_settings_read(&out, sizeof out, output) : rc;
    if (rc != 0) {
        return rc;
    }
    out = (yoke_output){.size = out.size};
    struct yk_capture *const capture = process->captures[stream];
    if (capture == NULL) {
        return -ENOENT;
    }
    yk_mutex_lock(&process->lock);
    rc = process->ended ? yk_capture_data(capture, &out.data, &out.bytes, &out.dropped) : -EBUSY;
    yk_mutex_unlock(&process->lock);
    if (rc == 0) {
        memcpy(output, &out, yk_min(out.size, sizeof out));
    }
    return rc;
}
