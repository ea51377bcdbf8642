#!/bin/bash
# docker run: output, exit codes, identity, limits of what is seen.
. "$(dirname "$0")/lib.sh.inc"
image base || { skip all "no image"; exit 0; }

hello() { equal "hello" "$(drun $BASE echo hello)"; }
exit_codes() {
    exits 0 drun $BASE true
    exits 1 drun $BASE false
    exits 42 drun $BASE sh -c 'exit 42'
    exits 127 drun $BASE /no/such/program
    exits 126 drun $BASE /etc/passwd
    exits 137 drun $BASE sh -c 'sh -c "kill -9 \$\$"; exit $?'
    exits 0 drun $BASE sh -c 'kill -9 $$; true' # the first process of a namespace is spared
}
signals_of_a_child() { exits 139 drun $BASE sh -c 'sh -c "kill -SEGV \$\$"; exit $?'; }
stdin() { equal "3" "$(printf 'a\nb\nc\n' | drun -i $BASE wc -l)"; }
stderr() { equal "err" "$(drun $BASE sh -c 'echo err >&2' 2>&1 >/dev/null)"; }
# Opened by name, as servers do with their logs, by whoever runs there.
streams_by_name() {
    for user in root 1000; do
        equal "out" "$(drun --user $user $BASE sh -c 'echo out >/dev/stdout; echo err >>/dev/stderr' 2>/dev/null)"
        equal "err" "$(drun --user $user $BASE sh -c 'echo out >/dev/stdout; echo err >>/dev/stderr' 2>&1 >/dev/null)"
        equal "in" "$(echo in | drun -i --user $user $BASE sh -c 'cat </dev/stdin')"
    done
}
big_output() { equal "10000000" "$(drun $BASE head -c 10000000 /dev/zero | wc -c)"; }
environment() { equal "x y" "$(drun --env A='x y' $BASE sh -c 'echo "$A"')"; }
workdir() { equal "/srv/new" "$(drun --workdir /srv/new $BASE pwd)"; }
user_number() { equal "1000:1001" "$(drun --user 1000:1001 $BASE sh -c 'echo $(id -u):$(id -g)')"; }
user_name() { equal "33" "$(drun --user www-data $BASE id -u)"; }
group_add() { contains "$(drun --group-add 4242 $BASE id -G)" 4242; }
hostname() { equal "somewhere" "$(drun --hostname somewhere $BASE hostname)"; }
hosts_file() { contains "$(drun --hostname somewhere --add-host a.b:1.2.3.4 $BASE cat /etc/hosts)" "1.2.3.4"; }
pid_one() { equal "1" "$(drun $BASE sh -c 'echo $$')"; }
init_reaps() { exits 0 drun --init $BASE sh -c 'test "$(cat /proc/1/comm)" != sh'; }
read_only() {
    exits 0 drun --read-only $BASE sh -c '! touch /x 2>/dev/null'
    exits 0 drun --read-only --tmpfs /run $BASE touch /run/x
}
tmpfs() {
    exits 0 drun --tmpfs /scratch:size=1m $BASE sh -c 'mount | grep -q "tmpfs on /scratch" && touch /scratch/x'
    exits 0 drun --tmpfs /scratch:size=1m $BASE sh -c '! head -c 2000000 /dev/zero > /scratch/big 2>/dev/null'
    # Limits that nobody asked for are not shown.
    equal "tmpfs /scratch tmpfs rw,nosuid,nodev,noexec,relatime 0 0" "$(drun --tmpfs /scratch $BASE grep /scratch /proc/mounts)"
    contains "$(drun $BASE grep -E ' /dev(/pts|/shm)? ' /proc/mounts)" "tmpfs /dev tmpfs rw,nosuid,size=65536k,mode=755 0 0
devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666 0 0"
}
cap_drop() {
    exits 0 drun --cap-drop ALL $BASE sh -c '! chown 1:1 /etc/hostname 2>/dev/null && ! chown 5:5 /tmp'
    exits 0 drun $BASE chown 5:5 /tmp
    equal "0000000000000000" "$(drun --cap-drop ALL $BASE sh -c "grep CapEff /proc/self/status | tr -d '[:space:]' | cut -d: -f2")"
}
ulimit_nofile() { equal "77" "$(drun --ulimit nofile=77:99 $BASE sh -c 'ulimit -n')"; }
devices() { exits 0 drun $BASE sh -c 'echo x >/dev/null; head -c4 /dev/urandom | wc -c | grep -q 4; test -c /dev/zero; test -d /dev/shm'; }
device_nodes() {
    exits 0 drun $BASE sh -ec 'mkdir /n; mknod -m 640 /n/c c 1 3; mknod /n/b b 8 1; echo gone >/n/c; test ! -s /n/c
        chmod 666 /n/c; chown 5:6 /n/c; mv /n/c /n/d; ln /n/d /n/e; cp -a /n/d /srv/f; tar -C /n -c . | tar -C /tmp -x
        for f in /n/d /n/e /srv/f /tmp/d; do test "$(stat -c "%F %t %T %a %u %g" $f)" = "character special file 1 3 666 5 6"; done
        test "$(stat -c "%F %t %T" /tmp/b)" = "block special file 8 1"
        test "$(find /n /srv -type c | sort | tr "\n" " ")" = "/n/d /n/e /srv/f "
        rm -r /n; test ! -e /n; su -s /bin/sh www-data -c "! mknod /tmp/no c 1 3" 2>/dev/null'
    exits 0 drun --cap-drop MKNOD $BASE sh -c '! mknod /srv/c c 1 3 2>/dev/null'
}
# A volume that an access control list opens for one user, until the host takes it away.
access_lists() {
    local dir list id
    dir=$(mktemp -d)
    chmod 700 "$dir"
    touch "$dir/go"
    list='import os, struct, sys
entry = lambda tag, allowed, name=0xffffffff: struct.pack("<HHI", tag, allowed, name)
value = struct.pack("<I", 2)
if sys.argv[2:]:
    value += entry(1, 7) + entry(2, 7, int(sys.argv[2])) + entry(4, 0) + entry(16, 7) + entry(32, 0)
os.setxattr(sys.argv[1], "system.posix_acl_access", value)
if not sys.argv[2:]: os.chmod(sys.argv[1], 0o700)'
    python3 -c "$list" "$dir" 4242
    exits 0 drun --user 4242 -v "$dir:/data" $BASE sh -c 'echo hi >/data/x && cat /data/x && ls /data'
    exits 0 drun --user 4243 -v "$dir:/data" $BASE sh -c '! cat /data/x 2>/dev/null && ! ls /data 2>/dev/null'
    id=$(dstart --user 4242 -v "$dir:/data" $BASE \
        sh -c 'i=0; while [ $i -lt 100 ] && cat /data/x; do sleep 0.1; i=$((i+1)); done; exit $((i == 100))') || exit 1
    sleep 0.5
    python3 -c "$list" "$dir"
    equal 0 "$(docker wait "$id")"
    rm -rf "$dir"
}
shm_size() { equal "1024" "$(drun --shm-size 1m $BASE df -k --output=size /dev/shm | tail -1 | tr -d ' ')"; }
no_new_privileges() { equal "1" "$(drun --security-opt no-new-privileges $BASE sh -c "grep NoNewPrivs /proc/self/status | cut -f2")"; }
masked_paths() { equal "0" "$(drun $BASE sh -c 'cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c')"; }
shell_script() {
    equal "55" "$(drun $BASE sh -c 'i=0; s=0; while [ $i -lt 10 ]; do i=$((i+1)); s=$((s+i)); done; echo $s')"
}
apt_works_offline() { contains "$(drun $BASE dpkg -l base-files)" "base-files"; }

for t in hello exit_codes signals_of_a_child stdin stderr streams_by_name big_output environment workdir user_number user_name group_add \
    hostname hosts_file pid_one init_reaps read_only tmpfs cap_drop ulimit_nofile devices device_nodes access_lists shm_size no_new_privileges \
    masked_paths shell_script apt_works_offline; do
    run_test $t
done
