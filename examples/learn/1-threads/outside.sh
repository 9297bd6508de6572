# A server with three threads, and what the kernel shows of it..
plait serve echo --echo --threads 3 > out &
pid=$!
until grep -q serving out; do sleep 0.1; done
for task in /proc/$pid/task/*; do echo "native id ${task##*/}: $(cat "$task/comm")"; done
kill $pid
wait $pid
