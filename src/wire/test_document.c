/* The tables of docs/protocol.md that name numbers of frames and hellos: each line is what the compiler says. */
#include "harness/document.h"
#include "wire/frame.h"
#include "wire/hello.h"
#include "wire/test_guard.h"
#include <errno.h>
#include <plait/plait.h>

static void expect_named(const char *document, const char *section, unsigned long number, const char *name)
{
    document_expect(document, section, "\n| %lu | %s |", number, name);
}

TEST(the_document_names_every_kind_and_flag_of_frames)
{
    static const char *const kinds[PL_FRAME_KINDS] = { NULL,  "CALL",    "SEND", "REPLY",     "CANCEL",  "GOAWAY",
                                                       "PAD", "SEGMENT", "BODY", "SUBSCRIBE", "MESSAGE", "DROPPED" };
    static const char *const flags[] = { "IGNORABLE", "IDEMPOTENT", "IN_SEGMENT", "ON_SOCKET", "NAMED" };
    const char *document = document_read("protocol.md");
    for (unsigned kind = 1; kind < PL_FRAME_KINDS; kind++) expect_named(document, "Frames", kind, kinds[kind]);
    for (unsigned bit = 0; bit < sizeof(flags) / sizeof(flags[0]); bit++)
        expect_named(document, "Frames", 1ul << bit, flags[bit]);
    CHECK_INT(PL_FRAME_FLAGS, (1 << sizeof(flags) / sizeof(flags[0])) - 1);
    CHECK_INT(PL_FRAME_REPLY, 3);
    CHECK_INT(PL_FRAME_BODY, 8);
    CHECK_INT(PL_FRAME_DROPPED, 11);
    CHECK_INT(PL_FRAME_NAMED, 16);
    document_expect(document, "Frames", "A frame is a head of %d bytes", PL_FRAME_HEAD);
    document_expect(document, "Frames", "the method field is `0x%x` |", PL_METHOD_DEFAULT);
}

TEST(the_document_names_every_feature)
{
    const char *document = document_read("protocol.md");
    const char *section = "Server hello: 64 bytes, then the tail";
    CHECK_INT(PL_HELLO_SERVER_HEAD, 64);
    expect_named(document, section, PL_FEATURE_SHM, "SHM");
    expect_named(document, section, PL_FEATURE_GOAWAY, "GOAWAY");
    expect_named(document, section, PL_FEATURE_ANY_METHOD, "ANY_METHOD");
    expect_named(document, section, PL_FEATURE_TOPIC, "TOPIC");
    expect_named(document, section, PL_FEATURE_RELIABLE, "RELIABLE");
    document_expect(document, section, "length of the tail, at most 103,424 |");
    CHECK_INT(PL_HELLO_TAIL_MAX, 103424);
    document_expect(document, section, "number of methods, at most %d |", PLAIT_METHODS_MAX);
    document_expect(document, "Client hello: 32 bytes, then the name", "length of the name, 0 to %d |", PLAIT_NAME_MAX);
    CHECK_INT(PL_HELLO_CLIENT_HEAD, 32);
}

TEST(the_document_names_every_status_with_its_errno)
{
    static const struct {
        const char *name, *error;
        int code;
    } statuses[] = { { "NO_METHOD", "EOPNOTSUPP", EOPNOTSUPP }, { "NO_REPLY", "EREMOTEIO", EREMOTEIO },
                     { "TOO_LATE", "ETIMEDOUT", ETIMEDOUT },    { "BUSY", "EBUSY", EBUSY },
                     { "TOO_LARGE", "EMSGSIZE", EMSGSIZE },     { "CANCELLED", "ECANCELED", ECANCELED },
                     { "GONE", "ECONNRESET", ECONNRESET } };
    const char *document = document_read("protocol.md");
    uint32_t status = PL_STATUS_NO_METHOD;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++, status++) {
        document_expect(document, "Statuses", "\n| 0x%x | %s | %s |", status, statuses[i].name, statuses[i].error);
        CHECK_INT(pl_status_errno(status), -statuses[i].code);
    }
    CHECK_INT(pl_status_errno(status), 0); /* no further one */
}
