/* loans: the same everywhere, whether they lie in shared memory or not. */
#include "conformance/conformance.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static plait_loan *lend_pattern(const struct cell *cell, plait_client *client, size_t size, unsigned seed)
{
    plait_loan *loan = NULL;
    char *data = pattern(cell, size, seed);
    if (plait_client_loan(client, size, NULL, &loan) < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    CHECK_INT(plait_loan_size(loan), size);
    CHECK_INT((uintptr_t)plait_loan_data(loan) % 64, 0);
    memcpy(plait_loan_data(loan), data, size);
    free(data);
    return loan;
}

static void check_pattern(const struct cell *cell, plait_reply *reply, size_t size, unsigned seed)
{
    char *data = pattern(cell, size, seed);
    CHECK_INT(plait_reply_body(reply).size, size);
    CHECK_MEM(plait_reply_body(reply).data, data, size);
    free(data);
    plait_reply_free(reply);
}

/* What raw sends may arrive in pieces: there a small message has to do. */
static const size_t *sizes_of(const struct cell *cell)
{
    static const size_t all[] = { 1, 8192, 8193, 1 << 20, (3 << 20) + 1, 0 }, raw[] = { 1, 200, 0 },
                        datagram[] = { 1, 8193, PLAIT_DATAGRAM_MAX, 0 };
    return cell->framing == FRAMING_RAW ? raw : cell->framing == FRAMING_DATAGRAM ? datagram : all;
}

BEHAVIOUR(loans_are_sent_and_answered_with_loans, ALL, API | OWN_SERVICE)
{
    struct service service;
    service_start(&service, cell, "lend", NULL);
    plait_client *client = open_client(cell, &service, "lend");
    for (const size_t *size = sizes_of(cell); *size; size++) {
        for (unsigned seed = 0; seed < 3; seed++) {
            plait_reply *reply = NULL;
            plait_loan *loan = lend_pattern(cell, client, *size, seed);
            int r = plait_client_call_loan(client, method_in(cell, "lend"), loan, *size, NULL, &reply);
            if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
            check_pattern(cell, reply, *size, seed);
            CHECK_INT(plait_client_call_loan(client, method_in(cell, "lend"), loan, *size, NULL, &reply), -EINVAL);
            CHECK(reply == NULL);
        }
    }
    plait_client_close(client);
    service_stop(&service);
}

struct end {
    const struct cell *cell;
    size_t size;
    unsigned seed;
    int told;
};

static void on_end(int result, plait_reply *reply, void *context)
{
    struct end *end = context;
    end->told++;
    CHECK_INT(result, 0);
    check_pattern(end->cell, reply, end->size, end->seed);
}

BEHAVIOUR(loans_are_sent_without_waiting, PLAIT | LINES | LENGTH, API | OWN_SERVICE)
{
    enum { COUNT = 12 };
    struct service service;
    struct end ends[COUNT];
    service_start(&service, cell, "lend", NULL);
    plait_client *client = open_client(cell, &service, "lend");
    for (unsigned i = 0; i < COUNT; i++) {
        ends[i] = (struct end){ cell, sizes_of(cell)[i % 4], i, 0 };
        plait_loan *loan = lend_pattern(cell, client, ends[i].size, i);
        int r = plait_client_call_async_loan(client, method_in(cell, "lend"), loan, ends[i].size, NULL, on_end,
                                             &ends[i], NULL);
        if (r < 0) test_fail(__FILE__, __LINE__, "%s", plait_error_text());
    }
    for (unsigned i = 0; i < COUNT; i++)
        while (ends[i].told == 0) CHECK(plait_client_dispatch(client, 10000) >= 0);
    for (unsigned i = 0; i < COUNT; i++) CHECK_INT(ends[i].told, 1);
    plait_client_close(client);
    service_stop(&service);
}

BEHAVIOUR(a_loan_that_is_not_sent_is_given_back, ALL, API | OWN_SERVICE)
{
    struct service service;
    service_start(&service, cell, "lend", NULL);
    plait_client *client = open_client(cell, &service, "lend");
    for (unsigned i = 0; i < 3 * PLAIT_SEGMENTS_MAX; i++) {
        plait_loan *loan = lend_pattern(cell, client, 20000, i);
        plait_loan_abort(loan);
        plait_loan_abort(loan);
        CHECK(plait_loan_data(loan) == NULL);
    }
    plait_loan *kept = lend_pattern(cell, client, 20000, 1);
    plait_client_close(client);
    memset(plait_loan_data(kept), 1, 20000);
    plait_loan_abort(kept);
    service_stop(&service);
}

BEHAVIOUR(an_array_says_itself_what_it_holds, PLAIT, API | OWN_SERVICE)
{
    const uint64_t shape[] = { 100, 50, 3 };
    struct service service;
    plait_call_options options = PLAIT_CALL_OPTIONS_INIT;
    plait_loan *loan = NULL;
    plait_reply *reply = NULL;
    plait_array array;
    void *elements;
    size_t size;
    options.encoding = PLAIT_ARRAY;
    service_start(&service, cell, "lend", NULL);
    plait_client *client = open_client(cell, &service, "lend");
    CHECK_INT(plait_array_measure("<f4", shape, 3, &size), 0);
    CHECK_INT(plait_client_loan(client, size, NULL, &loan), 0);
    CHECK_INT(plait_array_write(plait_loan_data(loan), size, "<f4", shape, 3, &elements), 0);
    for (int i = 0; i < 100 * 50 * 3; i++) ((float *)elements)[i] = (float)i;
    CHECK_INT(plait_client_call_loan(client, "lend", loan, size, &options, &reply), 0);
    CHECK_INT(plait_reply_encoding(reply), PLAIT_ARRAY);
    CHECK_INT(plait_array_read(plait_reply_body(reply).data, plait_reply_body(reply).size, &array), 0);
    CHECK_STR(array.dtype, "<f4");
    CHECK_INT(array.dimensions, 3);
    CHECK_INT(array.shape[1], 50);
    CHECK(((const float *)array.data)[14999] == 14999);
    plait_reply_free(reply);
    plait_client_close(client);
    service_stop(&service);
}
