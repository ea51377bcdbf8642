# Apache as the first process, with PHP inside of it or FPM beside it: $MODEL is prefork, worker or event, $MUTEX a
# kind of lock, $PHP mod or fpm, $RECYCLE the connections after which a child is replaced.
set -e
mkdir -p /run/php /run/apache2
export MODEL="${MODEL:-event}" MUTEX="${MUTEX:-default}" CGI=cgid RECYCLE="${RECYCLE:-2000}"
[ "$MODEL" = prefork ] && CGI=cgi
if [ "${PHP:-fpm}" = mod ]; then set -- -D mod_php; else php-fpm8.2; fi
exec apache2 -f /app/httpd.conf -D FOREGROUND "$@"
