/* Stands in for pyxis: takes its options, writes down what a step was given, and runs the step where it is.
 *
 * plugstack.conf: required /path/container_stub.so /path/record
 * Like pyxis with an image that has a PYTHONPATH of its own, it puts that before the job's.
 */
#include <slurm/spank.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SPANK_PLUGIN(container_stub, 1)

static char *given[2];

static int take(int which, const char *value, int remote)
{
    (void)remote;
    free(given[which]);
    given[which] = strdup(value);
    return 0;
}

static int flag(int which, const char *value, int remote)
{
    (void)which, (void)value, (void)remote;
    return 0;
}

struct spank_option spank_options[] = {
    {"container-image", "IMAGE", "what pyxis says", 1, 0, take},
    {"container-mounts", "SRC:DST[,SRC:DST...]", "what pyxis says", 1, 1, take},
    {"no-container-remap-root", NULL, "what pyxis says", 0, 0, flag},
    {"no-container-mount-home", NULL, "what pyxis says", 0, 0, flag},
    SPANK_OPTIONS_TABLE_END};

int slurm_spank_task_init(spank_t spank, int argc, char **argv)
{
    uint32_t job = 0, step = 0;
    FILE *record;

    if (!given[0] || argc < 1)
        return 0;
    spank_get_item(spank, S_JOB_ID, &job);
    spank_get_item(spank, S_JOB_STEPID, &step);
    record = fopen(argv[0], "a");
    if (!record)
        return -1;
    fprintf(record, "%u.%u|%s|%s\n", job, step, given[0], given[1] ? given[1] : "");
    fclose(record);
    return spank_setenv(spank, "PYTHONPATH", "/of/the/image", 1);
}
