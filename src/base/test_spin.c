/* Loads as sequences of ticks, 1000 to a simulated microsecond: who spins, when, and for how many waits. */
#include "base/spin.h"

#include "harness/test.h"
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define US ((uint64_t)1000)

struct load {
    struct pl_spin spin;
    uint64_t now;
    int spun;       /* waits that spun */
    int vain;       /* of these, those that slept in the end */
    uint64_t spent; /* spinning in vain */
};

static struct load make_load(void)
{
    struct load load = { .now = (uint64_t)1 << 40 };
    pl_spin_init(&load.spin, 0);
    if (load.spin.limit == 0) SKIP("one CPU: nothing spins");
    load.spin.limit = 50 * US; /* independent of this machine's counter */
    load.spin.short_sleep = 80 * US;
    load.spin.far_sleep = 600 * US;
    load.spin.gap = 200 * US;
    load.spin.doubtful = 5 * US;
    return load;
}

/* GAP ticks later a wait begins. A spinner would see it end after AWAKE ticks; who sleeps (at once, or
 * after spinning for nothing) gets up SLEPT ticks after lying down. True if it spun. */
static bool wait_once(struct load *load, uint64_t gap, uint64_t awake, uint64_t slept)
{
    load->now += gap;
    uint64_t budget = pl_spin_begin(&load->spin, load->now);
    bool vain = budget < awake;
    load->now += vain ? budget + slept : awake;
    pl_spin_end(&load->spin, load->now, vain ? PL_SPIN_SLEPT : PL_SPIN_AWAKE);
    load->spun += budget > 0;
    load->vain += budget > 0 && vain;
    if (vain) load->spent += budget;
    return budget > 0;
}

/* COUNT waits; how many spun. */
static int wait_often(struct load *load, int count, uint64_t gap, uint64_t awake, uint64_t slept)
{
    int spun = 0;
    for (int i = 0; i < count; i++) spun += wait_once(load, gap, awake, slept);
    return spun;
}

/* Two sides in lock step: an answer comes at once if the other spins, else after its wake-up. */
static bool call_between(struct load *client, struct load *server, uint64_t silence, uint64_t wake)
{
    const uint64_t handler = US / 5;
    bool server_spins = server->spin.strength > 0 && silence < 50 * US;
    bool client_spins = wait_once(client, silence, handler + (server_spins ? US / 10 : wake), 2 * wake);
    wait_once(server, handler, silence + (client_spins ? US / 10 : wake), silence + 2 * wake);
    return client_spins && server_spins;
}

static bool call_once(struct load *client, struct load *server, uint64_t silence)
{
    return call_between(client, server, silence, 10 * US);
}

TEST(never_is_never)
{
    struct pl_spin spin;
    pl_spin_init(&spin, -1);
    for (uint64_t now = 1; now < 100; now++) {
        CHECK_INT(pl_spin_begin(&spin, now), 0);
        pl_spin_end(&spin, now, PL_SPIN_SLEPT);
    }
}

TEST(a_fixed_time_is_always_spun)
{
    struct pl_spin spin;
    pl_spin_init(&spin, 200);
    if (spin.limit == 0) SKIP("one CPU: nothing spins");
    for (uint64_t now = 1, ms = pl_ticks_of_ns(1000000); now < 100 * ms; now += ms) {
        CHECK_INT(pl_spin_begin(&spin, now), pl_ticks_of_ns(200000));
        pl_spin_end(&spin, now + ms, PL_SPIN_SLEPT);
    }
    pl_spin_init(&spin, INT64_MAX);
    CHECK(pl_spin_begin(&spin, 1) >= pl_ticks_of_ns((uint64_t)3600 * 1000000000)); /* and no overflow */
}

/* Its peer may run on another; only a machine with one CPU has no use for spinning. */
TEST(pinned_to_one_cpu_of_several_it_still_spins)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct pl_spin spin;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
        pl_spin_init(&spin, 0);
        bool several = sysconf(_SC_NPROCESSORS_ONLN) > 1;
        CHECK_INT(spin.limit > 0, several);
        pl_spin_init(&spin, 200);
        CHECK_INT(pl_spin_begin(&spin, 1) > 0, several);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(at_most_fifty_microseconds_are_spun)
{
    struct pl_spin spin;
    pl_spin_init(&spin, 0);
    if (spin.limit == 0) SKIP("one CPU: nothing spins");
    CHECK_INT(spin.limit, pl_ticks_of_ns(50000));
}

TEST(a_steady_load_comes_to_spin_within_two_dozen_calls_and_stays)
{
    struct load client = make_load(), server = make_load();
    int calls = 0;
    while (!call_once(&client, &server, US / 10)) CHECK(++calls < 24);
    for (int i = 0; i < 100000; i++) CHECK(call_once(&client, &server, US / 10));
}

TEST(sides_that_begin_to_try_apart_still_meet)
{
    for (int lead = 0; lead < 16; lead++) {
        struct load client = make_load(), server = make_load();
        wait_often(&client, lead, US / 5, 10 * US, 20 * US); /* the client has a past with somebody else */
        int calls = 0;
        while (!call_once(&client, &server, US / 10)) CHECK(++calls < 100);
        for (int i = 0; i < 1000; i++) CHECK(call_once(&client, &server, US / 10));
    }
}

TEST(a_trial_survives_two_failures)
{
    struct load load = make_load(); /* the other side still sleeps, once or twice */
    wait_often(&load, 9, US, 10 * US, 10 * US);
    CHECK_INT(wait_often(&load, 2, US, 60 * US, 10 * US), 2);
    CHECK_INT(wait_often(&load, 100, US, US, 10 * US), 100);
}

TEST(a_sparse_load_spins_on_neither_side)
{
    struct load client = make_load(), server = make_load();
    for (int i = 0; i < 10000; i++) call_once(&client, &server, 1000 * US);
    CHECK_INT(client.spun, 0);
    CHECK_INT(server.spun, 0);
}

TEST(a_load_that_becomes_sparse_stops_at_once)
{
    struct load client = make_load(), server = make_load();
    for (int i = 0; i < 10000; i++) call_once(&client, &server, US / 10);
    client.spun = server.spun = 0;
    server.spent = 0;
    for (int i = 0; i < 10000; i++) call_once(&client, &server, 1000 * US);
    CHECK_INT(client.spun, 0);
    CHECK(server.spun <= 4);
    CHECK(server.spent <= 200 * US);
}

TEST(a_load_that_becomes_steady_again_spins_again)
{
    struct load client = make_load(), server = make_load();
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 1000; i++) call_once(&client, &server, 1000 * US);
        int calls = 0;
        while (!call_once(&client, &server, US / 10)) CHECK(++calls < 24); /* the patience doesn't wear out */
        for (int i = 0; i < 100; i++) CHECK(call_once(&client, &server, US / 10));
    }
}

TEST(slow_answers_are_hardly_ever_tried)
{
    struct load load = make_load(); /* 64 sleeps, a far trial, 128 sleeps, ... */
    CHECK(wait_often(&load, 10000, US, 150 * US, 160 * US) <= 7 * 24);
    CHECK(wait_often(&load, 1000000, US, 150 * US, 160 * US) <= 1000000 / 4096 * 24 + 24);
}

TEST(answers_beyond_any_wake_up_never_spin)
{
    struct load load = make_load();
    CHECK_INT(wait_often(&load, 100000, US, 650 * US, 660 * US), 0);
}

/* A halted CPU of a virtual machine may take 200 µs to wake up: longer than the longest spin. */
TEST(two_sides_whose_wake_ups_are_slow_come_to_spin)
{
    for (uint64_t wake = 50; wake <= 280; wake += 10) {
        struct load client = make_load(), server = make_load();
        int calls = 0;
        while (!call_between(&client, &server, US / 10, wake * US)) CHECK(++calls < 200);
        for (int i = 0; i < 100; i++) call_between(&client, &server, US / 10, wake * US);
        for (int i = 0; i < 100000; i++) CHECK(call_between(&client, &server, US / 10, wake * US));
    }
}

TEST(a_far_trial_ends_where_the_other_side_does_not_follow)
{
    struct load load = make_load();
    CHECK_INT(wait_often(&load, 64, US, 200 * US, 210 * US), 0); /* the first is rare */
    CHECK(wait_often(&load, 30, US, 200 * US, 210 * US) <= 24);
    CHECK_INT(wait_often(&load, 100, US, 200 * US, 210 * US), 0);
}

TEST(answers_just_beyond_the_limit_are_seldom_tried)
{
    struct load load = make_load();
    wait_often(&load, 5000, US, 55 * US, 65 * US);
    CHECK(load.spun <= 40);
    CHECK(wait_often(&load, 50000, US, 55 * US, 65 * US) <= 150);
}

TEST(where_spinning_is_poison_it_stays_out_of_the_percentiles)
{
    struct load load = make_load(); /* a sleep takes 14 µs; a spinner holds the CPU that the peer needs */
    wait_often(&load, 1000, US, 60 * US, 14 * US);
    CHECK(load.spun <= 30);
    CHECK_INT(load.vain, load.spun);
    CHECK(wait_often(&load, 100000, US, 60 * US, 14 * US) <= 300);
}

TEST(a_spin_that_is_slower_than_a_sleep_is_no_success)
{
    struct load load = make_load(); /* it does come while we spin, but a sleeper would have it earlier */
    wait_often(&load, 100000, US, 40 * US, 14 * US);
    CHECK(load.spun <= 330);
    CHECK_INT(load.vain, 0);
}

TEST(a_measure_that_has_aged_is_taken_anew)
{
    struct load load = make_load();
    wait_often(&load, 1000, US, 20 * US, 30 * US);
    CHECK(wait_often(&load, 100, US, 20 * US, 30 * US) >= 90);
    wait_often(&load, 1000, US, 20 * US, 8 * US); /* sleeping has become the better way */
    CHECK(wait_often(&load, 100000, US, 20 * US, 8 * US) <= 400);
}

TEST(answers_that_are_quicker_than_any_sleep_need_no_measure)
{
    struct load load = make_load();
    wait_often(&load, 100, US, US, 10 * US);
    CHECK_INT(wait_often(&load, 100000, US, US, 10 * US), 100000);
}

TEST(doubtful_successes_cost_few_sleeps)
{
    struct load load = make_load();
    wait_often(&load, 100, US, 20 * US, 35 * US);
    CHECK(wait_often(&load, 100000, US, 20 * US, 35 * US) >= 96000);
}

TEST(bursts_keep_spinning_where_most_waits_gain)
{
    struct load server = make_load();
    for (int burst = 0; burst < 100; burst++) {
        wait_once(&server, US, 10000 * US, 10020 * US);
        wait_often(&server, 9, US, US, 20 * US);
    }
    server.spun = server.vain = 0;
    for (int burst = 0; burst < 1000; burst++) {
        wait_once(&server, US, 10000 * US, 10020 * US);
        CHECK_INT(wait_often(&server, 9, US, US, 20 * US), 9);
    }
    CHECK_INT(server.vain, 1000);
}

TEST(bursts_of_two_do_not_spin)
{
    struct load server = make_load();
    for (int burst = 0; burst < 10000; burst++) {
        wait_once(&server, US, 10000 * US, 10020 * US);
        wait_once(&server, US, US, 20 * US);
    }
    CHECK_INT(server.spun, 0);
}

TEST(a_few_late_answers_change_nothing)
{
    struct load load = make_load();
    wait_often(&load, 100, US, US, 10 * US);
    load.spun = 0;
    for (int i = 0; i < 100000; i++)
        wait_once(&load, US, i % 20 == 0 ? 500 * US : US, i % 20 == 0 ? 510 * US : 10 * US);
    CHECK_INT(load.spun, 100000);
}

TEST(answers_of_any_length_at_random_waste_little)
{
    struct load load = make_load();
    uint32_t random = 1;
    uint64_t begin = load.now;
    for (int i = 0; i < 100000; i++) {
        random = random * 1664525 + 1013904223;
        uint64_t length = (random >> 8) % 200 * US;
        wait_once(&load, US, length, length + 10 * US);
    }
    CHECK(load.spent < (load.now - begin) / 20);
}

TEST(what_ended_otherwise_teaches_nothing)
{
    struct load load = make_load();
    for (int i = 0; i < 1000; i++) {
        load.now += US;
        CHECK_INT(pl_spin_begin(&load.spin, load.now), 0);
        load.now += 10 * US;
        pl_spin_end(&load.spin, load.now, PL_SPIN_OTHER);
    }
    wait_often(&load, 100, US, US, 10 * US);
    for (int i = 0; i < 1000; i++) { /* in the middle of a spin */
        load.now += US;
        CHECK(pl_spin_begin(&load.spin, load.now) > 0);
        load.now += 10 * US;
        pl_spin_end(&load.spin, load.now, PL_SPIN_OTHER);
    }
    int in_vain = 0; /* but a spin to the end, and then a deadline: that was one for nothing */
    for (; pl_spin_begin(&load.spin, load.now) > 0; in_vain++) {
        load.now += 100 * US;
        pl_spin_end(&load.spin, load.now, PL_SPIN_OTHER);
        CHECK(in_vain < 5);
    }
}

TEST(a_wait_that_declines_is_no_failure)
{
    struct load load = make_load();
    wait_often(&load, 100, US, US, 10 * US);
    struct pl_spin before = load.spin;
    for (uint64_t length = 10 * US; length < 100000; length += 1000) {
        load.now += US;
        CHECK(pl_spin_begin(&load.spin, load.now) > 0);
        pl_spin_decline(&load.spin);
        load.now += length;
        pl_spin_end(&load.spin, load.now, PL_SPIN_SLEPT);
        CHECK_INT(load.spin.strength, before.strength);
        CHECK_INT(load.spin.patience, before.patience);
    }
    CHECK_INT(wait_often(&load, 100, US, US, 10 * US), 100);
}

TEST(what_came_before_the_sleep_is_a_reason_but_no_measure)
{
    struct load load = make_load();
    for (int i = 0; i < 9; i++) { /* the first is rare: nothing came before it */
        load.now += US;
        CHECK_INT(pl_spin_begin(&load.spin, load.now), 0);
        load.now += US / 10;
        pl_spin_end(&load.spin, load.now, PL_SPIN_AWAKE);
    }
    CHECK_INT(wait_often(&load, 100, US, 2 * US, 10 * US), 100);
}

TEST(a_counter_that_goes_back_does_no_harm)
{
    struct load load = make_load();
    for (int i = 0; i < 1000; i++) {
        uint64_t budget = pl_spin_begin(&load.spin, load.now);
        CHECK(budget <= 50 * US);
        pl_spin_end(&load.spin, load.now - (uint64_t)i * 1000 * US, (enum pl_spin_end)(i % 3));
        load.now -= 3 * US;
    }
    wait_often(&load, 100, US, US, 10 * US);
    for (int i = 0; i < 100; i++) { /* an answer from before the question: quick, not late */
        load.now += US;
        CHECK(pl_spin_begin(&load.spin, load.now) > 0);
        pl_spin_end(&load.spin, load.now - 5, PL_SPIN_AWAKE);
    }
    load.now -= 10 * US; /* and a wait that begins before the last one ended is not rare */
    CHECK(pl_spin_begin(&load.spin, load.now) > 0);
}
