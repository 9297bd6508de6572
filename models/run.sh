#!/bin/sh
# Verifies the models: each must hold as it is, and must fail with any one of its fences or rules removed.
# Needs spin and a C compiler; without spin: exit 77. run.sh -v prints what spin says.
set -u
models=$(cd "$(dirname "$0")" && pwd)
verbose=${1:-}
command -v spin >/dev/null 2>&1 || { echo "models: spin is missing: apt-get install spin" >&2; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null) || jobs=1
count=0
running=

# verify MODEL DEFINES: 0 holds, 1 fails, 2 neither could be shown
verify()
{
    # shellcheck disable=SC2086
    spin $2 -a "$models/$1" >log 2>&1 || { cat log; return 2; }
    ${CC:-cc} $optimize -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DMEMLIM=4000 -o pan pan.c >>log 2>&1 || { cat log; return 2; }
    ./pan -m1000000 >>log 2>&1
    [ "$verbose" = -v ] && cat log
    grep -q 'errors: [1-9]' log && return 1
    grep -q 'max search depth too small\|Search not completed\|out of memory' log && { cat log; return 2; }
    grep -q 'errors: 0' log && return 0
    cat log
    return 2
}

# judge 0|1 MODEL DEFINES...: in a folder of its own, with the verdict in the file `verdict`
judge()
{
    wanted=$1 model=$2
    shift 2
    optimize=-O2
    [ "$wanted" -eq 0 ] || optimize=-O0 # a failure is found sooner than a compiler has optimized
    verify "$model" "$*"
    got=$?
    states=$(awk '/states, stored/ { print $1 }' log)
    case $got in 0) said=holds ;; 1) said=fails ;; *) said='not decided' ;; esac
    verdict=ok
    [ $got -eq "$wanted" ] || verdict=WRONG
    printf '%-6s %-9s %-55s %-12s %s states\n' "$verdict" "$model" "$*" "$said" "$states" >verdict
}

# expect 0|1 MODEL DEFINES...: as many at once as there are CPUs
expect()
{
    count=$((count + 1))
    mkdir "$work/$count" || exit 1
    (cd "$work/$count" && judge "$@" >said 2>&1) &
    running="$running $!"
    # shellcheck disable=SC2086
    set -- $running
    [ $# -lt "$jobs" ] && return
    wait "$1"
    shift
    running="$*"
}

expect 0 broadcast.pml -DRELIABLE # the longest
skip='-DSKIP -DCAPACITY=4'
expect 0 ring.pml
expect 0 ring.pml -DDEATH -DRECORDS=3
expect 0 ring.pml "$skip"
expect 0 ring.pml "$skip" -DDEATH -DRECORDS=3
for removed in NO_FENCE_PUBLISH NO_FENCE_SLEEP NO_FENCE_GIVE_BACK NO_FENCE_STARVE NO_RELEASE_TAIL NO_RECHECK \
               EARLY_GIVE_BACK LATE_AWAKE; do
    expect 1 ring.pml -D$removed
done
expect 1 ring.pml -DDEATH -DRECORDS=3 -DNO_HUP
for removed in SKIP_UNASKED LATE_SKIP DEAF_SKIP; do
    expect 1 ring.pml "$skip" -D$removed
done

expect 0 broadcast.pml
for removed in NO_FENCE_PUBLISH NO_FENCE_SLEEP NO_RECHECK NO_RINGER LATE_TAKE BLIND_WAIT LATE_RESET NO_RELEASE_TAIL \
               LATE_INTENT NO_LOOK; do
    expect 1 broadcast.pml -D$removed
done
for removed in NO_FENCE_CURSOR NO_FENCE_STARVE; do
    expect 1 broadcast.pml -DRELIABLE -D$removed
done
wait
wrong=0
for number in $(seq $count); do
    cat "$work/$number/said"
    if [ -s "$work/$number/verdict" ]; then cat "$work/$number/verdict"; else echo "WRONG  model $number could not be judged"; fi
    grep -q '^ok' "$work/$number/verdict" 2>/dev/null || wrong=1
done
exit $wrong
