# A server with three threads, and what the kernel shows of it.
plait serve echo --echo --threads 3 > out &
pid=$!
until [ "$(cat /proc/$pid/task/*/comm | grep -c plait/echo)" = 2 ]; do sleep 0.1; done
for task in $(ls /proc/$pid/task | sort -n); do echo "native id $task: $(cat /proc/$pid/task/$task/comm)"; done
kill $pid
wait $pid
