#!/bin/sh
# The main job: a C server serves the name "echo"; a plain socket in Python, clients in C, C++ and Python and the
# command call it.
# `./dev run` builds everything and runs this; --once ends after the calls, with 0 only if all were answered right.
#
# The server is a child that must not outlive this script: a trap ends it, and should the script be killed with
# -9, the kernel does (setpriv --pdeathsig).
set -eu

once=no
for argument; do
    case $argument in
    --once) once=yes ;;
    *) echo "usage: main_job.sh [--once]" >&2 && exit 2 ;;
    esac
done

port=8888
python=/usr/bin/python3 # the package is for 3.11 and newer, which another python3 in PATH may not be
here=$(cd "$(dirname "$0")" && pwd)
plait=$(command -v plait) || { echo "main_job.sh: no plait command in PATH; run it by ./dev run" >&2 && exit 1; }
programs=$(dirname "$plait")/examples
directory=$(mktemp -d)
server=
guard=
command -v setpriv >/dev/null && guard="setpriv --pdeathsig TERM"

end() { # end STATUS: stops the server and waits until it is gone
    trap '' INT TERM HUP
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    [ -z "$server" ] || wait "$server" 2>/dev/null || :
    rm -rf "$directory"
    trap - EXIT
    exit "$1"
}
trap 'end $?' EXIT
interrupted=130 # Ctrl-C before the calls are done; afterwards it is how this ends
trap 'echo; end $interrupted' INT
trap 'end 143' TERM
trap 'end 129' HUP

who() { # who PORT: the process that listens there, or nothing
    inode=$(awk -v want="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == want { print $10; exit }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null) || :
    [ -n "$inode" ] || return 0
    found=$(find /proc/[0-9]*/fd -lname "socket:\[$inode\]" 2>/dev/null | head -n 1 | cut -d / -f 3) || :
    if [ -n "$found" ]; then
        echo "process $found ($(cat "/proc/$found/comm" 2>/dev/null || echo ended))"
    else
        echo "a process of another user"
    fi
}

start() { # start PORT: the server, until it says that it serves; url is its listener's
    rm -f "$directory/news"
    mkfifo "$directory/news"
    $guard "$programs/echo-server" echo "tcp://127.0.0.1:$1?framing=raw" >"$directory/news" 2>"$directory/errors" &
    server=$!
    exec 3<"$directory/news"
    while read -r line <&3; do
        case $line in
        "listening on "*) url=${line#listening on } ;;
        "serving "*) return 0 ;;
        esac
    done
    wait "$server" 2>/dev/null || :
    server=
    return 1
}

if ! start $port; then
    holder=$(who $port)
    if [ -z "$holder" ]; then
        cat "$directory/errors" >&2
        exit 1
    fi
    echo "port $port is taken by $holder; taking a free one"
    start 0 || { cat "$directory/errors" >&2 && exit 1; }
fi
port=${url#tcp://127.0.0.1:}
port=${port%%\?*}

failed=0
check() { # check TITLE MESSAGE COMMAND...: the command's answer must begin with MESSAGE
    title=$1 message=$2
    shift 2
    if answer=$("$@" 2>&1) && [ "${answer#"$message ("}" != "$answer" ]; then
        printf '  %-24s %s\n' "$title" "$answer"
    else
        printf '  %-24s FAILED: %s\n' "$title" "$answer"
        failed=1
    fi
}

shell_call() { # the command, as often as the others call; its replies are objects, one a line
    plait call echo "$1" --repeat 100 --timeout 10s --json >"$directory/replies" || return
    text=$(sed -n '1s/.*"text":"\([^"]*\)".*/\1/p' "$directory/replies")
    transport=$(sed -n '1s/.*"transport":"\([^"]*\)".*/\1/p' "$directory/replies")
    median=$(sed 's/.*"time_us":\([0-9.]*\).*/\1/' "$directory/replies" | sort -n | sed -n 50p)
    echo "$text ($transport, median of 100 round trips: $median us)"
}

echo "echo is served by pid $server: by name, and on $url (admits every local user)"
echo
check "Python, a plain socket:" "hello from Python" python3 "$here/client.py" 127.0.0.1 "$port" "hello from Python"
check "C, by name:" "hello from C" "$programs/echo-client" echo "hello from C"
[ ! -x "$programs/echo-client-cpp" ] ||
    check "C++, by name:" "hello from C++" "$programs/echo-client-cpp" echo "hello from C++"
if "$python" -c "import plait" 2>/dev/null; then
    check "Python, by name:" "hello from plait" "$python" "$here/client_plait.py" echo "hello from plait"
else
    echo "  Python, by name:         left out: the Python package was not built"
fi
check "plait call, by name:" "hello from the shell" shell_call "hello from the shell"
[ $once = no ] || end $failed
interrupted=$failed

cat <<TEXT

From another terminal:
  ./dev exec plait call echo hello
  ./dev exec plait ls echo
  printf hello | nc -N localhost $port
  python3 -c 'import socket; s = socket.create_connection(("localhost", $port)); s.sendall(b"hello"); print(s.recv(99))'

Serving until Ctrl-C.
TEXT
wait "$server" || failed=$?
server=
echo "the server has ended" >&2
end $failed
