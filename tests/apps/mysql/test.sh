# MySQL 9, by the tests it shares with MariaDB.
SHELL_PROGRAM=mysql
DUMP=mysqldump
ENGINES='InnoDB MyISAM'
SETTINGS='SET SESSION cte_max_recursion_depth = 10000; '
rows_to() { echo "(WITH RECURSIVE n AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM n WHERE seq < $1) SELECT seq FROM n) AS numbers"; }
SMALL_SORT='tmp_table_size = 1024, sort_buffer_size = 32768'
TOO_LONG='SET SESSION max_execution_time = 300; SELECT SUM(a.id * b.id * c.id % 7) FROM InnoDB a, InnoDB b, InnoDB c'
TOLD='maximum statement execution time exceeded'
COMPRESSED="COMPRESSION='zlib'"
HOLES='2 3'
INSERTED='INSERT INTO acknowledged VALUES (&); SELECT &;'
# It does not give up at once.
second() {
    must inside plain sh -c 'timeout -s KILL 12 mysqld --user=mysql --skip-networking --socket=/tmp/second --pid-file=/tmp/second.pid &
        sleep 10; test ! -S /tmp/second; got=$?; wait; exit $got' >/dev/null
}
. "$(dirname "$0")/../sql.sh"
main "$@"
