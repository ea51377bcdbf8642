#!/bin/sh
# `init`: makes the database with pgbench's tables; `serve`: becomes the server.
PATH=/usr/lib/postgresql/15/bin:$PATH
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/data "$@"; }
case $1 in
    init)
        set -e
        mkdir -p /data /run/postgresql
        chown postgres /data /run/postgresql
        as_postgres initdb --auth=trust --encoding=UTF8 -D /data
        echo "host all all all trust" >>/data/pg_hba.conf
        as_postgres pg_ctl -D /data -o "-c listen_addresses=''" -w start
        pgbench -q -i -s 5 -U postgres -h /run/postgresql postgres
        as_postgres pg_ctl -D /data -w stop
        ;;
    serve)
        # Not the disk is measured.
        exec setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/data \
            /usr/lib/postgresql/15/bin/postgres -D /data -c listen_addresses='*' -c shared_buffers=128MB \
            -c synchronous_commit=off -c max_wal_size=2GB -c autovacuum=off
        ;;
esac
