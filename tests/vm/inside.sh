# In the virtual machine: runs the series named, each of which ends with its `N passed, N failed, N skipped`.
. "$(dirname "$0")/../lib.sh"
install -m 755 /share/sallet /usr/local/bin/sallet
SALLET=/usr/local/bin/sallet
export SALLET
CASES=process/,memory/,futex/,files/,sockets/,signal/,thread/
REDUCED_CASES=memory/,thread/,signal/,attack/,process/

guest() { /share/xtask guest-tests --program /share/guest-tests --sallet $SALLET --limit 90 "$@"; }
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
        guest-all) guest ;;
        reduced)
            for flag in --memory=checked --without=notify-flags --without=sealing --without=patching --without=spinning; do
                echo "-- $flag"
                guest --sandbox --with $flag --filter $REDUCED_CASES
            done
            ;;
        docker-cgroupfs)
            echo '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}' >/etc/docker/daemon.json
            systemctl restart docker
            scripts docker
            ;;
        *) scripts "$series" ;;
    esac
done
echo "all series ran"
