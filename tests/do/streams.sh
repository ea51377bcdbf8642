#!/bin/bash
# Files of the caller as standard streams: `< file`, `> file`; positions that are shared. Without $SALLET (the yardstick) programs run on the host.
. "$(dirname "$0")/../lib.sh"
WORK=$(mktemp -d /tmp/sallet-do.XXXXXX)
trap 'rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
sandbox() {
    if [ -n "$SALLET" ]; then timeout -k 1 15 "$SALLET" do -- "$@"; else timeout 15 "$@"; fi
}
seq 100000 >big

# A program that has taken too much puts it back.
position_is_shared() {
    equal "1 2 3 4" "$(echo $(sandbox sh -c 'read a; read b; echo $a $b; head -n1; head -n1' <big 2>&1))"
    equal "1 2 3" "$( (sandbox head -n2; sandbox head -n1) <big 2>&1 | tr '\n' ' ' | sed 's/ $//')"
    (sandbox echo one; echo two; sandbox sh -c 'echo three; echo four >&2'; echo five) >out 2>&1
    equal "one two three four five" "$(echo $(cat out))"
}
# Many who write at once lose nothing of each other.
writers_at_once() {
    for i in 1 2 3 4; do sandbox sh -c "for n in \$(seq 200); do echo $i >&\$((n % 2 + 1)); done" & done >out 2>&1
    wait
    equal "200 1 200 2 200 3 200 4" "$(echo $(sort out | uniq -c))"
}
size_and_ends() {
    equal "588895 99999 100000 99999 100000" "$(echo $(sandbox sh -c 'wc -c; tail -n2' <big)) $(echo $(sandbox tail -n2 <big))"
    equal "$(stat -L -c '%F %s %Y %h %b %a' big)" "$(sandbox stat -L -c '%F %s %Y %h %b %a' /dev/stdin <big)"
    equal "5 4 True" "$(sandbox python3 -c '
import os, sys
f = sys.stdin.buffer
print(f.seek(5), f.read(2).decode().strip(), f.seekable())' <big)"
}
mapped() {
    local script='
import mmap
with mmap.mmap(0, 0, prot=mmap.PROT_READ) as memory:
    print(len(memory), memory[-7:-1].decode(), memory.find(b"\n777\n"))
try:
    mmap.mmap(0, 0)
except PermissionError:
    print("not to be written")
mmap.mmap(0, 0, flags=mmap.MAP_PRIVATE)[0] = 65'
    equal "588895 100000 2995 not to be written" "$(echo $(sandbox python3 -c "$script" <big))"
    equal "588895" "$(wc -c <big)"
    equal "1" "$(head -n1 big)"
}
holes_and_cuts() {
    sandbox dd of=/dev/fd/1 if=/dev/zero bs=1 count=3 conv=notrunc seek=5 2>/dev/null >out
    sandbox python3 -c '
import os
os.write(1, b"abcdef")
os.pwrite(1, b"X", 1)
assert os.lseek(1, 0, os.SEEK_CUR) == 6
os.ftruncate(1, 4)
assert os.lseek(1, 0, os.SEEK_END) == 4 and os.fstat(1).st_size == 4
os.posix_fallocate(1, 0, 8)
assert os.lseek(1, 2, os.SEEK_SET) == 2
os.write(1, b"Y")' >out || exit 1
    equal 'aXYd\0\0\0\0' "$(sed 's/\x00/\\0/g' out)"
    # What was opened for reading cannot be changed.
    sandbox python3 -c '
import os
for change in (lambda: os.ftruncate(0, 1), lambda: os.write(0, b"x"), lambda: os.pwrite(0, b"x", 0)):
    try:
        change()
    except OSError:
        continue
    raise SystemExit("changed")' <big || exit 1
    equal 588895 "$(wc -c <big)"
}
appended() {
    echo first >out
    sandbox sh -c 'echo second; echo third' >>out
    equal "first second third" "$(echo $(cat out))"
    sandbox python3 -c '
import os
os.write(1, b"fourth\n")
print(os.lseek(1, 0, 1) == os.fstat(1).st_size)' >>out
    equal "first second third fourth True" "$(echo $(cat out))"
}
times() {
    sandbox touch -d @1000000000.5 - >out || exit 1
    equal "1000000000 1000000000" "$(stat -c '%X %Y' out)"
    equal "5 1000000000" "$(sandbox python3 -c '
import os, sys
os.utime(1, ns=(5 * 10 ** 9, os.fstat(1).st_mtime_ns))
print(int(os.fstat(1).st_atime), int(os.fstat(1).st_mtime), file=sys.stderr)' 2>&1 >>out)"
    equal "5 1000000000" "$(stat -c '%X %Y' out)"
    sandbox python3 -c 'import os; os.utime(1)' >>out || exit 1
    [ "$(stat -c %Y out)" -gt 1000000000 ] || exit 1
    # What was opened for reading cannot be changed, not even by its owner.
    local before=$(stat -c %Y big)
    [ -z "$SALLET" ] || equal 1 "$(sandbox python3 -c '
import os
try:
    os.utime(0, (5, 5))
except OSError as error:
    print(error.errno)' <big)"
    equal "$before" "$(stat -c %Y big)"
}
# A bad address gives back what was read.
fault() {
    equal "-1 14 1" "$(sandbox python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.read(0, ctypes.c_void_p(8), 100), ctypes.get_errno(), os.read(0, 1).decode())' <big)"
    # At an offset it has taken nothing.
    equal "200 -1 14 200" "$(sandbox python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(len(os.read(0, 200)), libc.pread(0, ctypes.c_void_p(8), 100, 0), ctypes.get_errno(), os.lseek(0, 0, 1))' <big)"
}
copies() {
    equal "$(sha256sum <big)" "$(sandbox sh -c 'cp /dev/stdin /tmp/copy && sha256sum </tmp/copy' <big)"
    equal "$(sha256sum <big)" "$(sandbox sh -c 'cat >/tmp/copy; sha256sum </tmp/copy' <big)"
    sandbox python3 -c '
import os
with open("/tmp/x", "wb") as f:
    f.write(b"z" * 300000)
with open("/tmp/x", "rb") as f:
    os.write(1, b"head")
    while os.sendfile(1, f.fileno(), None, 1 << 20):
        pass
os.write(1, b"tail")' >out || exit 1
    equal "300008 head tail" "$(wc -c <out) $(head -c4 out) $(tail -c4 out)"
    sandbox python3 -c '
import os
with open("/tmp/y", "wb") as f:
    n = 1
    while n:
        n = os.copy_file_range(0, f.fileno(), 1 << 20)
print(os.stat("/tmp/y").st_size, os.lseek(0, 0, 1))' <big >out || exit 1
    equal "588895 588895" "$(cat out)"
}
# By that tar(1) knows that the archive is thrown away, and reads no file.
null_is_null() {
    equal "character special file 1 3 /dev/null" "$(sandbox sh -c 'echo $(stat -L -c "%F %t %T" /dev/stdin) $(readlink /proc/self/fd/0)' </dev/null)"
    sandbox python3 -c '
import os
null, mine = os.stat("/dev/null"), os.fstat(1)
raise SystemExit((null.st_dev, null.st_ino, null.st_rdev) != (mine.st_dev, mine.st_ino, mine.st_rdev))' >/dev/null || exit 1
}
streams_by_name() {
    # A position of its own, from the start.
    equal "1" "$(sandbox sh -c 'head -c300 >/dev/null; head -n1 /dev/stdin' <big)"
    sandbox sh -c 'echo first; echo second >/dev/stdout; printf x' >out
    equal secondx "$(cat out)"
    sandbox sh -c 'echo more >>/dev/stdout' >>out
    contains "$(cat out)" more
    # More than came is not had by that, to whomever the file belongs.
    [ -z "$SALLET" ] || sandbox sh -c '! (: >/dev/stdin) 2>/dev/null && ! (: >>/dev/stdin) 2>/dev/null' <big || exit 1
    equal 588895 "$(wc -c <big)"
    equal "1" "$(sandbox sh -c 'head -n1 /dev/stdin' <big)"
    # To look for data there moves nobody else.
    truncate -s 1M holes
    printf x >>holes
    equal "0 1" "$(echo $( (sandbox python3 -c '
import os
fd = os.open("/dev/stdin", os.O_RDONLY)
assert os.lseek(fd, 0, os.SEEK_HOLE) in (0, (1 << 20) + 1)
assert os.lseek(fd, 0, os.SEEK_DATA) in (0, 1 << 20)
os.lseek(0, 0, os.SEEK_CUR) == 0 or print("moved")
for whence in os.SEEK_DATA, os.SEEK_HOLE:
    try:
        print(os.lseek(fd, (1 << 20) + 1, whence))
    except OSError as error:
        assert error.errno == 6'; head -c1048576 | tr -d '\0' | wc -c; wc -c) <holes))"
    equal "hello" "$(echo hello | sandbox cat /dev/stdin)"
    equal "out err" "$(sandbox sh -c 'echo out >/dev/stdout; echo err >/dev/stderr' 2>&1 | tr '\n' ' ' | sed 's/ $//')"
}
# Who reads at a position that others have too gets bytes that are side by side, also where the host has a part of them
# in memory and gives that sooner.
reads_are_one_step() {
    python3 -c '
import os, struct
with open("pages", "wb") as file:
    for page in range(2048):
        file.write(struct.pack("<I", page) * 1024)
fd = os.open("pages", os.O_RDONLY)
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for at in range(0, 8 << 20, 65536):
    os.pread(fd, 1, at)'
    equal "0 0 0 0" "$(echo $(sandbox python3 -c '
import os, struct
fd = os.open("pages", os.O_RDONLY)
children = []
for reader in range(4):
    if pid := os.fork():
        children.append(pid)
        continue
    while data := os.read(fd, 65536):
        pages = [struct.unpack_from("<I", data, at)[0] for at in range(0, len(data), 4096)]
        if pages != list(range(pages[0], pages[0] + 16)):
            os._exit(1)
    os._exit(0)
for pid in children:
    print(os.waitpid(pid, 0)[1])'))"
}

for t in position_is_shared writers_at_once size_and_ends mapped holes_and_cuts appended times fault copies null_is_null \
    streams_by_name reads_are_one_step; do
    run_test $t
done
