#include "naming/entry.h"

#include "naming/test_support.h"

static const struct pl_entry sample = { .pid = 12,
                                        .uid = 1000,
                                        .start = 345,
                                        .ns = 77,
                                        .id = 0xfedcba9876543210u,
                                        .process = "greeter",
                                        .urls = "tcp://127.0.0.1:1 unix:///x" };

/* A locked entry file in the test's directory. */
static int make(const char *file, const struct pl_entry *entry)
{
    char text[PL_ENTRY_TEXT];
    size_t size = pl_entry_format(entry, text);
    int fd = open(path_of("%s/%s", test_directory(), file), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK_INT(pwrite(fd, text, size, 0), size);
    CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
    return fd;
}

/* As another process sees it: through a description of its own. */
static enum pl_entry_verdict judge(const char *file, struct pl_entry *ret_entry)
{
    int fd = open(path_of("%s/%s", test_directory(), file), O_RDONLY | O_CLOEXEC);
    enum pl_entry_verdict verdict = pl_entry_judge(fd, ret_entry);
    close(fd);
    return verdict;
}

static int parse(const char *text)
{
    struct pl_entry entry = sample;
    int r = pl_entry_parse(&entry, text);
    if (r < 0) CHECK_MEM(&entry, &sample, sizeof entry); /* untouched */
    return r;
}

TEST(what_is_written_can_be_read)
{
    char text[PL_ENTRY_TEXT];
    struct pl_entry entry;
    size_t size = pl_entry_format(&sample, text);
    CHECK_INT(size, strlen(text));
    CHECK_INT(pl_entry_parse(&entry, text), 0);
    CHECK_INT(entry.pid, 12);
    CHECK_INT(entry.uid, 1000);
    CHECK_INT(entry.start, 345);
    CHECK_INT(entry.ns, 77);
    CHECK(entry.id == sample.id);
    CHECK_STR(entry.process, "greeter");
    CHECK_STR(entry.urls, sample.urls);
}

TEST(the_longest_entry_fits)
{
    char text[PL_ENTRY_TEXT];
    struct pl_entry entry = { .pid = INT32_MAX,
                              .uid = UINT32_MAX,
                              .start = UINT64_MAX,
                              .ns = UINT64_MAX,
                              .id = UINT64_MAX },
                    read;
    memset(entry.process, 'p', sizeof entry.process - 1);
    memset(entry.urls, 'u', sizeof entry.urls - 1);
    CHECK(pl_entry_format(&entry, text) < sizeof text);
    CHECK_INT(pl_entry_parse(&read, text), 0);
    CHECK_MEM(&read, &entry, sizeof read);
}

TEST(entries_that_are_none_are_refused)
{
    CHECK_INT(parse(""), -EBADMSG);
    CHECK_INT(parse("\n\n\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 0\nstart 2\n"), -EBADMSG);        /* no id */
    CHECK_INT(parse("uid 0\nstart 2\nid 3\n"), -EBADMSG);         /* no pid */
    CHECK_INT(parse("pid 0\nuid 0\nstart 2\nid 3\n"), -EBADMSG);  /* kill(0) would mean our group */
    CHECK_INT(parse("pid -1\nuid 0\nstart 2\nid 3\n"), -EBADMSG); /* and kill(-1) everybody */
    CHECK_INT(parse("pid 2147483648\nuid 0\nstart 2\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid 1x\nuid 0\nstart 2\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid  1\nuid 0\nstart 2\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid \nuid 0\nstart 2\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 4294967296\nstart 2\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 0\nstart 99999999999999999999\nid 3\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 0\nstart 2\nid 10000000000000000\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 0\nstart 2\nid 0123456789012345678901234567890\n"), -EBADMSG);
    CHECK_INT(parse("pid 1\nuid 0\nstart 2\nid 3"), 0); /* the last newline is no matter */
}

TEST(lines_of_a_later_version_are_passed_over)
{
    CHECK_INT(parse("colour blue\npid 1\nuid 0\nstart 2\nid 3\nmore\n"), 0);
}

TEST(what_remains_behind_shorter_urls_is_not_read)
{
    struct pl_entry entry;
    CHECK_INT(pl_entry_parse(&entry, "pid 1\nuid 0\nstart 2\nid 3\nurls a\npid 99\nlonger than before\n"), 0);
    CHECK_INT(entry.pid, 1);
    CHECK_STR(entry.urls, "a");
}

TEST(foreign_text_is_cut_and_cleaned)
{
    struct pl_entry entry;
    char text[PL_ENTRY_TEXT] = "pid 1\nuid 0\nstart 2\nid 3\nprocess a\033[2Jb\x7f\nurls ";
    memset(text + strlen(text), 'u', 1000);
    CHECK_INT(pl_entry_parse(&entry, text), 0);
    CHECK_STR(entry.process, "a?[2Jb?");
    CHECK_INT(strlen(entry.urls), sizeof entry.urls - 1);
}

TEST(a_process_name_adds_no_line)
{
    struct pl_entry entry;
    CHECK_INT(prctl(PR_SET_NAME, "a\npid 1\033"), 0);
    pl_entry_self(&entry);
    CHECK_STR(entry.process, "a?pid 1?");
    CHECK_INT(entry.pid, getpid());
    CHECK_INT(entry.start, pl_process_start(getpid()));
}

TEST(file_names_are_name_and_id)
{
    char name[PLAIT_NAME_MAX + 1], longest[PL_ENTRY_FILE + 1];
    uint64_t id = 0;
    bool hidden = true;
    CHECK(pl_entry_split("greeter@00000000000000ff", name, &id, &hidden));
    CHECK_STR(name, "greeter");
    CHECK_INT(id, 255);
    CHECK(!hidden);
    CHECK(pl_entry_split(".a.b@fedcba9876543210", name, &id, &hidden));
    CHECK_STR(name, "a.b");
    CHECK(hidden);
    snprintf(longest, sizeof longest, "%0100d@0000000000000001", 0);
    CHECK(pl_entry_split(longest, name, &id, &hidden));
    snprintf(longest, sizeof longest, "%0101d@0000000000000001", 0);
    CHECK(!pl_entry_split(longest, name, &id, &hidden));
}

TEST(other_file_names_are_no_entries)
{
    static const char *const files[] = { "",
                                         ".",
                                         "..",
                                         "@",
                                         "a",
                                         "@0000000000000001",
                                         "a@",
                                         "a@1",
                                         "a@000000000000000g",
                                         "a@00000000000000011",
                                         "A@0000000000000001",
                                         "..a@0000000000000001",
                                         "-a@0000000000000001",
                                         ".a.lock",
                                         "a@0000000000000001@0000000000000001",
                                         "a/b@0000000000000001",
                                         "a@000000000000000A" };
    char name[PLAIT_NAME_MAX + 1];
    uint64_t id;
    bool hidden;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (pl_entry_split(files[i], name, &id, &hidden)) test_fail(__FILE__, __LINE__, "%s", files[i]);
}

TEST(only_regular_files_of_the_owner_are_opened)
{
    const char *directory = test_directory();
    int folder = open(directory, O_PATH | O_CLOEXEC), fd = -1;
    CHECK_INT(mkfifo(path_of("%s/fifo", directory), 0600), 0);
    CHECK_INT(symlink("/etc/passwd", path_of("%s/link", directory)), 0);
    CHECK_INT(mkdir(path_of("%s/directory", directory), 0700), 0);
    close(make("file", &sample));
    CHECK_INT(pl_entry_open(folder, "fifo", geteuid(), &fd), -ENOENT);
    CHECK_INT(pl_entry_open(folder, "link", geteuid(), &fd), -ENOENT);
    CHECK_INT(pl_entry_open(folder, "directory", geteuid(), &fd), -ENOENT);
    CHECK_INT(pl_entry_open(folder, "missing", geteuid(), &fd), -ENOENT);
    CHECK_INT(pl_entry_open(folder, "file", geteuid() + 1, &fd), -ENOENT);
    CHECK_INT(fd, -1);
    CHECK_INT(pl_entry_open(folder, "file", geteuid(), &fd), 0);
    close(fd);
    close(folder);
}

TEST(a_locked_entry_of_a_living_process_is_alive)
{
    struct pl_entry self, seen;
    pl_entry_self(&self);
    int fd = make("file", &self);
    CHECK_INT(judge("file", &seen), PL_ENTRY_ALIVE);
    CHECK_INT(seen.pid, getpid());
    close(fd);
}

TEST(an_unlocked_entry_is_dead)
{
    struct pl_entry self;
    pl_entry_self(&self);
    close(make("file", &self));
    CHECK_INT(judge("file", &self), PL_ENTRY_DEAD);
}

TEST(a_read_lock_is_no_sign_of_life)
{
    struct pl_entry self;
    pl_entry_self(&self);
    close(make("file", &self));
    int fd = open(path_of("%s/file", test_directory()), O_RDONLY | O_CLOEXEC);
    CHECK_INT(pl_entry_lock(fd, F_RDLCK), 0); /* whoever may read it can do that, and for ever */
    CHECK_INT(judge("file", &self), PL_ENTRY_DEAD);
    close(fd);
}

TEST(a_locked_file_without_content_is_being_made)
{
    int fd = open(path_of("%s/file", test_directory()), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct pl_entry seen = sample;
    CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
    CHECK_INT(judge("file", &seen), PL_ENTRY_UNCLEAR);
    CHECK_INT(write(fd, "pid 1\nui", 8), 8);
    CHECK_INT(judge("file", &seen), PL_ENTRY_UNCLEAR);
    CHECK_MEM(&seen, &sample, sizeof seen);
    close(fd);
}

TEST(a_pid_that_came_again_is_another_process)
{
    struct pl_entry self;
    pl_entry_self(&self);
    self.start++;
    int fd = make("file", &self);
    CHECK_INT(judge("file", &self), PL_ENTRY_DEAD);
    close(fd);
}

TEST(a_dead_owner_is_dead_although_a_forked_child_keeps_the_lock)
{
    struct pl_entry self;
    pid_t child = fork();
    if (child == 0) _exit(0);
    pl_entry_self(&self);
    self.pid = child;
    self.start = 1;
    int fd = make("file", &self);
    CHECK_INT(test_wait_child(child), 0);
    CHECK_INT(judge("file", &self), PL_ENTRY_DEAD);
    close(fd);
}

TEST(a_zombie_is_dead_although_a_forked_child_keeps_the_lock)
{
    struct pl_entry entry;
    int pair[2];
    char byte;
    CHECK_INT(pipe2(pair, O_CLOEXEC), 0);
    int fd = open(path_of("%s/file", test_directory()), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    pid_t child = fork();
    if (child == 0) {
        char text[PL_ENTRY_TEXT];
        pl_entry_self(&entry);
        size_t size = pl_entry_format(&entry, text);
        CHECK_INT(pwrite(fd, text, size, 0), size);
        CHECK_INT(pl_entry_lock(fd, F_WRLCK), 0);
        _exit(0);
    }
    close(pair[1]);
    CHECK_INT(read(pair[0], &byte, 1), 0);
    siginfo_t info;
    CHECK_INT(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    CHECK_INT(judge("file", &entry), PL_ENTRY_DEAD); /* we are who keeps it: the description is shared */
    CHECK_INT(test_wait_child(child), 0);
    close(fd);
    close(pair[0]);
}

TEST(a_pid_of_another_namespace_is_not_looked_for_in_ours)
{
    struct pl_entry self;
    pl_entry_self(&self);
    self.ns++;
    self.pid = INT32_MAX; /* not here */
    int fd = make("file", &self);
    CHECK_INT(judge("file", &self), PL_ENTRY_ALIVE);
    close(fd);
}

TEST(a_foreign_proc_is_not_asked_about_start_times)
{
    if (geteuid() != 0) SKIP("needs root");
    pid_t child = fork();
    if (child == 0) {
        CHECK_INT(unshare(CLONE_NEWPID), 0);
        pid_t inner = fork(); /* pid 1 there, while /proc still shows the old namespace with its pid 1 */
        if (inner != 0) _exit(test_wait_child(inner));
        struct pl_entry self;
        CHECK_INT(getpid(), 1);
        pl_entry_self(&self);
        CHECK(self.start != pl_process_start(1));
        int fd = make("file", &self);
        CHECK_INT(judge("file", &self), PL_ENTRY_ALIVE);
        close(fd);
        self.pid = 4711; /* that much is seen without /proc */
        fd = make("other", &self);
        CHECK_INT(judge("other", &self), PL_ENTRY_DEAD);
        close(fd);
        _exit(0);
    }
    CHECK_INT(test_wait_child(child), 0);
}

TEST(a_process_that_proc_hides_is_not_taken_for_dead)
{
    if (geteuid() != 0) SKIP("needs root");
    CHECK_INT(chmod(test_directory(), 0755), 0);
    struct pl_entry self;
    pl_entry_self(&self);
    int fd = make("file", &self);
    CHECK_INT(fchmod(fd, 0644), 0);
    pid_t child = fork();
    if (child == 0) {
        close(fd);
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("proc", "/proc", "proc", 0, "hidepid=2") < 0)
            _exit(77);
        be(SOMEBODY);
        CHECK_INT(access(path_of("/proc/%d", (int)getppid()), F_OK), -1);
        CHECK_INT(judge("file", &self), PL_ENTRY_ALIVE);
        _exit(0);
    }
    int status = test_wait_child(child);
    close(fd);
    if (status == 77) SKIP("cannot mount proc");
    CHECK_INT(status, 0);
}
