# fio: what each way of input and output wrote is there when it is read; random blocks of 4 KiB in memory, in the
# container's own files and in a volume.
. "$(dirname "$0")/../lib.sh"

# fio FOLDER OPTIONS...: one job with random blocks of 4 KiB.
fio() {
    local folder=$1
    shift
    once --tmpfs /memory -v /volume "$IMAGE" sh -c 'mkdir -p /files; exec fio "$@"' fio --name=job --directory="$folder" \
        --bs=4k --size="${SIZE:-64m}" --group_reporting "$@"
}

# Blocks carry their sum and their place; threads and processes at once, past the page cache where files allow it.
verifies() {
    local engine folder
    for folder in /memory /files /volume; do
        for engine in psync pvsync2 mmap posixaio libaio; do
            SIZE=8m must fio $folder --rw=randrw --ioengine=$engine --iodepth=8 --numjobs=2 --verify=crc32c --verify_fatal=1 \
                --end_fsync=1 --minimal >/dev/null
        done
    done
    SIZE=8m must fio /volume --rw=randwrite --ioengine=libaio --direct=1 --iodepth=16 --numjobs=2 --thread --verify=sha256 \
        --verify_fatal=1 --minimal >/dev/null
}

# rate FOLDER READ|WRITE OPTIONS...: operations per second.
rate() {
    local folder=$1 field=$([ "$2" = randread ] && echo 8 || echo 49) how=$2
    shift 2
    SIZE=256m fio "$folder" --rw="$how" --runtime=4 --time_based --minimal "$@" | awk -F';' -v f=$field '{ print $f }'
}

case $1 in
    check) run_test verifies ;;
    measure)
        for where in memory:tmpfs files:rootfs; do
            folder=/${where%:*} name=${where#*:}
            measure $name-random-read "$(rate $folder randread --ioengine=psync --pre_read=1)" operations/s
            measure $name-random-write "$(rate $folder randwrite --ioengine=psync --invalidate=0)" operations/s
        done
        measure rootfs-direct-read "$(rate /files randread --ioengine=libaio --direct=1 --iodepth=16)" operations/s
        measure volume-direct-write "$(rate /volume randwrite --ioengine=libaio --direct=1 --iodepth=16)" operations/s
        ;;
esac
