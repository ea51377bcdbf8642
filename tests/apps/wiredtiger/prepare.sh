# Runs on the host before the image is made: the sources of WiredTiger 11.3, which MongoDB 8 has.
set -eu
cd "$1"
[ -s wiredtiger.tar.gz ] && exit
pip3 download --quiet --no-deps --no-binary :all: wiredtiger==11.3.1
mv wiredtiger-11.3.1.tar.gz wiredtiger.tar.gz
