#!/bin/sh
# One worker of two: `two_hosts.sh 0 RECIPE [ARGUMENTS]` on the first host, `two_hosts.sh 1 ...` on the second.
# HOSTS names them, each with a port that the other one can reach; no proxy, no TLS: a network of your own.
set -eu
: "${HOSTS:=10.0.0.1:2222 10.0.0.2:2222}"
index=$1
shift
addresses=$(printf '"%s", ' $HOSTS)
export TF_CONFIG="{\"cluster\": {\"worker\": [${addresses%, }]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
exec keras_vit train "$@" --set distribution.name=multi_worker
