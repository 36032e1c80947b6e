/* SPDX-License-Identifier: MIT
 * give.pml - an owner that was called comes to give, and finds nothing left, or no place.
 *
 * Idea: what it would have given was taken meanwhile, or went to who waits for it; the call that it
 * used up was everybody's. An owner that "works on and on" pushes and pops while somebody is awake
 * to see that, else it waits here until it is called. If a call is lost nobody moves any more, and
 * the checker sees a dead end.
 *
 * One owner; two workers, which are given frames or take them, and sleep; or a worker and a
 * follower, which takes and is given frames too. Who has one keeps it until all have had
 * one, where there are places for all. How a frame is popped beside a taker is in pop.pml, how a
 * sleep begins in park.pml. Each WEAK_ leaves out one thing that matters.
 */
#define SLOTS 2

#define SHUT     0
#define OPEN     1
#define FOLLOWS  2
#define FRAME(i) (3 + (i))
#define BIT      (1 << me)
#define FOLLOWER 1

byte top, split; /* below split: given or taken */
bool locked;     /* by the owner; takers take in one step */
bool called;     /* its limit is gone: the next push goes the slow way */
byte mail[2], who[SLOTS]; /* who was given it */
bool done[SLOTS], asleep[2];
byte hungry;          /* a bit for each worker */
byte running, places; /* frames of workers; so many at most */
bool followed;        /* the second is no worker, but waits for a frame that the owner runs */
byte fed, wanted, awake;

/* Who looks away while others spawn: it sleeps, or runs a frame. */
inline sleep()
{
    if
    :: atomic { asleep[me] -> awake-- }
        atomic { !asleep[me] || fed == wanted -> awake++; asleep[me] = false }
    :: !asleep[me]
    fi
}

inline call_if(condition) { atomic { called = called || (condition); was_last = false } }

inline place_free()
{
#ifdef WEAK_CALL_BEFORE_PLACE
    was_last = running >= places;
    call_if(was_last && hungry != 0);
    running--
#else
    atomic { was_last = running >= places; running-- }
#ifndef WEAK_NO_CALL_FROM_PLACE
    call_if(was_last && hungry != 0)
#else
    was_last = false
#endif
#endif
}

/* --- takers --------------------------------------------------------------------------------- */

/* The oldest frame, without help of its owner, who may be coming to give it just now. */
inline take()
{
    atomic {
        !locked;
        had = (split < top -> FRAME(split) : 0);
        split = split + (split < top)
    }
}

inline say_done() { atomic { done[had - FRAME(0)] = true; had = 0 } }

/* --- a worker ------------------------------------------------------------------------------- */

inline open_mail()
{
    mail[me] = (mail[me] == SHUT -> OPEN : mail[me]);
    hungry = hungry | BIT
}

inline register()
{
    open_mail();
    called = true
}

inline shut() { atomic { had = mail[me]; mail[me] = SHUT; had = (had > FOLLOWS -> had : 0) } }

/* A frame that nobody gives. The mailbox is shut meanwhile. */
inline take_somewhere()
{
    shut();
    if
    :: had != 0
    :: else ->
        running++;
        take();
        if
        :: had != 0
        :: else ->
            place_free();
#ifdef WEAK_NO_CALL_AFTER_SHUT
            open_mail()
#else
#ifdef WEAK_CALL_BEFORE_OPEN
            called = true;
            open_mail()
#else
            register()
#endif
#endif
        fi
    fi;
    if
    :: had != 0 -> hungry = hungry & ~BIT
    :: else
    fi
}

#define SHOWS (split < top && running < places)

inline park()
{
    asleep[me] = true;
    if
    :: (hungry & BIT) == 0
    :: (hungry & BIT) != 0 ->
#ifndef WEAK_CALL_STAYS_DUE
        if
        :: due -> due = false; register()
        :: else
        fi;
#endif
        if
        :: mail[me] <= FOLLOWS && SHOWS -> take_somewhere()
        :: mail[me] <= FOLLOWS && !SHOWS -> sleep()
        :: mail[me] > FOLLOWS
        fi
    fi;
    asleep[me] = false
}

/* It lasts until all have had one, if others can have one meanwhile. */
inline eat()
{
    if
    :: atomic { fed = fed + !ate; ate = true }
    :: atomic { !ate && places > 1 -> fed++; ate = true; awake-- }
        atomic { fed == wanted -> awake++ }
    fi
}

proctype worker(byte me)
{
    byte had;
    bool ate, due, was_last, once = me == 0;
begin:
    register();
    do
    :: had != 0 ->
        eat();
        if
        :: once -> /* hungry again before its owner knows that it is done; it calls later */
            atomic { once = false; running-- }
            open_mail();
            atomic { due = true; done[had - FRAME(0)] = true; had = 0 }
        :: true ->
            place_free();
            say_done();
            break
        fi
    :: had == 0 && mail[me] > FOLLOWS ->
        shut();
        if
        :: had == 0 -> hungry = hungry & ~BIT; goto begin /* taken back meanwhile */
        :: else
        fi
    :: atomic { had == 0 && mail[me] <= FOLLOWS && ((hungry & BIT) == 0 || due) -> due = false }
        register()
    :: had == 0 && mail[me] <= FOLLOWS && SHOWS -> take_somewhere()
    :: had == 0 && mail[me] <= FOLLOWS -> park()
    :: had == 0 && ate  -> /* a task came */
        shut();
        if
        :: had != 0 ->
            place_free();
            say_done()
        :: else -> hungry = hungry & ~BIT
        fi;
#ifndef WEAK_LEAVES_CALL_DUE
        call_if(due && hungry != 0);
#endif
        break
    od;
    awake--
}

/* --- the follower: waits for a frame that the owner is in the middle of --------------------- */

proctype follower(byte me)
{
    byte had;
    mail[me] = FOLLOWS;
    called = true;
    do
    :: had != 0 ->
        say_done();
        fed++;
        break
    :: had == 0 && mail[me] > FOLLOWS ->
        shut();
        if
        :: had == 0 -> mail[me] = FOLLOWS; called = true
        :: else
        fi
    :: atomic { had == 0 && mail[me] == FOLLOWS && split < top -> mail[me] = SHUT }
        take();
        if
        :: had == 0 ->
            mail[me] = FOLLOWS;
            called = true
        :: else
        fi
    :: had == 0 && mail[me] == FOLLOWS ->
        asleep[me] = true;
        called = true;
        if
        :: mail[me] != FOLLOWS
        :: mail[me] == FOLLOWS -> sleep()
        fi;
        asleep[me] = false
    :: atomic { fed == wanted && had == 0 && mail[me] == FOLLOWS -> mail[me] = SHUT }
        break
    od;
    awake--
}

/* --- the owner ------------------------------------------------------------------------------ */

inline give(t, open)
{
    atomic {
        given = split < top && mail[t] == open;
        if
        :: given -> mail[t] = FRAME(split); who[split] = t; split++
        :: else
        fi
    }
}

inline give_worker(t)
{
    running++;
    atomic { seen = seen & ~(1 << t); give(t, OPEN) }
    if
    :: given ->
        hungry = hungry & ~(1 << t);
        asleep[t] = false
    :: else ->
#ifdef WEAK_PLACE_KEPT
        skip
#else
        place_free()
#endif
    fi
}

/* A push that goes the slow way. */
inline serve()
{
#ifdef WEAK_LEFT_READ_FIRST
    left = split < top;
#endif
#ifdef WEAK_PLACE_READ_FIRST
    room = running < places;
#endif
#ifndef WEAK_LIMIT_AFTER_GIVE
    called = false;
#endif
    locked = true;
    if
    :: followed ->
        give(FOLLOWER, FOLLOWS);
#ifndef WEAK_FOLLOWER_UNSERVED
        call_if(!given && split >= top && mail[FOLLOWER] == FOLLOWS);
#endif
        atomic { asleep[FOLLOWER] = asleep[FOLLOWER] && !given; given = false }
    :: else
    fi;
    seen = hungry;
#ifndef WEAK_PLACE_READ_FIRST
    room = running < places;
#endif
    if
    :: seen != 0 && room ->
        do
        :: (seen & 1) && !given -> give_worker(0)
        :: (seen & 2) && !given -> give_worker(1)
        :: seen == 0 || given -> break
        od;
#ifndef WEAK_LEFT_READ_FIRST
        left = split < top;
#endif
#ifdef WEAK_LIMIT_AFTER_GIVE
        called = false;
#endif
#ifdef WEAK_NOTHING_LEFT_IS_SERVED
        call_if(given && hungry != 0)
#else
        call_if((given || !left) && hungry != 0)
#endif
    :: else
#ifdef WEAK_LIMIT_AFTER_GIVE
        -> called = false
#endif
    fi;
    atomic { seen = 0; given = false; left = false; room = false; locked = false }
}

proctype owner()
{
    byte seen;
    bool given, left, room, was_last;
    do
    :: (called || awake > 0) && top < SLOTS ->
        top++;
        if
        :: called -> serve()
        :: !called
        fi
    :: atomic { (called || awake > 0) && split < top -> top-- }
    :: atomic { top > 0 && split == top && done[top - 1] ->
            top--;
            split = top;
            done[top] = false;
            who[top] = 0
        }
    :: atomic { top > 0 && split == top && mail[who[top - 1]] == FRAME(top - 1) ->
            top--;
            given = followed && who[top] == FOLLOWER;
            mail[who[top]] = (given -> FOLLOWS : OPEN);
        }
        if
        :: !given -> place_free()
        :: else
        fi;
#ifndef WEAK_TAKEN_BACK_UNSAID
        call_if((given && asleep[FOLLOWER]) || (!given && (hungry & (1 << who[top])) != 0));
#endif
        atomic { split = top; given = false; who[top] = 0 }
    :: fed == wanted -> break
    od
}

init
{
    atomic {
        awake = 2;
        run owner();
        run worker(0);
        if
        :: run follower(FOLLOWER); wanted = 2; places = 2; followed = true
        :: run worker(1); wanted = 2; places = 1
        :: run worker(1); wanted = 2; places = 2
        fi
    }
}
