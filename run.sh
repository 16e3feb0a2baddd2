#!/bin/sh
# Builds the release binary when it is missing or stale, then becomes it, so that signals reach the server itself.
# Arguments are passed through. Output of the build goes to stderr.
root=$(CDPATH= cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd) || exit 1
target=${CARGO_TARGET_DIR:-$root/target}
binary=$target/release/threadkv

# Stale: some source is newer than the binary. cargo would find out by itself, but takes longer to say so.
if [ ! -x "$binary" ] || [ -n "$(find "$root/src" "$root/Cargo.toml" "$root/Cargo.lock" -newer "$binary" 2>/dev/null | head -n 1)" ]; then
    if ! command -v cargo >/dev/null 2>&1; then
        echo "run.sh: cargo is needed to build threadkv: install Rust from https://rustup.rs, then run this again" >&2
        exit 1
    fi
    echo "run.sh: building the release binary, which takes about a minute" >&2
    unset CARGO_BUILD_TARGET # it would put the binary somewhere else
    cargo build --release --locked --quiet --manifest-path "$root/Cargo.toml" --target-dir "$target" >&2 || exit 1
    touch -c "$binary" # cargo leaves it alone when nothing had to be built, and it would look stale for ever
fi
exec "$binary" "$@"
