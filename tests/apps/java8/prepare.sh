# Runs on the host before the image is made: the programs that Java 17 runs, too.
cp "$(dirname "$0")"/../java/*.java "$1"
