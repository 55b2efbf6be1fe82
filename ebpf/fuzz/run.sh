#!/bin/sh
# Fuzzes the classifying function:  ebpf/fuzz/run.sh SECONDS [libFuzzer arguments] | --corpus
#
# A frame that made it fail belongs in ebpf/common/tests/support/samples.rs. See .ci/fuzz.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../../.ci/fuzz" "$here" "$@"
