# Starts the monitor, runs the command, ends the monitor: served.sh COMMAND [ARGUMENT]...
./monitor &
"$@"
kill $!
wait $!
