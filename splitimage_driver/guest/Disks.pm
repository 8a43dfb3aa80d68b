# The disks that the host gives: a plan's own, and the parts that it names.
package Disks;
use strict;
use warnings;
use Fcntl qw(SEEK_END);
use POSIX ();

my $MOUNTS = '/run/splitimage';
my $OPTIONS = 'ro,nosuid,nodev,noexec';

# directory: where the disks are files or directories named by their serials;
# without it they are this machine's.
sub new {
    my ($class, $directory) = @_;
    mkdir $MOUNTS, 0700 unless -d $MOUNTS;
    return bless { directory => $directory, mounted => [] }, $class;
}

# Serial number => device (or file, or directory) of all disks of plans and parts.
sub all {
    my ($self) = @_;
    my %found;
    my $place = $self->{directory} // '/sys/block';
    opendir my $names, $place or die "$place: $!\n";
    for my $name (grep { !/\A\./ } readdir $names) {
        if (defined $self->{directory}) { $found{$name} = "$place/$name" }
        elsif (defined(my $serial = serial("$place/$name"))) {
            # The kernel lists a disk, with its number, a moment before it can be opened.
            next unless $serial =~ /\Asi-/ && open my $in, '<', "/dev/$name";
            $found{$serial} //= "/dev/$name";
        }
    }
    return \%found;
}

# Serial number of a block device: virtio-blk tells it in one file, SCSI in
# its page 0x80 after four bytes.
sub serial {
    my ($block) = @_;
    for my $file ("$block/serial", "$block/device/vpd_pg80") {
        open my $in, '<:raw', $file or next;
        my $length = sysread $in, my $content, 256;
        next unless $length;
        $content = substr $content, 4 if $file =~ /vpd_pg80\z/ && $length > 4;
        $content =~ s/\A\s+|[\s\0]+\z//g;
        return $content if $content ne '';
    }
    return undef;
}

# Ids of the plans whose disks are there.
sub plans {
    my ($self) = @_;
    return sort map { /\Asi-plan-([0-9a-f]{12})\z/ ? $1 : () } keys %{ $self->all };
}

# What tells one attaching of a plan's disk from the next, '' where it is not
# there: the kernel gives the directory of a new device another inode.
sub attachment {
    my ($self, $id) = @_;
    my $device = $self->all->{"si-plan-$id"} // return '';
    my $name = $device =~ s{\A/dev/}{}r;
    return "$name " . ((stat "/sys/block/$name/")[1] // '');
}

# Mounts a disk read-only. Returns the directory; dies with the reason.
sub mount {
    my ($self, $serial, $name, $size) = @_;
    my $device = $self->all->{$serial} // die "its disk $serial is not there\n";
    return $device if -d $device;
    if (defined $size) {
        open my $in, '<', $device or die "$device: $!\n";
        my $there = sysseek $in, 0, SEEK_END;
        die "its disk $serial has $there bytes, not $size\n" if $there < $size;
    }
    my $place = "$MOUNTS/$name";
    mkdir $place, 0700 unless -d $place;
    my $options = -b $device ? $OPTIONS : "$OPTIONS,loop";
    my $child = open my $out, '-|';
    die "mount: $!\n" unless defined $child;
    if (!$child) {
        open STDERR, '>&', \*STDOUT;
        exec 'mount', '-t', 'squashfs', '-o', $options, $device, $place or POSIX::_exit(127);
    }
    my $said = join ' ', map { s/\s+\z//r } <$out>;
    close $out or die "its disk $serial cannot be mounted: $said\n";
    push @{ $self->{mounted} }, $place;
    return $place;
}

# Unmounts all that was mounted.
sub release {
    my ($self) = @_;
    chdir '/';
    for my $place (reverse splice @{ $self->{mounted} }) {
        system('umount', $place) == 0 or system 'umount', '-l', $place;
        rmdir $place;
    }
    return;
}

1;
