# System calls that perl has no word for, and the locks of fcntl. Names are
# bytes, relative to the working directory; a symbolic link is never followed.
package Kernel;
use strict;
use warnings;
use Errno qw(ENODATA EOPNOTSUPP ENOSYS EINVAL);
use Fcntl qw(F_SETLK F_WRLCK F_UNLCK SEEK_SET);
use POSIX ();

my %NUMBERS = (
    x86_64 => { lsetxattr => 189, fsetxattr => 190, lgetxattr => 192, llistxattr => 195,
                lremovexattr => 198, fremovexattr => 199, utimensat => 280, statx => 332,
                linkat => 265, renameat2 => 316, syncfs => 306, statfs => 137,
                mknodat => 259, prctl => 157 },
    aarch64 => { lsetxattr => 6, fsetxattr => 7, lgetxattr => 9, llistxattr => 12,
                 lremovexattr => 15, fremovexattr => 16, utimensat => 88, statx => 291,
                 linkat => 37, renameat2 => 276, syncfs => 267, statfs => 43,
                 mknodat => 33, prctl => 167 },
);
my $machine = (POSIX::uname())[4];
my $number = $NUMBERS{$machine} or die "layout: no system call numbers for $machine\n";

use constant { AT_FDCWD => -100, AT_SYMLINK_NOFOLLOW => 0x100, RENAME_NOREPLACE => 1,
               STATX_BASIC => 0x7ff, PR_SET_PDEATHSIG => 1, XATTR_MAX => 65536,
               SECOND => 1_000_000_000 };

my %TYPES = (0100000 => 'f', 0040000 => 'd', 0120000 => 'l', 0020000 => 'c', 0060000 => 'b',
             0010000 => 'p', 0140000 => 's');

# What is at a name: a hash of type, mode, uid, gid, size, mtime and ctime
# (nanoseconds), ino, dev, major, minor; undef and $! where nothing is.
sub state_of {
    my ($name) = @_;
    my $found = "\0" x 256;
    return undef
        if syscall($number->{statx}, AT_FDCWD, my $copy = $name, AT_SYMLINK_NOFOLLOW,
                   STATX_BASIC, $found) < 0;
    my ($nlink, $uid, $gid, $mode, $ino, $size, $csec, $cnsec, $msec, $mnsec, $major, $minor,
        $devmajor, $devminor) = unpack 'x16 L L L S x2 Q Q x48 q L x4 q L x4 L L L L', $found;
    return { type => $TYPES{$mode & 0170000} // '?', mode => $mode & 07777, uid => $uid,
             gid => $gid, size => $size, mtime => $msec * SECOND + $mnsec,
             ctime => $csec * SECOND + $cnsec, ino => $ino, nlink => $nlink,
             dev => "$devmajor:$devminor", major => $major, minor => $minor };
}

# Sets the time of last change, nanoseconds, of a name or of an open file.
sub set_mtime {
    my ($target, $time) = @_;
    my $fraction = $time % SECOND;
    my $seconds;
    { use integer; $seconds = ($time - $fraction) / SECOND; }
    my $times = pack 'q q q q', $seconds, $fraction, $seconds, $fraction;
    my $status = ref $target
        ? syscall($number->{utimensat}, fileno $target, 0, $times, 0)
        : syscall($number->{utimensat}, AT_FDCWD, my $copy = $target, $times,
                  AT_SYMLINK_NOFOLLOW);
    return $status == 0;
}

# Sets one extended attribute of a name or of an open file.
sub set_xattr {
    my ($target, $name, $value) = @_;
    my ($n, $v) = ($name, $value);
    my $status = ref $target
        ? syscall($number->{fsetxattr}, fileno $target, $n, $v, length $v, 0)
        : syscall($number->{lsetxattr}, my $copy = $target, $n, $v, length $v, 0);
    return $status == 0;
}

# The value of an extended attribute; undef where it has none.
sub xattr {
    my ($target, $name) = @_;
    my ($t, $n, $value) = ($target, $name, "\0" x XATTR_MAX);
    my $length = syscall($number->{lgetxattr}, $t, $n, $value, XATTR_MAX);
    return $length < 0 ? undef : substr $value, 0, $length;
}

# The names of its extended attributes.
sub xattrs {
    my ($target) = @_;
    my ($t, $names) = ($target, "\0" x XATTR_MAX);
    my $length = syscall($number->{llistxattr}, $t, $names, XATTR_MAX);
    return $length <= 0 ? () : split /\0/, substr $names, 0, $length;
}

# Whether the attribute of a name or of an open file is gone now, or never was.
sub remove_xattr {
    my ($target, $name) = @_;
    my $n = $name;
    my $status = ref $target ? syscall($number->{fremovexattr}, fileno $target, $n)
        : syscall($number->{lremovexattr}, my $copy = $target, $n);
    return $status == 0 || $! == ENODATA || $! == EOPNOTSUPP;
}

# A further name for a file of the directory that $from is open on.
sub link_from {
    my ($from, $old, $new) = @_;
    my ($o, $n) = ($old, $new);
    return syscall($number->{linkat}, fileno $from, $o, AT_FDCWD, $n, 0) == 0;
}

# Renames, and fails with EEXIST where the new name is there.
sub rename_new {
    my ($old, $new) = @_;
    my ($o, $n) = ($old, $new);
    return 1 if syscall($number->{renameat2}, AT_FDCWD, $o, AT_FDCWD, $n, RENAME_NOREPLACE) == 0;
    return 0 if $! != EINVAL && $! != ENOSYS;
    # A file system without that call: the best there is.
    if (defined state_of($new)) {
        $! = Errno::EEXIST();
        return 0;
    }
    return rename $old, $new;
}

# Makes a device node or a fifo: type c, b or p. Its mode is exact under umask 0.
sub make_node {
    my ($name, $type, $mode, $major, $minor) = @_;
    my %kinds = reverse %TYPES;
    my $device = ($minor & 0xff) | ($major << 8) | (($minor & ~0xff) << 12);
    return syscall($number->{mknodat}, AT_FDCWD, my $copy = $name, $kinds{$type} | $mode,
                   $device) == 0;
}

# Everything of the file system that a handle is open on is on its disk.
sub sync_around {
    my ($handle) = @_;
    return syscall($number->{syncfs}, fileno $handle) == 0;
}

# All of them; dies with the reason.
sub sync_all {
    for my $handle (@_) { sync_around($handle) or die "sync: $!\n" }
    return;
}

# Of the file system at a directory: block size, free bytes, free inodes
# (undef where it does not count them), and all bytes.
sub room {
    my ($directory) = @_;
    my ($d, $found) = ($directory, "\0" x 160);
    return if syscall($number->{statfs}, $d, $found) < 0;
    my ($type, $size, $blocks, $free, $available, $files, $unused) = unpack 'q7', $found;
    return ($size, $available * $size, $files ? $unused : undef, $blocks * $size);
}

# This process is killed when its parent ends, however that ends.
sub die_with_parent { return syscall($number->{prctl}, PR_SET_PDEATHSIG, 9, 0, 0, 0) == 0 }

# Takes a write lock on a whole open file, as lckpwdf and dpkg do; false at
# once where another process has it.
sub lock_now {
    my ($handle) = @_;
    my $lock = pack 's s x4 q q i x4', F_WRLCK, SEEK_SET, 0, 0, 0;
    return fcntl $handle, F_SETLK, $lock;
}

1;
