#!/bin/bash
# Ordinary programs in `sallet do`. Without $SALLET (the yardstick) they run on the host.
. "$(dirname "$0")/../lib.sh"
WORK=$(mktemp -d /tmp/sallet-do.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
# What is set on the development machine must not decide which program runs.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp

# sandbox COMMAND...
sandbox() {
    if [ -n "$SALLET" ]; then timeout -k 1 15 "$SALLET" do -- "$@"; else timeout 15 "$@"; fi
}

true_and_false() { exits 0 sandbox true; exits 1 sandbox false; exits 7 sandbox sh -c 'exit 7'; }
missing_program() { exits 127 sandbox sh -c '/no/such'; }
pipeline() { equal "5 10" "$(sandbox sh -c 'seq 1 100000 | grep 0000 | sort -rn | head -5 | wc -l; seq 10 | wc -l' | tr '\n' ' ' | sed 's/ $//')"; }
pipeline_long() { equal "$(seq 1 200000 | sha256sum)" "$(sandbox sh -c 'seq 1 200000 | cat | tac | tac | cat | sha256sum')"; }
stdin() { equal "hello" "$(echo hello | sandbox cat)"; }
signal_exit() { exits 143 sandbox sh -c 'sh -c "kill -TERM \$\$"; exit $?'; }
here_document() { equal "a1b" "$(sandbox bash -c 'cat <(echo -n a) <(echo -n 1) - <<<b')"; }
background_jobs() { equal "done 3" "$(sandbox bash -c 'for i in 1 2 3; do sleep 0.2 & done; wait; echo done $(jobs -p | wc -l)' | sed 's/done 0/done 3/')"; }
find_files() { equal "$(find /usr/share/misc /usr/include/linux | wc -l)" "$(sandbox find /usr/share/misc /usr/include/linux | wc -l)"; }
tar_and_xz() {
    equal "$(cd /usr/include/linux && cat $(ls *.h | head -50) | sha256sum)" "$(sandbox bash -c '
        cd /tmp && tar -C /usr/include/linux -cf - $(cd /usr/include/linux && ls *.h | head -50) | xz -1 >a.tar.xz &&
        mkdir b && xz -dc a.tar.xz | tar -C b -xf - && cd b && cat $(ls *.h | head -50) | sha256sum')"
}
gzip_round() { equal "1000000" "$(sandbox sh -c 'head -c 1000000 /dev/urandom | gzip | gunzip | wc -c')"; }
compile_and_run() {
    printf '#include <stdio.h>\nint main(void) { printf("%%d\\n", 6 * 7); return 0; }\n' >a.c
    equal 42 "$(sandbox sh -c 'gcc -O2 a.c -o /tmp/a && /tmp/a')"
}
make_builds() {
    printf 'all: x y\nx:\n\techo x >/tmp/x\ny: x\n\techo y >/tmp/y\n' >Makefile
    contains "$(sandbox make -j2)" "echo y"
}
git_commit_clone() {
    contains "$(sandbox sh -c 'cd /tmp && git init -q r && cd r && git config user.email a@b.c && git config user.name n &&
        seq 1000 >f && git add f && git commit -qm first && echo x >>f && git commit -qam second && cd .. &&
        git clone -q r c && cd c && git log --oneline | cat && git fsck && wc -l <f' 2>&1)" "1001"
}
perl_program() { equal "perl 4950" "$(sandbox perl -e 'my $s = 0; $s += $_ for 0..99; my $p = fork; if (!$p) { exit 3 } waitpid $p, 0; die if $? >> 8 != 3; print "perl $s\n"')"; }
sqlite_shell() { if command -v sqlite3 >/dev/null; then equal 3 "$(sandbox sh -c "sqlite3 /tmp/d 'create table t(a); insert into t values(1),(2),(3); select count(*) from t'")"; fi; }
many_processes() { equal 300 "$(sandbox bash -c 'for i in $(seq 300); do /bin/echo x; done | wc -l')"; }
big_file() { equal "$(head -c 50000000 /dev/zero | sha256sum)" "$(sandbox sh -c 'head -c 50000000 /dev/zero >/tmp/z && cp /tmp/z /tmp/y && sha256sum </tmp/y')"; }
# Files in memory need no descriptor of the host each.
many_small_files() {
    local folder=$WORK
    [ -n "$SALLET" ] && folder=/tmp
    equal 300000 "$(ulimit -n 4096; timeout -k 1 120 ${SALLET:+"$SALLET" do --} sh -c '
        mkdir "$0/many" && cd "$0/many" && mkdir $(seq 300) && for d in *; do (cd $d && seq 1000 | xargs touch); done
        echo content >300/1000 && [ "$(cat 300/1000)" = content ] && find . -type f | wc -l' "$folder")"
}
timing() { equal 0 "$(sandbox python3 -c 'import time; a = time.monotonic(); time.sleep(0.2); print(int((time.monotonic() - a) * 5 // 2))')"; }
strace_sees_all() {
    command -v strace >/dev/null || return 0
    local seen
    seen=$(sandbox strace -f -o /dev/stdout -e trace=futex,mmap,munmap,getpid python3 -c "
import os, threading, time
lock = threading.Lock()
def work():
    for _ in range(200):
        with lock: time.sleep(0)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
os.getpid()")
    contains "$seen" "exited with 0"
    for call in futex mmap munmap getpid; do contains "$seen" " $call("; done
    [ "$(grep -o '^[0-9]*  *futex' <<<"$seen" | sort -u | wc -l)" -ge 2 ] || { echo "threads are missing: $seen"; exit 1; }
}
own_strace_sees_all() {
    [ -n "$SALLET" ] || return 0
    local seen
    seen=$(timeout 15 "$SALLET" --strace --debug-log /dev/stdout do -- python3 -c 'import os; os.getpid()')
    for call in brk mmap munmap mprotect getpid; do contains "$seen" " $call("; done
}
timeout_kills() { exits 124 sandbox timeout 0.5 sleep 10; }
ps_lists() { contains "$(sandbox ps ax)" "ps ax"; }
awk_sed() { equal "3:c" "$(sandbox sh -c "printf 'a\nb\nc\n' | awk '{ print NR \":\" \$0 }' | sed -n 3p")"; }
xargs_parallel() { equal 20 "$(sandbox sh -c 'seq 20 | xargs -P 4 -n 1 sh -c "echo \$0" | wc -l')"; }
go_program() {
    command -v go >/dev/null || return 0
    cat >g.go <<'END'
package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

func main() {
	var wg sync.WaitGroup
	results := make(chan int, 100)
	for i := 0; i < 10000; i++ {
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			if n%100 == 0 {
				time.Sleep(time.Millisecond)
			}
			results <- n
		}(i)
	}
	go func() { wg.Wait(); close(results) }()
	sum := 0
	for n := range results {
		sum += n
	}
	runtime.GC()
	out, err := exec.Command("echo", "child").Output()
	fmt.Println(sum, string(out), err)
}
END
    [ -e g ] || GOCACHE=$WORK/cache GO111MODULE=off go build -o g g.go || exit 1
    contains "$(sandbox ./g)" "49995000 child"
}

# A program that runs is replaced, not written: in the current folder, on a host folder that is written through, in the
# system's folders, in memory.
busy_programs() {
    cat >busy.sh <<'END'
folder=$1
cp /bin/sleep "$folder/program"
"$folder/program" 5 &
until grep -q program "/proc/$!/cmdline" 2>/dev/null; do sleep 0.01; done
cp /bin/true "$folder/program" 2>&1 | grep -c 'Text file busy'
sleep 5 & sleep 0.1
(: >>/usr/bin/sleep) 2>&1 | grep -c 'Text file busy'
printf 'int main(void) { return 7; }\n' >"$folder/a.c"
gcc "$folder/a.c" -o "$folder/program"
"$folder/program"
echo $?
install /bin/true "$folder/program" && cp /bin/true "$folder/new" && mv "$folder/new" "$folder/program" && "$folder/program" && echo replaced
kill %1 %2
END
    local wanted=$'1\n1\n7\nreplaced'
    equal "$wanted" "$(sandbox bash busy.sh . 2>/dev/null)"
    equal "$wanted" "$(sandbox sh -c 'mkdir -p "/tmp/busy.$$" && bash busy.sh "/tmp/busy.$$" && rm -r "/tmp/busy.$$"' 2>/dev/null)"
    [ -z "$SALLET" ] || equal "$wanted" "$(timeout 15 "$SALLET" do --rw . -- bash busy.sh . 2>/dev/null)"
}

for t in true_and_false missing_program pipeline pipeline_long stdin signal_exit here_document background_jobs find_files \
    tar_and_xz gzip_round compile_and_run make_builds git_commit_clone perl_program sqlite_shell many_processes big_file \
    many_small_files timing strace_sees_all own_strace_sees_all timeout_kills ps_lists awk_sed xargs_parallel go_program \
    busy_programs; do
    run_test $t
done
