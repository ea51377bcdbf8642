# Runs on the host before the image is made: the crates that Cargo.lock names.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"
if [ ! -s vendor.tar ] || ! cmp -s "$here/Cargo.lock" of.lock; then
    rm -rf vendor
    cargo vendor --locked --quiet --manifest-path "$here/Cargo.toml" vendor >/dev/null
    tar -cf vendor.tar vendor
    rm -rf vendor
    cp "$here/Cargo.lock" of.lock
fi
