#!/bin/bash
# `sallet install` and `uninstall`: Docker's configuration file is somebody else's.
. "$(dirname "$0")/../lib.sh"
[ -n "${SALLET:-}" ] || { skip all "no yardstick"; exit 0; }
WORK=$(mktemp -d /tmp/sallet-install.XXXXXX)
trap 'umount "$WORK"/*/daemon.json 2>/dev/null; rm -rf "$WORK"' EXIT

# folder NAME [TEXT]: a folder of its own, with a daemon.json.
folder() {
    D=$WORK/$1
    C=$D/daemon.json
    mkdir "$D"
    [ $# = 1 ] || printf %s "$2" >"$C"
}
sallet() { "$SALLET" "$@" --config "$C"; }
# value EXPRESSION: of the settings, as Python sees them.
value() { python3 -c "import json, sys; c = json.load(open(sys.argv[1])); print($1)" "$C"; }

new_file() {
    folder new
    C=$D/made/daemon.json
    contains "$(sallet install)" "systemctl reload docker"
    contains "$(sallet install)" 'it has runtime "sallet" already; nothing was changed'
    equal "$SALLET" "$(value 'c["runtimes"]["sallet"]["path"]')"
    equal "daemon.json" "$(ls -A "$D/made")"
}
others_stay() {
    folder others '{"debug": true, "runtimes": {"other": {"path": "/x"}}}'
    chmod 640 "$C"
    [ "$(id -u)" = 0 ] && chown 5:6 "$C"
    local owner
    owner=$(stat -c '%a %u %g' "$C")
    contains "$(sallet install --name mine --runtime-arg --debug)" "kill -HUP"
    equal "True /x ['--debug']" "$(value 'c["debug"], c["runtimes"]["other"]["path"], c["runtimes"]["mine"]["runtimeArgs"]')"
    equal "$owner" "$(stat -c '%a %u %g' "$C")"
    equal '{"debug": true, "runtimes": {"other": {"path": "/x"}}}' "$(cat "$C.before-sallet")"
    equal "$owner" "$(stat -c '%a %u %g' "$C.before-sallet")"
    sallet uninstall --name mine
    equal "{'debug': True, 'runtimes': {'other': {'path': '/x'}}}" "$(value c)"
    contains "$(sallet uninstall --name mine)" 'it has no runtime "mine"; nothing was changed'
    equal "daemon.json daemon.json.before-sallet" "$(ls -A "$D" | tr '\n' ' ' | sed 's/ $//')"
}
dry_run() {
    folder dry '{"debug": true}'
    contains "$(sallet install --dry-run 2>/dev/null)" '"runtimes"'
    equal '{"debug": true}' "$(cat "$C")"
    equal "daemon.json" "$(ls -A "$D")"
    contains "$(sallet uninstall --dry-run 2>&1)" "nothing was changed"
}
links_stay() {
    folder link
    mkdir "$D/real"
    echo '{"debug": true}' >"$D/real/docker.json"
    ln -s real/docker.json "$D/second"
    ln -s second "$C"
    sallet install
    [ -L "$C" ] && [ -L "$D/second" ] && [ ! -L "$D/real/docker.json" ] || { echo "a link was replaced"; exit 1; }
    equal "True" "$(value '"sallet" in c["runtimes"]')"
    equal "daemon.json real second" "$(ls -A "$D" | tr '\n' ' ' | sed 's/ $//')"
    # One that points to nothing yet.
    folder dangling
    ln -s later.json "$C"
    sallet install
    [ -L "$C" ] && [ -f "$D/later.json" ] || { echo "not through the link"; exit 1; }
    folder circle
    ln -s daemon.json "$C"
    contains "$(sallet install 2>&1)" "symbolic links"
}
# unchanged COMMAND PART: it fails, says this, and nothing has changed.
unchanged() {
    local before output
    before=$(cd "$D" && tail -n +1 -- * | cksum)
    output=$(sallet $1 2>&1) && { echo "it succeeded"; exit 1; }
    contains "$output" "$2"
    equal "$before" "$(cd "$D" && tail -n +1 -- * | cksum)"
}
bad_files() {
    folder broken '{"debug": true,}'
    unchanged install "is no valid JSON"
    contains "$(sallet install 2>&1)" "line 1"
    unchanged uninstall "is no valid JSON"
    folder list '[]'
    unchanged install "no JSON object"
    folder runtimes '{"runtimes": []}'
    unchanged install '"runtimes'
    folder default '{"default-runtime": "sallet", "runtimes": {"sallet": {"path": "/x"}}}'
    unchanged uninstall "default-runtime"
    folder empty ''
    sallet install
    equal "True" "$(value '"sallet" in c["runtimes"]')"
}
# Docker does not start with such a name, and no container with such flags.
bad_names_and_flags() {
    folder words '{"debug": true}'
    local name
    for name in "" runc "a b" a/b; do
        output=$(sallet install --name "$name" 2>&1) && { echo "'$name' was taken"; exit 1; }
        contains "$output" "--name"
    done
    unchanged "install --runtime-arg --bogus" "--runtime-arg: unexpected argument '--bogus'"
    unchanged "install --runtime-arg --strace" "--debug-log"
    equal '{"debug": true}' "$(cat "$C")"
}
nothing_is_left_of_a_failure() {
    [ "$(id -u)" = 0 ] || return 0
    folder mounted '{}'
    # What is mounted on cannot be replaced by another file.
    mount --bind "$C" "$C"
    output=$(sallet install 2>&1) && { echo "it succeeded"; exit 1; }
    umount "$C"
    contains "$output" "$C"
    equal "{}" "$(cat "$C")"
    equal "daemon.json daemon.json.before-sallet" "$(ls -A "$D" | tr '\n' ' ' | sed 's/ $//')"
}

# Says which file, why not, and what to do; to a person, unless a log is named.
without_rights() {
    [ "$(id -u)" = 0 ] || return 0
    folder rights '{"debug": true}'
    chmod 755 "$WORK"
    install -m 755 "$SALLET" "$WORK/sallet"
    local output command
    user() { setpriv --reuid=61234 --regid=61234 --clear-groups "$WORK/sallet" "$@" --config "$C"; }
    for command in install "install --name runtime-2"; do
        # shellcheck disable=SC2086
        output=$(user $command 2>&1) && { echo "$command succeeded"; exit 1; }
        equal "sallet install: write $C" "${output%%.before*}"
        contains "$output" "Permission denied"
        contains "$output" "sudo sallet install"
        contains "$output" "--config ~/.config/docker/daemon.json"
    done
    contains "$(user install --dry-run)" '"runtimes"'
    "$SALLET" --log "$WORK/log" install --config "$D" 2>/dev/null && { echo "a folder was taken"; exit 1; }
    contains "$(cat "$WORK/log")" "level=error"
    # Root lacks no rights: what stands in its way is something else.
    contains "$("$SALLET" install --dry-run --config "$D" 2>&1)" "sallet install: read $D"
    equal "daemon.json" "$(ls -A "$D")"
}

for t in new_file others_stay dry_run links_stay bad_files bad_names_and_flags nothing_is_left_of_a_failure \
    without_rights; do
    run_test $t
done
