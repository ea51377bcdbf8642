#!/bin/sh
# Makes the database at the first start, then becomes the server.
BIN=/usr/lib/postgresql/15/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    $BIN/initdb --auth=trust --encoding=UTF8 >/dev/null || exit 1
    echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
fi
exec $BIN/postgres -c listen_addresses='*' -c shared_buffers=64MB -c max_wal_size=1GB
