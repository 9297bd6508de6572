#!/bin/sh
# follow_log.sh FILE WORD [TOPIC]: each line of FILE, also those to come, is a message of TOPIC (log), and here those with
# WORD are printed, until Ctrl-C. Others listen to the same topic: plait sub log
set -eu

[ $# -eq 2 ] || [ $# -eq 3 ] || { echo "usage: follow_log.sh FILE WORD [TOPIC]" >&2 && exit 2; }
topic=${3-log}

# With --wait nothing is read before there is somebody to read it; --reliable loses no line to a slow reader.
tail --pid=$$ -n +1 -F -- "$1" 2>/dev/null | plait pub --lines --reliable --wait 1 --timeout forever "$topic" &
publisher=$!
trap 'kill $publisher 2>/dev/null || :' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
plait sub --reliable "$topic" | grep --line-buffered -- "$2"
