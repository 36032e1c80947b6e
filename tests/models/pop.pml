/* SPDX-License-Identifier: MIT
 * pop.pml - the owner of a deque pushes and pops without a fence; others take its oldest frames.
 *
 * Idea: the owner's stores wait in a buffer and leave it as late, and as much out of order, as any
 * machine may let them: a plain store overtakes all but those to its own place, a release store
 * overtakes nothing. Membarrier empties the buffer between two instructions of the owner. Every
 * frame must run exactly once, with what was written into it, and nobody may wait for ever.
 *
 * Two takers (lock, split, membarrier, look again), one worker that frames are granted to, and an
 * owner that pushes and pops in any order. Each WEAK_ leaves out one thing that matters.
 */
#define SLOTS  2 /* one more lies behind them, always empty */
#define FRAMES 3 /* numbered from 1: one for each push */
#define TRIES  2

#define BODY(f)  (SLOTS + (f)) /* where the frame's own words lie */
#define PLACES   (SLOTS + FRAMES + 1)

byte mem[PLACES]; /* as all others see it: slots (0: NULL), then bodies (1: written) */
byte split;
bool locked;
bool done[FRAMES + 1];
byte ran[FRAMES + 1]; /* for the proof only */
byte granted;         /* the frame in the mailbox of the hungry worker; 0: it waits */
bool over;
byte owner_pid;

chan buffer = [5] of { byte, byte, bool }; /* the owner's stores: place, value, release */

inline store(place, value) { buffer!place, value, false }

inline store_release(place, value)
{
#ifdef WEAK_PUSH_RELAXED
    buffer!place, value, false
#else
    buffer!place, value, true
#endif
}

inline lock() { atomic { !locked -> locked = true } }

/* A release: what the owner stored before is seen by who locks next. */
inline owner_unlock() { atomic { empty(buffer) -> locked = false } }

/* The owner sees what it stored itself; others see only what has left the buffer. */
inline execute(f)
{
    d_step {
        assert(mem[BODY(f)] == 1 || _pid == owner_pid);
        ran[f]++;
        assert(ran[f] == 1)
    }
}

/* The oldest store leaves, or one that may overtake those before it. */
active proctype the_machine()
{
    byte place, value;
    bool release;
end:
    do
    :: d_step { buffer?place, value, release -> mem[place] = value }
    :: d_step {
        buffer??[0, value, false] && !buffer??[0, value, true] ->
        buffer??0, value, false -> mem[0] = value
    }
    :: d_step {
        buffer??[1, value, false] && !buffer??[1, value, true] ->
        buffer??1, value, false -> mem[1] = value
    }
    od
}

inline membarrier()
{
#ifdef WEAK_NO_MEMBARRIER
    skip
#else
    d_step {
        do
        :: buffer?place, value, release -> mem[place] = value
        :: empty(buffer) -> break
        od;
        place = 0;
        value = 0;
        release = false
    }
#endif
}

inline push()
{
    atomic {
        next++;
        store(BODY(next), 1)
    }
    atomic {
        store_release(top, next);
        mine[top] = next;
        top++
    }
}

/* The slow way of a push, when somebody is hungry. */
inline grant()
{
#ifndef WEAK_GRANT_UNLOCKED
    lock();
#endif
    i = split;
    if
    :: i < top && granted == 0 ->
#ifdef WEAK_GRANT_RELAXED
        granted = mine[i];
#else
        atomic { mem[BODY(mine[i])] == 1 -> granted = mine[i] }
#endif
        split = i + 1
    :: else
    fi;
    i = 0;
#ifndef WEAK_GRANT_UNLOCKED
    owner_unlock()
#endif
}

inline pop_slow()
{
    lock();
#ifdef WEAK_NO_SECOND_LOOK
    seen = top + 1;
#else
    seen = split;
#endif
    if
    :: seen <= top -> /* a taker put it back */
        owner_unlock();
        execute(mine[top])
    :: else ->
        owner_unlock();
        done[mine[top]];
#ifndef WEAK_SPLIT_STAYS_AFTER_WAIT
        lock();
        split = top;
        owner_unlock()
#endif
    fi
}

inline pop()
{
#ifdef WEAK_SPLIT_READ_FIRST
    atomic { seen = split; top-- }
    store(top, 0);
#else
    atomic { top--; store(top, 0) }
    seen = split;
#endif
    if
    :: seen > top -> pop_slow()
    :: else -> execute(mine[top])
    fi;
    atomic { mine[top] = 0; seen = 0 }
}

active proctype owner()
{
    byte top, next, seen, i;
    byte mine[SLOTS];
    owner_pid = _pid;
    do
    :: top < SLOTS && next < FRAMES -> push()
    :: top > 0 -> pop()
    :: top > 0 && granted == 0 -> grant()
    :: top == 0 && next == FRAMES -> break
    od;
    i = 1;
    do
    :: i <= FRAMES -> assert(ran[i] == 1); i++
    :: else -> break
    od;
    over = true
}

active proctype hungry()
{
    byte f;
end:
    do
    :: granted != 0 ->
        f = granted;
        execute(f);
        atomic { granted = 0; done[f] = true; f = 0 }
    :: over -> break
    od
}

active [2] proctype taker()
{
    byte i, f, tries, place, value;
    bool release;
    do
    :: tries < TRIES && !over ->
        tries++;
#ifndef WEAK_TAKER_UNLOCKED
        lock();
#endif
        atomic { i = split; f = mem[i] }
        if
        :: i >= SLOTS || f == 0 -> locked = false
        :: else ->
#ifdef WEAK_BARRIER_BEFORE_SPLIT
            membarrier();
            split = i + 1;
#else
            split = i + 1;
            membarrier();
#endif
#ifndef WEAK_FIRST_LOOK_COUNTS
            f = mem[i];
#endif
            if
            :: f == 0 ->
#ifndef WEAK_SPLIT_STAYS
                split = i;
#endif
                locked = false
            :: else ->
                locked = false;
                execute(f);
                done[f] = true
            fi
        fi;
        atomic { i = 0; f = 0 }
    :: tries == TRIES || over -> break
    od
}
