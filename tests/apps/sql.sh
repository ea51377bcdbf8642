# What the tests of MySQL and MariaDB share (InnoDB past the page cache, asynchronous): every engine's data over a restart,
# sysbench, committed rows over SIGKILL, dump and restore, page compression, many connections, the lock of the data.
#
# test.sh sets, before it sources this:
#   SHELL_PROGRAM   the client inside the container
#   DUMP            the program that dumps
#   ENGINES         the engines of tables
#   SETTINGS        statements that each session begins with
#   rows_to N       a table with the numbers up to N in a column `seq`
#   SMALL_SORT      assignments that make a sort too big for memory
#   TOO_LONG        a statement that its own limit on time ends; TOLD, what is said then
#   COMPRESSED      the option of a table with compressed pages
#   HOLES           the part of such a file's length that it takes at most: `N D`
#   INSERTED        what becomes of a number N, so that it is inserted and told of: a replacement of sed
#   second          another server on the same data: fails unless it is turned away
. "$(dirname "$0")/../lib.sh"

ROWS=$([ "$QUICK" = 1 ] && echo 2000 || echo 50000)

server() {
    start "$1" -v /var/lib/mysql "$IMAGE" sh /start.sh "${@:2}"
    connect "$1"
}
connect() {
    HOST=$(address "$1")
    eventually 120 sql work 'SELECT 1'
}
# sql DATABASE STATEMENTS: what they print, without headings.
sql() { client mariadb -h "$HOST" -u tester -psecret -N -B "$1" -e "$SETTINGS$2"; }
bench() {
    client sysbench "$1" --db-driver=mysql --mysql-host="$HOST" --mysql-user=tester --mysql-password=secret \
        --mysql-db=work --tables=2 --table-size="$ROWS" "${@:2}"
}
# rate TEST SECONDS THREADS: transactions per second; fails with any error.
rate() {
    local output
    output=$(bench "$1" --time="$2" --threads="$3" --mysql-ignore-errors=1213,1020,1205 run) || { tail -5 <<<"$output" >&2; return 1; }
    awk '/transactions:/ { gsub(/\(/, ""); print $3 }' <<<"$output"
}

serves_and_restarts() {
    local tables=${ENGINES// /, }
    server plain
    equal 'root@localhost' "$(inside plain "$SHELL_PROGRAM" -N -B -e 'SELECT user()')"
    for engine in $ENGINES; do
        must sql work "CREATE TABLE $engine (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50), data LONGBLOB, KEY (name)) ENGINE=$engine;
            INSERT INTO $engine (name, data) VALUES ('one', REPEAT('x', 100000)), ('two', RANDOM_BYTES(1000));
            INSERT INTO $engine (name) SELECT CONCAT('row ', seq) FROM $(rows_to 5000);
            ALTER TABLE $engine ADD COLUMN extra INT DEFAULT 7, ALGORITHM=COPY; OPTIMIZE TABLE $engine" >/dev/null
        contains "$(sql work "CHECK TABLE $engine")" OK
    done
    equal 3 "$(sql work 'SELECT JSON_LENGTH(JSON_ARRAY(1, 2, 3))')"
    must sql work "CREATE TABLE log (n INT); CREATE TRIGGER t AFTER INSERT ON InnoDB FOR EACH ROW INSERT INTO log VALUES (NEW.id);
        CREATE PROCEDURE add_two() INSERT INTO InnoDB (name) VALUES ('a'), ('b');
        START TRANSACTION; CALL add_two(); ROLLBACK; CALL add_two()"
    equal 2 "$(sql work 'SELECT COUNT(*) FROM log')"
    # A sort too big for memory goes through temporary files.
    equal 5000 "$(sql work "SET SESSION $SMALL_SORT;
        SELECT COUNT(*) FROM (SELECT DISTINCT name, id FROM InnoDB WHERE name LIKE 'row%' ORDER BY name DESC) AS d")"
    contains "$(sql work "$TOO_LONG" 2>&1)" "$TOLD"
    sum=$(sql work "CHECKSUM TABLE $tables")
    stops plain 0 15
    again plain
    connect plain
    equal "$sum" "$(sql work "CHECKSUM TABLE $tables")"
    second
    stops plain 0 15
}

# Transactions from many connections; a page of data that compresses leaves a hole in its file.
works() {
    server load --max-connections=400
    must bench oltp_read_write prepare >/dev/null
    at_least 5 "$(rate oltp_read_write $([ "$QUICK" = 1 ] && echo 3 || echo 15) 16)"
    at_least 50 "$(rate oltp_point_select 3 $([ "$QUICK" = 1 ] && echo 50 || echo 300))"
    for table in sbtest1 sbtest2; do contains "$(sql work "CHECK TABLE $table EXTENDED")" OK; done
    must sql work "CREATE TABLE holes (id INT PRIMARY KEY, data TEXT) $COMPRESSED;
        INSERT INTO holes SELECT seq, REPEAT('a', 4000) FROM $(rows_to 2000); FLUSH TABLES holes FOR EXPORT; UNLOCK TABLES"
    equal 8000000 "$(sql work 'SELECT SUM(LENGTH(data)) FROM holes')"
    eventually 30 smaller
    # Dump and restore; a table by way of a file.
    must client sh -c "$DUMP -h $HOST -u tester -psecret --single-transaction work >/tmp/dump.sql &&
        mariadb -h $HOST -u tester -psecret -e 'CREATE DATABASE copy' && mariadb -h $HOST -u tester -psecret copy </tmp/dump.sql"
    equal "$(sql work 'CHECKSUM TABLE sbtest1, sbtest2, holes' | cut -f2)" "$(sql copy 'CHECKSUM TABLE sbtest1, sbtest2, holes' | cut -f2)"
    must sql copy "SELECT * FROM sbtest1 INTO OUTFILE '/var/lib/mysql/rows'; CREATE TABLE again LIKE sbtest1; LOAD DATA INFILE '/var/lib/mysql/rows' INTO TABLE again"
    equal "$(sql copy 'CHECKSUM TABLE sbtest1' | cut -f2)" "$(sql copy 'CHECKSUM TABLE again' | cut -f2)"
    stops load 0 15
}
smaller() {
    inside load sh -c 'test $(($(stat -c %b $1) * 512 * $3)) -lt $(($(stat -c %s $1) * $2))' sh /var/lib/mysql/work/holes.ibd $HOLES
}

# Every row whose commit a client saw is there after SIGKILL under load.
keeps_what_it_committed() {
    server killed
    must bench oltp_read_write prepare >/dev/null
    must sql work 'CREATE TABLE acknowledged (id INT PRIMARY KEY)'
    (bench oltp_read_write --time=60 --threads=8 run >/dev/null 2>&1) &
    for stream in 0 1; do
        (client sh -c "seq $((stream * 1000000 + 1)) $((stream * 1000000 + 500000)) | sed 's/.*/$INSERTED/' |
            mariadb -h $HOST -u tester -psecret -N -B --unbuffered work" >"$WORK/stream$stream" 2>/dev/null) &
    done
    sleep $([ "$QUICK" = 1 ] && echo 2 || echo 6)
    killed killed
    wait
    again killed
    connect killed
    for stream in 0 1; do
        count=$(grep -cE '^[0-9]+$' "$WORK/stream$stream")
        at_least 10 "$count"
        at_least "$count" "$(sql work "SELECT COUNT(*) FROM acknowledged WHERE id BETWEEN $((stream * 1000000 + 1)) AND $((stream * 1000000 + count))")"
    done
    for table in sbtest1 sbtest2 acknowledged; do contains "$(sql work "CHECK TABLE $table EXTENDED")" OK; done
    stops killed 0 15
}

# What test.sh is called for.
main() {
    case $1 in
        check)
            run_test serves_and_restarts
            run_test works
            run_test keeps_what_it_committed
            ;;
        measure)
            server speed
            ROWS=20000
            begin() { bench oltp_read_write prepare; }
            measure load-40000-rows "$(seconds begin)" s
            rate oltp_read_only 2 8 >/dev/null
            measure point-select "$(rate oltp_point_select 4 8)" transactions/s
            measure read-only "$(rate oltp_read_only 4 8)" transactions/s
            measure read-write "$(rate oltp_read_write 6 8)" transactions/s
            ;;
    esac
}
