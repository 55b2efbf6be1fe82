#!/bin/sh
# Fuzzes parsing, a connection, a shard and the client port:  daemon/fuzz/run.sh SECONDS [libFuzzer arguments]
# | --corpus
#
# Bytes that made a target fail belong in a test: of the connection's and the shard's target in
# `found.rs` beside their attack, of the port's in `daemon/tests/port`. See .ci/fuzz.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
MAX_LEN=${MAX_LEN:-1600} exec "$here/../../.ci/fuzz" "$here" "$@"
