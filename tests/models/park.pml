/* SPDX-License-Identifier: MIT
 * park.pml - workers without work call those that have some, and sleep; who gives wakes them.
 *
 * Idea: a push that nobody called for changes nothing that others look at, so it is left out: an
 * owner that "keeps spawning" waits here until it is called. If a call is lost nobody moves any
 * more, and the checker sees a dead end; the same if a worker sleeps on beside a full mailbox.
 * Stores that the next load does not wait for leave late (the_machine).
 *
 * Two owners and one worker, or one owner and two workers. An owner becomes busy, serves, and once
 * takes a frame back in a sync or becomes idle. A worker once shuts its mailbox for a while or is
 * hungry again after a frame; at last it must be given one. Each WEAK_ leaves out one thing that
 * matters.
 */
#define OWNERS  2
#define WORKERS 2

#define SHUT     0
#define OPEN     1
#define FRAME(o) (2 + (o))
#define BIT      (1 << me)

byte mail[WORKERS];
byte hungry;         /* a bit for each worker */
bool called[OWNERS]; /* its limit is gone: the next push goes the slow way */
bool busy[OWNERS];
bool asleep[WORKERS], word[WORKERS], blocked[WORKERS]; /* the futex is on word */
bool done[OWNERS];   /* the one frame that each owner may have given away */
byte fed, workers;

/* What has not left a store buffer yet. */
bool late_limit[OWNERS], late_busy[OWNERS], late_asleep[WORKERS];

active proctype the_machine()
{
end:
    do
    :: atomic { late_limit[0] -> late_limit[0] = false; called[0] = false }
    :: atomic { late_limit[1] -> late_limit[1] = false; called[1] = false }
    :: atomic { late_busy[0] -> late_busy[0] = false; busy[0] = true }
    :: atomic { late_busy[1] -> late_busy[1] = false; busy[1] = true }
    :: atomic { late_asleep[0] -> late_asleep[0] = false; asleep[0] = true }
    :: atomic { late_asleep[1] -> late_asleep[1] = false; asleep[1] = true }
    od
}

/* --- a worker ------------------------------------------------------------------------------- */

inline call_all()
{
#ifndef WEAK_BUSY_READ_FIRST
    saw = busy[0];
#endif
    atomic { called[0] = called[0] || saw; saw = false }
#ifndef WEAK_BUSY_READ_FIRST
    saw = busy[1];
#else
    saw = saw1;
#endif
    atomic { called[1] = called[1] || saw; saw = false }
}

inline set_bit()
{
#ifdef WEAK_BUSY_READ_FIRST
    d_step { saw = busy[0]; saw1 = busy[1] }
#endif
    hungry = hungry | BIT
}

inline become_hungry()
{
#ifdef WEAK_BIT_BEFORE_MAIL
    set_bit();
    call_all();
    mail[me] = OPEN
#else
    mail[me] = OPEN;
#ifdef WEAK_CALL_BEFORE_BIT
    call_all();
    set_bit()
#else
    set_bit();
    call_all()
#endif
#endif
}

inline park()
{
    word[me] = true;
#ifdef WEAK_ASLEEP_RELAXED
    late_asleep[me] = true;
#else
    asleep[me] = true;
#endif
    /* Who gives clears our bit before it looks whether we sleep. A frame may have come and gone
     * again, so an empty mailbox says nothing. */
#ifdef WEAK_LOOK_AT_BIT_AND_MAIL
    told = (hungry & BIT) == 0 && mail[me] == OPEN;
#endif
    if
#ifdef WEAK_LOOK_AT_BIT_AND_MAIL
    :: told || mail[me] > OPEN
    :: !told && mail[me] <= OPEN ->
#else
#ifdef WEAK_LOOK_AT_MAIL_ONLY
    :: mail[me] > OPEN
    :: mail[me] <= OPEN ->
#else
#ifndef WEAK_NO_LAST_LOOK
    :: (hungry & BIT) == 0 -> told = true
    :: (hungry & BIT) != 0 ->
#else
    :: true ->
#endif
#endif
#endif
        /* The kernel looks once more at the word, with all of our stores out. */
        atomic { !late_asleep[me] -> blocked[me] = word[me] }
        atomic { !blocked[me] -> told = true }
    fi;
    atomic { !late_asleep[me] -> asleep[me] = false }
}

/* To take a frame where nobody gives one; there is none here. */
inline shut()
{
#ifdef WEAK_SHUT_BY_STORE
    had = mail[me];
    mail[me] = SHUT
#else
    atomic { had = mail[me]; mail[me] = SHUT }
#endif
}

proctype worker(byte me)
{
    byte had;
    bool saw, saw1, told, once = true;
begin:
    become_hungry();
    do
    :: mail[me] > OPEN || told -> told = false; shut(); break
    :: mail[me] <= OPEN && !told -> park()
    :: once ->
        once = false;
        shut();
        if
        :: had > OPEN -> break
        :: else -> goto begin
        fi
    od;
    hungry = hungry & ~BIT;
    if
    :: had <= OPEN -> goto begin /* taken back meanwhile */
    :: else -> atomic { done[had - FRAME(0)] = true; had = 0 }
    fi;
    if
    :: once -> once = false; goto begin
    :: true
    fi;
    fed++
}

/* --- an owner ------------------------------------------------------------------------------- */

inline become_busy()
{
#ifdef WEAK_BUSY_RELAXED
    late_busy[me] = true;
#else
    busy[me] = true;
#endif
#ifdef WEAK_NO_LOOK_WHEN_BUSY
    skip
#else
    seen = hungry;
    atomic { called[me] = called[me] || seen != 0; seen = 0 }
#endif
}

/* A frame into the mailbox of t, then its bit, then its sleep. */
inline give(t)
{
#ifdef WEAK_ASLEEP_READ_FIRST
    slept = asleep[t];
#endif
    atomic {
        seen = seen & ~(1 << t);
        given = mail[t] == OPEN;
        if
        :: given -> mail[t] = FRAME(me); done[me] = false; taker = t
        :: else
        fi
    }
    if
    :: given ->
        hungry = hungry & ~(1 << t);
#ifndef WEAK_ASLEEP_READ_FIRST
        slept = asleep[t];
#endif
        if
        :: slept ->
            slept = false;
#ifndef WEAK_WAKE_BEFORE_CLEAR
            word[t] = false;
            blocked[t] = false
#else
            blocked[t] = false;
            word[t] = false
#endif
        :: else
        fi
    :: else -> slept = false
    fi
}

/* A push that goes the slow way. There is a frame to give: the one just pushed, at least. */
inline serve()
{
#ifdef WEAK_HUNGRY_READ_FIRST
    seen = hungry;
#endif
#ifdef WEAK_LIMIT_BY_STORE
    late_limit[me] = true; /* the next loads do not wait for it */
#else
    called[me] = false;
#endif
#ifndef WEAK_HUNGRY_READ_FIRST
    seen = hungry;
#endif
    do
    :: seen & 1 && !given -> give(0)
    :: seen == 2 && !given -> give(1)
    :: seen == 0 || given -> break
    od;
#ifndef WEAK_CALL_SERVES_ONE
    seen = (given -> hungry : 0);
    atomic { called[me] = called[me] || seen != 0; seen = 0 }
#else
    seen = 0
#endif
}

/* The sync of the frame that was given away. */
inline take_back()
{
    atomic {
        if
        :: mail[taker] == FRAME(me) -> once = false; mail[taker] = OPEN; given = false; taker = 0
        :: else
        fi
    }
}

proctype owner(byte me)
{
    byte seen, taker;
    bool given, slept, once = true;
begin:
    become_busy();
    do
    :: called[me] && !late_limit[me] && !given -> serve()
    :: once && given && mail[taker] == FRAME(me) -> take_back()
    :: given && done[me] -> atomic { given = false; taker = 0 }
    :: once && !given && !late_limit[me] && !late_busy[me] ->
        once = false;
        busy[me] = false;
        goto begin
    :: !given && fed == workers -> break
    od
}

init
{
    atomic {
        run owner(0);
        run worker(0);
        if
        :: run owner(1); workers = 1
        :: run worker(1); workers = 2
        fi
    }
}
