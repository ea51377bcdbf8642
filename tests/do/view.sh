#!/bin/bash
# What `sallet do` shows and hides. There is no yardstick: a host hides nothing.
. "$(dirname "$0")/../lib.sh"
[ -n "$SALLET" ] || { skip all "no yardstick"; exit 0; }
[ "$(id -u)" = 0 ] || { skip all "plants secrets as root"; exit 0; }
WORK=$(mktemp -d /tmp/sallet-do.XXXXXX)
SECRET="sallet-secret-$$"
planted=(/root/$SECRET /etc/$SECRET.key /run/$SECRET /var/tmp/$SECRET)
for f in "${planted[@]}"; do echo "$SECRET" >"$f"; chmod 644 "$f"; done
trap 'rm -rf "$WORK" "${planted[@]}"' EXIT
cd "$WORK" || exit 1
echo visible >here
sandbox() { timeout 60 "$SALLET" do -- "$@"; }

secrets_hidden() {
    local f
    for f in "${planted[@]}"; do exits 1 sandbox cat "$f"; done
    exits 1 sandbox cat /etc/shadow
    equal "" "$(sandbox sh -c "ls /root/* /run/docker.sock /run/secrets 2>/dev/null")"
    equal "" "$(sandbox sh -c "grep -rs $SECRET /root /etc /run /var /tmp /home 2>/dev/null")"
}
secrets_through_proc() {
    local f
    for f in "${planted[@]}"; do
        exits 1 sandbox sh -c "cat /proc/self/root$f || cat /proc/1/root$f || cat /proc/1/cwd/../../..$f"
    done
}
current_folder_seen() { equal visible "$(sandbox cat here)"; equal "$WORK" "$(sandbox pwd)"; }
writes_stay_private() {
    sandbox sh -c 'echo changed >here; echo new >there; rm here; echo x >/tmp/x; mkdir -p /usr/local/bin; echo y >/usr/local/bin/y'
    equal visible "$(cat here)"
    [ ! -e there ] && [ ! -e /usr/local/bin/y ] || { echo "a write came through"; exit 1; }
}
writes_seen_inside() { equal "changed" "$(sandbox sh -c 'echo changed >here; cat here')"; }
writable_path() {
    exits 0 timeout 60 "$SALLET" do --rw "$WORK" -- sh -c 'echo out >made'
    (umask 027; exits 0 timeout 60 "$SALLET" do --rw "$WORK" -- sh -c 'echo out >closed') || exit 1
    equal 640 "$(stat -c %a closed)"
    equal out "$(cat made)"
}
# One that is named is meant; in a folder that is shown it is not.
sockets_of_the_host() {
    python3 - "$WORK" <<'END' &
import os, socket, sys
os.chdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind("socket")
s.listen()
while True: s.accept()[0].sendall(b"from outside\n")
END
    local server=$! ask='import socket; s = socket.socket(1); s.connect("'$WORK'/socket"); print(s.recv(99).decode(), end="")'
    eventually 20 test -S socket
    equal "from outside" "$(timeout 60 "$SALLET" do --rw "$WORK/socket" -- python3 -c "$ask")"
    equal "from outside" "$(timeout 60 "$SALLET" do --ro "$WORK/socket" -- python3 -c "$ask")"
    equal "from outside" "$(timeout 60 "$SALLET" --host-uds=open do --rw "$WORK" -- python3 -c "$ask")"
    contains "$(timeout 60 "$SALLET" --host-uds=none do --rw "$WORK/socket" -- python3 -c "$ask" 2>&1)" "Connection refused"
    contains "$(timeout 60 "$SALLET" do --rw "$WORK" -- python3 -c "$ask" 2>&1)" "Connection refused"
    contains "$(timeout 60 "$SALLET" --host-uds=all do -- python3 -c "$ask" 2>&1)" "Connection refused"
    contains "$(timeout 60 "$SALLET" --host-uds=much do -- true 2>&1)" "none, mounted, open or all"
    # Neither the wall around the kernel process nor that around who connects for it has a hole.
    contains "$(timeout 60 "$SALLET" --jail=probe --host-uds=all do --rw "$WORK" -- true 2>&1)" "jail: 0 escapes"
    kill "$server"
    rm -f socket
}
# A read-only file or folder in a writable one is as a user names it, whatever the order of the flags.
innermost_path_decides() {
    local flags
    mkdir -p outer/kept/open
    for flags in "--rw outer --ro outer/kept --rw outer/kept/open" "--rw outer/kept/open --ro outer/kept --rw outer"; do
        rm -f outer/made outer/kept/open/made
        echo kept >outer/kept/file
        exits 0 timeout 60 "$SALLET" do $flags -- sh -c 'echo out >outer/made; echo out >outer/kept/open/made'
        says 2 "Read-only file system" $flags -- sh -c 'echo changed >outer/kept/file'
        equal "kept out out" "$(echo $(cat outer/kept/file outer/made outer/kept/open/made))"
    done
    rm -r outer
}
says() {
    local wanted=$1 part=$2 output status
    shift 2
    output=$("$SALLET" do "$@" 2>&1)
    status=$?
    equal "$wanted" "$status"
    contains "$output" "$part"
}
bad_options_are_told() {
    says 1 "--all-files" --rw / -- true
    says 1 "has one of its own" --ro /proc/self -- true
    says 1 "choose one" --ro here --rw here -- true
    says 1 "unknown option --foo; see sallet do --help" --foo -- true
    says 1 "--strace; it goes before do" --strace -- true
    says 1 "--debug-log=x; it goes before do" --debug-log=x -- true
    says 1 "not a folder" --cwd here -- true
    says 1 "No such file" --cwd /no/such -- true
    says 1 "--ro: /no/such" --ro /no/such -- true
    says 1 "needs a name" -e =x -- true
    says 127 "not found" -- no-such-program
    says 127 "not found" -- ""
    says 126 "permission denied" -- ./here
    echo '#!/no/such/interpreter' >script
    echo 'no format' >formless
    chmod +x script formless
    says 127 "/no/such/interpreter" -- ./script
    says 126 "exec format error" -- ./formless
    rm script formless
    contains "$("$SALLET" --strace do -- sh -c 'exit 0' 2>&1)" "exit_group(0)"
    contains "$(script -qec "$SALLET --strace do -- true" /dev/null)" "wants --debug-log FILE"
}
hidden_folder_is_told() {
    local name=$SECRET.py output
    echo 'print(1)' >"/var/tmp/$name"
    output=$(cd /var/tmp && sandbox python3 "$name" 2>&1)
    rm "/var/tmp/$name"
    contains "$output" "add --ro . or --rw ."
}
killed_by_itself() { exits 137 sandbox sh -c 'kill -9 $$; echo alive'; }
passwd_is_there() { contains "$(sandbox cat /etc/passwd)" root; equal "root" "$(sandbox id -un)"; }
only_loopback() {
    exits 1 sandbox python3 -c 'import socket; s = socket.create_connection(("1.1.1.1", 53), 3)'
}
devices() { equal "0" "$(sandbox sh -c 'ls /dev | grep -cE "^(sd|vd|nvme|kvm|mem|kmem|loop)"')"; }
kernel_name() { contains "$(sandbox uname -a)" Linux; }
host_processes_hidden() { [ "$(sandbox sh -c 'ls /proc | grep -c "^[0-9]"')" -le 4 ] || { echo "sees others"; exit 1; }; }
nothing_remains() {
    local before after seconds=100.$$
    sandbox sh -c "sleep $seconds & sleep $seconds & exit 0"
    sleep 0.3
    equal "" "$(pgrep -f "sleep $seconds")"
    before=$(wc -l </proc/self/mountinfo)
    sandbox true
    after=$(wc -l </proc/self/mountinfo)
    equal "$before" "$after"
}
killed_runtime_leaves_nothing() {
    local i pid
    for i in $(seq 20); do
        "$SALLET" do -- sh -c "exec -a $SECRET-guest sleep 50" >/dev/null 2>&1 &
        pid=$!
        sleep "0.0$((i % 10))"
        kill -9 "$pid"
        wait "$pid" 2>/dev/null
    done
    sleep 1
    equal "" "$(pgrep -a -f "$SECRET-guest")"
}

for t in secrets_hidden secrets_through_proc current_folder_seen writes_stay_private writes_seen_inside writable_path \
    innermost_path_decides sockets_of_the_host bad_options_are_told \
    hidden_folder_is_told killed_by_itself \
    passwd_is_there only_loopback devices kernel_name host_processes_hidden nothing_remains killed_runtime_leaves_nothing; do
    run_test $t
done
