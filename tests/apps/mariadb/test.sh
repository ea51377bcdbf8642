# MariaDB 10.11, by the tests it shares with MySQL.
SHELL_PROGRAM=mariadb
DUMP=mariadb-dump
ENGINES='InnoDB Aria MyISAM'
SETTINGS=''
rows_to() { echo "seq_1_to_$1"; }
SMALL_SORT='tmp_memory_table_size = 0, sort_buffer_size = 1024'
TOO_LONG='SET STATEMENT max_statement_time = 0.3 FOR SELECT SLEEP(20)'
TOLD='max_statement_time exceeded'
COMPRESSED='PAGE_COMPRESSED=1'
HOLES='1 3'
INSERTED='INSERT INTO acknowledged VALUES (&) RETURNING id;'
second() {
    output=$(inside plain timeout 60 mariadbd --user=mysql --skip-networking --socket=/tmp/second --pid-file=/tmp/second.pid 2>&1) && echo 'a second server runs' && exit 1
    contains "$output" 'Unable to lock ./ibdata1'
}
. "$(dirname "$0")/../sql.sh"
main "$@"
