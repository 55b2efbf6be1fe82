#!/bin/sh
# Fuzzes the classifying function:  ebpf/fuzz/run.sh SECONDS [libFuzzer arguments]
#
# Stable Rust and no cargo-fuzz: the coverage instrumentation is LLVM's own pass, which any rustc
# can be told to run. What it finds is written to ebpf/fuzz/target/found/; a frame that made it
# fail belongs in ebpf/common/tests/support/samples.rs.
#
#   ebpf/fuzz/run.sh --corpus   rewrites the committed corpus: the samples of the tests, and what
#                               a minute of fuzzing adds, reduced to what covers something new
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/target}
corpus=$here/corpus/classify

usage() {
    echo "usage: $0 SECONDS [libFuzzer arguments] | --corpus" >&2
    exit 2
}

# Builds the target named $1, with instrumentation.
build() {
    triple=$(rustc -vV | sed -n 's/^host: //p')
    CARGO_TARGET_DIR=$target RUSTFLAGS="--cfg fuzzing \
        -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares \
        -Ccodegen-units=1" \
        cargo build --release --quiet --locked --manifest-path "$here/Cargo.toml" \
            --target "$triple" --bin classify
    fuzzer=$target/$triple/release/classify
    mkdir -p "$target/found"
}

# Fuzzes for $1 seconds, from the committed corpus into a scratch one in $scratch.
fuzz() {
    seconds=$1
    shift
    "$fuzzer" "$scratch" "$corpus" -max_total_time="$seconds" -max_len=512 -timeout=5 \
        -artifact_prefix="$target/found/" -print_final_stats=1 "$@"
}

[ $# -ge 1 ] || usage
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

case $1 in
    --corpus)
        build
        CARGO_TARGET_DIR=$target cargo run --release --quiet --locked \
            --manifest-path "$here/Cargo.toml" --bin seed -- "$scratch"
        fuzz 60
        rm -rf "$corpus"
        mkdir -p "$corpus"
        "$fuzzer" -merge=1 -max_len=512 "$corpus" "$scratch"
        ;;
    *[!0-9]* | '') usage ;;
    *)
        build
        fuzz "$@"
        ;;
esac
