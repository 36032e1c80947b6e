/* SPDX-License-Identifier: MIT
 * finish.pml - who waits for a frame that was taken, and who says that it is done.
 *
 * Idea: the waiter sleeps on its own word, the same as tells givers that it sleeps when it has no
 * work; a wake that comes late from the wait before must not wipe that. It must see the result,
 * wake up, be given nothing but frames of its taker while it waits, and be given one when hungry.
 * The frame is gone when the waiter has seen that it is done.
 *
 * One waiter, which waits and is hungry by turns; a taker for each of its waits; and a giver of
 * other frames, slow enough to have seen that it was hungry before. Each WEAK_ leaves out one
 * thing that matters.
 */
#define TURNS 2

#define HERE  1 /* asleep: waits for a frame */
#define IDLE  2 /* asleep: has no work */

#define SHUT    0
#define OPEN    1 /* hungry: any frame */
#ifdef WEAK_ONE_WORD_FOR_OPEN
#define FOLLOWS 1
#else
#define FOLLOWS 2 /* waits: frames of its taker only */
#endif
#define OTHER   3 /* frames */
#define OURS    4

byte turn, mail = SHUT, asleep;
bool begun[TURNS], done[TURNS], result[TURNS], gone[TURNS];
bool late_result[TURNS], late_asleep;
bool blocked_here, blocked_idle, word, hungry, called, helped, fed, other_done;

active proctype the_machine()
{
end:
    do
    :: atomic { late_result[0] -> late_result[0] = false; result[0] = true }
    :: atomic { late_result[1] -> late_result[1] = false; result[1] = true }
    :: atomic { late_asleep -> late_asleep = false; asleep = HERE }
    od
}

/* Who gave a frame, or has finished one. */
inline wake()
{
    if
    :: how == IDLE ->
        word = false;
        blocked_idle = false
    :: how == HERE ->
#ifdef WEAK_WAKE_BY_STORE
        asleep = 0;
#else
        atomic { asleep = (asleep == HERE -> 0 : asleep) }
#endif
        blocked_here = false
    :: else
    fi;
    how = 0
}

/* --- the waiter ----------------------------------------------------------------------------- */

inline sleep_here()
{
#ifdef WEAK_ASLEEP_RELAXED
    late_asleep = true;
#else
    asleep = HERE;
#endif
#ifndef WEAK_CALL_BEFORE_ASLEEP
    called = true; /* a frame may have come and gone again */
#endif
    if
#ifndef WEAK_NO_LAST_LOOK
    :: done[turn] || mail != FOLLOWS
    :: !done[turn] && mail == FOLLOWS ->
#else
    :: true ->
#endif
        atomic { !late_asleep -> blocked_here = asleep == HERE }
        !blocked_here
    fi;
    atomic { !late_asleep -> asleep = 0 }
}

inline await()
{
    mail = FOLLOWS;
    called = true;
    do
    :: atomic { mail > FOLLOWS -> assert(mail == OURS); mail = SHUT; helped = true }
        mail = FOLLOWS
    :: done[turn] -> break
    :: mail == FOLLOWS && !done[turn] ->
        sleep_here();
#ifdef WEAK_WAKE_IS_ENOUGH
        break
#endif
    od;
    assert(mail != OTHER);
    mail = SHUT;
    assert(result[turn]);
    gone[turn] = true
}

inline be_hungry()
{
    mail = OPEN;
    hungry = true;
    do
    :: mail == OTHER -> break
    :: !hungry && mail != OTHER -> mail = OPEN; hungry = true
    :: mail == OPEN && hungry ->
        word = true;
        asleep = IDLE;
        if
        :: !hungry
        :: hungry ->
            atomic { blocked_idle = word }
            !blocked_idle
        fi;
        asleep = 0
    :: turn + 1 < TURNS -> break /* something else came up */
    od;
    atomic { fed = fed || mail == OTHER; other_done = other_done || mail == OTHER; mail = SHUT }
    hungry = false
}

active proctype waiter()
{
    do
    :: turn < TURNS ->
        helped = false;
        begun[turn] = true;
        await();
        if
        :: !fed -> be_hungry()
        :: else
        fi;
        turn++
    :: else -> break
    od;
    turn = TURNS
}

/* --- takers: in the middle of the frame they may spawn and give ----------------------------- */

proctype taker(byte me)
{
    byte how;
    bool had, back = true;
    begun[me];
    do
    :: called && turn == me ->
        called = false;
        atomic { had = mail == FOLLOWS; mail = (had -> OURS : mail) }
        if
        :: had ->
            how = asleep;
            wake();
            if
            :: back -> atomic { back = false; mail = (mail == OURS -> FOLLOWS : mail) }
            :: helped
            fi;
            had = false
        :: else
        fi
    :: helped -> break /* it gets one before we end: we are in a long call, and spawn */
    od;
#ifdef WEAK_RESULT_RELAXED
    late_result[me] = true;
#else
    result[me] = true;
#endif
#ifdef WEAK_ASLEEP_READ_FIRST
    how = asleep;
#endif
    assert(!gone[me]); /* whose frame it is, we read before */
    done[me] = true;
#ifdef WEAK_FRAME_READ_AFTER_DONE
    assert(!gone[me]);
#endif
#ifndef WEAK_ASLEEP_READ_FIRST
    how = asleep;
#endif
    wake()
}

active proctype giver()
{
    byte how;
    bool had;
    do
    :: hungry && !fed ->
        /* It was hungry; by now it may be anything. */
        atomic { had = mail == OPEN; mail = (had -> OTHER : mail) }
        if
        :: had ->
            hungry = false;
            how = asleep;
            wake();
            other_done;
            had = false;
            break
        :: else
        fi
    :: turn == TURNS || fed -> break
    od
}

init
{
    atomic {
        run taker(0);
        run taker(1)
    }
}
