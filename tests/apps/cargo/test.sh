# cargo: a project with more than a hundred crates built from nothing, tests, a change built anew, a second start.
. "$(dirname "$0")/../lib.sh"

server() { start "$1" "$IMAGE" sh -c 'trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done'; }
# run NAME LINE: a line of shell in the container, all of it successful.
run() { must inside "$1" sh -ec "$2 2>&1"; }

builds() {
    server one
    at_least 100 "$(run one 'ls vendor | wc -l')"
    contains "$(run one 'cargo build --locked -j 2')" 'Finished'
    equal '2 notes' "$(run one 'target/debug/service')"
    contains "$(run one 'cargo build --locked')" 'Finished'
    # Nothing is built twice; what changes is.
    case $(run one 'cargo build --locked') in *Compiling*) echo 'it builds again'; exit 1 ;; esac
    run one 'sed -i s/two/three/ src/main.rs; cargo build --locked 2>&1 | grep "Compiling service"; cargo test --locked' >/dev/null
    stops one 0
    again one
    case $(run one 'cargo build --locked') in *Compiling*) echo 'after a restart it builds again'; exit 1 ;; esac
    equal '4 notes' "$(run one 'target/debug/service --database /tmp/a >/dev/null; target/debug/service --database /tmp/a')"
    away one
}

checks() {
    server two
    contains "$(run two 'cargo check --locked -j 2 -p regex -p serde_json')" 'Finished'
    away two
}

case $1 in
    check)
        if [ "$QUICK" = 1 ]; then run_test checks; else run_test builds; fi
        ;;
    measure)
        server speed
        build() { inside speed sh -ec 'rm -rf target; cargo build --locked -j 2'; }
        some() { inside speed sh -ec 'rm -rf target; cargo check --locked -j 2 -p regex -p serde_json'; }
        if [ "$QUICK" = 1 ]; then
            measure check-some "$(seconds some)" s
        else
            measure build "$(seconds build)" s
        fi
        ;;
esac
