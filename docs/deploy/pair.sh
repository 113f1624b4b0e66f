#!/bin/sh
# Pairs the three nodes of compose.yaml, each with each, and makes a collection on all of them.
set -eu
collection=${1:-players}
compose() { docker compose -f "$(dirname "$0")/compose.yaml" "$@"; }
node() { name=$1; shift; compose exec -T "$name" selfsame "$@"; }

for name in a b c; do
    node "$name" collection create "$collection"
done
for pair in a:b a:c b:c; do
    host=${pair%:*} guest=${pair#*:}
    invitation=$(node "$host" peer invite --address "$host:7447" --name "$guest")
    node "$guest" peer join "$invitation" --name "$host"
done
node a status
