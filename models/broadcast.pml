/* The broadcast ring of src/shm/ring_broadcast.h with its sleepers, the publisher's ringer thread, and (RELIABLE) a
 * publisher that waits for the slowest of its subscribers.
 *
 * Memory is as in ring.pml: stores wait in a buffer that drains in any order, save that stores to one word stay
 * in order and a release store waits until it is the oldest. An addition takes effect when it drains, an exchange
 * at once. A fence, and a system call that wakes somebody, wait until the buffer is empty.
 *
 * Checked: what a subscriber hands out is what was published there (assert); it sees every message or knows that
 * it was overrun, never the latter with RELIABLE (assert); whoever sleeps is woken (an invalid end state).
 *
 * Each of these must make it fail; run.sh sees to that: NO_FENCE_PUBLISH (FB1), NO_FENCE_SLEEP (FB2), NO_RECHECK,
 * NO_RINGER (the ringer isn't told), LATE_TAKE (it takes its word back after it has rung), BLIND_WAIT (it sleeps without
 * comparing its word), LATE_RESET (the announcements are taken back after the wake-up), NO_RELEASE_TAIL
 * (RB1), LATE_INTENT (RB3), NO_LOOK (the copy is handed out before the look at the intent), and with RELIABLE:
 * NO_FENCE_CURSOR (FB3), NO_FENCE_STARVE (FB4).
 */
#ifndef RECORDS
#define RECORDS 3
#endif
#define CAPACITY 2
#define BUFFER 3
#ifdef RELIABLE
#define DIRECT 2
#else
#define DIRECT 1        /* more sleepers are woken by the ringer */
#endif

#define PUBLISHER 2     /* subscribers are 0 and 1 */
#define TAIL (CAPACITY)
#define INTENT (CAPACITY + 1)
#define SLEEPERS (CAPACITY + 2)
#define CURSOR (CAPACITY + 3)
#define WAITING (CAPACITY + 5)
#define NEED (CAPACITY + 7)
#define WORDS (CAPACITY + 9)

typedef store_buffer {
    byte word[BUFFER];
    byte value[BUFFER];
    bit release[BUFFER];
    bit add[BUFFER];
    byte count
}

byte memory[WORDS];
store_buffer pending[3];
bit bell[2];
bit ringer_word, ringer_asleep; /* a futex: told once, until it has taken the word back */
byte finished;

inline put(side, w, v, r, a)
{
    atomic {
        pending[side].count < BUFFER;
        pending[side].word[pending[side].count] = w;
        pending[side].value[pending[side].count] = v;
        pending[side].release[pending[side].count] = r;
        pending[side].add[pending[side].count] = a;
        pending[side].count++
    }
}

/* Own additions aren't read back in this model; nobody does. */
inline get(side, w, result)
{
    d_step {
        result = memory[w];
        i = 0;
        do
        :: i < pending[side].count ->
            if
            :: pending[side].word[i] == w && !pending[side].add[i] -> result = pending[side].value[i]
            :: else
            fi;
            i++
        :: else -> break
        od;
        i = 0
    }
}

inline fence(side)
{
    pending[side].count == 0
}

#define OLDEST(side) (pending[side].count > 0)
#define SECOND(side)                                                                                                  \
    (pending[side].count > 1 && !pending[side].release[1] && pending[side].word[1] != pending[side].word[0])
#define THIRD(side)                                                                                                   \
    (pending[side].count > 2 && !pending[side].release[2] && pending[side].word[2] != pending[side].word[0] &&        \
     pending[side].word[2] != pending[side].word[1])

proctype drain(byte side)
{
    byte n;
end_drain:
    do
    :: atomic {
           if
           :: OLDEST(side) -> n = 0
           :: SECOND(side) -> n = 1
           :: THIRD(side) -> n = 2
           fi;
           if
           :: pending[side].add[n] ->
               memory[pending[side].word[n]] = memory[pending[side].word[n]] + pending[side].value[n]
           :: else -> memory[pending[side].word[n]] = pending[side].value[n]
           fi;
           do
           :: n + 1 < pending[side].count ->
               pending[side].word[n] = pending[side].word[n + 1];
               pending[side].value[n] = pending[side].value[n + 1];
               pending[side].release[n] = pending[side].release[n + 1];
               pending[side].add[n] = pending[side].add[n + 1];
               n++
           :: else -> break
           od;
           pending[side].count--;
           pending[side].word[n] = 0;
           pending[side].value[n] = 0;
           pending[side].release[n] = 0;
           pending[side].add[n] = 0;
           n = 0
       }
    od
}

/* ---- publisher ---- */

inline take_sleepers()
{
    atomic { x = memory[SLEEPERS]; memory[SLEEPERS] = 0 }
}

inline ring_all()
{
    if
    :: x <= DIRECT -> atomic { pending[PUBLISHER].count == 0; bell[0] = 1; bell[1] = 1 }
    :: else ->
#ifndef NO_RINGER
        atomic {
            pending[PUBLISHER].count == 0;              /* RB14 */
            if
            :: ringer_word == 0 -> ringer_word = 1
            :: else -> x = 0
            fi
        };
        if
        :: x > 0 -> ringer_asleep = 0
        :: else
        fi
#else
        skip
#endif
    fi
}

inline wake_sleepers()
{
#ifndef NO_FENCE_PUBLISH
    fence(PUBLISHER);                       /* FB1 */
#endif
    get(PUBLISHER, SLEEPERS, x);
    if
    :: x > 0 ->
#ifdef LATE_RESET
        ring_all();
        take_sleepers()
#else
        take_sleepers();
        if
        :: x > 0 -> ring_all()
        :: else
        fi
#endif
    :: else
    fi
}

inline least_cursor()
{
    get(PUBLISHER, CURSOR, x);
    get(PUBLISHER, CURSOR + 1, y);
    if
    :: y < x -> slow = 1; least = y
    :: else -> slow = 0; least = x
    fi
}

inline starve()
{
    put(PUBLISHER, NEED + slow, least + 1, 0, 0);
    put(PUBLISHER, WAITING + slow, 1, 0, 0);
#ifndef NO_FENCE_STARVE
    fence(PUBLISHER);                       /* FB4 */
#endif
    get(PUBLISHER, CURSOR + slow, x);
    if
    :: x < least + 1 -> atomic { pending[PUBLISHER].count == 0 && memory[WAITING + slow] == 0 -> skip }
    :: else -> put(PUBLISHER, WAITING + slow, 0, 0, 0); fence(PUBLISHER)
    fi
}

proctype publisher()
{
    byte tail, x, y, i, least, slow;
    do
    :: tail < RECORDS ->
#ifdef RELIABLE
        do
        :: tail - least < CAPACITY -> break
        :: else ->
            least_cursor();
            if
            :: tail - least == CAPACITY -> starve()
            :: else
            fi
        od;
#endif
#ifdef LATE_INTENT
        put(PUBLISHER, INTENT, tail + 1, 0, 0);
        put(PUBLISHER, tail % CAPACITY, tail + 1, 0, 0);
#else
        put(PUBLISHER, INTENT, tail + 1, 0, 0);
        put(PUBLISHER, tail % CAPACITY, tail + 1, 1, 0);    /* RB3 */
#endif
        tail++;
#ifdef NO_RELEASE_TAIL
        put(PUBLISHER, TAIL, tail, 0, 0);
#else
        put(PUBLISHER, TAIL, tail, 1, 0);                   /* RB1 */
#endif
        wake_sleepers()
    :: else -> break
    od
}

proctype ringer()
{
    do
#ifdef LATE_TAKE
    :: ringer_word -> atomic { bell[0] = 1; bell[1] = 1 }; ringer_word = 0
#else
    :: atomic { ringer_word -> ringer_word = 0 }; atomic { bell[0] = 1; bell[1] = 1 }
#endif
    :: ringer_word == 0 ->
#ifdef BLIND_WAIT
        ringer_asleep = 1;
#else
        atomic { ringer_asleep = (ringer_word == 0 -> 1 : 0) };
#endif
end_ringer:
        ringer_asleep == 0
    od
}

/* ---- subscribers ---- */

inline tell_cursor()
{
#ifdef RELIABLE
    put(me, CURSOR + me, position, 1, 0);   /* RB2 */
#ifndef NO_FENCE_CURSOR
    fence(me);                              /* FB3 */
#endif
    get(me, WAITING + me, x);
    if
    :: x == 1 ->
        get(me, NEED + me, x);
        if
        :: position >= x -> atomic { pending[me].count == 0; memory[WAITING + me] = 0 }
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}

inline fall_asleep()
{
    put(me, SLEEPERS, 1, 0, 1);
#ifndef NO_FENCE_SLEEP
    fence(me);                              /* FB2 */
#endif
#ifndef NO_RECHECK
    get(me, TAIL, tail);
#endif
    if
    :: tail == position -> atomic { bell[me] -> bell[me] = 0 }
    :: else
    fi
}

proctype subscriber(byte me)
{
    byte position, tail, value, x, i;
    do
    :: position < RECORDS ->
        get(me, TAIL, tail);
        if
        :: tail == position -> tell_cursor(); fall_asleep()
        :: else ->
            get(me, position % CAPACITY, value);
#ifdef NO_LOOK
            x = 0;
#else
            get(me, INTENT, x);
#endif
            if
            :: x > position + CAPACITY ->
#ifdef RELIABLE
                assert(false);
#endif
                get(me, TAIL, tail);
                position = (tail - 1 > position -> tail - 1 : position)
            :: else ->
                assert(value == position + 1);
                position++;
                tell_cursor()
            fi
        fi
    :: else -> break
    od;
    finished++
}

init {
    atomic {
        run publisher();
        run ringer();
        run subscriber(0);
        run subscriber(1);
        run drain(0);
        run drain(1);
        run drain(PUBLISHER)
    }
}
