# Makes the data when they are not there, with a user for the clients, then becomes the server.
set -e
mkdir -p /run/mysqld
chown mysql:mysql /run/mysqld /var/lib/mysql
if [ ! -d /var/lib/mysql/mysql ]; then
    mariadb-install-db --user=mysql --datadir=/var/lib/mysql --auth-root-authentication-method=socket >/dev/null
    mariadbd --user=mysql --bootstrap <<END
FLUSH PRIVILEGES;
CREATE DATABASE work;
CREATE USER 'tester'@'%' IDENTIFIED BY 'secret';
GRANT ALL ON *.* TO 'tester'@'%';
END
fi
exec mariadbd --user=mysql "$@"
