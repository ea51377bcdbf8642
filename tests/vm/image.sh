# The disk of the virtual machine, made once and kept in /var/cache/sallet-tests/vm: Debian 12 with its own kernel,
# systemd, Docker, podman, containerd and runc, and the roots and Docker images of ../image.sh. Source it, then
# `vm_image` makes sure that $VM/disk, $VM/vmlinuz and $VM/initrd are there.
. "$(dirname "${BASH_SOURCE[0]}")/../image.sh"

VM=$CACHE/vm
VM_PACKAGES="linux-image-amd64 initramfs-tools systemd systemd-sysv dbus dbus-user-session libpam-systemd kmod e2fsprogs \
    docker.io docker-compose podman containerd runc crun uidmap slirp4netns fuse-overlayfs apparmor iptables iproute2 \
    busybox-static python3 gcc libc6-dev git perl jq curl procps psmisc strace netcat-openbsd xz-utils ca-certificates"

# The root as a folder: $VM/root.
vm_root() {
    rm -rf --one-file-system "${VM:?}/root"
    cp -a "$(rootfs base 8>&-)" "$VM/root"
    mount -t proc proc "$VM/root/proc" || return 1
    chroot "$VM/root" apt-get update &&
        DEBIAN_FRONTEND=noninteractive chroot "$VM/root" apt-get install -y --no-install-recommends $VM_PACKAGES
    local made=$?
    umount "$VM/root/proc"
    [ $made = 0 ] || return 1
    rm -rf "$VM/root"/var/cache/apt/archives/*.deb
    mkdir -p "$VM/root/share" "$VM/root/$CACHE"
    for name in base full net; do
        cp -a "$(rootfs $name 8>&-)" "$VM/root/$CACHE/" && touch "$VM/root/$CACHE/$name.done" || return 1
    done
    cat >"$VM/root/etc/fstab" <<'END'
/dev/vda / ext4 defaults,noatime 0 1
share /share 9p trans=virtio,version=9p2000.L,msize=512000,cache=none 0 0
END
    cat >"$VM/root/etc/systemd/system/sallet-tests.service" <<'END'
[Unit]
Description=The command in /share
After=docker.service
RequiresMountsFor=/share
[Service]
ExecStart=/bin/bash /share/command
Environment=HOME=/root
[Install]
WantedBy=multi-user.target
END
    echo sallet-vm >"$VM/root/etc/hostname"
    echo '127.0.0.1 localhost sallet-vm' >"$VM/root/etc/hosts"
    printf '9p\n9pnet_virtio\nvirtio_pci\nvirtio_blk\next4\n' >>"$VM/root/etc/initramfs-tools/modules"
    chroot "$VM/root" bash -ec '
        passwd -d root
        useradd -m -s /bin/bash user
        systemctl enable sallet-tests.service docker.service
        systemctl mask apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer fstrim.timer \
            logrotate.timer dpkg-db-backup.timer
        update-initramfs -u'
}

# vm_boot SHARE [OPTION...]: runs SHARE/command in the machine, which sees SHARE as /share.
vm_boot() {
    local share=$1
    shift
    # What an emulator is slow with: vectors (Docker hashes with them), `rep movsb`, the mitigations of Spectre.
    local cpu=max,-avx2,-erms
    [ "${VM_ACCEL:-tcg}" != kvm ] || cpu=host
    nice qemu-system-x86_64 -accel "${VM_ACCEL:-tcg,thread=multi}" -cpu $cpu -smp 2 -m 4G -no-reboot -nodefaults \
        -nographic -nic none -serial "file:$share/console" -kernel "$VM/vmlinuz" -initrd "$VM/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off" \
        -virtfs "local,path=$share,mount_tag=share,security_model=none" "$@"
}

vm_image() {
    mkdir -p "$VM"
    (
        flock 9
        [ ! -e "$VM/done" ] || exit 0
        set -e
        vm_root >"$VM/log" 2>&1
        cp -L "$VM/root/vmlinuz" "$VM/root/initrd.img" "$VM/"
        mv "$VM/initrd.img" "$VM/initrd"
        mke2fs -q -t ext4 -F -d "$VM/root" "$VM/disk" 16G
        rm -rf --one-file-system "${VM:?}/root"
        # Docker's images can only be made by a Docker: the first start of the machine makes them.
        rm -rf "$VM/share"
        mkdir -p "$VM/share"
        cp "$(dirname "${BASH_SOURCE[0]}")/../image.sh" "$VM/share/"
        cat >"$VM/share/command" <<'END'
cd /share && . ./image.sh && image base && image full && image net && touch /share/made
sync
systemctl poweroff
END
        timeout 3600 bash -c ". '${BASH_SOURCE[0]}'"'; vm_boot "$1" -drive "file=$VM/disk,if=virtio,format=raw,cache=unsafe"' \
            vm "$VM/share" >>"$VM/log" 2>&1
        test -e "$VM/share/made"
        touch "$VM/done"
    ) 9>"$VM/lock" || { echo "cannot make the machine, see $VM/log and $VM/share/console" >&2; return 1; }
}
