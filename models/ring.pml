/* The ring of src/shm/ring_spsc.h with its wake-ups, starving, skips and the death of either side.
 *
 * Memory is weaker than SPIN's: each side writes into a store buffer that drains at any time and in any order,
 * save that stores to one word stay in order and a release store waits until it is the oldest (an x86 with
 * its store-store order taken away). Loads see the own buffer first. A fence waits until the buffer is empty;
 * so does the system call that rings a doorbell. Labels are those of the C code.
 *
 * Checked, over all interleavings: records are read whole, in order and once (assert); whoever sleeps is woken
 * (an invalid end state is a lost wake-up); what was published before the producer's death is delivered; a
 * side that lost its peer comes to its end.
 *
 * Each of these must make it fail; run.sh sees to that: NO_FENCE_PUBLISH (FR1), NO_FENCE_SLEEP (FR2),
 * NO_FENCE_GIVE_BACK (FR3), NO_FENCE_STARVE (FR4), NO_RELEASE_TAIL (RR1), NO_RECHECK, EARLY_GIVE_BACK,
 * LATE_AWAKE (the announcement is taken back after the doorbell), NO_HUP, and of SKIP: SKIP_UNASKED (without
 * a look whether the ring is empty), LATE_SKIP (told after the tail), DEAF_SKIP (not followed).
 */
#ifndef RECORDS
#define RECORDS 4
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#define PAGE (CAPACITY / 2)     /* where an empty ring is left for the next lap, with SKIP */
#define BUFFER 3

#define PRODUCER 0
#define CONSUMER 1
#define TAIL (CAPACITY)
#define HEAD (CAPACITY + 1)
#define SLEEPING (CAPACITY + 2)
#define STARVED (CAPACITY + 3)
#define SKIPPED (CAPACITY + 4)
#define WORDS (CAPACITY + 5)
#define NOTHING 255

typedef store_buffer {
    byte word[BUFFER];
    byte value[BUFFER];
    bit release[BUFFER];
    byte count
}

byte memory[WORDS];
store_buffer pending[2];
bit bell[2];        /* an edge that was not taken yet */
bit dead[2];
bit hup[2];         /* the peer of [side] is gone, and all that it wrote is visible */
byte spurious = 1;  /* wake-ups for other reasons, that may still come */

inline put(side, w, v, r)
{
    atomic {
        pending[side].count < BUFFER;
        pending[side].word[pending[side].count] = w;
        pending[side].value[pending[side].count] = v;
        pending[side].release[pending[side].count] = r;
        pending[side].count++
    }
}

inline get(side, w, result)
{
    d_step {
        result = memory[w];
        i = 0;
        do
        :: i < pending[side].count ->
            if
            :: pending[side].word[i] == w -> result = pending[side].value[i]
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

inline ring_bell(side, whose)
{
    atomic { pending[side].count == 0; bell[whose] = 1 }
}

/* Whether entry number N may become visible now. */
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
           memory[pending[side].word[n]] = pending[side].value[n];
           do
           :: n + 1 < pending[side].count ->
               pending[side].word[n] = pending[side].word[n + 1];
               pending[side].value[n] = pending[side].value[n + 1];
               pending[side].release[n] = pending[side].release[n + 1];
               n++
           :: else -> break
           od;
           pending[side].count--;
           pending[side].word[n] = 0;
           pending[side].value[n] = 0;
           pending[side].release[n] = 0;
           n = 0
       }
    od
}

/* Sleeps until the doorbell, the peer's end, or something else. */
inline wait_bell(side)
{
    if
    :: atomic { bell[side] -> bell[side] = 0 }
    :: hup[side] -> peer_gone = 1
    :: atomic { spurious > 0 -> spurious-- }
    fi
}

inline publish()
{
    if
    :: tail != published ->
        published = tail;
#ifdef NO_RELEASE_TAIL
        put(PRODUCER, TAIL, tail, 0);
#else
        put(PRODUCER, TAIL, tail, 1);   /* RR1 */
#endif
#ifndef NO_FENCE_PUBLISH
        fence(PRODUCER);                /* FR1 */
#endif
        get(PRODUCER, SLEEPING, x);
        if
        :: x == 1 ->
#ifdef LATE_AWAKE
            ring_bell(PRODUCER, CONSUMER);
            put(PRODUCER, SLEEPING, 0, 0)
#else
            put(PRODUCER, SLEEPING, 0, 0);
            ring_bell(PRODUCER, CONSUMER)
#endif
        :: else
        fi
    :: else
    fi
}

inline starve()
{
    put(PRODUCER, STARVED, 1, 0);
#ifndef NO_FENCE_STARVE
    fence(PRODUCER);                    /* FR4 */
#endif
    get(PRODUCER, HEAD, x);
    if
    :: tail - x == CAPACITY -> wait_bell(PRODUCER)
    :: else
    fi;
    put(PRODUCER, STARVED, 0, 0)
}

/* The rest of a lap is left out if the ring is empty at the end of its first page. */
inline skip_lap()
{
#ifdef SKIP
    if
    :: tail % CAPACITY == PAGE ->
        get(PRODUCER, HEAD, head);
        if
#ifdef SKIP_UNASKED
        :: tail + CAPACITY - PAGE - head < CAPACITY ->
#else
        :: head == tail ->
#endif
#ifdef LATE_SKIP
            tail = tail + CAPACITY - PAGE;
            publish();
            put(PRODUCER, SKIPPED, tail - CAPACITY + PAGE, 0)
#else
            put(PRODUCER, SKIPPED, tail, 0);
            tail = tail + CAPACITY - PAGE
#endif
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}

proctype producer()
{
    byte tail, published, head, sent, x, i;
    bit peer_gone;
    {
        do
        :: sent < RECORDS && !peer_gone ->
            if
            :: tail - head == CAPACITY -> get(PRODUCER, HEAD, head)
            :: else
            fi;
            if
            :: tail - head == CAPACITY -> publish(); starve()
            :: else ->
                skip_lap();
                put(PRODUCER, tail % CAPACITY, sent + 1, 0);
                tail++;
                sent++;
                if
                :: publish()
                :: sent < RECORDS   /* several commits to one publication */
                fi
            fi
        :: else -> break
        od
    } unless { dead[PRODUCER] }
}

inline give_back()
{
    if
    :: head != offered ->
        offered = head;
        put(CONSUMER, HEAD, head, 1);   /* RR3 */
#ifndef NO_FENCE_GIVE_BACK
        fence(CONSUMER);                /* FR3 */
#endif
        get(CONSUMER, STARVED, x);
        if
        :: x == 1 ->
            put(CONSUMER, STARVED, 0, 0);
            ring_bell(CONSUMER, PRODUCER)
        :: else
        fi
    :: else
    fi
}

inline fall_asleep()
{
    put(CONSUMER, SLEEPING, 1, 0);
#ifndef NO_FENCE_SLEEP
    fence(CONSUMER);                    /* FR2 */
#endif
#ifdef NO_RECHECK
    x = head;
#else
    get(CONSUMER, TAIL, x);
#endif
    if
    :: x == head -> wait_bell(CONSUMER)
    :: else
    fi;
    put(CONSUMER, SLEEPING, 0, 0)
}

/* Follows the producer to the next lap. */
inline look()
{
#ifdef SKIP
    if
    :: tail != head && head % CAPACITY != 0 && head % CAPACITY + tail - head >= CAPACITY ->
        get(CONSUMER, SKIPPED, x);
#ifdef DEAF_SKIP
        x = 0;
#endif
        if
        :: x == head ->
            head = head + CAPACITY - head % CAPACITY;
            put(CONSUMER, HEAD, head, 1) /* RR4 */
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}

proctype consumer()
{
    byte head, offered, tail, received, x, i;
    bit peer_gone;
    {
        do
        :: received < RECORDS ->
            if
            :: head == tail -> get(CONSUMER, TAIL, tail); look()    /* AR1 */
            :: else
            fi;
            if
            :: head == tail && peer_gone ->
                /* All that the dead had published is here. */
                assert(memory[TAIL] == head);
                break
            :: head == tail && !peer_gone -> give_back(); fall_asleep()
            :: head != tail ->
#ifdef EARLY_GIVE_BACK
                put(CONSUMER, HEAD, head + 1, 1);
#endif
                get(CONSUMER, head % CAPACITY, x);
                assert(x == received + 1);
                received++;
                head++;
                if
                :: put(CONSUMER, HEAD, head, 1)     /* RR2: drained, or a quarter */
                :: head != tail
                fi;
                if
                :: give_back()                      /* not only when drained */
                :: true
                fi
            fi
        :: else -> break
        od;
        give_back()
    } unless { dead[CONSUMER] }
}

/* One of them dies at any point, or none. The kernel drains the dead CPU's stores, then tells the other. */
proctype killer()
{
    if
    :: true
#ifdef DEATH
    :: atomic { dead[PRODUCER] = 1; pending[PRODUCER].count == 0 };
#ifndef NO_HUP
       hup[CONSUMER] = 1
#endif
    :: atomic { dead[CONSUMER] = 1; pending[CONSUMER].count == 0 };
#ifndef NO_HUP
       hup[PRODUCER] = 1
#endif
#endif
    fi
}

init
{
    atomic {
        memory[SKIPPED] = 0;
        run drain(PRODUCER);
        run drain(CONSUMER);
        run producer();
        run consumer();
        run killer()
    }
}
