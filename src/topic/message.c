/* message: what a subscriber is handed: lent until its next call, or held. */
#include "base/clock.h"
#include "base/error.h"
#include "topic/topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

plait_bytes plait_message_body(const plait_message *message)
{
    return (plait_bytes){ message->body, message->head.size };
}

plait_encoding plait_message_encoding(const plait_message *message)
{
    return (plait_encoding)message->head.encoding;
}

const char *plait_message_topic(const plait_message *message)
{
    return message->topic;
}

uint64_t plait_message_number(const plait_message *message)
{
    return message->head.number;
}

uint64_t plait_message_publisher(const plait_message *message)
{
    return message->publisher;
}

/* The raw counter is only good for spans: of the time since then. The one of another CPU may be ahead of ours. */
int64_t plait_message_time(const plait_message *message)
{
    if (message->unix_ns != 0) return message->unix_ns;
    uint64_t passed = pl_ticks() - message->head.ticks;
    return (int64_t)(pl_clock_unix_ns() - ((int64_t)passed > 0 ? pl_ns_of_ticks(passed) : 0));
}

uint64_t plait_message_lost(const plait_message *message, plait_lost *ret_why)
{
    if (ret_why != NULL) *ret_why = message->why;
    return message->lost;
}

const char *plait_message_lost_text(const plait_message *message)
{
    static const char *const why[] = { "", "overrun", "", "the publisher died", "told before the connection" };
    char *text = ((plait_message *)message)->text; /* a cache */
    if (message->why == PLAIT_LOST_NOTHING) return "";
    if (message->why == PLAIT_LOST_DROPPED)
        snprintf(text, sizeof message->text, "dropped: stuck for %u ms, %" PRIu64 " lost", message->stuck_ms,
                 message->lost);
    else snprintf(text, sizeof message->text, "%" PRIu64 " lost: %s", message->lost, why[message->why]);
    return text;
}

int plait_message_hold(plait_message *message, plait_message **ret_held)
{
    if (message->held) return pl_error(-EALREADY, "the message is held already");
    bool moves = message->memory != NULL || message->intake != NULL;
    size_t body = moves ? 0 : message->head.size;
    plait_message *held = malloc(sizeof *held + body);
    if (held == NULL) return pl_error(-ENOMEM, "no memory to hold a message of %u bytes", message->head.size);
    *held = *message;
    held->held = true;
    if (!moves) {
        if (body > 0) memcpy(held + 1, message->body, body);
        held->body = (const uint8_t *)(held + 1);
    }
    /* What was lent shows the same bytes until the next call: it only has nothing to give back any more. */
    message->memory = NULL;
    message->intake = NULL;
    *ret_held = held;
    return 0;
}

void plait_message_release(plait_message *held)
{
    if (held == NULL || !held->held) return;
    free(held->memory);
    pl_intake_let_go(held);
    free(held);
}
