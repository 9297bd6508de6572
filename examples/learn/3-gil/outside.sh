# Two threads of a service compute: what share of a CPU does each get? outside.sh SERVICE...
"$@" threads 2 &
service=$!
plait call sums/compute --repeat 1000000 > answers &
first=$!
plait call sums/compute --repeat 1000000 > answers &
second=$!
until [ "$(plait threads $service --interval 1ms | grep -c sums/compute)" = 2 ]; do sleep 0.01; done
plait threads $service --interval 1s
kill $first $second
wait $first $second 2> ended
kill $service
wait $service
