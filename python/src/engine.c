/* SPDX-License-Identifier: MIT
 * engine.c - calls on their way: backlog, flight, ended.
 *
 * Idea: the flight is what the library's table holds, and is bounded; whoever comes by, with or
 * without the GIL, moves what has ended out of it and fills it up again. Resolving needs the GIL and
 * takes one call at a time, so nothing of Python's runs under the lock.   Room: python.
 */
#include "engine.h"

#define AT_ONCE 64
#define UNUSED_MAX 4096
#define OUT_KEEP_BYTES ((size_t)4 << 20)
#define SLICE_NS 1000000LL   /* of a wait for something else than the own job */
#define SIGNAL_NS 20000000LL /* how late a signal's handler may run */

static uint64_t generation = 1;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void in_child(void)
{
    generation++;
}

static void register_fork(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

int ypy_engine_init(void)
{
    (void)pthread_once(&fork_once, register_fork);
    return 0;
}

uint64_t ypy_generation(void)
{
    return generation;
}

/* --- lists (lock held) ------------------------------------------------------------------------ */

static void list_append(struct ypy_list *list, struct ypy_call *call)
{
    call->next = NULL;
    call->before = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = call;
    list->last = call;
    list->count++;
}

static void list_prepend(struct ypy_list *list, struct ypy_call *call)
{
    call->before = NULL;
    call->next = list->first;
    *(list->first != NULL ? &list->first->before : &list->last) = call;
    list->first = call;
    list->count++;
}

static void list_remove(struct ypy_list *list, struct ypy_call *call)
{
    *(call->before != NULL ? &call->before->next : &list->first) = call->next;
    *(call->next != NULL ? &call->next->before : &list->last) = call->before;
    list->count--;
}

static void flight_remove(struct ypy_core *core, struct ypy_call *call)
{
    struct ypy_call *const last = core->flight[--core->flight_count];
    core->flight[call->index] = last;
    last->index = call->index;
}

static void end_call(struct ypy_core *core, struct ypy_call *call)
{
    call->place = YPY_ENDED;
    list_append(&core->ended, call);
}

static bool job_has_ended(const struct ypy_call *call)
{
    return yoke_job_result(call->job, NULL, NULL, NULL) == 0;
}

/* --- pumping (lock held) ---------------------------------------------------------------------- */

/* Those that somebody waits for are left to him; he is awake by now. */
static void collect(struct ypy_core *core)
{
    if (yoke_pool_await(core->pool, &core->seen, 0) != 0 && !core->left_some) {
        return;
    }
    core->left_some = false;
    for (unsigned i = 0; i < core->flight_count;) {
        struct ypy_call *const call = core->flight[i];
        core->left_some = core->left_some || call->pins != 0;
        if (call->pins == 0 && job_has_ended(call)) {
            flight_remove(core, call);
            end_call(core, call);
        } else {
            i++;
        }
    }
}

static void take_off(struct ypy_core *core, struct ypy_call *call, yoke_job *job)
{
    call->job = job;
    call->place = YPY_FLIGHT;
    call->index = core->flight_count;
    core->flight[core->flight_count++] = call;
}

/* As many plain ones as come in a row, at once; how many left the backlog. */
static unsigned launch_plain(struct ypy_core *core)
{
    const struct ypy_request *requests[AT_ONCE];
    yoke_job *jobs[AT_ONCE];
    unsigned count = 0;
    const unsigned room = YPY_FLIGHT_MAX - core->flight_count;
    for (struct ypy_call *call = core->backlog.first;
         call != NULL && call->timeout_ns == 0 && count < AT_ONCE && count < room;
         call = call->next) {
        requests[count++] = call->request;
    }
    if (count != 0) {
        (void)!yoke_submit_many(core->pool, ypy_run, requests, sizeof(void *), 0, count, NULL,
                                jobs);
    }
    unsigned launched = 0;
    for (; launched < count && jobs[launched] != NULL; launched++) {
        struct ypy_call *const call = core->backlog.first;
        list_remove(&core->backlog, call);
        take_off(core, call, jobs[launched]);
    }
    return launched;
}

/* One, with all that may go wrong: then it ends without a job. */
static int launch_one(struct ypy_core *core)
{
    struct ypy_call *const call = core->backlog.first;
    const yoke_options options = {.size = sizeof options, .timeout_ns = call->timeout_ns};
    yoke_job *job = NULL;
    const int rc =
        yoke_submit(core->pool, ypy_run, &call->request, sizeof(void *), 0, &options, &job);
    if (rc == -EINTR) {
        return rc;
    }
    list_remove(&core->backlog, call);
    if (rc == 0) {
        take_off(core, call, job);
    } else {
        call->job = NULL;
        call->refusal = rc;
        end_call(core, call);
    }
    return rc;
}

void ypy_core_launch(struct ypy_core *core)
{
    while (core->backlog.first != NULL && core->flight_count < YPY_FLIGHT_MAX) {
        if (launch_plain(core) == 0 && launch_one(core) == -EINTR) {
            return;
        }
    }
}

void ypy_core_pump(struct ypy_core *core)
{
    if (core->pool != NULL) {
        if (core->flight_count != 0) {
            collect(core);
        }
        ypy_core_launch(core);
    }
}

static void wake_collector(struct ypy_core *core)
{
    if (core->asleep) {
        core->asleep = false;
        (void)pthread_cond_broadcast(&core->changed);
    }
}

/* --- calls ------------------------------------------------------------------------------------ */

int ypy_core_check(struct ypy_core *core)
{
    if (core->generation != generation) {
        PyErr_SetString(PyExc_RuntimeError,
                        "this pool was made before fork(); make a new one in the child");
        return -1;
    }
    if (core->failure != NULL) {
        PyObject *const exc = ypy_outcome(core, "again", "(O)", core->failure);
        if (exc != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
            Py_DECREF(exc);
        }
        return -1;
    }
    if (core->closed) {
        (void)ypy_raise("PoolClosed",
                        PyUnicode_FromString("cannot schedule new futures after shutdown"));
        return -1;
    }
    return 0;
}

static struct ypy_call *call_alloc(struct ypy_core *core)
{
    struct ypy_call *call = core->unused;
    if (call != NULL) {
        core->unused = call->next;
        core->unused_count--;
    } else {
        call = PyMem_Malloc(sizeof *call);
    }
    if (call == NULL) {
        return (struct ypy_call *)PyErr_NoMemory();
    }
    memset(call, 0, sizeof *call);
    return call;
}

static struct ypy_request *request_make(uint32_t in_bytes, uint64_t out_room)
{
    struct ypy_request *const request =
        yoke_shared_alloc(sizeof *request + ypy_request_out_at(in_bytes) + out_room);
    if (request == NULL) {
        PyErr_SetString(PyExc_MemoryError, "the shared heap is at its limit");
        return NULL;
    }
    memset(request, 0, sizeof *request);
    request->in_bytes = in_bytes;
    request->out_room = out_room;
    return request;
}

static uint64_t block_of(PyObject *definition)
{
    return (uint64_t)(uintptr_t)((struct ypy_definition *)definition)->block;
}

struct ypy_out ypy_out_borrow(struct ypy_core *core)
{
    struct ypy_out out = core->out;
    core->out = (struct ypy_out){.sends = true};
    out.snapshot = core->snapshot;
    return out;
}

void ypy_out_return(struct ypy_core *core, struct ypy_out *out)
{
    struct ypy_out *const home = &core->out;
    ypy_out_rewind(out, 0);
    Py_CLEAR(out->uses);
    if (home->room >= out->room || out->room > OUT_KEEP_BYTES) {
        ypy_out_clear(out);
        return;
    }
    ypy_out_clear(home);
    *home = *out;
    home->sends = true;
}

struct ypy_call *ypy_call_make(struct ypy_core *core, struct ypy_out *out, PyObject *definition,
                               uint32_t count, uint64_t out_room)
{
    if (out->used > UINT32_MAX - 16) {
        PyErr_SetString(PyExc_OverflowError, "the arguments of a call take more than 4 GiB");
        return NULL;
    }
    struct ypy_request *const request = request_make((uint32_t)out->used, out_room);
    struct ypy_call *const call = request != NULL ? call_alloc(core) : NULL;
    if (call == NULL) {
        yoke_shared_free(request);
        return NULL;
    }
    if (out->used != 0) { /* with nothing put, there is no data */
        memcpy(request->data, out->data, out->used);
    }
    request->count = count;
    request->definition = block_of(definition);
    request->desk = (uint64_t)(uintptr_t)core->desk;
    call->request = request;
    call->calls = count;
    call->in_bytes = (uint32_t)out->used;
    call->out_room = out_room;
    call->definition = Py_NewRef(definition);
    call->uses = out->uses;
    call->blocks = out->blocks;
    call->block_count = out->block_count;
    out->uses = NULL;
    out->blocks = NULL;
    out->block_count = out->block_room = 0;
    return call;
}

static void keep_unused(struct ypy_core *core, struct ypy_call *call)
{
    if (core->unused_count < UNUSED_MAX) {
        call->next = core->unused;
        core->unused = call;
        core->unused_count++;
    } else {
        PyMem_Free(call);
    }
}

void ypy_call_free(struct ypy_core *core, struct ypy_call *call)
{
    if (call->hold != NULL) {
        ypy_job_hold_drop(call->hold);
    } else {
        yoke_job_release(call->job);
    }
    yoke_shared_free(call->request);
    if (call->blocks != NULL) {
        ypy_blocks_give(call->blocks, call->block_count);
        PyMem_Free(call->blocks);
    }
    PyMem_Free(call->starts);
    if (!call->maps) {
        Py_CLEAR(call->owner);
    }
    Py_CLEAR(call->definition);
    Py_CLEAR(call->uses);
    Py_CLEAR(call->error);
    call->freed = true;
    if (call->holds == 0) {
        keep_unused(core, call);
    }
}

/* While the call was made, the pool was closed or failed. */
static bool is_late(const struct ypy_core *core)
{
    return core->cancelling || core->phase >= YPY_FAILED;
}

void ypy_calls_submit(struct ypy_core *core, struct ypy_call *const *calls, size_t count)
{
    pthread_mutex_lock(&core->lock);
    for (size_t i = 0; i < count; i++) {
        calls[i]->place = YPY_BACKLOG;
        list_append(&core->backlog, calls[i]);
    }
    core->pending += count;
    const bool late = is_late(core);
    if (late) {
        ypy_core_cancel_backlog(core);
    } else if (core->flight_count < YPY_FLIGHT_MAX) {
        if (core->pool != NULL) {
            ypy_core_launch(core);
        }
    } else if (core->backlog.count % (AT_ONCE / 2) == 0) {
        ypy_core_pump(core);
    }
    wake_collector(core);
    pthread_mutex_unlock(&core->lock);
    if (late) {
        ypy_core_resolve_all(core, false);
    }
}

void ypy_call_submit(struct ypy_core *core, struct ypy_call *call, bool front)
{
    if (!front) {
        ypy_calls_submit(core, &call, 1);
        return;
    }
    pthread_mutex_lock(&core->lock);
    call->place = YPY_BACKLOG;
    list_prepend(&core->backlog, call);
    core->pending++;
    if (is_late(core)) {
        ypy_core_cancel_backlog(core);
    } else if (core->pool != NULL) {
        ypy_core_launch(core);
    }
    wake_collector(core);
    pthread_mutex_unlock(&core->lock);
}

bool ypy_call_runs(const struct ypy_call *call)
{
    /* relaxed: a hint for who asks. */
    return call->place != YPY_NEW && call->place != YPY_BACKLOG &&
           atomic_load_explicit(&call->request->trace, memory_order_relaxed) != 0;
}

/* --- waiting ---------------------------------------------------------------------------------- */

/* No GIL. Until the job has ended, or until_ns. */
static int wait_for_job(struct ypy_core *core, struct ypy_call *call, int64_t until_ns)
{
    call->pins++;
    yoke_job *const job = call->job;
    pthread_mutex_unlock(&core->lock);
    const int rc = yoke_wait(job, until_ns);
    pthread_mutex_lock(&core->lock);
    call->pins--;
    return rc;
}

void ypy_core_await_change(struct ypy_core *core, int64_t until_ns)
{
    const struct timespec until = {.tv_sec = until_ns / 1000000000,
                                   .tv_nsec = until_ns % 1000000000};
    (void)pthread_cond_timedwait(&core->changed, &core->lock, &until);
}

static int64_t sooner(int64_t until_ns, int64_t from_now_ns)
{
    const int64_t then = yoke_now_ns() + from_now_ns;
    return then < until_ns ? then : until_ns;
}

static int wait_step(struct ypy_core *core, struct ypy_call *call, int64_t until_ns)
{
    int rc = 0;
    pthread_mutex_lock(&core->lock);
    if (call->place == YPY_FLIGHT) {
        /* In slices: another thread may have taken the signal that this one should hear of. */
        rc = wait_for_job(core, call, sooner(until_ns, SIGNAL_NS));
    } else if (call->place == YPY_BACKLOG && core->pool != NULL) {
        /* Its turn comes when something ends. */
        ypy_core_pump(core);
        if (call->place == YPY_BACKLOG && core->flight_count != 0) {
            rc = wait_for_job(core, core->flight[0], sooner(until_ns, SLICE_NS));
            ypy_core_pump(core);
        }
    } else if (call->place != YPY_ENDED) {
        /* The pool starts, or somebody is about to resolve it. */
        core->sleepers++;
        ypy_core_await_change(core, sooner(until_ns, SLICE_NS));
        core->sleepers--;
    }
    pthread_mutex_unlock(&core->lock);
    return rc;
}

int ypy_call_wait(struct ypy_core *core, struct ypy_call *call, int64_t until_ns)
{
    int rc;
    call->holds++;
    Py_BEGIN_ALLOW_THREADS
    rc = wait_step(core, call, until_ns);
    Py_END_ALLOW_THREADS
    if (--call->holds == 0 && call->freed) {
        keep_unused(core, call);
    }
    if (PyErr_CheckSignals() != 0) {
        return -1;
    }
    return rc == -ETIMEDOUT && yoke_now_ns() >= until_ns ? rc : 0;
}

/* Those that wait for its job have been woken by its end, and need no GIL to go. */
static void await_unpinned(struct ypy_core *core, const struct ypy_call *call)
{
    while (call->pins != 0) {
        pthread_mutex_unlock(&core->lock);
        (void)sched_yield();
        pthread_mutex_lock(&core->lock);
    }
}

bool ypy_call_take(struct ypy_core *core, struct ypy_call *call)
{
    bool taken = false;
    pthread_mutex_lock(&core->lock);
    if (call->place == YPY_FLIGHT && job_has_ended(call)) {
        flight_remove(core, call);
        taken = true;
        if (core->backlog.first != NULL) {
            ypy_core_launch(core);
        }
    } else if (call->place == YPY_ENDED) {
        list_remove(&core->ended, call);
        taken = true;
    }
    if (taken) {
        call->place = YPY_TAKEN;
        await_unpinned(core, call);
    }
    pthread_mutex_unlock(&core->lock);
    return taken;
}

static struct ypy_call *take_ended(struct ypy_core *core, bool collector)
{
    pthread_mutex_lock(&core->lock);
    struct ypy_call *call = core->ended.first;
    while (call != NULL && !collector && !call->maps && ypy_future_is_left(call->owner)) {
        call = call->next;
    }
    if (call != NULL) {
        list_remove(&core->ended, call);
        call->place = YPY_TAKEN;
        await_unpinned(core, call);
    }
    pthread_mutex_unlock(&core->lock);
    return call;
}

/* --- resolving -------------------------------------------------------------------------------- */

void ypy_call_resolve(struct ypy_core *core, struct ypy_call *call)
{
    Py_INCREF((PyObject *)core); /* the call's owner may be the last that holds it */
    if (call->maps) {
        ypy_map_resolve(core, call);
    } else {
        ypy_future_resolve(core, call);
    }
    pthread_mutex_lock(&core->lock);
    core->pending--;
    core->resolved++;
    if (core->sleepers != 0 || (core->pending == 0 && core->closed)) {
        (void)pthread_cond_broadcast(&core->changed);
    }
    pthread_mutex_unlock(&core->lock);
    Py_DECREF((PyObject *)core);
}

void ypy_core_resolve_all(struct ypy_core *core, bool collector)
{
    for (struct ypy_call *call; (call = take_ended(core, collector)) != NULL;) {
        ypy_call_resolve(core, call);
    }
}

int ypy_call_cancel(struct ypy_core *core, struct ypy_call *call, bool force)
{
    int answer = 0;
    pthread_mutex_lock(&core->lock);
    if (call->place == YPY_BACKLOG) {
        list_remove(&core->backlog, call);
        call->place = YPY_TAKEN;
        call->cancelled = true;
        answer = 1;
    } else if (call->place == YPY_FLIGHT && !job_has_ended(call)) {
        (void)yoke_job_cancel(call->job, force);
        yoke_outcome outcome;
        const bool over =
            yoke_wait(call->job, 0) == 0 && yoke_job_result(call->job, &outcome, NULL, NULL) == 0;
        if (over && outcome.kind == YOKE_CANCELLED && outcome.attempts == 0) {
            flight_remove(core, call);
            call->place = YPY_TAKEN;
            call->cancelled = true;
            await_unpinned(core, call);
            answer = 1;
        } else if (force && (!over || outcome.kind == YOKE_CANCELLED)) {
            call->cancelled = true;
            answer = 2;
        }
    }
    if (answer == 1 && core->pool != NULL) {
        ypy_core_launch(core);
    }
    pthread_mutex_unlock(&core->lock);
    return answer;
}

void ypy_core_cancel_backlog(struct ypy_core *core)
{
    core->cancelling = true;
    while (core->backlog.first != NULL) {
        struct ypy_call *const call = core->backlog.first;
        list_remove(&core->backlog, call);
        call->cancelled = true;
        end_call(core, call);
    }
}

void ypy_core_cancel_flight(struct ypy_core *core, bool kill)
{
    /* First those that have not begun: or the worker in place of one that is killed begins them. */
    for (unsigned i = 0; i < core->flight_count; i++) {
        core->flight[i]->cancelled = true;
        (void)yoke_job_cancel(core->flight[i]->job, 0);
    }
    for (unsigned i = 0; kill && i < core->flight_count; i++) {
        (void)yoke_job_cancel(core->flight[i]->job, 1);
    }
}
