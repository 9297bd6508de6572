/* replay: runs a fuzz target over files and directories of files, without libFuzzer: what was found
 * once stays found, under every compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rbe");
    struct stat status;
    if (!file || fstat(fileno(file), &status) < 0) {
        perror(path);
        if (file) fclose(file);
        return -1;
    }
    size_t size = (size_t)status.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    int r = data && fread(data, 1, size, file) == size ? 0 : -1;
    fclose(file);
    if (r == 0) LLVMFuzzerTestOneInput(data, size);
    else fprintf(stderr, "%s: could not be read\n", path);
    free(data);
    return r;
}

/* Returns how many files were replayed, or -1. */
static int replay(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory) return replay_file(path) < 0 ? -1 : 1;
    int count = 0;
    for (struct dirent *entry; count >= 0 && (entry = readdir(directory));) {
        char name[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        count = replay_file(name) < 0 ? -1 : count + 1;
    }
    closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        int replayed = replay(argv[i]);
        if (replayed < 0) return 1;
        count += replayed;
    }
    printf("%d inputs\n", count);
    return count > 0 ? 0 : 1; /* an empty corpus is a mistake */
}
