#!/usr/bin/env bash
# Puts an unpacked root file system on a bootable raw disk, or brings such a
# disk to the next state of the same machine. Called by demo/gold.py, as root:
#
#   disk.sh bios|uefi DISK TAR KERNEL_OPTIONS
#   disk.sh next      DISK TAR
#
# It runs in a mount namespace of its own, with loop devices that detach
# themselves, so that nothing stays mounted even after kill -9. Partitions are
# reached by offset: a chroot's /dev need not show partitions.
set -euo pipefail

action=$1 disk=$2 tar=$3 options=${4:-}
if [[ ${DISK_NAMESPACE:-} != own ]]; then
    # Where / is no mount point (a chroot) its propagation cannot be changed.
    propagation=private
    mountpoint -q / || propagation=unchanged
    DISK_NAMESPACE=own exec unshare --mount --propagation "$propagation" -- bash "$0" "$@"
fi

mib=$((1024 * 1024))
work=$(mktemp -d "${disk%/*}/mount.XXXXXX")
root=$work/root
mkdir "$root"

function finish {
    umount -R "$root" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT

# partition N: its offset and size in bytes
function partition {
    sfdisk --json "$disk" | python3 -c '
import json, sys
table = json.load(sys.stdin)["partitiontable"]
entry = table["partitions"][int(sys.argv[1]) - 1]
print(entry["start"] * table.get("sectorsize", 512), entry["size"] * table.get("sectorsize", 512))
' "$1"
}

function make_ext4 {
    local number=$1 uuid=$2 features=$3 offset size
    read -r offset size < <(partition "$number")
    mke2fs -q -F -t ext4 -O "$features" -U "$uuid" -E "offset=$offset" \
        "$disk" "$((size / 1024))k"
}

function mount_partition {
    local number=$1 directory=$2 offset size
    read -r offset size < <(partition "$number")
    mkdir -p "$directory"
    mount -o "loop,offset=$offset,sizelimit=$size" "$disk" "$directory"
}

function unpack {
    tar --numeric-owner --xattrs --xattrs-include='*' --acls -xpf "$tar" -C "$1"
}

# newest NAME: the newest of the kernel's files of that name, without /boot/
function newest {
    (cd "$root/boot" && printf '%s\n' "$1"-*) | sort -V | tail -n 1
}

# The UUIDs are the same for every disk: all states of one machine, and a
# rebuilt one, agree about them.
root_uuid=5b1d0000-0000-4000-8000-000000000001
boot_uuid=5b1d0000-0000-4000-8000-000000000002
esp_id=5B1D-0003

case $action in
    bios)
        sfdisk --quiet "$disk" <<< $'label: dos\nlabel-id: 0x5b1d0000\n2048,,83,*'
        dd if=/usr/lib/syslinux/mbr/mbr.bin of="$disk" conv=notrunc status=none
        # extlinux cannot read ext4 with 64-bit block numbers.
        make_ext4 1 "$root_uuid" ^64bit
        mount_partition 1 "$root"
        unpack "$root"
        echo "UUID=$root_uuid / ext4 errors=remount-ro 0 1" > "$root/etc/fstab"
        mkdir -p "$root/boot/extlinux"
        cat > "$root/boot/extlinux/extlinux.conf" <<EOF
DEFAULT linux
LABEL linux
  LINUX /boot/$(newest vmlinuz)
  INITRD /boot/$(newest initrd.img)
  APPEND root=UUID=$root_uuid $options
EOF
        extlinux --install "$root/boot/extlinux" >/dev/null 2>"$work/extlinux.log" \
            || { cat "$work/extlinux.log" >&2; exit 1; }
        ;;
    uefi)
        sfdisk --quiet "$disk" <<EOF
label: gpt
label-id: 5B1D0000-0000-4000-8000-000000000000
size=64MiB, type=uefi, uuid=5B1D0000-0000-4000-8000-00000000000A
size=256MiB, type=linux, uuid=5B1D0000-0000-4000-8000-00000000000B
type=linux, uuid=5B1D0000-0000-4000-8000-00000000000C
EOF
        read -r offset size < <(partition 1)
        mkfs.vfat -F 32 -s 1 -i "${esp_id/-/}" --offset "$((offset / 512))" "$disk" \
            "$((size / 1024))" >"$work/vfat.log" 2>&1 || { cat "$work/vfat.log" >&2; exit 1; }
        make_ext4 2 "$boot_uuid" ^64bit
        make_ext4 3 "$root_uuid" 64bit
        mount_partition 3 "$root"
        mount_partition 2 "$root/boot"
        unpack "$root"
        cat > "$root/etc/fstab" <<EOF
UUID=$root_uuid / ext4 errors=remount-ro 0 1
UUID=$boot_uuid /boot ext4 defaults 0 2
UUID=$esp_id /boot/efi vfat umask=0077 0 1
EOF
        # As grub-install --removable leaves it, but through mtools: not every
        # kernel can mount vfat.
        mkdir -p "$root/boot/efi" "$root/boot/grub/x86_64-efi"
        cp /usr/lib/grub/x86_64-efi/*.{mod,lst} "$root/boot/grub/x86_64-efi/"
        printf 'search --no-floppy --fs-uuid --set=root %s\nset prefix=($root)/grub\n' \
            "$boot_uuid" > "$work/load.cfg"
        grub-mkimage --format=x86_64-efi --prefix=/grub --config="$work/load.cfg" \
            --output="$work/bootx64.efi" part_gpt ext2 search search_fs_uuid normal
        read -r offset size < <(partition 1)
        mmd -i "$disk@@$offset" ::/EFI ::/EFI/BOOT
        mcopy -i "$disk@@$offset" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
        cat > "$root/boot/grub/grub.cfg" <<EOF
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
search --no-floppy --fs-uuid --set=root $boot_uuid
menuentry 'Debian GNU/Linux' {
    linux /$(newest vmlinuz) root=UUID=$root_uuid $options
    initrd /$(newest initrd.img)
}
EOF
        ;;
    next)
        if sfdisk --json "$disk" | grep -Eq '"label": *"gpt"'; then
            mount_partition 3 "$root"
            mount_partition 2 "$root/boot"
        else
            mount_partition 1 "$root"
        fi
        mkdir "$work/tree"
        unpack "$work/tree"
        # By content: two writes within a second may leave the same size and time.
        rsync -aHAXS --numeric-ids --checksum --delete \
            --exclude=/lost+found --exclude=/boot/lost+found --exclude=/etc/fstab \
            --exclude=/boot/extlinux --exclude=/boot/grub --exclude=/boot/efi \
            "$work/tree/" "$root/"
        ;;
    *)
        echo "disk.sh: unknown action $action" >&2
        exit 2
        ;;
esac
sync -f "$root"
umount -R "$root"
