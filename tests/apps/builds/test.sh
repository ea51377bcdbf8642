# Builds: Redis by make and its own tests, SQLite by configure, libuv by CMake and Ninja and
# its tests, and the life of a git repository of 3000 commits.
. "$(dirname "$0")/../lib.sh"

server() { start "$1" "$IMAGE" sh -c 'trap "exit 0" TERM; while :; do sleep 1000 & wait $!; done'; }
# run NAME LINE: a line of shell in the container, all of it successful.
run() { must inside "$1" sh -ec "$2"; }

makes_redis() {
    server redis
    run redis 'cd /src/redis-*/ && make -j2 OPTIMIZATION=-O0 MALLOC=libc' >/dev/null
    # Nothing is to be done again, after a restart of the container neither.
    stops redis 0
    again redis
    run redis 'cd /src/redis-*/src && make -q redis-server OPTIMIZATION=-O0 MALLOC=libc'
    output=$(run redis 'cd /src/redis-*/ && ./runtest --clients 2 --single unit/type/list --single unit/expire --single unit/multi --single integration/aof')
    contains "$output" 'All tests passed without errors'
    away redis
}

makes_sqlite() {
    server sqlite
    run sqlite 'cd /src/sqlite3-*/ && mkdir /tmp/s && cd /tmp/s && /src/sqlite3-*/configure --disable-tcl --disable-readline CFLAGS=-O0 && make -j2 sqlite3' >/dev/null
    equal '500500' "$(run sqlite "/tmp/s/sqlite3 /tmp/base 'CREATE TABLE t (n); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) INSERT INTO t SELECT n FROM c; SELECT SUM(n) FROM t'")"
    away sqlite
}

# libuv's own tests, of which those that look for a network beyond this machine fail under every runtime.
BEYOND='tcp_connect_timeout|tcp_close_while_connecting'
makes_libuv() {
    server libuv
    run libuv 'cmake -S /src/libuv1-* -B /tmp/z -G Ninja -DLIBUV_BUILD_TESTS=ON && ninja -C /tmp/z' >/dev/null
    stops libuv 0
    again libuv
    contains "$(run libuv 'ninja -C /tmp/z')" 'no work to do'
    run libuv 'useradd -m tester; ln -s /src/libuv1-*/test /tmp/z/test; chown -R tester /tmp/z /src/libuv1-*'
    inside libuv su tester -c 'cd /tmp/z && timeout 200 ./uv_run_tests_a' >"$WORK/libuv" 2>&1
    at_least 400 "$(grep -c '^ok' "$WORK/libuv")"
    # The machine may be too busy for what failed once: again, alone.
    for test in $(sed -n 's/^not ok [0-9]* - //p' "$WORK/libuv" | grep -vxE "$BEYOND"); do
        run libuv "su tester -c 'cd /tmp/z && ./uv_run_tests_a $test 2>&1 | tee /tmp/$test; grep -q ^ok /tmp/$test'"
    done
    away libuv
}

keeps_history() {
    server git
    run git 'git config --global user.name T; git config --global user.email t@example.org
        git config --global --add safe.directory "*"; git clone -q --no-local /repository /tmp/one
        cd /tmp/one && git fsck --full --strict 2>&1 && test $(git rev-list --all | wc -l) -eq 3000
        test $(git rev-list --count HEAD) -ge 2900'
    # Commits, branches, a merge with a conflict, a rebase, a second tree; each pass of gc keeps all.
    run git 'cd /tmp/one; for i in $(seq 20); do echo $i >new$i; git add new$i; git commit -qm "new $i"; done
        git checkout -qb topic HEAD~10; echo other >new15; git add .; git commit -qm other
        if git merge -q main 2>/dev/null; then exit 1; fi
        git checkout -q --ours new15; git add new15; git commit -qm merged; git checkout -q main; git merge -q topic
        git checkout -qb more HEAD~3; echo x >x; git add x; git commit -qm x; git rebase -q main; git checkout -q main; git merge -q more
        echo change >>x; git stash -q; git stash pop -q; git commit -qam change
        git worktree add -q /tmp/two HEAD~5; test -e /tmp/two/new1; git worktree remove /tmp/two
        before=$(git log --format=%H%T --all | sort | sha256sum)
        git gc -q --prune=now; git repack -adfq --window=20; git fsck --full
        test "$before" = "$(git log --format=%H%T --all | sort | sha256sum)"; test -z "$(git status --porcelain)"' >/dev/null
    # Over a socket, in both directions; a bundle.
    run git 'git daemon --base-path=/tmp --export-all --enable=receive-pack --reuseaddr --listen=127.0.0.1 --detach
        git clone -q --bare /tmp/one /tmp/bare.git; i=0
        until git clone -q git://127.0.0.1/bare.git /tmp/three 2>/dev/null; do i=$((i + 1)); test $i -lt 20; sleep 0.2; done
        cd /tmp/three; echo pushed >pushed; git add .; git commit -qm pushed; git push -q origin HEAD
        test $(git -C /tmp/bare.git rev-parse main) = $(git rev-parse HEAD)
        git bundle create -q /tmp/all --all; git clone -q /tmp/all /tmp/four; test -e /tmp/four/pushed'
    stops git 0
    again git
    run git 'cd /tmp/three && git fsck --full && test -z "$(git status --porcelain)"' >/dev/null
    away git
}

case $1 in
    check)
        [ "$QUICK" = 1 ] || run_test makes_redis
        [ "$QUICK" = 1 ] || run_test makes_sqlite
        [ "$QUICK" = 1 ] || run_test makes_libuv
        run_test keeps_history
        ;;
    measure)
        server speed
        redis() { inside speed sh -ec 'cd /src/redis-*/ && make -j2 OPTIMIZATION=-O0 MALLOC=libc'; }
        cmake() { inside speed sh -ec 'cmake -S /src/libuv1-* -B /tmp/z -G Ninja && ninja -C /tmp/z'; }
        clone() { inside speed sh -ec 'git config --global --add safe.directory "*"; rm -rf /tmp/g; git clone -q --no-local /repository /tmp/g'; }
        collect() { inside speed git -C /tmp/g repack -adfq; }
        [ "$QUICK" = 1 ] || measure redis-by-make "$(seconds redis)" s
        measure libuv-by-CMake "$(seconds cmake)" s
        clone >/dev/null 2>&1
        measure git-clone "$(seconds clone)" s
        measure git-repack "$(seconds collect)" s
        ;;
esac
