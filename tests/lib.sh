# What every test script uses. Source it: . "$(dirname "$0")/../lib.sh"
#
# A test is a function: `run_test NAME FUNCTION`. It runs in a subshell under `set -e`-like checks: each
# `expect...` that does not hold prints why and ends it.
set -u
# How many times slower the machine is than those that the tests' limits on time are made for.
SLOW=${SLOW:-1}
if [ "$SLOW" -gt 1 ]; then
    timeout() {
        local options=()
        [ "$1" != -k ] || { options=(-k "$2"); shift 2; }
        local seconds=$1
        shift
        command timeout "${options[@]}" $((seconds * SLOW)) "$@"
    }
fi

ok() { echo "ok $1"; }
fail() { echo "FAIL $1: $(tr '\n' ' ' <<<"$2" | cut -c1-1500)"; }
skip() { echo "skip $1: $2"; }

# run_test NAME [FUNCTION]: in a subshell, so that a test can leave at any point.
run_test() {
    local name=$1 function=${2:-$1} output
    if output=$("$function" 2>&1); then ok "$name"; else fail "$name" "$output"; fi
}

# equal WANTED GOT
equal() {
    [ "$1" = "$2" ] || { echo "wanted '$1', got '$2'"; exit 1; }
}

# contains TEXT PART
contains() {
    case $1 in *"$2"*) ;; *) echo "wanted '$2' in '$1'"; exit 1 ;; esac
}

# exits STATUS COMMAND...
exits() {
    local wanted=$1 got output
    shift
    output=$("$@" 2>&1)
    got=$?
    [ "$wanted" = "$got" ] || { echo "wanted exit status $wanted, got $got: $output"; exit 1; }
}

# eventually SECONDS COMMAND...: tries until it succeeds.
eventually() {
    local end=$(($(date +%s) + $1 * SLOW))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || { echo "not in time: $*"; exit 1; }
        sleep 0.1
    done
}
