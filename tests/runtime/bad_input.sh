#!/bin/bash
# The runtime's command line by hand: bad input, the life of a bundle, what remains after a kill.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../image.sh"
RT=${SALLET:-runc}
[ "$(id -u)" = 0 ] || { skip all "not root"; exit 0; }
ROOT=$(rootfs base) || { skip all "no root"; exit 0; }
WORK=$(mktemp -d /tmp/sallet-rt.XXXXXX)
ID="st$$"
trap 'for i in $ID $ID-2 $ID-k; do "$RT" --root "$WORK/state" delete --force $i >/dev/null 2>&1; done; rm -rf "$WORK"' EXIT
rt() { timeout 30 "$RT" --root "$WORK/state" "$@" </dev/null; }

# bundle NAME ARGS-AS-JSON: a bundle whose root is the shared test root, read-only.
bundle() {
    mkdir -p "$WORK/$1"
    (cd "$WORK/$1" && rm -f config.json && "$RT" spec >/dev/null) || exit 1
    python3 - "$WORK/$1/config.json" "$ROOT" "$2" <<'END'
import json, sys
path, root, words = sys.argv[1:]
c = json.load(open(path))
c["process"]["terminal"] = False
c["process"]["args"] = json.loads(words)
c["root"] = {"path": root, "readonly": True}
json.dump(c, open(path, "w"))
END
}
# refused COMMAND...: fails with a message and leaves nothing.
refused() {
    local output status
    output=$("$@" 2>&1)
    status=$?
    [ "$status" != 0 ] && [ "$status" != 124 ] && [ -n "$output" ] || { echo "status $status, message '$output'"; exit 1; }
    equal "[]" "$(rt list --format json | tr -d '\n ' | sed 's/null/[]/')"
}

spec_runs() { bundle a '["echo", "hello"]'; equal hello "$(rt run --bundle "$WORK/a" "$ID")"; }
exit_status() { bundle a '["sh", "-c", "exit 13"]'; exits 13 rt run --bundle "$WORK/a" "$ID"; }
no_config() {
    mkdir -p "$WORK/none"
    refused rt run --bundle "$WORK/none" "$ID"
    contains "$(rt run --bundle "$WORK/none" "$ID" 2>&1)" "config.json not found"
    [ -z "${SALLET:-}" ] || contains "$(rt run --bundle "$WORK/none" "$ID" 2>&1)" "$WORK/none"
}
broken_json() { mkdir -p "$WORK/b"; echo '{ "ociVersion": ' >"$WORK/b/config.json"; refused rt run --bundle "$WORK/b" "$ID"; }
missing_root() { bundle c '["true"]'; sed -i "s|$ROOT|/no/such/root|" "$WORK/c/config.json"; refused rt run --bundle "$WORK/c" "$ID"; }
missing_program() { bundle d '["/no/such"]'; refused rt run --bundle "$WORK/d" "$ID"; }
directory_as_program() { bundle d '["/etc"]'; refused rt run --bundle "$WORK/d" "$ID"; }
unknown_flag() { refused rt run --no-such-flag "$ID"; refused rt nonsense; }
flags_with_values() {
    bundle a '["echo", "hello"]'
    equal hello "$(rt --debug=false --systemd-cgroup=F run --detach=false --no-pivot=0 --bundle "$WORK/a" "$ID")"
    rt --debug=true --debug=false create --no-new-keyring=true --bundle "$WORK/a" "$ID" >/dev/null 2>&1 || { echo "create failed"; exit 1; }
    contains "$(rt list -q=false)" STATUS
    equal "$ID" "$(rt list --quiet=true)"
    exits 0 rt delete --force=true "$ID"
    refused rt --debug=perhaps run --bundle "$WORK/a" "$ID"
    refused rt run --detach= --bundle "$WORK/a" "$ID"
}
bad_id() { bundle a '["true"]'; refused rt run --bundle "$WORK/a" "../x"; refused rt run --bundle "$WORK/a" ""; }
unknown_id() { refused rt state no-such-id; refused rt kill no-such-id TERM; refused rt delete no-such-id; exits 0 rt delete --force no-such-id; }
life() {
    bundle e '["sleep", "50"]'
    rt create --bundle "$WORK/e" "$ID" >/dev/null 2>&1 </dev/null || { echo "create failed"; exit 1; }
    contains "$(rt state "$ID")" '"created"'
    rt start "$ID"
    contains "$(rt state "$ID")" '"running"'
    contains "$(rt list -q)" "$ID"
    bundle f '["true"]'
    output=$(rt create --bundle "$WORK/f" "$ID" 2>&1) && { echo "a duplicate id was taken"; exit 1; }
    contains "$output" "exist"
    rt delete "$ID" 2>/dev/null && { echo "a running container was deleted"; exit 1; }
    equal inside "$(rt exec "$ID" echo inside)"
    output=$(rt exec --env NO_VALUE "$ID" true 2>&1) && { echo "a variable without = was taken"; exit 1; }
    contains "$output" 'invalid environment variable: \"NO_VALUE\"'
    exits 0 rt kill "$ID" 0
    rt kill "$ID" KILL
    eventually 3 sh -c "$RT --root $WORK/state state $ID | grep -q stopped"
    exits 0 rt delete "$ID"
    equal "" "$(rt list -q)"
}
kernel_process_killed() {
    local i pid
    bundle g "[\"sh\", \"-c\", \"exec -a guest-$ID sleep 50\"]"
    sed -i 's/"sh"/"bash"/' "$WORK/g/config.json"
    for i in $(seq 15); do
        rt create --bundle "$WORK/g" "$ID-k" >/dev/null 2>&1 </dev/null || { echo "create failed in round $i"; exit 1; }
        pid=$(rt state "$ID-k" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
        [ $((i % 2)) = 0 ] && rt start "$ID-k"
        sleep "0.0$((i % 10))"
        kill -9 "$pid"
        eventually 2 sh -c "! pgrep -f guest-$ID | grep -v \$\$ | grep -q ."
        exits 0 rt delete --force "$ID-k"
    done
    equal "" "$(rt list -q)"
    equal "0" "$(grep -c "$WORK" /proc/self/mountinfo)"
}
runtime_killed() {
    local i pid
    bundle h '["sleep", "50"]'
    for i in $(seq 15); do
        "$RT" --root "$WORK/state" run --bundle "$WORK/h" "$ID-2" >/dev/null 2>&1 </dev/null &
        pid=$!
        sleep "0.0$((i % 10))"
        kill -9 $pid
        wait $pid 2>/dev/null
        eventually 3 timeout 10 "$RT" --root "$WORK/state" delete --force "$ID-2"
        bundle i '["echo", "next"]'
        equal next "$(rt run --bundle "$WORK/i" "$ID-2")"
    done
}
# A message says which container, and which file is in the way; each as runc begins it.
messages_name() {
    local command output
    for command in "state no-such-id" "start no-such-id" "kill no-such-id TERM" "exec no-such-id true"; do
        # shellcheck disable=SC2086
        output=$(rt $command 2>&1) && { echo "$command succeeded"; exit 1; }
        contains "$output" "container does not exist"
        [ -z "${SALLET:-}" ] || contains "$output" no-such-id
    done
    bundle j '["true"]'
    rt create --bundle "$WORK/j" "$ID" >/dev/null 2>&1 </dev/null || { echo "create failed"; exit 1; }
    rt kill "$ID" KILL
    eventually 3 sh -c "$RT --root $WORK/state state $ID | grep -q stopped"
    for command in "start $ID" "kill $ID TERM"; do
        # shellcheck disable=SC2086
        output=$(rt $command 2>&1) && { echo "$command of a stopped container succeeded"; exit 1; }
        [ -z "${SALLET:-}" ] || contains "$output" "$ID"
    done
    rt delete "$ID"
    output=$(cd "$WORK/j" && rt spec 2>&1) && { echo "spec wrote over config.json"; exit 1; }
    contains "$output" "config.json exists"
    contains "$output" "emove it first"
}
# Standard output whose reader is gone, or that is full.
nobody_reads() {
    [ -n "${SALLET:-}" ] || return 0
    local command output
    for command in features "list" --version "syscalls --format json"; do
        # shellcheck disable=SC2086
        output=$(rt $command 2>&1 >/dev/full) && { echo "$command succeeded"; exit 1; }
        contains "$output" "No space left"
    done
    (sleep 0.3; rt features 2>"$WORK/said"; echo $? >"$WORK/status") | true
    eventually 3 test -s "$WORK/status"
    equal 141 "$(cat "$WORK/status")"
    equal "" "$(cat "$WORK/said")"
}
# What helps a person who mistypes: only what --help shows.
suggestions() {
    [ -n "${SALLET:-}" ] || return 0
    local output
    output=$(rt doo 2>&1) && { echo "doo succeeded"; exit 1; }
    contains "$output" "'do'"
    case $output in *boot*) echo "a hidden command in: $output"; exit 1 ;; esac
    for word in boo restor --witout; do
        output=$(rt $word 2>&1) && { echo "$word succeeded"; exit 1; }
        case $output in *boot* | *restore* | *--without*) echo "something hidden in: $output"; exit 1 ;; esac
    done
    contains "$(rt --debugg list 2>&1)" "'--debug'"
    for word in checkpoint restore; do
        output=$(rt $word --help 2>&1) || { echo "$word --help failed"; exit 1; }
        contains "$output" "Not supported"
        contains "$output" "$word"
        output=$(rt $word --image-path x "$ID" 2>&1) && { echo "$word succeeded"; exit 1; }
        contains "$output" "not supported"
    done
    contains "$(rt do --help)" "0 is no limit"
}
features() { contains "$(rt features)" ociVersionMax; }

for t in spec_runs exit_status no_config broken_json missing_root missing_program directory_as_program unknown_flag flags_with_values bad_id \
    unknown_id messages_name life kernel_process_killed runtime_killed nobody_reads suggestions features; do
    run_test $t
done
