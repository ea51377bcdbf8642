# System tools: sshd with logins and files copied, cron, supervisord, tmux, rsync, SQLite by many processes, ffmpeg.
. "$(dirname "$0")/../lib.sh"

server() {
    start "$1" -v /data "$IMAGE"
    serves "$1" 22
}
# run NAME LINE: a line of shell in the container, all of it successful.
run() { must inside "$1" bash -ec "$2"; }

supervises() {
    server super
    eventually 10 inside super sh -c 'supervisorctl -c /app/supervisord.conf status sshd | grep RUNNING'
    # What ends is started again, and what is killed.
    eventually 15 inside super sh -c 'test $(wc -l </data/short) -ge 3'
    run super 'kill -KILL $(pgrep -o sshd)'
    eventually 10 inside super sh -c 'supervisorctl -c /app/supervisord.conf status sshd | grep RUNNING'
    run super 'supervisorctl -c /app/supervisord.conf stop short' >/dev/null
    # cron runs what its table says, as its owner.
    run super 'printf "* * * * * id -un >/tmp/ran; test -t 0 || echo no terminal >>/tmp/ran\n" | crontab -u tester -'
    [ "$QUICK" = 1 ] || eventually 75 inside super grep -q 'no terminal' /tmp/ran
    [ "$QUICK" = 1 ] || equal tester "$(inside super head -1 /tmp/ran)"
    stops super 0 15
    again super
    serves super 22
    run super 'test $(wc -l </data/short) -ge 3; crontab -u tester -l | grep -q terminal'
    stops super 0 15
}

logs_in() {
    server ssh
    equal tester "$(run ssh 'ssh tester@localhost id -un')"
    contains "$(run ssh 'ssh -tt tester@localhost "tty; stty size; echo \$SSH_TTY" </dev/null')" /dev/pts/
    equal 7 "$(run ssh 'ssh localhost exit 7 || echo $?')"
    run ssh 'head -c 20000000 /dev/urandom >/tmp/a; scp -q /tmp/a tester@localhost:b; cmp /tmp/a /home/tester/b
        ssh -fN -L 2222:localhost:22 tester@localhost; ssh -p 2222 tester@localhost cat b | cmp - /tmp/a
        for i in $(seq 10); do ssh tester@localhost echo $i & done | sort -n | tr "\n" " " | grep -q "^1 2 3 4 5 6 7 8 9 10 $"'
    stops ssh 0 15
}

copies() {
    server copy
    run copy 'mkdir -p /tmp/from; cd /tmp/from; for i in $(seq 300); do mkdir -p d$((i % 20)); echo "file $i" >d$((i % 20))/$i; done
        ln -s d1 link; ln d1/1 hard; truncate -s 10M sparse; chmod 4750 d1/1; touch -d @1000000000 d1/21; mkfifo pipe; chown tester d2/2
        rsync -aHS --delete /tmp/from/ /tmp/to/; test -z "$(rsync -aHSni --delete /tmp/from/ /tmp/to/)"
        test $(stat -c %b /tmp/to/sparse) -lt 100; test $(stat -c %h /tmp/to/hard) -eq 2
        echo changed >d3/3; rm d4/4; rsync -aH --delete -e ssh /tmp/from/ tester@localhost:there/
        test "$(ssh tester@localhost cat there/d3/3)" = changed; rsync -a tester@localhost:there/ /tmp/back/
        diff -r --no-dereference /tmp/from/d3 /tmp/back/d3
        tar -C /tmp -cf - from | tar -C /data -xpf -; diff -r /tmp/from/d5 /data/from/d5; test "$(stat -c %a /data/from/d1/1)" = 4750'
    away copy
}

# Processes that write to one database at once, in both kinds of journal; then one that dies in the middle.
databases() {
    server base
    for journal in delete wal; do
        run base "cd /data; rm -f base*; sqlite3 base 'PRAGMA journal_mode=$journal; CREATE TABLE t (id INTEGER PRIMARY KEY, who, n)'
            for who in 1 2 3 4; do
                (for n in \$(seq 40); do echo \"INSERT INTO t (who, n) VALUES (\$who, \$n);\"; done | sqlite3 -cmd '.timeout 60000' base) &
            done; wait
            test \$(sqlite3 base 'SELECT COUNT(*) FROM t') -eq 160
            (echo 'BEGIN IMMEDIATE;'; for n in \$(seq 20000); do echo \"INSERT INTO t (who, n) VALUES (9, \$n);\"; done; sleep 100) | sqlite3 -cmd '.timeout 60000' base &
            sleep 1; pkill -KILL sqlite3
            test \$(sqlite3 -cmd '.timeout 10000' base 'SELECT COUNT(*) FROM t') -eq 160
            test \$(sqlite3 base 'PRAGMA integrity_check') = ok" >/dev/null
    done
    away base
}

multiplexes() {
    server mux
    run mux 'tmux new-session -d -s one -x 90 -y 30; tmux send-keys -t one "stty size; tty; echo \$((6 * 7))" Enter'
    eventually 10 inside mux bash -c 'tmux capture-pane -p -t one | grep -qx 42'
    contains "$(run mux 'tmux capture-pane -p -t one')" '30 90'
    run mux 'tmux split-window -t one; tmux send-keys -t one "sleep 100" Enter; tmux resize-pane -t one -y 5; tmux list-panes -t one | wc -l | grep -qx 2'
    eventually 10 inside mux pgrep -x sleep
    run mux 'tmux send-keys -t one C-c'
    eventually 10 inside mux sh -c '! pgrep -x sleep'
    run mux 'tmux kill-server'
    away mux
}

transcodes() {
    must once "$IMAGE" bash -ec 'cd /tmp; ffmpeg -v error -f lavfi -i testsrc=d=3:s=320x240:r=25 -f lavfi -i sine=d=3 -c:v libx264 -preset veryfast -threads 4 -c:a aac a.mp4
        ffmpeg -v error -i a.mp4 -c:v mpeg4 -vf scale=160:120 b.mkv; ffmpeg -v error -i b.mkv -f null -
        test $(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 b.mkv) -eq 75'
}

case $1 in
    check)
        run_test supervises
        run_test logs_in
        run_test copies
        run_test databases
        run_test multiplexes
        [ "$QUICK" = 1 ] || run_test transcodes
        ;;
    measure)
        server speed
        login() { inside speed bash -ec 'for i in 1 2 3 4 5 6 7 8 9 10; do ssh tester@localhost true; done'; }
        rows() { inside speed bash -ec 'for i in $(seq 300); do echo "INSERT INTO t VALUES ($i);"; done | (rm -f /data/s; sqlite3 /data/s "CREATE TABLE t (n)"; sqlite3 /data/s)'; }
        transcode() { inside speed ffmpeg -y -v error -f lavfi -i testsrc=d=8:s=640x480:r=25 -c:v libx264 -preset veryfast /tmp/a.mp4; }
        copy() { inside speed rsync -a --delete /usr/lib/python3.11 /tmp/; }
        login >/dev/null 2>&1
        measure 10-logins "$(seconds login)" s
        measure SQLite-300-commits "$(seconds rows)" s
        measure rsync "$(seconds copy)" s
        measure ffmpeg "$(seconds transcode)" s
        ;;
esac
