/* URLs: what is accepted comes back in canonical form; what isn't names its part and the way out. */
#include "base/error.h"
#include "wire/test_guard.h"
#include "wire/url.h"
#include <errno.h>
#include <stdio.h>

/* Parses a copy of TEXT whose NUL is the last byte that may be read. */
static int parse(struct pl_url *url, const char *text)
{
    return pl_url_parse(url, (const char *)guard_end(text, strlen(text) + 1));
}

static void check_round(const char *text, const char *canonical)
{
    struct pl_url url;
    char formatted[8192], again[8192];
    int r = parse(&url, text);
    CHECK_STR(r == 0 ? "" : pl_error_text(), "");
    CHECK_STR(pl_url_format(&url, formatted, sizeof(formatted)), canonical);
    CHECK_INT(parse(&url, formatted), 0);
    CHECK_STR(pl_url_format(&url, again, sizeof(again)), canonical);
}

static void check_refused(const char *text, int code, const char *part)
{
    struct pl_url url = { .port = 4711 };
    CHECK_INT(parse(&url, text), code);
    CHECK_CONTAINS(pl_error_text(), part);
    CHECK_INT(url.port, 4711);
}

TEST(a_bare_name_is_a_service)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "greeter"), 0);
    CHECK_INT(url.scheme, PL_SCHEME_NAME);
    CHECK_INT(url.framing, PL_FRAMING_PLAIT);
    CHECK_STR(url.name, "greeter");
    CHECK(!url.shm_off);
    CHECK_INT(parse(&url, "greeter?shm=off&max_message=4k"), 0);
    CHECK(url.shm_off);
    CHECK_INT(url.max_message, 4096);
    check_round("greeter?shm=off", "greeter?shm=off");
    check_round("greeter?shm=on", "greeter");
}

TEST(a_tcp_url_has_every_part)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "tcp://127.0.0.1:8888/greeter?framing=raw&method=Greet&until=eof&max_message=16M&insecure=1"),
              0);
    CHECK_INT(url.scheme, PL_SCHEME_TCP);
    CHECK_INT(url.framing, PL_FRAMING_RAW);
    CHECK_STR(url.host, "127.0.0.1");
    CHECK_INT(url.port, 8888);
    CHECK_STR(url.name, "greeter");
    CHECK_STR(url.method, "Greet");
    CHECK_INT(url.max_message, 16 << 20);
    CHECK(url.until_eof && url.insecure && !url.shm_off);
}

TEST(hosts_and_ports_come_back_in_canonical_form)
{
    check_round("tcp://127.0.0.1:8888", "tcp://127.0.0.1:8888");
    check_round("TCP://localhost:0", "tcp://localhost:0");
    check_round("tcp://*:65535", "tcp://*:65535");
    check_round("tcp://[::1]:8888", "tcp://[::1]:8888");
    check_round("tcp://[::ffff:1.2.3.4]:1", "tcp://[::ffff:1.2.3.4]:1");
    check_round("tcp://[fe80::1%eth0]:1", "tcp://[fe80::1%25eth0]:1");
    check_round("tcp://[fe80::1%25eth0]:1", "tcp://[fe80::1%25eth0]:1");
    check_round("tcp://[fe80::1%25]:1", "tcp://[fe80::1%2525]:1");
    check_round("tcp://my_host-1.example.:08080/", "tcp://my_host-1.example.:8080");
    check_round("tcp://h:1/n?insecure=0&framing=plait", "tcp://h:1/n");
    struct pl_url url;
    CHECK_INT(parse(&url, "tcp://[fe80::1%25eth0]:1"), 0);
    CHECK_STR(url.host, "fe80::1%eth0");
}

TEST(datagrams_have_no_framing_and_their_own_limit)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "udp://[::1]:53"), 0);
    CHECK_INT(url.scheme, PL_SCHEME_UDP);
    CHECK_INT(url.framing, PL_FRAMING_RAW);
    check_round("UDP://h:1/n?framing=raw&insecure=1&method=m&max_message=1k",
                "udp://h:1/n?method=m&max_message=1k&insecure=1");
    check_round("udp://h:1?max_message=65507", "udp://h:1?max_message=65507");
    check_refused("udp://h:1?max_message=65508", -EINVAL,
                  "max_message=65508 in 'udp://h:1?max_message=65508': a datagram holds at most 65507 bytes "
                  "(PLAIT_DATAGRAM_MAX)");
    check_refused("udp://h:1?max_message=64k", -EINVAL,
                  "max_message=64k in 'udp://h:1?max_message=64k': a datagram holds at most 65507 bytes "
                  "(PLAIT_DATAGRAM_MAX)");
    check_refused("udp://h:1?framing=plait", -EINVAL,
                  "framing=plait in 'udp://h:1?framing=plait': over udp:// a message is a datagram, which needs no "
                  "framing; leave it out, or use tcp://");
    check_refused("udp://h:1?until=eof", -EINVAL,
                  "option 'until' in 'udp://h:1?until=eof' means nothing for udp://: known are framing, method, "
                  "max_message, insecure");
    check_refused("udp://h", -EINVAL, "no port in 'udp://h': write udp://HOST:PORT");
}

TEST(options_come_back_in_one_order)
{
    check_round("tcp://h:1?insecure=1&max_message=1048576&until=eof&method=m&framing=raw",
                "tcp://h:1?framing=raw&method=m&until=eof&max_message=1M&insecure=1");
    check_round("unix:///a?shm=off&framing=length", "unix:///a?framing=length&shm=off");
}

TEST(a_unix_path_is_decoded_and_encoded)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "unix:///run/a%20b%3fc%25%2f%C3%bc.sock?framing=lines"), 0);
    CHECK_INT(url.scheme, PL_SCHEME_UNIX);
    CHECK_STR(url.path, "/run/a b?c%/\xc3\xbc.sock");
    CHECK_INT(url.framing, PL_FRAMING_LINES);
    check_round("unix:///run/a%20b%3fc%25%2f%C3%bc%0a", "unix:///run/a%20b%3fc%25/\xc3\xbc%0a");
}

TEST(the_longest_path_survives_being_formatted)
{
    char text[4096] = "unix:///", canonical[4096] = "unix:///";
    struct pl_url url;
    for (int i = 0; i < 1022; i++) {
        strcat(text, "%01");
        strcat(canonical, "%01");
    }
    check_round(text, canonical);
    strcat(text, "%01");
    CHECK_INT(parse(&url, text), -EINVAL);
    CHECK_CONTAINS(pl_error_text(), "at most 1023 bytes are allowed");
}

TEST(sizes_take_binary_suffixes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = { { "1", 1 },          { "65536", 65536 }, { "64k", 65536 },  { "64K", 65536 },
                 { "16M", 16 << 20 }, { "1m", 1 << 20 },  { "1G", 1 << 30 }, { "1073741824", 1 << 30 } };
    static const char *const bad[] = { "",   "k",   "0",  "0k",   "-1",         "1.5M",        "2G",
                                       "1T", "1kk", "1 ", "0x10", "1073741825", "99999999999", "18446744073709551617" };
    struct pl_url url;
    char text[128];
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "tcp://h:1?max_message=%s", good[i].text);
        CHECK_INT(parse(&url, text), 0);
        CHECK_INT(url.max_message, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "tcp://h:1?max_message=%s", bad[i]);
        CHECK_INT(parse(&url, text), -EINVAL);
    }
    check_refused("tcp://h:1?max_message=2G", -EINVAL,
                  "max_message=2G in 'tcp://h:1?max_message=2G': give bytes from 1 to 1G (PLAIT_MESSAGE_MAX)");
    check_round("tcp://h:1?max_message=1000", "tcp://h:1?max_message=1000");
    check_round("tcp://h:1?max_message=1024k", "tcp://h:1?max_message=1M");
}

TEST(unknown_options_name_the_known_ones_and_the_nearest)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "tcp://h:1?framng=raw"), -EINVAL);
    CHECK_STR(pl_error_text(), "unknown option 'framng' in 'tcp://h:1?framng=raw': known are framing, method, until, "
                               "max_message, insecure (did you mean framing?)");
    CHECK_INT(parse(&url, "tcp://h:1?colour=red"), -EINVAL);
    CHECK_STR(pl_error_text(), "unknown option 'colour' in 'tcp://h:1?colour=red': known are framing, method, until, "
                               "max_message, insecure");
    check_refused(
        "greeter?framing=raw", -EINVAL,
        "option 'framing' in 'greeter?framing=raw' means nothing for a service name: known are max_message, shm");
    check_refused("tcp://h:1?shm=off", -EINVAL, "means nothing for tcp://");
    check_refused("unix:///a?insecure=1", -EINVAL, "means nothing for unix://");
}

TEST(options_are_well_formed_given_once_and_fit_together)
{
    check_refused("tcp://h:1?", -EINVAL, "empty option");
    check_refused("tcp://h:1?framing=raw&", -EINVAL, "empty option");
    check_refused("tcp://h:1?framing", -EINVAL, "option 'framing' in 'tcp://h:1?framing' has no value");
    check_refused("tcp://h:1?framing=raw&framing=raw", -EINVAL, "stands twice");
    check_refused(
        "tcp://h:1?framing=line", -EINVAL,
        "unknown framing 'line' in 'tcp://h:1?framing=line': known are plait, raw, lines, length (did you mean "
        "lines?)");
    check_refused("tcp://h:1?until=eof", -EINVAL, "goes with framing=raw only");
    check_refused("tcp://h:1?until=eof&framing=lines", -EINVAL, "goes with framing=raw only");
    check_refused("tcp://h:1?framing=raw&until=nul", -EINVAL, "the only value is until=eof");
    check_refused("tcp://h:1?insecure=yes", -EINVAL, "give insecure=1");
    check_refused("greeter?shm=no", -EINVAL, "shm=off");
    check_refused("tcp://h:1?method=a/b", -EINVAL, "method= in 'tcp://h:1?method=a/b': the method name 'a/b' has '/'");
    check_refused("tcp://h:1?method=", -EINVAL, "the method name is empty");
}

TEST(bad_hosts_and_ports_name_the_part)
{
    check_refused("tcp://", -EINVAL, "no host");
    check_refused("tcp://:8888", -EINVAL, "tcp://*:PORT to listen on all addresses");
    check_refused("tcp://h", -EINVAL, "no port in 'tcp://h': write tcp://HOST:PORT");
    check_refused("tcp://h/name", -EINVAL, "no port");
    check_refused("tcp://h:", -EINVAL, "the port '' in 'tcp://h:' is not a number");
    check_refused("tcp://h:65536", -EINVAL, "the port '65536'");
    check_refused("tcp://h:000001", -EINVAL, "the port '000001'");
    check_refused("tcp://h:http", -EINVAL, "the port 'http'");
    check_refused("tcp://h:-1", -EINVAL, "the port '-1'");
    check_refused("tcp://::1:8888", -EINVAL, "put an IPv6 address into brackets");
    check_refused("tcp://[::1", -EINVAL, "bracket in 'tcp://[::1' is not closed");
    check_refused("tcp://[::1]", -EINVAL, "no port");
    check_refused("tcp://[::1]8888", -EINVAL, "no port");
    check_refused("tcp://[]:1", -EINVAL, "'[]' in 'tcp://[]:1' is no IPv6 address");
    check_refused("tcp://[1.2.3.4]:1", -EINVAL, "no IPv6 address");
    check_refused("tcp://[::1%]:1", -EINVAL, "scope");
    check_refused("tcp://me@h:1", -EINVAL, "has a user");
    check_refused("tcp://h*:1", -EINVAL, "has '*'");
    check_refused("tcp://gr\xc3\xbc\xc3\x9f:1", -EINVAL, "has '?'");
}

TEST(the_host_is_bounded)
{
    char text[400] = "tcp://";
    struct pl_url url;
    memset(text + 6, 'h', 255);
    memcpy(text + 261, ":1", 3);
    CHECK_INT(parse(&url, text), 0);
    CHECK_INT(strlen(url.host), 255);
    memset(text + 6, 'h', 256);
    memcpy(text + 262, ":1", 3);
    check_refused(text, -EINVAL, "at most 255 are allowed");
}

TEST(bad_paths_name_the_way_to_write_them)
{
    check_refused("unix://run/a", -EINVAL, "with three slashes");
    check_refused("unix://", -EINVAL, "with three slashes");
    check_refused("unix:///", -EINVAL, "no absolute path");
    check_refused("unix:///a%", -EINVAL, "'%' without two hexadecimal digits");
    check_refused("unix:///a%4", -EINVAL, "'%' without two hexadecimal digits");
    check_refused("unix:///a%4?shm=off", -EINVAL, "'%' without two hexadecimal digits");
    check_refused("unix:///a%zz", -EINVAL, "write a '%' of the path as %25");
    check_refused("unix:///a%00b", -EINVAL, "(or %00)");
}

TEST(schemes_that_are_not_there_are_told_by_name)
{
    check_refused("tls://h:1", -EPROTONOSUPPORT, "needs plait-tls, which is not installed");
    check_refused("TLS://h:1", -EPROTONOSUPPORT, "plait-tls");
    check_refused("http://h/", -EPROTONOSUPPORT, "unknown scheme 'http://'");
    check_refused("://h", -EPROTONOSUPPORT, "unknown scheme '://'");
    check_refused("tcpx://h:1", -EPROTONOSUPPORT, "known are tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH");
}

TEST(what_people_write_instead_of_a_name_is_explained)
{
    struct pl_url url;
    check_refused("", -EINVAL, "the target is empty");
    CHECK_INT(pl_url_parse(&url, NULL), -EINVAL);
    check_refused("localhost:8888", -EINVAL, "did you mean tcp://localhost:8888?");
    check_refused("/run/app.sock", -EINVAL, "write unix:// and the absolute path");
    check_refused("./app.sock", -EINVAL, "looks like a path");
    check_refused("greeter/greet", -EINVAL, "names a service, and the call names its method");
    check_refused("tcp://h:1/a/b", -EINVAL, "'a/b' in 'tcp://h:1/a/b' has a '/'");
    check_refused("Greeter", -EINVAL, "in 'Greeter': the service name 'Greeter' has 'G' at position 1");
    check_refused("tcp://h:1/Greeter", -EINVAL, "the service name 'Greeter' has 'G'");
}

TEST(control_characters_never_reach_an_error_text)
{
    check_refused("a b", -EINVAL, "a space at position 2");
    check_refused("unix:///a\n", -EINVAL, "a control character at position 10");
    for (int c = 1; c < 256; c++) {
        char text[] = "tcp://h?:1";
        struct pl_url url;
        text[7] = (char)c;
        if (pl_url_parse(&url, text) == 0) continue;
        for (const char *t = pl_error_text(); *t != '\0'; t++) CHECK((unsigned char)*t >= ' ' && *t != 0x7f);
    }
}

TEST(a_target_without_end_is_refused)
{
    static char text[GUARD_ROOM];
    memset(text, 'a', sizeof(text) - 1);
    check_refused(text, -EINVAL, "more than 4095 bytes");
}

TEST(a_url_cut_at_every_byte_is_parsed_or_refused)
{
    static const char *const samples[] = {
        "tcp://[fe80::1%25eth0]:8888/greeter?framing=raw&method=Greet&until=eof&max_message=16M&insecure=1",
        "unix:///run/a%20b.sock?framing=length&shm=off&max_message=1G",
        "greeter?shm=off&max_message=64k",
    };
    for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++)
        for (size_t size = 0; size <= strlen(samples[i]); size++) {
            char text[128];
            struct pl_url url;
            snprintf(text, sizeof(text), "%.*s", (int)size, samples[i]);
            int r = parse(&url, text);
            CHECK(r == 0 || r == -EINVAL || r == -EPROTONOSUPPORT);
        }
}

TEST(formatting_cuts_and_never_writes_beyond)
{
    struct pl_url url;
    CHECK_INT(parse(&url, "tcp://[::1]:8888/greeter?framing=raw&max_message=16M"), 0);
    for (size_t size = 1; size < 60; size++) {
        char whole[64];
        char *text = (char *)guard_place() + GUARD_ROOM - size;
        pl_url_format(&url, whole, sizeof(whole));
        whole[size - 1] = '\0';
        CHECK_STR(pl_url_format(&url, text, size), whole);
    }
}

TEST(framings_have_names)
{
    CHECK_STR(pl_framing_name(PL_FRAMING_PLAIT), "plait");
    CHECK_STR(pl_framing_name(PL_FRAMING_RAW), "raw");
    CHECK_STR(pl_framing_name(PL_FRAMING_LINES), "lines");
    CHECK_STR(pl_framing_name(PL_FRAMING_LENGTH), "length");
}
