#!/bin/sh
# Whether this container's llama-server answers: exit code 0 or 1. It asks where the server was told to listen, which
# is on the command line of the first process, or in the environment.
host=${LLAMA_ARG_HOST:-127.0.0.1}
port=${LLAMA_ARG_PORT:-8080}
before=
while IFS= read -r word; do
  case "$before" in
  --host) host=$word ;;
  --port) port=$word ;;
  esac
  before=$word
done <<WORDS
$(tr '\0' '\n' </proc/1/cmdline)
WORDS
case "$host" in
*.sock) exec curl --silent --fail --output /dev/null --max-time 4 --unix-socket "$host" http://localhost/health ;;
0.0.0.0 | ::) host=127.0.0.1 ;;
*:*) host="[$host]" ;;
esac
exec curl --silent --fail --output /dev/null --max-time 4 "http://$host:$port/health"
