#!/bin/sh
# Builds the XDP program and puts it beside this script:
#
#   fourwave.bpf.o           the object that the daemon embeds
#   fourwave.bpf.o.versions  what built it, and its SHA-256
#
#   ebpf/build.sh            build and replace the two files
#   ebpf/build.sh --check    build elsewhere and compare: byte for byte when the recorded versions
#                            are the installed ones; with other versions, the rebuilt object has
#                            to pass the kernel tests of daemon/xdp
#
# The toolchain: on Debian, as root, it is installed from Debian's packages. Elsewhere
# rustup's nightly with rust-src is used, and has to be there. bpf-linker is built once into
# ${XDG_CACHE_HOME:-$HOME/.cache}/fourwave, for the LLVM of the compiler.
set -eu

BPF_LINKER_VERSION=0.13.0
# The LLVM that Debian's rustc-web is built with.
DEBIAN_LLVM=22
DEBIAN_PACKAGES="rustc-web cargo-web rust-web-src llvm-$DEBIAN_LLVM-dev"

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
object=$here/fourwave.bpf.o
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fourwave

say() { echo "ebpf: $*" >&2; }
fail() { say "$*"; exit 1; }

usage() { fail "usage: $0 [--check]"; }

is_debian_with_root() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ -r /etc/debian_version ]
}

# Sets rustc and cargo, and for a bpf-linker that has to be built llvm_prefix.
find_toolchain() {
    if is_debian_with_root; then
        missing=
        for package in $DEBIAN_PACKAGES; do
            dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
                missing="$missing $package"
        done
        if [ -n "$missing" ]; then
            say "installing$missing"
            # shellcheck disable=SC2086 # a list of words
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
                fail "Debian's packages$missing cannot be installed; is a mirror reachable?"
        fi
        rustc=/usr/bin/rustc
        cargo=/usr/bin/cargo
        llvm_prefix=/usr/lib/llvm-$DEBIAN_LLVM
    elif command -v rustup >/dev/null && rustup which --toolchain nightly rustc >/dev/null 2>&1; then
        rustc=$(rustup which --toolchain nightly rustc)
        cargo=$(rustup which --toolchain nightly cargo)
        llvm_prefix=
        [ -d "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library" ] ||
            fail "rust-src is missing: rustup component add rust-src --toolchain nightly"
    else
        fail "no toolchain for BPF: run this as root on Debian 12, or install rustup's nightly:
    rustup toolchain install nightly --component rust-src"
    fi
    rustc_version=$("$rustc" -vV | sed -n 's/^release: //p')
    llvm_version=$("$rustc" -vV | sed -n 's/^LLVM version: //p')
}

# Puts the bpf-linker for this compiler's LLVM in front of PATH.
find_linker() {
    llvm_major=${llvm_version%%.*}
    linker_root=$cache/bpf-linker-$BPF_LINKER_VERSION-llvm-$llvm_major
    if [ ! -x "$linker_root/bin/bpf-linker" ]; then
        say "building bpf-linker $BPF_LINKER_VERSION for LLVM $llvm_major (once, about a minute)"
        if [ -n "$llvm_prefix" ]; then
            LLVM_PREFIX=$llvm_prefix
            export LLVM_PREFIX
        fi
        mkdir -p "$cache"
        # Unoptimised: it links one small program, and building it is what takes long.
        env -u RUSTFLAGS CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0 \
            RUSTC="$rustc" "$cargo" install bpf-linker --version "$BPF_LINKER_VERSION" --locked --quiet \
            --no-default-features --features "llvm-$llvm_major" --root "$linker_root" ||
            fail "bpf-linker $BPF_LINKER_VERSION cannot be built for LLVM $llvm_major"
    fi
    PATH=$linker_root/bin:$PATH
    export PATH
    linker_version=$(bpf-linker --version | sed 's/^bpf-linker //')
}

# Builds the program and copies it to the path in $1.
build() {
    say "building with rustc $rustc_version, LLVM $llvm_version, bpf-linker $linker_version"
    # No path of this machine may end up in the object; RUSTFLAGS and the like of the caller must
    # not either.
    (
        cd "$here/program"
        unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET \
            RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTUP_TOOLCHAIN
        CARGO_TARGET_DIR=${FOURWAVE_BPF_TARGET_DIR:-$here/program/target} \
            RUSTC_BOOTSTRAP=1 RUSTC=$rustc \
            RUSTFLAGS="--remap-path-prefix=$root=/fourwave" \
            "$cargo" build --release --locked --quiet -Zbuild-std=core --target bpfel-unknown-none
    ) || fail "the XDP program cannot be built"
    cp "${FOURWAVE_BPF_TARGET_DIR:-$here/program/target}/bpfel-unknown-none/release/fourwave" "$1"
}

# The lines of the versions file that name what built the object.
versions() {
    echo "rustc $rustc_version"
    echo "llvm $llvm_version"
    echo "bpf-linker $linker_version"
}

sha256() { sha256sum "$1" | cut -d' ' -f1; }

check() {
    recorded=$(sed -n 's/^sha256 //p' "$object.versions")
    [ "$recorded" = "$(sha256 "$object")" ] ||
        fail "$object is not the one that $object.versions describes"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 1' HUP INT TERM
    build "$scratch/fourwave.bpf.o"
    if [ "$(versions)" = "$(grep -v '^sha256 ' "$object.versions")" ]; then
        cmp "$object" "$scratch/fourwave.bpf.o" ||
            fail "the committed object was not built from this source: run ebpf/build.sh"
        say "the committed object is what its source builds to, byte for byte"
    else
        say "other versions than those recorded: running the kernel tests on the rebuilt object"
        # CI: without privilege the tests have to fail, not to be skipped.
        CI=1 FOURWAVE_BPF_OBJECT=$scratch/fourwave.bpf.o \
            cargo test --manifest-path "$root/Cargo.toml" -p fourwave-xdp --tests ||
            fail "the rebuilt object does not pass the kernel tests"
        say "the rebuilt object passes the kernel tests"
    fi
}

case ${1-} in
    '') check_only= ;;
    --check) check_only=1 ;;
    *) usage ;;
esac
[ $# -le 1 ] || usage

find_toolchain
find_linker
if [ -n "$check_only" ]; then
    check
else
    build "$object"
    { versions; echo "sha256 $(sha256 "$object")"; } >"$object.versions"
    say "wrote $object"
fi
