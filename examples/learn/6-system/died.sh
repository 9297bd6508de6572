# The service dies while it is watched, and comes back: whoever watches goes on.
: > seen
./monitor &
pid=$!
python3 watch.py --every 0.1 --count 8 > seen &
watcher=$!
until grep -q disk seen; do sleep 0.05; done
kill -9 $pid
wait $pid 2> killed
plait ls monitor
./monitor &
pid=$!
wait $watcher
status=$?
echo "$(grep -c '^memory' seen) looks, exit status $status"
kill $pid
wait $pid
