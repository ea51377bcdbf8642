# Makes the data when they are not there, with a user for the clients, then becomes the server.
set -e
mkdir -p /run/mysqld
chown mysql:mysql /run/mysqld /var/lib/mysql
if [ ! -d /var/lib/mysql/mysql ]; then
    cat >/run/mysqld/first.sql <<END
CREATE DATABASE work;
CREATE USER 'tester'@'%' IDENTIFIED BY 'secret';
GRANT ALL ON *.* TO 'tester'@'%';
END
    mysqld --user=mysql --initialize-insecure --init-file=/run/mysqld/first.sql
fi
exec mysqld --user=mysql "$@"
