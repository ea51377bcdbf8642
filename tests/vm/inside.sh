# In the virtual machine: runs the series named, each of which ends with its `N passed, N failed, N skipped`.
. "$(dirname "$0")/../lib.sh"
install -m 755 /share/sallet /usr/local/bin/sallet
SALLET=/usr/local/bin/sallet
# Where it is emulated.
SLOW=4
export SALLET SLOW
CASES=process/,memory/,futex/,files/,sockets/,signal/,thread/
REDUCED_CASES=memory/,thread/,signal/,attack/,process/

guest() { /share/xtask guest-tests --program /share/guest-tests --sallet $SALLET --limit 90 "$@"; }
# together FILTER COMMAND...: the cases in one sandbox. To start one for each takes longest here.
together() {
    local filter=$1
    shift
    "$@" env SLOW=$SLOW /share/guest-tests run-all --filter "$filter" | grep --line-buffered -v '^ok '
}
scripts() { /share/xtask scripts "$1" --sallet $SALLET --limit 1500; }

# Prints lines as scripts do, and their sum.
summed() {
    tee /tmp/summed
    echo "$(grep -c '^ok ' /tmp/summed) passed, $(grep -c '^FAIL ' /tmp/summed) failed, $(grep -c '^skip ' /tmp/summed) skipped"
}

as_user() { cd /home/user && setpriv --reuid user --regid user --init-groups env HOME=/home/user USER=user "$@"; }
user_runs() {
    equal 1000 "$(as_user $SALLET do -- id -u)"
    equal 4 "$(as_user $SALLET do -- sh -c 'echo 1 2 3 4 | wc -w')"
    exits 7 as_user $SALLET do -- sh -c 'kill -0 $$; exit 7'
}
# One without subordinate ids.
bare_runs() {
    id bare >/dev/null 2>&1 || useradd -m -s /bin/bash bare
    sed -i '/^bare:/d' /etc/subuid /etc/subgid
    as_bare() { cd /home/bare && setpriv --reuid bare --regid bare --init-groups env HOME=/home/bare USER=bare "$@"; }
    equal "$(id -u bare)" "$(as_bare $SALLET do -- id -u)"
    as_bare mkdir -p kept
    equal "in kept" "$(as_bare $SALLET do --rw kept -- sh -c 'echo in kept >kept/f && cat kept/f')"
    equal "in kept bare" "$(cat /home/bare/kept/f) $(stat -c %U /home/bare/kept/f)"
    exits 1 as_bare $SALLET do --rw kept -- sh -c 'chown 5 kept/f 2>/dev/null || exit 1'
    equal bare "$(stat -c %U /home/bare/kept/f)"
}
root_runs() {
    equal 0 "$($SALLET do -- id -u)"
    exits 3 $SALLET do -- sh -c 'exit 3'
}
no_user_namespaces() {
    sysctl -q kernel.unprivileged_userns_clone=0
    contains "$(as_user $SALLET do -- true 2>&1)" "kernel.unprivileged_userns_clone"
}
do_users() {
    run_test do_as_root root_runs
    run_test do_as_an_ordinary_user user_runs
    run_test do_without_subordinate_ids bare_runs
    for scope in 0 1 2; do
        modprobe yama 2>/dev/null
        if sysctl -q kernel.yama.ptrace_scope=$scope 2>/dev/null; then
            run_test "do_as_root_with_ptrace_scope_$scope" root_runs
            run_test "do_as_an_ordinary_user_with_ptrace_scope_$scope" user_runs
        else
            skip "ptrace_scope_$scope" "no yama"
        fi
    done
    sysctl -q kernel.yama.ptrace_scope=0 2>/dev/null
    run_test do_without_user_namespaces no_user_namespaces
    sysctl -q kernel.unprivileged_userns_clone=1
}

for series; do
    echo "== $series, at $(cut -d. -f1 /proc/uptime) s"
    case $series in
        do-users) do_users | summed ;;
        guest) guest --filter $CASES ;;
        guest-all)
            echo "-- native"
            together ""
            echo "-- inside"
            together "" $SALLET do --
            ;;
        reduced)
            for flag in --memory=checked --without=notify-flags --without=sealing --without=patching --without=spinning; do
                echo "-- $flag"
                for subject in ${REDUCED_CASES//,/ }; do together $subject $SALLET $flag do --; done
            done
            ;;
        docker-cgroupfs)
            echo '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}' >/etc/docker/daemon.json
            systemctl restart docker
            scripts docker
            ;;
        host) RUNTIME=sallet bash tests/vm/host.sh | summed ;;
        reboot)
            bash tests/vm/reboot.sh | summed
            [ -e /var/rebooted ] || { systemctl reboot; sleep 600; }
            ;;
        *) scripts "$series" ;;
    esac
done
echo "all series ran"
